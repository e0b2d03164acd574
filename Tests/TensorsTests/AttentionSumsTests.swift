import Foundation
import NormLens
import Testing

@testable import Tensors

/// Sums over attention patterns that are never kept against patterns in double precision.
@Suite struct AttentionSumsTests {
  @Test(arguments: [1, 2, 3, 16, 17, 18, 63, 64, 65, 130, 200], [1, 40])
  func naive(_ length: Int, _ size: Float) {
    var random = SeededGenerator(seed: UInt64(length))
    let (heads, dHead, scale) = (5, 6, Float(0.4))
    func tensor() -> Tensor {
      Tensor(
        (0..<length * heads * dHead).map { _ in size * Float.random(in: -1..<1, using: &random) },
        shape: [length, heads, dHead])
    }
    let (q, k) = (tensor(), tensor())
    let tokens = (0..<length).map { _ in Int.random(in: 0..<7, using: &random) }
    let repeats = TokenRepeats(tokens)
    let period = length >= 2 ? length / 2 : nil
    let found = attentionSums(
      q: q, k: k, scale: scale, repeats: repeats, sinkThreshold: 0.3, period: period)
    #expect(found.count == heads)
    var worst = 0.0
    for head in 0..<heads {
      var expected = AttentionSums()
      for i in 1..<max(length, 1) {
        var scores = (0...i).map { j in
          (0..<dHead).reduce(0.0) { $0 + Double(q[i, head, $1]) * Double(k[j, head, $1]) }
            * Double(scale)
        }
        let top = scores.max() ?? 0
        scores = scores.map { exp($0 - top) }
        let total = scores.reduce(0, +)
        let a = scores.map { $0 / total }
        let entropy = a.reduce(0) { $1 > 0 ? $0 - $1 * log($1) : $0 }
        expected.entropy += entropy
        expected.entropyShare += entropy / log(Double(i + 1))
        expected.first += a[0]
        expected.own += a[i]
        if i > 1 { expected.between += a[1..<i].reduce(0, +) }
        if a[0] > 0.3 { expected.sinks += 1 }
        if i == 1 { expected.previousFirst += a[0] } else { expected.previous += a[i - 1] }
        for j in 0..<i where tokens[j] == tokens[i] {
          if j == 0 { expected.duplicateFirst += a[0] } else { expected.duplicate += a[j] }
          if j + 1 == i { expected.inductionOwn += a[i] } else { expected.induction += a[j + 1] }
        }
        if let period, i >= length - period { expected.offset += a[i + 1 - period] }
      }
      #expect(found[head].sinks == expected.sinks)
      for path: KeyPath<AttentionSums, Double> in [
        \.entropy, \.entropyShare, \.first, \.own, \.between, \.previous, \.previousFirst,
        \.duplicate, \.duplicateFirst, \.induction, \.inductionOwn, \.offset,
      ] {
        worst = max(worst, abs(found[head][keyPath: path] - expected[keyPath: path]))
      }
    }
    let relative = worst / Double(length)
    print("attention sums, \(length) tokens, scores of \(size): max difference a query \(relative)")
    // Scores of some thousands are rounded in their fourth decimal.
    #expect(relative < (size > 1 ? 3e-4 : 2e-6))
  }

  @Test func repeats() {
    let repeats = TokenRepeats([4, 4, 7, 4, 7, 7])
    // Pairs of 4: (1, 0), (3, 0), (3, 1); of 7: (4, 2), (5, 2), (5, 4).
    #expect(repeats.duplicates == 4 && repeats.duplicatesOfFirst == 2)
    #expect(repeats.inductions == 4 && repeats.inductionsOfOwn == 2)
    let none = TokenRepeats([1, 2, 3])
    #expect(none.duplicates + none.duplicatesOfFirst + none.inductions + none.inductionsOfOwn == 0)
    #expect(TokenRepeats([]).count == 0)
  }

  /// A score that is not finite shows in the entropy, whichever query it belongs to.
  @Test func notFinite() {
    for bad in [Float.nan, .infinity] {
      for row in [0, 1, 70] {
        var q = Tensor(repeating: 0.5, shape: [71, 2, 3])
        q[row, 1, 0] = bad
        let k = Tensor(repeating: 0.25, shape: [71, 2, 3])
        let sums = attentionSums(
          q: q, k: k, scale: 1, repeats: TokenRepeats(Array(0..<71)), sinkThreshold: 0.3)
        #expect(sums[0].entropy.isFinite && !sums[1].entropy.isFinite)
      }
    }
  }
}
