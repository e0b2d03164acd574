import COpenBLAS

/// The eigenvalues of symmetric matrices, largest first, each matrix on a thread of its own.
///
/// By LAPACK's `dsyevd` (reduction to tridiagonal form, then the QL method), which finds every
/// eigenvalue to rounding of the largest one.
///
/// - Parameters:
///   - count: how many matrices there are.
///   - order: the extent n of each of them.
///   - matrix: makes the matrix of an index, `n²` scalars; called on any thread, so that no more
///     matrices exist at once than there are threads.
/// - Returns: for each matrix its n eigenvalues; nil where it has a number that is not finite, or
///   where LAPACK did not converge.
/// - Precondition: every matrix has `n²` scalars; only one triangle of it is read.
/// - Complexity: 4/3·n³ FLOPs a matrix.
public func symmetricEigenvalues(
  count: Int, order: Int, of matrix: (Int) -> [Double]
) -> [[Double]?] {
  BLAS.prepare()
  var results = [[Double]?](repeating: nil, count: count)
  results.withUnsafeMutableBufferPointer { results in
    guard let results = results.baseAddress else { return }
    parallelChunks(count) { index in
      results[index] = symmetricEigenvalues(matrix(index), order: order)
    }
  }
  return results
}

/// The eigenvalues of a symmetric matrix, largest first, with their eigenvectors.
///
/// - Parameters:
///   - matrix: `n²` scalars; only one triangle of it is read.
///   - order: its extent n.
/// - Returns: the n eigenvalues, and the unit eigenvectors in the same order, n scalars each, one
///   after another; a vector's sign is arbitrary. Nil where the matrix has a number that is not
///   finite, or where LAPACK did not converge.
/// - Precondition: the matrix has `n²` scalars.
/// - Complexity: about 9·n³ FLOPs on one thread; memory for three matrices.
public func symmetricEigenvectors(
  _ matrix: [Double], order: Int
) -> (values: [Double], vectors: [Double])? {
  BLAS.prepare()
  guard let (values, rows) = decompose(matrix, order: order, vectors: true) else { return nil }
  var vectors: [Double] = []
  vectors.reserveCapacity(rows.count)
  for index in (0..<order).reversed() {
    vectors += rows[index * order..<(index + 1) * order]
  }
  return (values.reversed(), vectors)
}

private func symmetricEigenvalues(_ matrix: consuming [Double], order: Int) -> [Double]? {
  decompose(matrix, order: order, vectors: false)?.values.reversed()
}

/// LAPACK's `dsyevd`: eigenvalues in ascending order and, if asked for, the eigenvectors in the same
/// order, one a row.
private func decompose(
  _ matrix: consuming [Double], order: Int, vectors: Bool
) -> (values: [Double], vectors: [Double])? {
  precondition(
    matrix.count == order * order,
    "symmetric eigenvalues: \(matrix.count) scalars, expected \(order) × \(order)")
  guard order > 0 else { return ([], []) }
  guard matrix.allSatisfy(\.isFinite) else { return nil }
  var matrix = matrix
  var values = [Double](repeating: 0, count: order)
  var n = blasint(order)
  var info: blasint = 0
  // Without eigenvectors dsyevd needs no integers and 2n + 1 numbers; blocks of 64 columns make it
  // fast.
  var integerCount = blasint(vectors ? 3 + 5 * order : 1)
  var integers = [blasint](repeating: 0, count: Int(integerCount))
  var workCount = blasint(vectors ? 1 + 6 * order + 2 * order * order : order * 66 + 1)
  var work = [Double](repeating: 0, count: Int(workCount))
  dsyevd_(
    vectors ? "V" : "N", "L", &n, &matrix, &n, &values, &work, &workCount, &integers,
    &integerCount, &info)
  return info == 0 ? (values, matrix) : nil
}
