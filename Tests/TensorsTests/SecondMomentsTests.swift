import NormLens
import Testing

/// Streamed moments against the plain double-precision sums.
@Suite struct SecondMomentsTests {
  /// Rows around a mean `offset` that is large in some columns.
  private func rows(_ count: Int, _ width: Int, offset: Float, seed: UInt64) -> Tensor {
    var random = SeededGenerator(seed: seed)
    let mixing = (0..<width).map { _ in Float.random(in: -1..<1, using: &random) }
    var values: [Float] = []
    for _ in 0..<count {
      let common = Float.random(in: -1..<1, using: &random)
      for column in 0..<width {
        let mean = column % 7 == 3 ? offset : 0.5
        values.append(mean + common * mixing[column] + Float.random(in: -1..<1, using: &random))
      }
    }
    return Tensor(values, shape: [count, width])
  }

  @Test(arguments: [
    (1, [3, 1]), (5, [1, 0, 2, 9]), (64, [40, 100]), (257, [300, 7]), (600, [50]),
  ])
  func blocks(width: Int, counts: [Int]) {
    var moments = SecondMoments(width: width)
    let all = rows(counts.reduce(0, +), width, offset: 300, seed: UInt64(width))
    var start = 0
    for count in counts {
      moments.add(all.rows(start..<start + count))
      start += count
    }
    #expect(moments.count == start)

    let x = (0..<start).map { all.row($0).scalars.map(Double.init) }
    let n = Double(start)
    let mean = (0..<width).map { column in x.reduce(0) { $0 + $1[column] } / n }
    var covariance = [Double](repeating: 0, count: width * width)
    for row in x {
      for i in 0..<width {
        let a = (row[i] - mean[i]) / n
        for j in 0..<width { covariance[i * width + j] += a * (row[j] - mean[j]) }
      }
    }
    func difference(_ a: [Double], _ b: [Double]) -> Double {
      #expect(a.count == b.count)
      let scale = b.reduce(0) { max($0, abs($1)) }
      return zip(a, b).reduce(0) { max($0, abs($1.0 - $1.1)) } / max(scale, 1e-300)
    }
    let direction = (0..<width).map { Double($0 % 3) - 0.7 }
    let along = x.map { row in zip(row, direction).reduce(0) { $0 + $1.0 * $1.1 } }
    let centre = along.reduce(0, +) / n
    let variance = along.reduce(0) { $0 + ($1 - centre) * ($1 - centre) } / n
    let errors = [
      difference(moments.mean, mean), difference(moments.covariance, covariance),
      difference([moments.variance(along: direction)], [variance]),
    ]
    print("second moments, width \(width): max relative difference \(errors.max() ?? 0)")
    // float32 products; a mean 300 times the spread is taken away before them.
    #expect(errors.allSatisfy { $0 < 5e-6 })
  }

  @Test func manyRowsAreCutIntoProducts() {
    let all = rows(5000, 12, offset: 40, seed: 3)
    var whole = SecondMoments(width: 12)
    whole.add(all)
    var parts = SecondMoments(width: 12)
    for start in stride(from: 0, to: 5000, by: 1250) { parts.add(all.rows(start..<start + 1250)) }
    let scale = parts.covariance.map { abs($0) }.max() ?? 1
    let difference = zip(whole.covariance, parts.covariance).map { abs($0 - $1) / scale }.max() ?? 1
    #expect(whole.count == 5000 && difference < 2e-6)
  }

  @Test func noRows() {
    var moments = SecondMoments(width: 3)
    moments.add(Tensor(zeros: [0, 3]))
    #expect(moments.count == 0 && moments.mean == [0, 0, 0])
    #expect(moments.covariance == Array(repeating: 0, count: 9))
    #expect(moments.variance(along: [1, 1, 1]) == 0)
    #expect(SecondMoments(width: 0).covariance.isEmpty)
  }

  @Test func directions() {
    let x = rows(37, 21, offset: 8, seed: 9)
    var random = SeededGenerator(seed: 1)
    let gain = Tensor((0..<21).map { _ in Float.random(in: -2..<2, using: &random) }, shape: [21])
    let bias = Tensor((0..<21).map { _ in Float.random(in: -1..<1, using: &random) }, shape: [21])
    var expected = [Double](repeating: 0, count: 21)
    for row in 0..<37 {
      let y = (0..<21).map { Double(x[row, $0]) * Double(gain[$0]) + Double(bias[$0]) }
      let norm = y.reduce(0) { $0 + $1 * $1 }.squareRoot()
      for i in 0..<21 { expected[i] += y[i] / norm }
    }
    let found = x.sumOfDirections(gain: gain, bias: bias)
    #expect(found.count == 37)
    let difference = zip(found.sum, expected).map { abs($0 - $1) }.max() ?? 1
    print("sum of directions: max difference \(difference)")
    #expect(difference < 1e-5)
    // A row of zeros has no direction.
    let unit = Tensor([0, 0, 3, 4], shape: [2, 2]).sumOfDirections()
    #expect(unit.count == 1 && abs(unit.sum[0] - 0.6) < 1e-7 && abs(unit.sum[1] - 0.8) < 1e-7)
  }
}
