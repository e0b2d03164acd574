import NormLens
import Testing

/// Eigenvalues, singular values and triangular factors of matrices that are known.
@Suite struct DenseFactorsTests {
  @Test func eigenvaluesOfKnownMatrices() throws {
    // A rotation by a quarter: ±i.
    let quarter = try #require(eigenvalues(of: [0, -1, 1, 0], order: 2))
    #expect(quarter.map(\.imaginary).sorted() == [-1, 1])
    #expect(quarter.allSatisfy { abs($0.real) < 1e-15 && abs($0.magnitude - 1) < 1e-15 })
    // A triangular matrix: its diagonal.
    let triangle = try #require(eigenvalues(of: [1, 2, 3, 0, 4, 5, 0, 0, -6], order: 3))
    #expect(triangle.map(\.real).sorted() == [-6, 1, 4])
    // A cycle of n: the roots of 1.
    let n = 24
    var cycle = [Double](repeating: 0, count: n * n)
    for i in 0..<n { cycle[i * n + (i + 1) % n] = 1 }
    let roots = try #require(eigenvalues(of: cycle, order: n))
    let worst = roots.reduce(0) { max($0, abs($1.magnitude - 1)) }
    let sum = roots.reduce(0) { $0 + $1.real }
    print("roots of 1: max difference \(worst)")
    #expect(worst < 1e-13 && abs(sum) < 1e-13)
    #expect(eigenvalues(of: [], order: 0) == [])
    #expect(eigenvalues(of: [.infinity], order: 1) == nil)
    // Squares that would overflow.
    #expect(abs(Eigenvalue(real: 3e200, imaginary: -4e200).magnitude / 5e200 - 1) < 1e-15)
  }

  @Test func singularValuesOfKnownMatrices() throws {
    #expect(try #require(singularValues(of: [3, 0, 0, 0, -5, 0], rows: 2, columns: 3)) == [5, 3])
    #expect(try #require(singularValues(of: [3, 0, 0, -5, 0, 0], rows: 3, columns: 2)) == [5, 3])
    // A column times a row.
    let (x, y) = ([1.0, 2, 2], [3.0, 4])
    let product = x.flatMap { a in y.map { a * $0 } }
    let values = try #require(singularValues(of: product, rows: 3, columns: 2))
    #expect(abs(values[0] - 15) < 1e-13 && values[1] < 1e-14)
    #expect(singularValues(of: [.nan], rows: 1, columns: 1) == nil)
    #expect(singularValues(of: [], rows: 0, columns: 3) == [])
  }

  /// Rᵀ·R = x·xᵀ, for rows longer and shorter than they are many.
  @Test(arguments: [(5, 40), (64, 70), (7, 3), (1, 1)])
  func triangularFactors(_ n: Int, _ d: Int) {
    var random = SeededGenerator(seed: 3)
    let x = Tensor(
      (0..<n * d).map { _ in Float.random(in: -1..<1, using: &random) }, shape: [n, d])
    let triangle = triangularFactor(x)
    let rank = min(n, d)
    #expect(triangle.count == rank * n)
    let gram = doubleProduct(x, transposed: x)
    var worst = 0.0
    for i in 0..<n {
      for j in 0..<n {
        let found = (0..<rank).reduce(0.0) { $0 + triangle[$1 * n + i] * triangle[$1 * n + j] }
        let expected = (0..<d).reduce(0.0) { $0 + Double(x[i, $1]) * Double(x[j, $1]) }
        worst = max(worst, abs(found - expected), abs(gram[i * n + j] - expected))
      }
    }
    for row in 0..<rank {
      for column in 0..<row where column < n { #expect(triangle[row * n + column] == 0) }
    }
    print("triangular factor of \(n) × \(d): max difference \(worst)")
    #expect(worst < 1e-13 * Double(d))
  }
}
