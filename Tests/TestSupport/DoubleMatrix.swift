public import NormLens

/// A matrix of doubles, as its definition says.
public struct DoubleMatrix: Equatable, Sendable {
  /// How many rows.
  public let rows: Int
  /// How many columns.
  public let columns: Int
  /// The elements, row by row.
  public var values: [Double]

  /// A matrix of one value.
  public init(_ rows: Int, _ columns: Int, repeating value: Double = 0) {
    self.init(rows, columns, Array(repeating: value, count: rows * columns))
  }

  /// A matrix with these elements, row by row.
  public init(_ rows: Int, _ columns: Int, _ values: [Double]) {
    precondition(values.count == rows * columns)
    (self.rows, self.columns, self.values) = (rows, columns, values)
  }

  /// A tensor's matrix: its last axis, or `columns`, is that of the columns.
  public init(_ tensor: Tensor, columns: Int? = nil) {
    let columns = columns ?? tensor.shape[tensor.rank - 1]
    self.init(tensor.count / columns, columns, tensor.scalars.map(Double.init))
  }

  /// An element.
  public subscript(row: Int, column: Int) -> Double {
    get { values[row * columns + column] }
    set { values[row * columns + column] = newValue }
  }

  /// The elements of a row.
  public func row(_ row: Int) -> [Double] { Array(values[row * columns..<(row + 1) * columns]) }

  /// The elements of some columns.
  public func columns(_ range: Range<Int>) -> DoubleMatrix {
    DoubleMatrix(rows, range.count, (0..<rows).flatMap { r in range.map { self[r, $0] } })
  }

  /// Rows and columns exchanged.
  public var transposed: DoubleMatrix {
    DoubleMatrix(columns, rows, (0..<columns).flatMap { c in (0..<rows).map { self[$0, c] } })
  }

  /// Each element's image.
  public func map(_ body: (Double) -> Double) -> DoubleMatrix {
    DoubleMatrix(rows, columns, values.map(body))
  }

  /// Elements of two matrices taken together.
  public func combined(
    _ other: DoubleMatrix, _ body: (Double, Double) -> Double
  ) -> DoubleMatrix {
    precondition((rows, columns) == (other.rows, other.columns))
    return DoubleMatrix(rows, columns, zip(values, other.values).map { body($0, $1) })
  }

  /// The sum of all elements.
  public var sum: Double { values.reduce(0, +) }

  /// The largest |element| that is finite.
  public var magnitude: Double { values.reduce(0) { $1.isFinite ? max($0, abs($1)) : $0 } }

  /// Σ of the products of elements; 0·∞ is 0: a masked score has no share.
  public func dot(_ other: DoubleMatrix) -> Double {
    zip(values, other.values).reduce(0) { $0 + ($1.0 == 0 || $1.1 == 0 ? 0 : $1.0 * $1.1) }
  }

  /// The sum, entry by entry.
  public static func + (a: DoubleMatrix, b: DoubleMatrix) -> DoubleMatrix { a.combined(b, +) }

  /// The matrix product.
  public static func * (a: DoubleMatrix, b: DoubleMatrix) -> DoubleMatrix {
    precondition(a.columns == b.rows)
    var product = DoubleMatrix(a.rows, b.columns)
    for i in 0..<a.rows {
      for k in 0..<a.columns {
        for j in 0..<b.columns { product[i, j] += a[i, k] * b[k, j] }
      }
    }
    return product
  }

  /// The rows with a vector added to each.
  func addingToRows(_ vector: [Double]) -> DoubleMatrix {
    DoubleMatrix(rows, columns, values.indices.map { values[$0] + vector[$0 % columns] })
  }

  /// The columns added up.
  public var columnSums: [Double] {
    (0..<columns).map { c in (0..<rows).reduce(0) { $0 + self[$1, c] } }
  }
}
