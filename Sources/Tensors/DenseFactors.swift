import COpenBLAS

// Small dense matrices in double precision, row by row, by LAPACK on the calling thread. Its matrices are
// stored by columns: it sees the transpose of what is handed to it.

/// An eigenvalue of a matrix that need not be symmetric.
public struct Eigenvalue: Sendable, Equatable {
  /// Its real part.
  public var real: Double
  /// Its imaginary part.
  public var imaginary: Double

  /// An eigenvalue.
  public init(real: Double, imaginary: Double) {
    self.real = real
    self.imaginary = imaginary
  }

  /// Its absolute value.
  public var magnitude: Double {
    let (large, small) = (
      Swift.max(abs(real), abs(imaginary)), Swift.min(abs(real), abs(imaginary))
    )
    return large == 0 ? 0 : large * (1 + (small / large) * (small / large)).squareRoot()
  }
}

/// The eigenvalues of a square matrix, in no particular order.
///
/// By LAPACK's `dgeev` (balancing, Hessenberg form, the QR method).
///
/// - Parameters:
///   - matrix: `order²` numbers.
///   - order: the extent.
/// - Returns: `order` eigenvalues; nil where a number is not finite, or where LAPACK did not converge.
/// - Precondition: there are `order²` numbers.
/// - Complexity: about 10·order³ FLOPs.
public func eigenvalues(of matrix: [Double], order: Int) -> [Eigenvalue]? {
  precondition(
    matrix.count == order * order,
    "eigenvalues: \(matrix.count) numbers, expected \(order) × \(order)")
  guard order > 0 else { return [] }
  guard matrix.allSatisfy(\.isFinite) else { return nil }
  BLAS.prepare()
  var matrix = matrix
  var (real, imaginary) = (
    [Double](repeating: 0, count: order), [Double](repeating: 0, count: order)
  )
  var n = blasint(order)
  var (one, info): (blasint, blasint) = (1, 0)
  var workCount = blasint(order * 66)
  var work = [Double](repeating: 0, count: Int(workCount))
  // Vectors are not asked for, and their two matrices not looked at.
  var (left, right) = (0.0, 0.0)
  dgeev_(
    "N", "N", &n, &matrix, &n, &real, &imaginary, &left, &one, &right, &one, &work, &workCount,
    &info)
  guard info == 0 else { return nil }
  return zip(real, imaginary).map { Eigenvalue(real: $0, imaginary: $1) }
}

/// The singular values of a matrix, largest first, by LAPACK's `dgesdd`.
///
/// - Parameters:
///   - matrix: `rows·columns` numbers.
///   - rows: the rows.
///   - columns: the columns.
/// - Returns: min(rows, columns) values; nil where a number is not finite, or where LAPACK did not converge.
/// - Precondition: there are `rows·columns` numbers.
public func singularValues(of matrix: [Double], rows: Int, columns: Int) -> [Double]? {
  precondition(
    matrix.count == rows * columns,
    "singularValues: \(matrix.count) numbers, expected \(rows) × \(columns)")
  let (most, least) = (Swift.max(rows, columns), Swift.min(rows, columns))
  guard least > 0 else { return [] }
  guard matrix.allSatisfy(\.isFinite) else { return nil }
  BLAS.prepare()
  var matrix = matrix
  var values = [Double](repeating: 0, count: least)
  var (m, n) = (blasint(columns), blasint(rows))
  var (one, info): (blasint, blasint) = (1, 0)
  var workCount = blasint(3 * least + Swift.max(most, 7 * least) + 64 * (most + least))
  var work = [Double](repeating: 0, count: Int(workCount))
  var integers = [blasint](repeating: 0, count: 8 * least)
  var (left, right) = (0.0, 0.0)
  dgesdd_(
    "N", &m, &n, &matrix, &m, &values, &left, &one, &right, &one, &work, &workCount, &integers,
    &info)
  return info == 0 ? values : nil
}

/// R of the factorisation xᵀ = Q·R, so that x·xᵀ = Rᵀ·R: what is left of long rows when only their products
/// with each other matter.
///
/// By LAPACK's `dgeqrf`. Of R·yᵀ it keeps every norm and singular value of xᵀ·yᵀ.
///
/// - Parameter x: shape `[n, d]`.
/// - Returns: min(n, d) rows of n numbers, upper triangular.
public func triangularFactor(_ x: Tensor) -> [Double] {
  let (n, d) = (x.shape[0], x.rowCount)
  let rank = Swift.min(n, d)
  guard rank > 0 else { return [] }
  BLAS.prepare()
  // Rows of x are columns of xᵀ, as LAPACK stores them.
  var matrix = widened(x)
  var (rows, columns) = (blasint(d), blasint(n))
  var tau = [Double](repeating: 0, count: rank)
  var workCount = blasint(64 * n)
  var work = [Double](repeating: 0, count: Int(workCount))
  var info: blasint = 0
  dgeqrf_(&rows, &columns, &matrix, &rows, &tau, &work, &workCount, &info)
  var triangle = [Double](repeating: 0, count: rank * n)
  for row in 0..<rank {
    for column in row..<n { triangle[row * n + column] = matrix[column * d + row] }
  }
  return triangle
}

/// x·yᵀ in double precision.
///
/// - Parameters:
///   - x: shape `[m, k]`.
///   - y: shape `[n, k]`.
/// - Returns: `m·n` numbers.
/// - Precondition: rows of one length.
public func doubleProduct(_ x: Tensor, transposed y: Tensor) -> [Double] {
  precondition(
    x.rowCount == y.rowCount, "doubleProduct: shapes \(x.shape) and \(y.shape)")
  return doubleProduct(widened(x), transposed: widened(y), length: x.rowCount)
}

/// x·yᵀ of matrices whose rows have `length` numbers.
///
/// - Precondition: whole rows.
public func doubleProduct(_ x: [Double], transposed y: [Double], length: Int) -> [Double] {
  precondition(
    length > 0 && x.count % length == 0 && y.count % length == 0,
    "doubleProduct: \(x.count) and \(y.count) numbers in rows of \(length)")
  BLAS.prepare()
  let (m, n) = (x.count / length, y.count / length)
  var product = [Double](repeating: 0, count: m * n)
  guard m > 0, n > 0 else { return product }
  cblas_dgemm(
    CblasRowMajor, CblasNoTrans, CblasTrans, blasint(m), blasint(n), blasint(length), 1, x,
    blasint(length), y, blasint(length), 0, &product, blasint(n))
  return product
}

private func widened(_ x: Tensor) -> [Double] {
  let span = x.span
  return [Double](unsafeUninitializedCapacity: x.count) { values, count in
    for i in 0..<x.count { values.initializeElement(at: i, to: Double(span[i])) }
    count = x.count
  }
}
