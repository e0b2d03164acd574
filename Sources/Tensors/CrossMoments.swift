import COpenBLAS

/// How rows x and the changes Δ = y − x made to them vary together: what the least-squares map from x to y,
/// or to Δ, explains. Rows arrive in blocks and none is kept.
///
/// Streams are float32; changes, products and sums are double precision, about the first block's means:
/// directions of x with a ten-billionth of the variance still count, and a residual of a
/// millionth does not drown in that of x.
public struct CrossMoments: Sendable {
  /// The length d of a row.
  public let width: Int
  /// How many rows have been added.
  public private(set) var count = 0
  /// The first block's means of x and then of Δ, which are taken from every row; empty before it.
  private var shift: [Double] = []
  /// Σ (x − shift) and then Σ (Δ − shift).
  private var sums: [Double]
  /// Σ (x − shift)·(x − shift)ᵀ and beside it Σ (x − shift)·(Δ − shift)ᵀ, shape `[d, 2d]`; of the first
  /// what lies left of the diagonal's tiles is not written.
  private var products: [Double]
  /// Σ ‖Δ − shift‖².
  private var writeSquares = 0.0

  /// The rows of one product.
  private static let blockRows = 512
  /// The rows of one thread's piece of the products.
  private static let tile = 192

  /// The moments of no rows.
  public init(width: Int) {
    self.width = width
    sums = Array(repeating: 0, count: 2 * width)
    products = Array(repeating: 0, count: 2 * width * width)
  }

  /// Adds rows and what became of them.
  ///
  /// - Parameters:
  ///   - rows: x, shape `[rows, d]`; there may be none.
  ///   - results: y, the same shape.
  /// - Precondition: the shapes agree, and rows have the width of the moments.
  /// - Complexity: 3·rows·d² FLOPs in double precision.
  public mutating func add(_ rows: Tensor, _ results: Tensor) {
    precondition(
      rows.rank == 2 && rows.shape[1] == width && results.shape == rows.shape,
      "CrossMoments: rows of shape \(rows.shape), results of shape \(results.shape), expected "
        + "[rows, \(width)]")
    if rows.shape[0] == 0 { return }
    if shift.isEmpty { setShifts(rows, results) }
    for start in stride(from: 0, to: rows.shape[0], by: Self.blockRows) {
      let block = start..<Swift.min(rows.shape[0], start + Self.blockRows)
      add(block: rows.rows(block), results.rows(block))
    }
    count += rows.shape[0]
  }

  private mutating func setShifts(_ rows: Tensor, _ results: Tensor) {
    let weights = [Double](repeating: 1 / Double(rows.shape[0]), count: rows.shape[0])
    let (means, results) = (
      rows.sumOfRows(weightedBy: weights), results.sumOfRows(weightedBy: weights)
    )
    shift = means + zip(results, means).map { $0 - $1 }
  }

  private mutating func add(block rows: Tensor, _ results: Tensor) {
    BLAS.prepare()
    let (d, count) = (width, rows.shape[0])
    withUnsafeTemporaryAllocation(of: Double.self, capacity: 2 * count * d) { scratch in
      // x beside Δ in each row.
      guard let pairs = scratch.baseAddress else { return }
      rows.withUnsafeBufferPointer { from in
        results.withUnsafeBufferPointer { to in
          shift.withUnsafeBufferPointer { shift in
            guard let from = from.baseAddress, let to = to.baseAddress,
              let shift = shift.baseAddress
            else { return }
            parallelRows(count, rowWork: 4 * d) { range in
              for row in range {
                let (x, y, pair) = (from + row * d, to + row * d, pairs + 2 * row * d)
                for i in 0..<d {
                  let value = Double(x[i])
                  pair[i] = value - shift[i]
                  pair[d + i] = Double(y[i]) - value - shift[d + i]
                }
              }
            }
          }
        }
      }
      let ones = [Double](repeating: 1, count: count)
      cblas_dgemv(
        CblasRowMajor, CblasTrans, blasint(count), blasint(2 * d), 1, pairs, blasint(2 * d), ones,
        1, 1, &sums, 1)
      for row in 0..<count {
        let write = pairs + (2 * row + 1) * d
        writeSquares += cblas_ddot(blasint(d), write, 1, write, 1)
      }
      addProducts(UnsafePointer(pairs), count)
    }
  }

  private mutating func addProducts(_ pairs: UnsafePointer<Double>, _ rows: Int) {
    let (d, tile) = (width, Self.tile)
    products.withUnsafeMutableBufferPointer { products in
      guard let products = products.baseAddress else { return }
      parallelChunks((d + tile - 1) / tile) { piece in
        let top = piece * tile
        cblas_dgemm(
          CblasRowMajor, CblasTrans, CblasNoTrans, blasint(Swift.min(tile, d - top)),
          blasint(2 * d - top), blasint(rows), 1, pairs + top, blasint(2 * d), pairs + top,
          blasint(2 * d), 1, products + 2 * top * d + top, blasint(2 * d))
      }
    }
  }

  /// Element i, j of Cov(x), j ≥ i, or of Cov(x, Δ) at j + d.
  private func covariance(_ i: Int, _ j: Int) -> Double {
    let scale = 1 / Double(count)
    return products[2 * i * width + j] * scale - sums[i] * scale * (sums[j] * scale)
  }

  /// What the least-squares map from x to Δ explains.
  ///
  /// The covariance of x, scaled to a correlation matrix, gets a Cholesky factor with pivoting: the
  /// coordinates are taken one by one, each time that with the most variance that those before it do
  /// not explain, until no more than a ten-billionth of any coordinate's own variance is left. Streams
  /// are float32, which puts rounding at 1e-14 of a coordinate's square.
  ///
  /// - Returns: nil where a sum is not finite.
  /// - Complexity: 4/3·d³ FLOPs.
  public func fit() -> LinearFit? {
    if count == 0 { return LinearFit() }
    guard writeSquares.isFinite, products.allSatisfy(\.isFinite) else { return nil }
    let scale = 1 / Double(count)
    var result = LinearFit(count: count)
    result.writeVariance = Swift.max(
      0, writeSquares * scale - sums[width...].reduce(0) { $0 + $1 * scale * ($1 * scale) })
    // One over each coordinate's deviation; 0 for one that varies by no more than its rounding.
    var inverse = [Double](repeating: 0, count: width)
    var crossTrace = 0.0
    for i in 0..<width {
      let (variance, mean) = (covariance(i, i), sums[i] * scale + shift[i])
      crossTrace += covariance(i, width + i)
      if variance > 1e-13 * mean * mean, variance > 0 {
        inverse[i] = 1 / variance.squareRoot()
        result.inputVariance += variance
      }
    }
    result.outputVariance = Swift.max(
      0, result.inputVariance + 2 * crossTrace + result.writeVariance)
    explain(inverse, &result)
    return result
  }

  private func explain(_ inverse: [Double], _ result: inout LinearFit) {
    let d = width
    var correlation = [Double](repeating: 0, count: d * d)
    for i in 0..<d {
      for j in i..<d { correlation[i * d + j] = covariance(i, j) * inverse[i] * inverse[j] }
    }
    BLAS.prepare()
    var (n, rank, info) = (blasint(d), blasint(0), blasint(0))
    var pivots = [blasint](repeating: 0, count: d)
    var work = [Double](repeating: 0, count: 2 * d)
    var tolerance = 1e-10
    // Row-major upper is LAPACK's column-major lower triangle.
    dpstrf_("L", &n, &correlation, &n, &pivots, &rank, &tolerance, &work, &info)
    // A matrix without a positive entry has no factor.
    result.rank = inverse.allSatisfy { $0 == 0 } ? 0 : Int(rank)
    if result.rank == 0 { return }
    // Rows of the covariance with Δ in the order of the pivots: L·W = them, and ‖W‖² is explained.
    var cross = [Double](repeating: 0, count: result.rank * d)
    for row in 0..<result.rank {
      let i = Int(pivots[row]) - 1
      for j in 0..<d { cross[row * d + j] = covariance(i, d + j) * inverse[i] }
    }
    cblas_dtrsm(
      CblasRowMajor, CblasLeft, CblasUpper, CblasTrans, CblasNonUnit, rank, n, 1, correlation, n,
      &cross, n)
    result.explained = Swift.min(cross.reduce(0) { $0 + $1 * $1 }, result.writeVariance)
  }
}

/// How much of y = x + Δ a linear map of x explains. Variances are sums over coordinates.
public struct LinearFit: Sendable, Equatable {
  /// The rows N.
  public var count = 0
  /// The directions in which x varies.
  public var rank = 0
  /// tr Cov(x).
  public var inputVariance = 0.0
  /// tr Cov(y).
  public var outputVariance = 0.0
  /// tr Cov(Δ).
  public var writeVariance = 0.0
  /// The part of tr Cov(Δ) that the map explains.
  public var explained = 0.0

  /// 1 − min_A ‖XA − Y‖²/‖Y‖² of the centred rows; NaN where y does not vary.
  public var score: Double {
    outputVariance > 0 ? 1 - (writeVariance - explained) / outputVariance : .nan
  }

  /// The same for Δ; NaN where Δ does not vary.
  public var scoreOfWrite: Double { writeVariance > 0 ? explained / writeVariance : .nan }

  /// A score over what rows that have nothing to do with each other would get, r/(N − 1): 0 for them,
  /// 1 for a linear map; NaN where the rows are too few to tell.
  public func adjusted(_ score: Double) -> Double {
    if count <= rank + 1 { return .nan }
    let chance = Double(rank) / Double(count - 1)
    return (score - chance) / (1 - chance)
  }
}
