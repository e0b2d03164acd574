/// The mean and the covariance of rows that arrive in blocks; none of the rows is kept.
///
/// Products are float32 matrix products of a block whose mean has been taken away, about that of the
/// first block: a mean much larger than the spread costs no digits. Blocks are added up in double
/// precision, one triangle of the symmetric sums.
public struct SecondMoments: Sendable {
  /// The length d of a row.
  public let width: Int
  /// How many rows have been added.
  public private(set) var count = 0
  /// The first block's mean, which is taken from every row; empty before it.
  private var shift: [Float] = []
  /// Σ (x − shift).
  private var sums: [Double]
  /// Σ (x − shift)·(x − shift)ᵀ: row i from its diagonal on, row after row.
  private var products: [Double]

  /// The rows of one float32 product.
  private static let blockRows = 2048
  /// The columns of one thread's piece of a product.
  private static let tile = 256

  /// The moments of no rows.
  public init(width: Int) {
    self.width = width
    sums = Array(repeating: 0, count: width)
    products = Array(repeating: 0, count: width * (width + 1) / 2)
  }

  /// Adds rows.
  ///
  /// - Parameter rows: shape `[rows, d]`; there may be none.
  /// - Precondition: rows have the width of the moments.
  /// - Complexity: rows·d² FLOPs.
  public mutating func add(_ rows: Tensor) {
    precondition(
      rows.rank == 2 && rows.shape[1] == width,
      "SecondMoments: rows of shape \(rows.shape), expected [rows, \(width)]")
    if rows.shape[0] == 0 { return }
    if shift.isEmpty { shift = rows.meanOverRows().scalars }
    for start in stride(from: 0, to: rows.shape[0], by: Self.blockRows) {
      add(block: rows.rows(start..<Swift.min(rows.shape[0], start + Self.blockRows)))
    }
    count += rows.shape[0]
  }

  /// The mean of all rows; zeros where there are none.
  public var mean: [Double] {
    guard count > 0 else { return sums }
    return zip(sums, shift).map { $0 / Double(count) + Double($1) }
  }

  /// The covariance of all rows, `E (x − E x)·(x − E x)ᵀ` with the divisor `count`, shape `[d, d]`;
  /// zeros where there are none.
  public var covariance: [Double] {
    var result = [Double](repeating: 0, count: width * width)
    if count == 0 { return result }
    let scale = 1 / Double(count)
    let means = sums.map { $0 * scale }
    var place = 0
    for i in 0..<width {
      for j in i..<width {
        let value = products[place] * scale - means[i] * means[j]
        result[i * width + j] = value
        result[j * width + i] = value
        place += 1
      }
    }
    return result
  }

  /// The variance of the rows' inner products with a vector, `uᵀ·Cov·u`; 0 where there are none.
  ///
  /// - Precondition: `vector` has the width of the rows.
  public func variance(along vector: [Double]) -> Double {
    precondition(vector.count == width, "SecondMoments: \(vector.count) scalars, width \(width)")
    if count == 0 { return 0 }
    var (total, place) = (0.0, 0)
    for i in 0..<width {
      var sum = products[place] * vector[i] / 2
      for j in i + 1..<Swift.max(width, i + 1) { sum += products[place + j - i] * vector[j] }
      total += 2 * vector[i] * sum
      place += width - i
    }
    let mean = zip(sums, vector).reduce(0) { $0 + $1.0 * $1.1 } / Double(count)
    return total / Double(count) - mean * mean
  }

  private mutating func add(block: Tensor) {
    let rows = block.shape[0]
    let shifted = block.addingToRows(Tensor(shift.map { -$0 }, shape: [width]))
    let blockSums = shifted.sumOfRows(weightedBy: Array(repeating: 1, count: rows))
    for i in 0..<width { sums[i] += blockSums[i] }

    BLAS.prepare()
    let (d, tile) = (width, Self.tile)
    let tiles = (d + tile - 1) / tile
    // The tiles of the upper triangle, those on the diagonal last: they are half the work.
    let pairs =
      (0..<tiles).flatMap { a in (a + 1..<Swift.max(tiles, a + 1)).map { (a, $0) } }
      + (0..<tiles).map { ($0, $0) }
    shifted.withUnsafeBufferPointer { source in
      products.withUnsafeMutableBufferPointer { products in
        guard let x = source.baseAddress, let products = products.baseAddress else { return }
        parallelChunks(pairs.count) { pair in
          let (top, left) = (pairs[pair].0 * tile, pairs[pair].1 * tile)
          let (height, columns) = (Swift.min(tile, d - top), Swift.min(tile, d - left))
          withUnsafeTemporaryAllocation(of: Float.self, capacity: height * columns) { piece in
            guard let piece = piece.baseAddress else { return }
            if top == left {
              ssyrkOfTransposed(n: height, k: rows, x + top, d, piece, columns)
            } else {
              sgemm(
                m: height, n: columns, k: rows, x + top, d, leftTransposed: true, x + left, d,
                beta: 0, piece, columns)
            }
            for i in 0..<height {
              let row = top + i
              let first = Swift.max(left, row)
              // Row `row` of the triangle begins behind row·d − row·(row − 1)/2 others.
              let to = products + row * d - row * (row - 1) / 2 + first - row
              let from = piece + i * columns + first - left
              for j in 0..<left + columns - first { to[j] += Double(from[j]) }
            }
          }
        }
      }
    }
  }
}
