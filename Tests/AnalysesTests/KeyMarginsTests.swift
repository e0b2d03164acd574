import Foundation
import NormLens
import TestSupport
import Testing

/// Labels, margins and first queries of sets of keys.
@Suite struct KeyMarginsTests {
  private func normal(_ count: Int, _ random: inout SeededGenerator) -> [Double] {
    (0..<count).map { _ in
      let radius = (-2 * log(1 - Double.random(in: 0..<1, using: &random))).squareRoot()
      return radius * cos(2 * Double.pi * Double.random(in: 0..<1, using: &random))
    }
  }

  @Test func handMadeKeys() {
    let keys = Tensor([1, 0, 0, 1, -1, 0, 0, -1, 0.2, 0.1, 2, 2], shape: [6, 2])
    let found = keyMargins(of: [keys], questions: [.margins, .firstUnselectable])[0]
    #expect(found.keys.map(\.label) == (0..<6).map { $0 == 4 ? .unselectable : .selectable })
    #expect(found.keys.map(\.firstUnselectable) == [nil, nil, nil, nil, 4, nil])
    #expect(found.keys.map(\.choosesItself) == [false, false, true, true, false, true])
    #expect(abs(found.keys[5].margin - 2.12132) < 1e-5)
    #expect(found.keys[4].margin < 1e-6)
  }

  @Test func goldenCloud() throws {
    let golden = try Golden.open("selectability-cloud")
    let points = try golden.array("points")
    let keys = Tensor(points.values.map { Float($0) }, shape: points.shape)
    let found = KeyMargins(PointCloud(keys), questions: [.margins, .firstUnselectable])
    let labels: [KeyMargins.Label] = [.selectable, .tied, .unselectable]
    let (kinds, firsts) = (
      try golden.integers("label"), try golden.integers("first_unselectable")
    )
    #expect(found.keys.map(\.label) == kinds.map { labels[$0] })
    #expect(found.keys.map { $0.firstUnselectable ?? -1 } == firsts)
    // Labels alone are found by cheaper ways and are the same.
    let cheap = KeyMargins(PointCloud(keys), questions: [])
    #expect(cheap.keys.map(\.label) == found.keys.map(\.label))
    #expect(cheap.keys.allSatisfy { $0.margin.isNaN })
    print(
      "40 keys: \(found.count(.unselectable)) unselectable, \(found.count(.tied)) tied, labels and "
        + "first queries as by least squares")
  }

  @Test func tiedAndFewKeys() {
    #expect(KeyMargins(PointCloud([], count: 0)).keys.isEmpty)
    let one = KeyMargins(PointCloud([1, 2], count: 1))
    #expect(one.keys[0].label == .selectable && one.keys[0].margin.isNaN)
    // Of two equal keys neither can be chosen alone; the third can.
    let tied = KeyMargins(
      PointCloud([1, 2, 0, 0, 1, 2], count: 3), questions: [.margins, .firstUnselectable])
    #expect(tied.keys.map(\.label) == [.tied, .selectable, .tied])
    #expect(tied.keys.map(\.margin) == [0, 5.0.squareRoot(), 0])
    #expect(tied.keys.map(\.firstUnselectable) == [2, nil, 2])
    // As many keys as dimensions and one more: all selectable.
    var random = SeededGenerator(seed: 4)
    for count in 2...9 {
      let keys = KeyMargins(PointCloud(normal(count * 8, &random), count: count))
      #expect(keys.count(.selectable) == count)
    }
  }

  @Test func positionsAndFirstQueriesByBruteForce() {
    var random = SeededGenerator(seed: 8)
    let cloud = PointCloud(normal(60 * 3, &random), count: 60)
    let asked = [3, 17, 40, 59]
    let all = KeyMargins(cloud, questions: [.margins, .firstUnselectable])
    let some = KeyMargins(cloud, at: asked, questions: [.margins, .firstUnselectable])
    #expect(some.keys.map(\.margin) == asked.map { all.keys[$0].margin })
    for key in all.keys {
      let first = (key.position..<60).first { t in
        let point = cloud.minimumNormPoint(from: key.position, among: t + 1)
        return point.norm <= KeyMargins.tolerance * point.scale
      }
      #expect(key.firstUnselectable == first)
    }
    #expect(all.count(.unselectable) > 10)
  }

  @Test func selectionCost() {
    #expect(abs(KeyMargins.logitGap(keys: 1024) - 9.128) < 5e-4)
    // A query of that norm along the margin's direction gives the weight, up to keys that lag further.
    var random = SeededGenerator(seed: 2)
    let cloud = PointCloud(normal(20 * 4, &random), count: 20)
    let scale = 0.5
    for key in KeyMargins(cloud).keys where key.label == .selectable {
      let norm = KeyMargins.selectionCost(margin: key.margin, keys: 20, scale: scale)
      let point = cloud.minimumNormPoint(from: key.position)
      let scores = (0..<20).map { j in
        (0..<4).reduce(0) { $0 + point.direction[$1] * cloud.centered[j * 4 + $1] }
          * scale * norm / point.norm
      }
      let weight = 1 / scores.reduce(0) { $0 + exp($1 - scores[key.position]) }
      #expect(weight >= 0.9 - 1e-9)
    }
    #expect(KeyMargins.selectionCost(margin: 0, keys: 5, scale: 1) == .infinity)
  }

  /// 256 isotropic keys in 64 dimensions are all selectable and all choose themselves; where the spectrum
  /// falls, short keys no longer do.
  @Test func isotropicKeysAndFallingSpectra() {
    var random = SeededGenerator(seed: 12)
    let isotropic = normal(256 * 64, &random)
    let falling = isotropic.enumerated().map { $1 / Double(1 + $0 % 64) }
    let found = [isotropic, falling].map { KeyMargins(PointCloud($0, count: 256), questions: []) }
    let own = found.map { Double($0.keys.count { $0.choosesItself }) / 256 }
    print("256 keys in 64 dimensions that choose themselves: isotropic \(own[0]), 1/k \(own[1])")
    #expect(found[0].count(.selectable) == 256 && own[0] == 1)
    #expect(own[1] < own[0])
  }

  /// How often at least one of n normally distributed keys in d dimensions is unselectable, and what
  /// share is, as found for 100 draws by another program; after LayerNorm none ever is.
  @Test(arguments: [
    (10, 3, 0.91, 0.163), (30, 3, 1, 0.525), (60, 3, 1, 0.694), (20, 6, 0.44, 0.024),
    (60, 6, 1, 0.162), (60, 8, 0.85, 0.033), (60, 9, 0.62, 0.017), (60, 10, 0.27, 0.006),
    (60, 12, 0.01, 0.0002), (60, 15, 0, 0),
  ])
  func syntheticTable(n: Int, d: Int, anyExpected: Double, shareExpected: Double) {
    let draws = 100
    var random = SeededGenerator(seed: UInt64(1000 * n + d))
    let points = (0..<draws).map { _ in normal(n * d, &random) }
    let shares = points.map {
      Double(KeyMargins(PointCloud($0, count: n), questions: []).count(.unselectable)) / Double(n)
    }
    let any = Double(shares.count { $0 > 0 }) / Double(draws)
    let mean = shares.reduce(0, +) / Double(draws)
    let variance =
      shares.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(draws - 1)
    // Four standard errors of the difference of two samples of 100, and the published rounding.
    let p = (any + anyExpected) / 2
    let anyError = max((2 * p * (1 - p) / Double(draws)).squareRoot(), 0.01)
    let shareError = (2 * variance / Double(draws)).squareRoot()
    #expect(abs(any - anyExpected) <= 4 * anyError)
    #expect(abs(mean - shareExpected) <= 4 * shareError + 0.0005)

    var afterNorm = 0
    for draw in points {
      var rows = draw
      for row in 0..<n {
        let range = row * d..<(row + 1) * d
        let center = rows[range].reduce(0, +) / Double(d)
        for i in range { rows[i] -= center }
        let norm = rows[range].reduce(0) { $0 + $1 * $1 }.squareRoot()
        for i in range { rows[i] *= Double(d).squareRoot() / norm }
      }
      let found = KeyMargins(PointCloud(rows, count: n), questions: [])
      afterNorm += n - found.count(.selectable)
    }
    #expect(afterNorm == 0)
    print("n = \(n), d = \(d): P(any) \(any), mean share \(mean), after LayerNorm \(afterNorm)")
  }
}
