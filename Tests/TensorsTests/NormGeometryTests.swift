import Foundation
import NormLens
import TestSupport
import Tensors
import Testing

/// What a norm does to single rows, against values computed by hand and in double precision here.
@Suite struct NormGeometryTests {
  private func measure(
    _ x: [Float], _ normalization: RowNormalization?, epsilon: Float = 0, gain: [Float]? = nil,
    bias: [Float]? = nil
  ) -> [NormStatistic: Double] {
    let statistics = normGeometry(
      Tensor(x, shape: [1, x.count]), normalization, epsilon: epsilon,
      gain: gain.map { Tensor($0, shape: [$0.count]) },
      bias: bias.map { Tensor($0, shape: [$0.count]) })
    return Dictionary(
      uniqueKeysWithValues: NormStatistic.allCases.map { ($0, Double(statistics[$0.rawValue, 0])) })
  }

  /// The worked example of x = (1, 2, 3, 6).
  @Test func example() throws {
    let found = measure(
      [1, 2, 3, 6], .layerNorm, gain: [1, 2, 0.5, 1], bias: [0.1, 0, 0, -0.1])
    let expected: [(NormStatistic, Double)] = [
      (.mean, 3), (.std, 3.5.squareRoot()), (.norm, 50.0.squareRoot()), (.meanShare, 36.0 / 50),
      (.angleToOnes, 31.9481), (.angleProjection, 58.0519), (.angleGain, 13.5158),
      (.angleBias, 2.0009), (.angleTotal, 66.3364), (.radiusRatio, 1),
      (.saturation, 1.603567 / 3.0.squareRoot()), (.kurtosis, (16 + 1 + 0 + 81) / 4 / 12.25 - 3),
      (.participation, 2500 / (1.0 + 16 + 81 + 1296)), (.topThirdShare, 36.0 / 50),
    ]
    var worst = 0.0
    for (statistic, value) in expected {
      let difference = abs(try #require(found[statistic]) - value)
      worst = max(worst, difference)
      #expect(difference < 1e-4, "\(statistic)")
    }
    print("worked example: max difference \(worst)")
  }

  /// A row with one coordinate reaches the cap √(d−1), 27.69 at d = 768.
  @Test func oneCoordinate() throws {
    var x = [Float](repeating: 0, count: 768)
    x[5] = 40
    let found = measure(x, .layerNorm)
    #expect(abs(try #require(found[.saturation]) - 1) < 1e-6)
    #expect(abs(try #require(found[.participation]) - 1) < 1e-6)
    #expect(try #require(found[.topThirdShare]) == 1)
    #expect(abs(767.0.squareRoot() - 27.69) < 5e-3)
    // RMSNorm's cap is √d.
    #expect(abs(try #require(measure(x, .rmsNorm)[.saturation]) - 1) < 1e-6)
  }

  /// σ/√(σ² + ε) at the deviations of GPT-2's first norm, small to xl.
  @Test(arguments: [(0.1655, 0.9998), (0.0974, 0.9995), (0.0477, 0.9978), (0.0377, 0.9965)])
  func epsilonShortens(_ deviation: Double, _ ratio: Double) throws {
    let x = (0..<64).map { Float($0 % 2 == 0 ? deviation : -deviation) }
    let found = try #require(measure(x, .layerNorm, epsilon: 1e-5)[.radiusRatio])
    #expect(abs(found - ratio) < 5e-5)
    #expect(abs(try #require(measure(x, nil)[.radiusRatio]) - deviation) < 1e-7)
  }

  /// Random rows, with large means and large coordinates, against the definitions.
  @Test func definitions() throws {
    var random = SeededGenerator(seed: 3)
    func draw(_ count: Int, _ scale: Double) -> [Float] {
      (0..<count).map { _ in Float(Double.random(in: -1...1, using: &random) * scale) }
    }
    let degree = 180 / Double.pi
    func norm(_ v: [Double]) -> Double { v.reduce(0) { $0 + $1 * $1 }.squareRoot() }
    func angle(_ a: [Double], _ b: [Double]) -> Double {
      let (p, q) = (norm(a), norm(b))
      let pairs = zip(a, b).map { ($0 / p, $1 / q) }
      return 2 * atan2(norm(pairs.map { $0 - $1 }), norm(pairs.map { $0 + $1 })) * degree
    }
    var worst = [NormStatistic: Double]()
    for (d, mean, spike) in [(7, 0, 0), (48, 30, 0), (96, 0, 400), (1000, -3, 20)]
      as [(Int, Float, Float)]
    {
      var x = draw(d, 2).map { $0 + mean }
      x[d / 2] += spike
      let gain = draw(d, 0.1).map { $0 + 1 }
      let bias = draw(d, 0.3)
      for normalization in [RowNormalization.layerNorm, .rmsNorm] {
        let found = measure(x, normalization, epsilon: 1e-5, gain: gain, bias: bias)
        let v = x.map(Double.init)
        let m = v.reduce(0, +) / Double(d)
        let c = v.map { $0 - m }
        let base = normalization == .layerNorm ? c : v
        let scale = (norm(base) * norm(base) / Double(d) + Double(Float(1e-5))).squareRoot()
        let z = base.map { $0 / scale }
        let gained = zip(z, gain).map { $0 * Double($1) }
        let y = zip(gained, bias).map { $0 + Double($1) }
        let squares = v.map { $0 * $0 }.sorted(by: >)
        let (second, fourth) = (norm(c) * norm(c), c.reduce(0) { $0 + $1 * $1 * $1 * $1 })
        let expected: [NormStatistic: Double] = [
          .mean: m, .std: norm(c) / Double(d).squareRoot(), .norm: norm(v),
          .meanShare: m * m * Double(d) / (norm(v) * norm(v)),
          .angleToOnes: angle(v, v.map { _ in 1 }),
          .angleProjection: normalization == .layerNorm ? angle(v, c) : 0,
          .angleGain: angle(z, gained), .angleBias: angle(gained, y), .angleTotal: angle(v, y),
          .radiusRatio: norm(z) / Double(d).squareRoot(),
          .saturation: z.map { abs($0) }.max()!
            / Double(normalization == .layerNorm ? d - 1 : d).squareRoot(),
          .kurtosis: Double(d) * fourth / (second * second) - 3,
          .participation: norm(v) * norm(v) * norm(v) * norm(v)
            / v.reduce(0) { $0 + $1 * $1 * $1 * $1 },
          .topThirdShare: squares.prefix(d / 3).reduce(0, +) / squares.reduce(0, +),
        ]
        for (statistic, value) in expected {
          let difference = abs(try #require(found[statistic]) - value) / max(1, abs(value))
          worst[statistic] = max(worst[statistic] ?? 0, difference)
          #expect(difference < 2e-7, "\(statistic) of d = \(d), \(normalization)")
        }
      }
    }
    let largest = worst.max { $0.value < $1.value }
    print("rows by definition: max difference \(largest.map { "\($0.value) at \($0.key)" } ?? "")")
  }

  /// What does not exist is NaN; nothing traps.
  @Test func degenerateRows() throws {
    let zero = measure([0, 0, 0, 0], .layerNorm, epsilon: 1e-5)
    #expect(zero[.norm] == 0 && zero[.std] == 0 && zero[.radiusRatio] == 0)
    for statistic in [
      NormStatistic.meanShare, .angleToOnes, .angleProjection, .angleGain, .angleBias, .angleTotal,
      .kurtosis, .participation, .topThirdShare,
    ] { #expect(try #require(zero[statistic]).isNaN, "\(statistic)") }

    let constant = measure([-2, -2, -2], .layerNorm, epsilon: 1e-5, bias: [1, 0, 0])
    #expect(constant[.angleToOnes] == 180 && constant[.meanShare] == 1 && constant[.std] == 0)
    #expect(constant[.angleProjection] == 90 && constant[.participation] == 3)
    #expect(constant[.angleGain]?.isNaN == true && constant[.angleBias]?.isNaN == true)
    // What is left is the bias: ∠((−2, −2, −2), (1, 0, 0)).
    #expect(abs(try #require(constant[.angleTotal]) - 125.26439) < 1e-4)

    let silent = measure([1, 2, 4], .layerNorm, gain: [0, 0, 0], bias: [0, 1, 0])
    #expect(silent[.angleGain]?.isNaN == true && silent[.angleBias]?.isNaN == true)
    #expect(silent[.radiusRatio] == 1)
    // Gains that are all alike turn nothing, and no bias nothing either: exactly.
    let even = measure([1, 2, 4, 9, -3], .layerNorm, gain: [3, 3, 3, 3, 3])
    #expect(even[.angleGain] == 0 && even[.angleBias] == 0)
    #expect(try #require(measure([5], .layerNorm)[.saturation]).isNaN)
    #expect(try #require(measure([.nan, 1, 2], .layerNorm)[.norm]).isNaN)
    // Equal coordinates at the border of the upper third count as often as they fit.
    #expect(measure([1, -1, 1, 1, -1, 1], nil)[.topThirdShare] == Double(Float(1.0 / 3)))
  }

  @Test func groupDots() {
    let a = Tensor((0..<24).map { Float($0 % 7) - 3 }, shape: [2, 12])
    let b = Tensor((0..<24).map { Float($0 % 5) - 2 }, shape: [2, 12])
    for (other, isRow) in [(b, false), (b.row(1), true)] {
      let found = a.groupDots(other, groups: 3)
      #expect(found.shape == [2, 3])
      for row in 0..<2 {
        for group in 0..<3 {
          let expected = (0..<4).reduce(Float(0)) {
            $0 + a[row, group * 4 + $1]
              * (isRow ? other[group * 4 + $1] : other[row, group * 4 + $1])
          }
          #expect(found[row, group] == expected)
        }
      }
    }
  }

  /// Neighbours in memory are joined without a copy, others with one.
  @Test func joiningSlices() {
    let whole = Tensor((0..<20).map(Float.init), shape: [10, 2])
    let joined = Tensor.concatenating([whole.rows(2..<5), whole.rows(5..<9)])
    #expect(joined.sharesStorage(with: whole.rows(2..<9)) && joined.shape == [7, 2])
    #expect(joined.scalars == whole.rows(2..<9).scalars)
    let apart = Tensor.concatenating([whole.rows(5..<9), whole.rows(2..<5)])
    #expect(apart.scalars == whole.rows(5..<9).scalars + whole.rows(2..<5).scalars)
    var edited = joined
    edited.replaceRows(at: 0, with: Tensor([-1, -1], shape: [1, 2]))
    #expect(whole[2, 0] == 4 && edited[0, 0] == -1)
  }
}
