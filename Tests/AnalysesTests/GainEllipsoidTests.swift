import NormLens
import TestSupport
import Testing

/// The ellipsoid of a norm's outputs: its defining equations, by real norms and by LAPACK.
@Suite struct GainEllipsoidTests {
  private func numbers(_ count: Int, seed: UInt64, around mean: Double = 0) -> [Double] {
    var random = SeededGenerator(seed: seed)
    return (0..<count).map { _ in mean + Double.random(in: -1..<1, using: &random) }
  }

  /// The singular values of diag(g)·P by the eigenvalues of P·diag(g²)·P.
  private func byEigenvalues(_ gain: [Double]) throws -> [Double] {
    let d = gain.count
    let squares = gain.map { $0 * $0 }
    let mean = squares.reduce(0, +) / Double(d)
    let matrix = (0..<d * d).map { place -> Double in
      let (i, j) = (place / d, place % d)
      return (i == j ? squares[i] : 0) - (squares[i] + squares[j] - mean) / Double(d)
    }
    let spectrum = try #require(symmetricEigenvalues(count: 1, order: d) { _ in matrix }[0])
    return spectrum.map { max($0, 0).squareRoot() * Double(d).squareRoot() }
  }

  /// Gains of all kinds: random, equal, some equal, some 0, with an outlier.
  private var gains: [(String, [Double])] {
    let random = numbers(40, seed: 1, around: 1)
    var zeros = random
    for i in stride(from: 3, to: 40, by: 9) { zeros[i] = 0 }
    var outlier = random
    outlier[7] = 60
    return [
      ("random", random), ("equal", Array(repeating: 0.7, count: 12)),
      ("some equal", random.map { ($0 * 4).rounded() / 4 + 0.125 }), ("some 0", zeros),
      ("outlier", outlier), ("signs", numbers(33, seed: 2)), ("two", [3, 4]), ("one", [2]),
      ("one left", [0, 0, 5]),
    ]
  }

  @Test func semiAxesInterlaceAndAreEigenvalues() throws {
    var worst = 0.0
    for (label, gain) in gains {
      let ellipsoid = GainEllipsoid(
        gain: gain, bias: numbers(gain.count, seed: 3), isCentred: true)
      let d = gain.count
      let (axes, sorted) = (ellipsoid.semiAxes, ellipsoid.sortedGain)
      #expect(axes.count == d && axes == axes.sorted(by: >), "\(label)")
      for i in 0..<d {
        let s = axes[i] / Double(d).squareRoot()
        #expect(s <= sorted[i] * (1 + 1e-14), "\(label) \(i)")
        #expect(i + 1 == d || s >= sorted[i + 1] * (1 - 1e-14), "\(label) \(i)")
      }
      let flat = max(gain.count { $0 == 0 }, 1)
      #expect(axes.count { $0 == 0 } == flat, "\(label)")
      // The square root of rounding near 0.
      for (a, b) in zip(axes, try byEigenvalues(gain)) where a > 0 {
        worst = max(worst, abs(a * a - b * b) / (axes[0] * axes[0]))
      }
    }
    print("semi-axes against eigenvalues: max relative difference of squares \(worst)")
    #expect(worst < 1e-13)
  }

  /// Points of a real LayerNorm lie in the hyperplane and on the ellipsoid, at radius
  /// σ/√(σ² + ε), whose axes are the eigenvectors g ⊙ 1/(g² − s²).
  @Test(arguments: [Float(0), 1e-5, 0.5])
  func pointsOfALayerNorm(epsilon: Float) {
    let d = 40
    let (gain, bias) = (numbers(d, seed: 5, around: 2), numbers(d, seed: 6))
    let x = Tensor(numbers(9 * d, seed: 7, around: 0.3).map { Float($0) }, shape: [9, d])
    let y = RowNormalization.layerNorm(
      x, epsilon: epsilon, gain: Tensor(gain.map { Float($0) }, shape: [d]),
      bias: Tensor(bias.map { Float($0) }, shape: [d]))
    let axes = GainEllipsoid(gain: gain, bias: bias, isCentred: true).semiAxes
    var (plane, surface) = (0.0, 0.0)
    for row in 0..<9 {
      let offset = (0..<d).map { Double(y[row, $0]) - bias[$0] }
      plane = max(plane, abs((0..<d).reduce(0) { $0 + offset[$1] / gain[$1] }))
      let radius = axes.dropLast().reduce(0.0) { sum, axis in
        let square = axis * axis / Double(d)
        let direction = gain.map { $0 / ($0 * $0 - square) }
        let length = direction.reduce(0) { $0 + $1 * $1 }.squareRoot()
        let along = zip(offset, direction).reduce(0) { $0 + $1.0 * $1.1 } / length
        return sum + along * along / (axis * axis)
      }
      let values = (0..<d).map { Double(x[row, $0]) }
      let mean = values.reduce(0, +) / Double(d)
      let variance = values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(d)
      surface = max(surface, abs(radius - variance / (variance + Double(epsilon))))
    }
    print("ε \(epsilon): off the hyperplane by \(plane), off the ellipsoid by \(surface)")
    #expect(plane < 1e-4 && surface < 1e-5)
  }

  @Test func numbersOfAGain() {
    let ellipsoid = GainEllipsoid(gain: [1, -1, 1, 9], bias: [3, 0, 0, 4], isCentred: true)
    #expect(ellipsoid.sortedGain == [9, 1, 1, 1])
    // Of |g| − 1 = 0, 0, 0, 8 the median is 0.
    #expect(ellipsoid.outliers == 1 && ellipsoid.signFlips == 1)
    #expect(abs(ellipsoid.biasRatio - 5 / 84.0.squareRoot()) < 1e-15)
    #expect(abs(ellipsoid.gainOnesCosine - 10 / (2 * 84.0.squareRoot())) < 1e-15)
    #expect(abs(ellipsoid.biasOnesCosine - 0.7) < 1e-15)

    let sphere = GainEllipsoid(
      gain: Array(repeating: -2, count: 10), bias: Array(repeating: 0, count: 10), isCentred: true)
    #expect(sphere.condition == 1 && abs(sphere.effectiveRank - 9) < 1e-12)
    #expect(sphere.biasRatio == 0 && sphere.biasOnesCosine.isNaN && sphere.signFlips == 10)

    let rms = GainEllipsoid(gain: [1, -3, 2], bias: [0, 0, 0], isCentred: false)
    #expect(zip(rms.semiAxes, [3.0, 2, 1]).allSatisfy { abs($0 / 3.0.squareRoot() - $1) < 1e-15 })
    #expect(abs(rms.condition - 3) < 1e-15)

    let nothing = GainEllipsoid(gain: [0, 0], bias: [1, 1], isCentred: true)
    #expect(nothing.semiAxes == [0, 0] && nothing.condition.isNaN && nothing.effectiveRank.isNaN)
  }
}
