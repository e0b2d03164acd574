import NormLens
import Testing

/// Eigenvalues of matrices whose spectrum is known, or known to add up.
@Suite struct SymmetricSpectrumTests {
  @Test func knownSpectra() throws {
    // The path graph's second differences: 2 − 2cos(kπ/(n + 1)).
    let n = 60
    var matrix = [Double](repeating: 0, count: n * n)
    for i in 0..<n {
      matrix[i * n + i] = 2
      if i > 0 { (matrix[i * n + i - 1], matrix[(i - 1) * n + i]) = (-1, -1) }
    }
    let all = symmetricEigenvalues(count: 5, order: n) { index in
      matrix.map { $0 * Double(index) }
    }
    var worst = 0.0
    for (index, values) in all.enumerated() {
      let values = try #require(values)
      #expect(values == values.sorted(by: >))
      for k in 1...n {
        let exact = 2 - 2 * cosine(Double(n + 1 - k) * .pi / Double(n + 1))
        worst = max(worst, abs(values[k - 1] - Double(index) * exact))
      }
    }
    print("spectra of second differences: max difference \(worst)")
    #expect(worst < 1e-13 * 5 * 4)
  }

  @Test func traceAndSquares() throws {
    var random = SeededGenerator(seed: 4)
    let n = 131
    var matrix = [Double](repeating: 0, count: n * n)
    for i in 0..<n {
      for j in 0...i {
        let value = Double.random(in: -1..<1, using: &random)
        (matrix[i * n + j], matrix[j * n + i]) = (value, value)
      }
    }
    let values = try #require(symmetricEigenvalues(count: 1, order: n) { _ in matrix }[0])
    let trace = (0..<n).reduce(0) { $0 + matrix[$1 * n + $1] }
    let squares = matrix.reduce(0) { $0 + $1 * $1 }
    #expect(abs(values.reduce(0, +) - trace) < 1e-11)
    #expect(abs(values.reduce(0) { $0 + $1 * $1 } - squares) < 1e-11 * squares)
  }

  /// The vectors are orthonormal, and together with the values they are the matrix.
  @Test func vectors() throws {
    var random = SeededGenerator(seed: 9)
    let n = 83
    var matrix = [Double](repeating: 0, count: n * n)
    for i in 0..<n {
      for j in 0...i {
        let value = Double.random(in: -1..<1, using: &random)
        (matrix[i * n + j], matrix[j * n + i]) = (value, value)
      }
    }
    let (values, vectors) = try #require(symmetricEigenvectors(matrix, order: n))
    #expect(values == values.sorted(by: >))
    let alone = try #require(symmetricEigenvalues(count: 1, order: n) { _ in matrix }[0])
    var worst = zip(values, alone).reduce(0) { max($0, abs($1.0 - $1.1)) }
    for i in 0..<n {
      for j in 0..<n {
        var (product, whole) = (0.0, 0.0)
        for k in 0..<n {
          product += vectors[i * n + k] * vectors[j * n + k]
          whole += values[k] * vectors[k * n + i] * vectors[k * n + j]
        }
        worst = max(worst, abs(product - (i == j ? 1 : 0)), abs(whole - matrix[i * n + j]))
      }
    }
    print("eigenvectors of order \(n): max difference \(worst)")
    #expect(worst < 1e-12)
    #expect(symmetricEigenvectors([], order: 0)?.values == [])
    #expect(symmetricEigenvectors([.nan], order: 1) == nil)
    let one = try #require(symmetricEigenvectors([3], order: 1))
    #expect(one.values == [3] && abs(one.vectors[0]) == 1)
  }

  @Test func edges() {
    #expect(symmetricEigenvalues(count: 0, order: 3) { _ in [] }.isEmpty)
    #expect(symmetricEigenvalues(count: 1, order: 0) { _ in [] } == [[]])
    #expect(symmetricEigenvalues(count: 1, order: 1) { _ in [-2] } == [[-2]])
    #expect(symmetricEigenvalues(count: 1, order: 2) { _ in [0, 0, 0, 0] } == [[0, 0]])
    for bad in [Double.nan, .infinity] {
      #expect(symmetricEigenvalues(count: 1, order: 2) { _ in [1, bad, bad, 1] } == [nil])
    }
  }

  /// By its series: exact here to the last digits.
  private func cosine(_ x: Double) -> Double {
    let half = x / 2
    var (term, sum) = (half, half)
    for k in 1..<20 {
      term *= -half * half / Double(2 * k * (2 * k + 1))
      sum += term
    }
    return 1 - 2 * sum * sum
  }
}
