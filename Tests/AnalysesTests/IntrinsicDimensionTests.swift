import NormLens
import TestSupport
import Testing

/// TwoNN on clouds of known dimension; the golden tests hold it against numpy.
@Suite struct IntrinsicDimensionTests {
  /// Uniform points of a cube, turned into more dimensions by a random map.
  private func cube(_ dimension: Int, count: Int, seed: UInt64) -> Tensor {
    var random = SeededGenerator(seed: seed)
    let width = 24
    let basis = (0..<dimension * width).map { _ in
      (0..<12).reduce(Float(0)) { sum, _ in sum + Float.random(in: -0.5..<0.5, using: &random) }
    }
    let points = Tensor(
      (0..<count * dimension).map { _ in Float.random(in: 0..<1, using: &random) },
      shape: [count, dimension])
    return matmul(points, MatrixView(Tensor(basis, shape: [dimension, width])))
  }

  @Test(arguments: [(1, 0.9...1.1), (2, 1.8...2.2), (5, 4.2...5.3), (10, 7...9.5)])
  func cubes(dimension: Int, expected: ClosedRange<Double>) {
    let found = (0..<4).map {
      IntrinsicDimension(cube(dimension, count: 1000, seed: UInt64($0))).dimension
    }
    let mean = found.reduce(0, +) / 4
    print("TwoNN of a cube of dimension \(dimension): \(mean)")
    #expect(expected.contains(mean))
  }

  /// Neither moving, turning the sign nor scaling the cloud changes its dimension; points that occur
  /// twice count once.
  @Test func invariances() {
    let points = cube(3, count: 200, seed: 8)
    let dimension = IntrinsicDimension(points).dimension
    let scaled = IntrinsicDimension(points.map { -64 * $0 })
    #expect(scaled.dimension == dimension && scaled.points == 200 && scaled.duplicates == 0)
    let moved = IntrinsicDimension(points.map { $0 + 2 })
    #expect(abs(moved.dimension / dimension - 1) < 1e-3)
    let twice = IntrinsicDimension(Tensor.concatenating([points, points.rows(20..<60)]))
    #expect(twice.dimension == dimension && twice.points == 200 && twice.duplicates == 40)
  }

  @Test func nothingToSay() {
    #expect(IntrinsicDimension(Tensor(zeros: [0, 4])).dimension.isNaN)
    #expect(IntrinsicDimension(Tensor([1, 2], shape: [2, 1])).dimension.isNaN)
    #expect(IntrinsicDimension(Tensor(repeating: 3, shape: [20, 4])).dimension.isNaN)
    // On a grid both neighbours are equally far but at the ends.
    let grid = Tensor([-1, -1, -1, 1, 1, -1, 1, 1], shape: [4, 2])
    #expect(IntrinsicDimension(grid).dimension.isNaN)
  }
}
