import Foundation
import NormLens
import TestSupport
import Testing

/// The distance of a point from the convex hull of others, against values known by hand, against
/// non-negative least squares, and by the identities that it obeys.
@Suite struct MinimumNormPointTests {
  /// Points with normally distributed coordinates.
  static func cloud(_ count: Int, _ dimension: Int, seed: UInt64) -> [Double] {
    var random = SeededGenerator(seed: seed)
    return (0..<count * dimension).map { _ in
      let radius = (-2 * log(1 - Double.random(in: 0..<1, using: &random))).squareRoot()
      return radius * cos(2 * Double.pi * Double.random(in: 0..<1, using: &random))
    }
  }

  private func distances(_ points: [Double], count: Int) -> [Double] {
    let cloud = PointCloud(points, count: count)
    return (0..<count).map { i in
      let point = cloud.minimumNormPoint(from: i)
      #expect(point.isConverged)
      // The separating direction proves the distance from below.
      #expect(point.norm <= point.lowerBound + 1e-6 * point.scale)
      return point.norm
    }
  }

  @Test func handMadeKeys() {
    let keys: [Double] = [1, 0, 0, 1, -1, 0, 0, -1, 0.2, 0.1, 2, 2]
    let found = distances(keys, count: 6)
    let expected = [1 / 13.0.squareRoot(), 1 / 13.0.squareRoot(), 1, 1, 0, 2.121320343559643]
    let largest = zip(found, expected).map { abs($0 - $1) }.max() ?? .nan
    #expect(abs(expected[0] - 0.27735) < 1e-5)
    #expect(largest < 1e-12)
    print("six keys in the plane: max difference \(largest)")
  }

  @Test func agreesWithLeastSquares() throws {
    let golden = try Golden.open("selectability-cloud")
    let points = try golden.array("points")
    let comparison = Comparison("distance from the hull, 40 points in 5 dimensions", relative: 1e-9)
    comparison.check(
      "margin", distances(points.values, count: points.shape[0]),
      try golden.array("margin").values)
    comparison.report()
  }

  @Test(arguments: [(1, 3), (2, 3), (4, 3), (30, 3), (80, 6), (200, 16), (65, 64), (150, 64)])
  func identities(count: Int, dimension: Int) {
    let points = Self.cloud(count, dimension, seed: UInt64(count))
    let found = distances(points, count: count)
    if count == 1 {
      #expect(found == [.infinity])
      return
    }
    // Moving and turning change nothing; here a reflection and a vector a hundred times as long.
    var moved = points
    for row in 0..<count {
      let sum = (0..<dimension).reduce(0) { $0 + points[row * dimension + $1] }
      for i in 0..<dimension {
        moved[row * dimension + i] += 100 - 2 * sum / Double(dimension)
      }
    }
    let again = distances(moved, count: count)
    let largest = zip(found, again).map { abs($0 - $1) }.max() ?? .nan
    #expect(largest < 1e-9)
    // An injective linear map keeps what lies inside.
    var mapped = points
    for row in 0..<count {
      for i in 0..<dimension {
        mapped[row * dimension + i] *= 0.5 + Double(i)
        if i > 0 { mapped[row * dimension + i] += points[row * dimension + i - 1] }
      }
    }
    let inside = found.map { $0 < 1e-6 }
    #expect(distances(mapped, count: count).map { $0 < 1e-6 } == inside)
    // In general position no point lies in the hull of m others.
    if count <= dimension + 1 { #expect(!inside.contains(true)) }
    print(
      "\(count) points in \(dimension) dimensions: \(inside.count { $0 }) inside, "
        + "moved: max difference \(largest)")
  }

  /// On a sphere of radius R with largest cosine c: R(1 − c) ≤ distance ≤ R√(2(1 − c)).
  @Test func boundsOnASphere() {
    let (count, dimension, radius) = (120, 8, 2.5)
    var points = Self.cloud(count, dimension, seed: 3)
    for row in 0..<count {
      let range = row * dimension..<(row + 1) * dimension
      let norm = points[range].reduce(0) { $0 + $1 * $1 }.squareRoot()
      for i in range { points[i] *= radius / norm }
    }
    let found = distances(points, count: count)
    for i in 0..<count {
      let cosine = (0..<count).filter { $0 != i }.map { j in
        (0..<dimension).reduce(0) { $0 + points[i * dimension + $1] * points[j * dimension + $1] }
      }.max().map { $0 / (radius * radius) }
      guard let cosine else { continue }
      #expect(found[i] >= radius * (1 - cosine) - 1e-9)
      #expect(found[i] <= radius * (2 * (1 - cosine)).squareRoot() + 1e-9)
    }
  }

  @Test func degenerateClouds() {
    // Equal points, points on a line, a point between two others.
    #expect(distances([1, 2, 1, 2, 1, 2], count: 3) == [0, 0, 0])
    let line = distances([0, 0, 1, 1, 3, 3], count: 3)
    #expect(abs(line[0] - 2.0.squareRoot()) < 1e-12 && line[1] < 1e-12)
    #expect(abs(line[2] - 8.0.squareRoot()) < 1e-12)
    // All coordinates but one are constant.
    #expect(distances([5, 0, 5, 1, 5, 0.25], count: 3)[2] < 1e-12)
  }

  @Test func limitsAreTold() {
    let cloud = PointCloud(Self.cloud(100, 10, seed: 9), count: 100)
    let unfinished = (0..<100).map { cloud.minimumNormPoint(from: $0, iterationLimit: 1) }
    #expect(unfinished.contains { !$0.isConverged })
    for (i, point) in unfinished.enumerated() {
      let exact = cloud.minimumNormPoint(from: i)
      #expect(point.norm >= exact.norm - 1e-9 && point.lowerBound <= exact.norm + 1e-9)
      // Asked only on which side of a tolerance the distance lies, the solver stops early and agrees.
      let decided = cloud.minimumNormPoint(from: i, decidingAt: 1e-6)
      #expect(decided.isConverged && decided.iterations <= exact.iterations)
      #expect((decided.norm > 1e-6 * decided.scale) == (exact.norm > 1e-6 * exact.scale))
    }
  }

  @Test func onlyTheFirstPointsCount() {
    let points = Self.cloud(50, 4, seed: 12)
    let cloud = PointCloud(points, count: 50)
    let some = PointCloud(Array(points.prefix(20 * 4)), count: 20)
    for i in 0..<20 {
      let (found, alone) = (
        cloud.minimumNormPoint(from: i, among: 20), some.minimumNormPoint(from: i)
      )
      #expect(abs(found.norm - alone.norm) < 1e-9)
      #expect(found.support.allSatisfy { $0 < 20 })
    }
  }
}
