import NormLens
import TestSupport
import Testing

/// The derivatives of metrics by the logits, against differences.
@Suite struct MetricGradientTests {
  private let vocabulary = 11

  /// Logits on a grid of 2⁻¹⁰, so that steps of powers of 2 are exact in float32.
  private func logits(_ seed: UInt64) -> [Float] {
    var random = SeededGenerator(seed: seed)
    return (0..<vocabulary).map { _ in
      Float(Int(random.next() % 8192) - 4096) / 1024
    }
  }

  private func tensor(_ logits: [Float]) -> Tensor { Tensor(logits, shape: [logits.count]) }

  private func pair(_ answer: [Int], _ wrong: [Int]) -> PromptPair {
    PromptPair(clean: [0], corrupted: [1], answer: answer, wrong: wrong)
  }

  /// The derivative as a vector over the vocabulary.
  private func dense(_ slope: AnswerLogits.Gradient, _ pair: PromptPair) -> [Double] {
    var values =
      slope.vocabulary.isEmpty ? Array(repeating: 0, count: vocabulary) : slope.vocabulary
    for (token, value) in zip(pair.answer, slope.answer) { values[token] += value }
    for (token, value) in zip(pair.wrong, slope.wrong) { values[token] += value }
    return values
  }

  /// Central differences of two steps, extrapolated: the error is of the fourth order.
  private func differences(
    _ metric: Metric, _ logits: [Float], _ clean: [Float], _ pair: PromptPair
  ) throws -> [Double] {
    func value(_ token: Int, _ step: Float) throws -> Double {
      var moved = logits
      moved[token] += step
      return try metric(AnswerLogits(tensor(moved), pair, clean: tensor(clean)))
    }
    func central(_ token: Int, _ step: Float) throws -> Double {
      (try value(token, step) - value(token, -step)) / Double(2 * step)
    }
    return try (0..<vocabulary).map { token in
      (4 * (try central(token, 1 / 256)) - (try central(token, 1 / 128))) / 3
    }
  }

  @Test(arguments: Metric.all.map(\.name))
  func againstDifferences(_ name: String) throws {
    let metric = try #require(Metric.all.first { $0.name == name })
    let single = metric.needs == .oneAnswerAndOneWrong
    var worst = 0.0
    for seed in 1...5 as ClosedRange<UInt64> {
      let (run, clean) = (logits(seed), logits(seed + 100))
      let pairs =
        single
        ? [pair([3], [7]), pair([0], [1])]
        : [pair([3], [7]), pair([2, 5, 8], [1, 9]), pair([10], [4, 6, 0])]
      for pair in pairs {
        let answers = AnswerLogits(tensor(run), pair, clean: tensor(clean))
        let found = dense(try metric.gradient(answers), pair)
        let expected = try differences(metric, run, clean, pair)
        for (a, b) in zip(found, expected) { worst = max(worst, abs(a - b)) }
      }
    }
    print("gradient of \(name): largest difference \(worst)")
    #expect(worst < 1e-11)
  }

  /// Of equal logits the first is the largest.
  @Test func equalLogits() throws {
    let pair = pair([2, 5, 8], [1, 9])
    var run = logits(1)
    for token in [5, 8] { run[token] = 20 }
    for token in [1, 9] { run[token] = -2 }
    let answers = AnswerLogits(tensor(run), pair, clean: tensor(run))
    let slope = try Metric.logitDifference.gradient(answers)
    #expect(slope.answer == [0, 1, 0] && slope.wrong == [-1, 0] && slope.vocabulary.isEmpty)
  }

  /// At the clean run the divergence has no slope, to the last bit; and the probabilities that a
  /// softmax moves add up to nothing.
  @Test func sums() throws {
    let pair = pair([3], [7])
    let run = logits(1)
    let clean = AnswerLogits(tensor(run), pair, clean: tensor(run))
    #expect(try Metric.kl.gradient(clean).vocabulary.allSatisfy { $0 == 0 })
    let other = AnswerLogits(tensor(run), pair, clean: tensor(logits(2)))
    for metric in Metric.all where metric.scope == .vocabulary {
      let sum = dense(try metric.gradient(other), pair).reduce(0, +)
      #expect(abs(sum) < 1e-14, "\(metric.name)")
    }
  }

  @Test func withoutGradient() throws {
    let metric = Metric("margin", units: "logit") { $0.answer[0] - $0.wrong[0] }
    #expect(!metric.hasGradient && Metric.all.allSatisfy(\.hasGradient))
    let pair = pair([3], [7])
    let answers = AnswerLogits(tensor(logits(1)), pair, clean: tensor(logits(1)))
    #expect(throws: AnalysisError.noGradient(metric: "margin")) { try metric.gradient(answers) }
  }
}
