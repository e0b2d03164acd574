import NormLens
import TestSupport
import Testing

/// Products that are never formed against products that are.
@Suite struct FactoredMatrixTests {
  private func random(_ rows: Int, _ columns: Int, _ seed: UInt64) -> Tensor {
    var random = SeededGenerator(seed: seed)
    return Tensor(
      (0..<rows * columns).map { _ in Float.random(in: -1..<1, using: &random) },
      shape: [rows, columns])
  }

  /// The product in double precision.
  private func dense(_ matrix: FactoredMatrix) -> [[Double]] {
    (0..<matrix.rows).map { i in
      (0..<matrix.columns).map { j in
        (0..<matrix.inner).reduce(0.0) {
          $0 + Double(matrix.left[i, $1]) * Double(matrix.right[$1, j])
        }
      }
    }
  }

  @Test(arguments: [(20, 4), (4, 4), (3, 7), (1, 1), (130, 64)])
  func squareMatrices(_ size: Int, _ inner: Int) throws {
    let matrix = FactoredMatrix(random(size, inner, 1), random(inner, size, 2))
    let dense = dense(matrix)
    let squares = dense.reduce(0) { $0 + $1.reduce(0) { $0 + $1 * $1 } }
    let trace = (0..<size).reduce(0) { $0 + dense[$1][$1] }
    let ofSquare = (0..<size).reduce(0.0) { sum, i in
      sum + (0..<size).reduce(0.0) { $0 + dense[i][$1] * dense[$1][i] }
    }
    var worst = abs(matrix.frobeniusNorm / squares.squareRoot() - 1)
    worst = max(worst, abs(matrix.trace - trace) / squares.squareRoot())
    let values = try #require(matrix.eigenvalues())
    #expect(values.count == inner)
    let sum = values.reduce(0) { $0 + $1.real }
    let sumOfSquares = values.reduce(0) { $0 + $1.real * $1.real - $1.imaginary * $1.imaginary }
    worst = max(worst, abs(sum - trace) / squares.squareRoot())
    worst = max(worst, abs(sumOfSquares - ofSquare) / squares)
    let singular = try #require(matrix.singularValues())
    #expect(singular.count == min(size, inner) && singular == singular.sorted(by: >))
    worst = max(worst, abs(singular.reduce(0) { $0 + $1 * $1 } / squares - 1))
    let transposed = matrix.transposed
    worst = max(worst, abs(transposed.frobeniusNorm / squares.squareRoot() - 1))
    print("factored \(size) × \(inner) × \(size): max relative difference \(worst)")
    #expect(worst < 1e-12)
  }

  @Test func products() {
    for (inner, other) in [(3, 5), (5, 3)] {
      let a = FactoredMatrix(random(8, inner, 1), random(inner, 9, 2))
      let b = FactoredMatrix(random(9, other, 3), random(other, 7, 4))
      let product = a.times(b)
      #expect(product.rows == 8 && product.columns == 7 && product.inner == 3)
      let (x, y, z) = (dense(a), dense(b), dense(product))
      var worst = 0.0
      for i in 0..<8 {
        for j in 0..<7 {
          let expected = (0..<9).reduce(0.0) { $0 + x[i][$1] * y[$1][j] }
          worst = max(worst, abs(z[i][j] - expected))
        }
      }
      #expect(worst < 1e-5)
    }
  }

  /// A rank that is lower than the factors are thin, and zeros.
  @Test func degenerate() throws {
    let column = random(6, 1, 3)
    let twice = Tensor((0..<12).map { column.scalars[$0 / 2] }, shape: [6, 2])
    let matrix = FactoredMatrix(twice, random(2, 6, 4))
    let singular = try #require(matrix.singularValues())
    #expect(singular[1] < 1e-15 * singular[0])
    let zero = FactoredMatrix(Tensor(zeros: [5, 2]), Tensor(zeros: [2, 5]))
    #expect(zero.frobeniusNorm == 0 && zero.trace == 0)
    #expect(zero.eigenvalues()?.map(\.magnitude) == [0, 0])
    let bad = FactoredMatrix(Tensor(repeating: .nan, shape: [5, 2]), Tensor(zeros: [2, 5]))
    #expect(bad.eigenvalues() == nil && bad.singularValues() == nil)
  }

  /// The heads' circuits are the products of the heads' matrices.
  @Test func circuits() throws {
    let model = try GPT2.load(Fixtures.checkpoint("tiny-lnfree"))
    let plain = FactoredMatrix(
      model.W_Q(layer: 1, head: 2), model.W_K(layer: 1, head: 2).transposed())
    let circuit = model.W_QK(layer: 1, head: 2)
    #expect(abs(plain.frobeniusNorm / circuit.frobeniusNorm - 1) < 1e-12)
    // With LayerNorm both sides of both circuits have no part along the ones.
    let normed = try GPT2.load(Fixtures.checkpoint("tiny-ln"))
    let ones = Tensor(repeating: 1, shape: [1, normed.config.dModel])
    for circuit in [normed.W_QK(layer: 0, head: 1), normed.W_OV(layer: 0, head: 1)] {
      let left = matmul(ones, MatrixView(circuit.left)).maximumMagnitude
      let right = matmulTransposed(ones, MatrixView(circuit.right)).maximumMagnitude
      #expect(left < 1e-5 && right < 1e-5)
    }
  }
}
