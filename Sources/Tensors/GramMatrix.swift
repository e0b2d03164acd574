import COpenBLAS

/// Sums over rows in double precision, `Σ x` and `Σ x·xᵀ`, of rows that arrive in blocks.
///
/// Unlike ``SecondMoments``, whose products are float32, it resolves directions in which the rows hardly
/// extend at all: singular values down to 1e-8 of the largest.
public struct GramMatrix: Sendable {
  /// The length d of a row.
  public let width: Int
  /// How many rows have been added.
  public private(set) var count = 0
  /// `Σ x`.
  public private(set) var sums: [Double]
  /// `Σ x·xᵀ`, shape `[d, d]`.
  public private(set) var products: [Double]

  /// The rows that are widened to double precision at a time.
  private static let blockRows = 1024
  /// The columns of one thread's piece of a product.
  private static let tile = 192

  /// The sums of no rows.
  public init(width: Int) {
    self.width = width
    sums = Array(repeating: 0, count: width)
    products = Array(repeating: 0, count: width * width)
  }

  /// Adds rows.
  ///
  /// - Parameters:
  ///   - rows: shape `[rows, d]`; there may be none.
  ///   - shift: what is taken from each row first, `d` scalars; nothing by default.
  ///   - normalized: whether each row then counts as a unit vector; rows of zeros are left out.
  /// - Precondition: rows and shift have the width of the sums.
  /// - Complexity: rows·d² FLOPs in double precision.
  public mutating func add(
    _ rows: Tensor, subtracting shift: [Double]? = nil, normalized: Bool = false
  ) {
    precondition(
      rows.rank == 2 && rows.shape[1] == width && (shift.map { $0.count == width } ?? true),
      "GramMatrix: rows of shape \(rows.shape), expected [rows, \(width)]")
    for start in stride(from: 0, to: rows.shape[0], by: Self.blockRows) {
      let block = rows.rows(start..<Swift.min(rows.shape[0], start + Self.blockRows))
      add(widened(block, shift, normalized))
    }
  }

  /// The mean of all rows; zeros where there are none.
  public var mean: [Double] { sums.map { $0 / Double(Swift.max(count, 1)) } }

  /// `Σ (x − mean)·(x − mean)ᵀ`, shape `[d, d]`.
  public var centered: [Double] {
    let mean = mean
    var result = products
    for i in 0..<width {
      for j in 0..<width { result[i * width + j] -= Double(count) * mean[i] * mean[j] }
    }
    return result
  }

  /// A block's rows in double precision, one after another.
  private func widened(_ block: Tensor, _ shift: [Double]?, _ normalized: Bool) -> [Double] {
    var wide: [Double] = []
    wide.reserveCapacity(block.count)
    let source = block.span
    for row in 0..<block.shape[0] {
      let start = wide.count
      var squares = 0.0
      for i in 0..<width {
        let value = Double(source[row * width + i]) - (shift?[i] ?? 0)
        wide.append(value)
        squares += value * value
      }
      if !normalized { continue }
      if squares == 0 {
        wide.removeLast(width)
      } else {
        let factor = 1 / squares.squareRoot()
        for i in start..<wide.count { wide[i] *= factor }
      }
    }
    return wide
  }

  private mutating func add(_ block: [Double]) {
    let (d, tile) = (width, Self.tile)
    let rows = d == 0 ? 0 : block.count / d
    if rows == 0 { return }
    count += rows
    for row in 0..<rows {
      for i in 0..<d { sums[i] += block[row * d + i] }
    }
    BLAS.prepare()
    let tiles = (d + tile - 1) / tile
    let pairs = (0..<tiles).flatMap { a in (a..<tiles).map { (a, $0) } }
    block.withUnsafeBufferPointer { source in
      products.withUnsafeMutableBufferPointer { products in
        guard let x = source.baseAddress, let products = products.baseAddress else { return }
        parallelChunks(pairs.count) { pair in
          let (top, left) = (pairs[pair].0 * tile, pairs[pair].1 * tile)
          let (height, columns) = (Swift.min(tile, d - top), Swift.min(tile, d - left))
          cblas_dgemm(
            CblasRowMajor, CblasTrans, CblasNoTrans, blasint(height), blasint(columns),
            blasint(rows), 1, x + top, blasint(d), x + left, blasint(d), 1,
            products + top * d + left, blasint(d))
          // The other triangle is the same; each pair writes its own mirror.
          if top == left { return }
          for i in 0..<height {
            for j in 0..<columns {
              products[(left + j) * d + top + i] = products[(top + i) * d + left + j]
            }
          }
        }
      }
    }
  }
}
