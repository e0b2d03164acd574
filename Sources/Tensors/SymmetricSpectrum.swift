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

private func symmetricEigenvalues(_ matrix: consuming [Double], order: Int) -> [Double]? {
  precondition(
    matrix.count == order * order,
    "symmetricEigenvalues: \(matrix.count) scalars, expected \(order) × \(order)")
  guard order > 0 else { return [] }
  guard matrix.allSatisfy(\.isFinite) else { return nil }
  var matrix = matrix
  var values = [Double](repeating: 0, count: order)
  var n = blasint(order)
  var info: blasint = 0
  // Without eigenvectors dsyevd needs no integers and 2n + 1 numbers; blocks of 64 columns make it
  // fast.
  var integers: blasint = 0
  var integerCount: blasint = 1
  var workCount = blasint(order * 66 + 1)
  var work = [Double](repeating: 0, count: Int(workCount))
  dsyevd_(
    "N", "L", &n, &matrix, &n, &values, &work, &workCount, &integers, &integerCount, &info)
  return info == 0 ? values.reversed() : nil
}
