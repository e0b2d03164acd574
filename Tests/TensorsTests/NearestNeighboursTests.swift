import NormLens
import Testing

/// The two nearest neighbours against all distances in double precision.
@Suite struct NearestNeighboursTests {
  private func compare(_ label: String, _ points: Tensor, duplicates: Int = 0) {
    let (count, d) = (points.shape[0], points.shape[1])
    let x = (0..<count).map { points.row($0).scalars.map(Double.init) }
    func distance(_ i: Int, _ j: Int) -> Double {
      (0..<d).reduce(0) { $0 + (x[i][$1] - x[j][$1]) * (x[i][$1] - x[j][$1]) }.squareRoot()
    }
    let kept = (0..<count).filter { i in (0..<i).allSatisfy { distance(i, $0) > 0 } }
    let found = NearestNeighbours(points)
    #expect(found.duplicates == duplicates && found.first.count == kept.count)
    var worst = 0.0
    for (place, i) in kept.enumerated() where place < found.first.count {
      let sorted = kept.filter { $0 != i }.map { distance(i, $0) }.sorted()
      worst = max(worst, abs(found.first[place] / sorted[0] - 1))
      worst = max(worst, abs(found.second[place] / sorted[1] - 1))
    }
    print("nearest neighbours, \(label): max relative difference \(worst)")
    #expect(worst < 1e-5)
  }

  private func random(_ count: Int, _ d: Int, seed: UInt64) -> [Float] {
    var random = SeededGenerator(seed: seed)
    return (0..<count * d).map { _ in Float.random(in: -1..<1, using: &random) }
  }

  @Test func clouds() {
    compare("uniform", Tensor(random(300, 20, seed: 1), shape: [300, 20]))
    compare("one dimension", Tensor(random(200, 1, seed: 2), shape: [200, 1]))
    compare("three points", Tensor(random(3, 5, seed: 3), shape: [3, 5]))
  }

  /// Distances that the float32 products cannot tell from 0: clusters far from each other, and a
  /// cloud far from the origin.
  @Test func fineStructure() {
    let noise = random(120, 6, seed: 4)
    let clusters = noise.enumerated().map { $1 * 0.01 + ($0 / 6 % 3 == 0 ? 50 : -20) }
    compare("clusters", Tensor(clusters, shape: [120, 6]))
    compare("far from 0", Tensor(noise.map { $0 + 1000 }, shape: [120, 6]))
  }

  @Test func equalPoints() {
    var values = random(50, 8, seed: 5)
    values += values[0..<24] + values[8..<16]
    compare("equal points", Tensor(values, shape: [54, 8]), duplicates: 4)
    // Points that differ by rounding are one.
    let nearly = values[0..<400].map { $0 * (1 + 1e-7) }
    let found = NearestNeighbours(Tensor(Array(values[0..<400]) + nearly, shape: [100, 8]))
    #expect(found.duplicates == 50)
    let same = NearestNeighbours(Tensor(repeating: 2, shape: [9, 4]))
    #expect(same.first.isEmpty && same.duplicates == 8)
    let two = NearestNeighbours(Tensor([0, 0, 0, 1, 1, 1], shape: [6, 1]))
    #expect(two.first.isEmpty && two.duplicates == 4)
  }

  @Test func tooFewAndBroken() {
    for count in 0..<3 {
      let found = NearestNeighbours(Tensor(random(count, 4, seed: 6), shape: [count, 4]))
      #expect(found.first.isEmpty && found.second.isEmpty && found.duplicates == 0)
    }
    var values = random(10, 4, seed: 7)
    values[13] = .nan
    #expect(NearestNeighbours(Tensor(values, shape: [10, 4])).first.isEmpty)
  }
}
