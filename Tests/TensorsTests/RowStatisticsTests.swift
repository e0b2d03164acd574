import Foundation
import Tensors
import Testing

/// Statistics of rows of logits against their definitions in double precision.
@Suite struct RowStatisticsTests {
  private static func row(_ count: Int, _ seed: UInt64, scale: Float = 12) -> [Float] {
    var state = seed &* 0x9e37_79b9_7f4a_7c15 &+ 1
    return (0..<count).map { _ in
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      return scale * (Float(state >> 40) / Float(1 << 24) - 0.5) - 90
    }
  }

  private static func logProbabilities(_ row: [Float]) -> [Double] {
    let most = Double(row.max() ?? 0)
    let sum = row.reduce(0) { $0 + exp(Double($1) - most) }
    return row.map { Double($0) - most - log(sum) }
  }

  @Test(arguments: [1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 257, 50257])
  func definitions(_ count: Int) {
    var worst = 0.0
    for (seed, scale) in [(1, Float(12)), (2, 0.001), (3, 400)] {
      let row = Self.row(count, UInt64(seed), scale: scale)
      let target = count / 3
      let logs = Self.logProbabilities(row)
      let found = rowStatistics(Tensor(row, shape: [1, count]), target: target)[0]
      let entropy = -logs.reduce(0) { $0 + ($1 < -700 ? 0 : exp($1) * $1) }
      for (value, expected) in [
        (found.loss, -logs[target]), (found.entropy, entropy),
        (found.topProbability, exp(logs.max() ?? 0)), (found.targetProbability, exp(logs[target])),
      ] { worst = max(worst, abs(value - expected) / max(1, abs(expected))) }
      #expect(found.top == row.firstIndex(of: row.max() ?? 0))
      #expect(found.targetRank == row.filter { $0 > row[target] }.count)
    }
    print("row statistics of \(count) logits: max relative difference \(worst)")
    #expect(worst < 1e-12)
  }

  @Test(arguments: [1, 5, 8, 13, 50257])
  func divergences(_ count: Int) {
    var worst = 0.0
    for scale in [Float(0.01), 5, 300] {
      let rows = [Self.row(count, 4, scale: scale), Self.row(count, 5, scale: scale)]
      let tensors = rows.map { Tensor($0, shape: [1, count]) }
      let sums = tensors.map { rowStatistics($0, target: nil)[0].logSumExp }
      let found = rowDivergences(
        tensors[0], tensors[1], normalizers: [sums[0]], otherNormalizers: [sums[1]])[0]
      let (p, q) = (Self.logProbabilities(rows[0]), Self.logProbabilities(rows[1]))
      var (jsd, kl, reverse) = (0.0, 0.0, 0.0)
      for (a, b) in zip(p, q) {
        let middle = max(a, b) + log1p(exp(-abs(a - b))) - log(2)
        jsd += (exp(a) * (a - middle) + exp(b) * (b - middle)) / 2
        kl += exp(a) * (a - b)
        reverse += exp(b) * (b - a)
      }
      for (value, expected) in [
        (found.jensenShannon, jsd), (found.kullbackLeibler, kl), (found.reverse, reverse),
      ] { worst = max(worst, abs(value - expected)) }
      #expect(found.jensenShannon >= 0 && found.jensenShannon <= log(2) + 1e-12)
      let same = rowDivergences(
        tensors[0], tensors[0], normalizers: [sums[0]], otherNormalizers: [sums[0]])[0]
      #expect([same.jensenShannon, same.kullbackLeibler, same.reverse] == [0, 0, 0])
    }
    print("divergences of \(count) logits: max difference \(worst)")
    #expect(worst < 1e-11)
  }

  @Test func whatIsNoNumberStaysNone() {
    for bad in [Float.nan, .infinity] {
      var row = Self.row(40, 9)
      row[33] = bad
      let found = rowStatistics(Tensor(row, shape: [1, 40]), target: 2)[0]
      #expect(found.loss.isNaN && found.entropy.isNaN)
    }
    // A logit of minus infinity is a probability of 0.
    var row = Self.row(40, 9)
    row[33] = -.infinity
    let found = rowStatistics(Tensor(row, shape: [1, 40]), target: 2)[0]
    let without = rowStatistics(
      Tensor(row.filter(\.isFinite), shape: [1, 39]), target: 2)[0]
    #expect(abs(found.loss - without.loss) < 1e-12)
    #expect(abs(found.entropy - without.entropy) < 1e-12)
  }
}
