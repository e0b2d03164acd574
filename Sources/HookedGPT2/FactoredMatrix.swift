public import Tensors

/// A matrix A·B that is never formed: its norm, trace, eigenvalues and singular values come from its thin
/// factors, in double precision.
///
/// `W_OV` = `W_V·W_O` and `W_QK` = `W_Q·W_Kᵀ` of a head have d_model² entries and rank d_head at most.
public struct FactoredMatrix: Sendable {
  /// A, shape `[rows, inner]`.
  public let left: Tensor
  /// B, shape `[inner, columns]`.
  public let right: Tensor

  /// The product of two matrices.
  ///
  /// - Precondition: both have rank 2, and the left one as many columns as the right one rows.
  public init(_ left: Tensor, _ right: Tensor) {
    precondition(
      left.rank == 2 && right.rank == 2 && left.shape[1] == right.shape[0],
      "FactoredMatrix: shapes \(left.shape) and \(right.shape)")
    self.left = left
    self.right = right
  }

  /// The extent of the first axis.
  public var rows: Int { left.shape[0] }
  /// The extent of the second axis.
  public var columns: Int { right.shape[1] }
  /// The columns of A: the most that the rank can be, if it is less than rows and columns.
  public var inner: Int { left.shape[1] }

  /// Bᵀ·Aᵀ.
  public var transposed: FactoredMatrix { FactoredMatrix(right.transposed(), left.transposed()) }

  /// The product with another one: (A·B)·(C·D) = A·((B·C)·D), or (A·(B·C))·D where that is thinner.
  ///
  /// - Precondition: as many columns as the other has rows.
  public func times(_ other: FactoredMatrix) -> FactoredMatrix {
    precondition(
      columns == other.rows,
      "FactoredMatrix: \(rows) × \(columns) times \(other.rows) × \(other.columns)")
    let middle = matmul(right, MatrixView(other.left))
    return inner <= other.inner
      ? FactoredMatrix(left, matmul(middle, MatrixView(other.right)))
      : FactoredMatrix(matmul(left, MatrixView(middle)), other.right)
  }

  /// ‖A·B‖_F = (Σ entries²)^½.
  public var frobeniusNorm: Double {
    core.reduce(0) { $0 + $1 * $1 }.squareRoot()
  }

  /// The sum of the diagonal.
  ///
  /// - Precondition: the matrix is square.
  public var trace: Double {
    precondition(rows == columns, "FactoredMatrix: trace of \(rows) × \(columns)")
    let square = doubleProduct(right, transposed: left.transposed())
    return (0..<inner).reduce(0) { $0 + square[$1 * inner + $1] }
  }

  /// The eigenvalues of A·B but for zeros, which are those of B·A: `inner` of them.
  ///
  /// - Returns: nil where a number is not finite.
  /// - Precondition: the matrix is square.
  public func eigenvalues() -> [Eigenvalue]? {
    precondition(rows == columns, "FactoredMatrix: eigenvalues of \(rows) × \(columns)")
    return Tensors.eigenvalues(
      of: doubleProduct(right, transposed: left.transposed()), order: inner)
  }

  /// The singular values but for zeros, largest first: those of `inner`² numbers at most.
  ///
  /// - Returns: nil where a number is not finite.
  public func singularValues() -> [Double]? {
    Tensors.singularValues(
      of: core, rows: min(rows, inner), columns: min(columns, inner))
  }

  /// R_A·R_Bᵀ with A = Q_A·R_A and Bᵀ = Q_B·R_B: A·B but for rotations on both sides.
  private var core: [Double] {
    doubleProduct(
      triangularFactor(left.transposed()), transposed: triangularFactor(right), length: inner)
  }
}
