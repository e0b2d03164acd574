import Foundation
import TestSupport
import Testing

@testable import Analyses
import NormLens

/// Evaluations: identities, the sheets' values, and input that breaks assumptions.
@Suite struct EvaluationTests {
  private static func tiny(
    _ name: String = "tiny-ln", _ change: (inout Checkpoint) -> Void = { _ in }
  ) throws -> GPT2 {
    var checkpoint = try Checkpoint.open(Fixtures.checkpoint(name))
    change(&checkpoint)
    return try checkpoint.model()
  }

  private static let prompts = [[1, 2, 3, 4, 5], [7, 6], [3], [2, 2, 9, 1]].map { Prompt($0) }

  // MARK: identities

  /// A model is nowhere apart from itself: exactly 0, not nearly.
  @Test func againstItself() throws {
    let model = try Self.tiny()
    let result = try Evaluation(against: try Self.tiny()).run(model, Self.prompts)
    for name in ["jsd", "delta_loss", "kl", "kl_reverse"] {
      let values = try result.doubles("evaluate", name).filter { !$0.isNaN }
      #expect(values.count == 8 && values.allSatisfy { $0 == 0 }, "\(name)")
      #expect(try result.doubles("evaluate", "\(name)_mean") == [0])
    }
    #expect(try result.doubles("evaluate", "top_agreement") == [1])
    #expect(try result.doubles("evaluate", "jsd_ci_high") == [0])
    #expect(try result.doubles("evaluate/changes", "delta_loss").allSatisfy(\.isNaN))
  }

  /// The unembedding gives 0 everywhere: every token is as likely as any other.
  @Test func uniformPredictions() throws {
    let model = try Self.tiny("tiny-relu-untied") { checkpoint in
      for (name, tensor) in checkpoint.tensors where name.hasPrefix("unembed") {
        checkpoint.tensors[name] = Tensor(zeros: tensor.shape)
      }
    }
    let count = Double(model.config.dVocab)
    let result = try Evaluation().run(model, Self.prompts)
    for name in ["loss", "entropy"] {
      let values = try result.doubles("evaluate", name).filter { !$0.isNaN }
      #expect(values.allSatisfy { abs($0 - Foundation.log(count)) < 1e-6 }, "\(name)")
    }
    #expect(abs(try result.doubles("evaluate", "perplexity")[0] - count) < 1e-9)
    // Sure of 1/V, right where the first token comes next.
    let accuracy = try result.doubles("evaluate", "accuracy")[0]
    #expect(abs(try result.doubles("evaluate", "ece")[0] - abs(1 / count - accuracy)) < 1e-12)
    #expect(
      try result.doubles("evaluate", "confidence").filter { !$0.isNaN }[0]
        == Double(Float(1 / count)))
  }

  /// Without positions and with one token over and over, every stream is the same, and so is its scale:
  /// freezing it changes nothing, and the gradient says so.
  @Test(arguments: NormFreezing.Positions.allCases)
  func frozenAtItsOwnScale(_ positions: NormFreezing.Positions) throws {
    let model = try Self.tiny { checkpoint in
      for (name, tensor) in checkpoint.tensors where name.hasSuffix("wpe.weight") {
        checkpoint.tensors[name] = Tensor(zeros: tensor.shape)
      }
    }
    let result = try Evaluation(freezing: NormFreezing(positions: positions)).run(
      model, [Prompt([5, 5, 5, 5]), Prompt([5, 5])])
    for name in ["single_delta", "single_predicted", "cumulative_delta"] {
      let values = try result.doubles("evaluate/freeze", name)
      #expect(values.allSatisfy { abs($0) < 2e-6 }, "\(name): \(values)")
    }
    #expect(try result.doubles("evaluate/freeze", "relative_error").allSatisfy { $0 < 1e-10 })
  }

  /// Batches, and how many prompts run at once, change nothing.
  @Test func batches() throws {
    let (model, other) = (try Self.tiny(), try Self.tiny("tiny-lnfree"))
    let results = try [1, 2, 8].map {
      try Evaluation(batchSize: $0, against: other, freezing: NormFreezing()).run(
        model, Self.prompts)
    }
    for result in results.dropFirst() {
      for (group, first) in zip(result.groups, results[0].groups) {
        for (variable, expected) in zip(group.variables, first.variables) {
          guard let a = variable.values.doubles, let b = expected.values.doubles else { continue }
          #expect(
            zip(a, b).allSatisfy { abs($0 - $1) < 1e-4 || $0.isNaN && $1.isNaN },
            "\(group.path)/\(variable.name)")
        }
      }
    }
  }

  /// Progress goes to the last step and no further.
  @Test func progress() throws {
    let model = try Self.tiny()
    let evaluation = Evaluation(skippedTokens: [6], freezing: NormFreezing(prompts: 2))
    let steps = try evaluation.pass(model, Self.prompts).steps
    var told: [Int] = []
    _ = try evaluation.run(model, Self.prompts) { told.append($0) }
    #expect(told.last == steps && told == told.sorted() && steps > Self.prompts.count)
  }

  // MARK: values of the sheets

  /// Four tokens in ten bins, by hand.
  @Test func calibrationByHand() {
    var calibration = Calibration(bins: 10)
    for (confidence, isCorrect) in [(0.95, true), (0.95, false), (0.65, true), (0.25, false)] {
      calibration.add(confidence: confidence, isCorrect: isCorrect)
    }
    #expect(abs(calibration.error - (2 * 0.45 + 0.35 + 0.25) / 4) < 1e-12)
    #expect(calibration.counts == [0, 0, 1, 0, 0, 0, 1, 0, 0, 2])
    // Bins have their upper bounds.
    #expect([0, 0.1, 0.11, 0.5, 1].map { Calibration.bin($0, of: 10) } == [0, 0, 1, 4, 9])
    #expect(Calibration(bins: 3).error.isNaN)
  }

  /// Two distributions over two tokens: p = (1, 0), q = (0, 1) are ln 2 apart, and (1/2, 1/2) from
  /// (3/4, 1/4) as the formula says.
  @Test func divergenceByHand() {
    func apart(_ a: [Float], _ b: [Float]) -> RowDivergence {
      let rows = [a, b].map { Tensor($0, shape: [1, $0.count]) }
      let sums = rows.map { rowStatistics($0, target: nil)[0].logSumExp }
      return rowDivergences(
        rows[0], rows[1], normalizers: [sums[0]], otherNormalizers: [sums[1]])[0]
    }
    #expect(abs(apart([200, 0], [0, 200]).jensenShannon - Foundation.log(2.0)) < 1e-12)
    let found = apart([0, 0], [Float(Foundation.log(3.0)), 0])
    func term(_ p: Double, _ m: Double) -> Double { p * Foundation.log(p / m) }
    let jsd =
      (term(0.5, 0.625) + term(0.5, 0.375) + term(0.75, 0.625) + term(0.25, 0.375)) / 2
    #expect(abs(found.jensenShannon - jsd) < 1e-7)
    #expect(abs(found.kullbackLeibler - (term(0.5, 0.75) + term(0.5, 0.25))) < 1e-7)
    #expect(abs(found.reverse - (term(0.75, 0.5) + term(0.25, 0.5))) < 1e-7)
  }

  // MARK: what a mean hides

  /// One sample in ten thousand, as in the published mean of GPT-2 XL.
  @Test func fewTokensThatCarryTheMean() {
    var losses = LossDistribution(seed: 0)
    for index in 0..<10_000 {
      losses.add(
        index == 7326 ? 1e6 : 3, TokenPlace(prompt: index / 100, position: index % 100, token: 1))
    }
    #expect(losses.mean > 100 && losses.quantiles([0.5]) == [3])
    #expect(losses.warning?.contains("the worst token carries 97.1 %") == true)
    #expect(losses.largest.sorted[0].token == TokenPlace(prompt: 73, position: 26, token: 1))
    // Nothing to say where losses are as they are.
    var usual = LossDistribution(seed: 0)
    for index in 0..<10_000 {
      usual.add(Double(index % 100) / 10, TokenPlace(prompt: 0, position: 0, token: 0))
    }
    #expect(usual.warning == nil)
    var few = LossDistribution(seed: 0)
    few.add(3, TokenPlace(prompt: 0, position: 0, token: 0))
    #expect(few.warning == nil)
  }

  @Test func quantilesAreExactAndThenSampled() {
    var losses = LossDistribution(seed: 3)
    let count = LossDistribution.capacity + 100_000
    for index in 0..<count {
      losses.add(Double(index) / Double(count), TokenPlace(prompt: 0, position: 0, token: 0))
      if index == 999 {
        #expect(abs(losses.quantiles([0.5])[0] * Double(count) - 499.5) < 1e-3)
      }
    }
    let found = losses.quantiles([0.01, 0.5, 0.99])
    print("quantiles of \(count) even numbers, sampled: \(found)")
    #expect(zip(found, [0.01, 0.5, 0.99]).allSatisfy { abs($0 - $1) < 0.005 })
    #expect(losses.largest.sorted.count == 1000)
    #expect(losses.largest.sorted[0].value == Double(count - 1) / Double(count))
  }

  /// The bootstrap against the standard error: 400 prompts of 10 tokens with a spread of their own.
  @Test func intervalsAreTwoStandardErrors() {
    var bootstrap = PromptBootstrap(sums: 2, seed: 1)
    var random = SeededGenerator(seed: 5)
    for _ in 0..<400 { bootstrap.add([10, 10 * Double.random(in: 2..<4, using: &random)]) }
    let (error, interval) = (bootstrap.standardError(1), bootstrap.interval(1))
    #expect(abs(error - (4 / 12.0 / 400).squareRoot()) < 0.003)
    #expect(abs((interval.high - interval.low) / (3.92 * error) - 1) < 0.1)
    #expect(interval.low < bootstrap.totals[1] / bootstrap.totals[0])
    var one = PromptBootstrap(sums: 2, seed: 1)
    one.add([10, 30])
    #expect(one.standardError(1).isNaN && one.interval(1).low.isNaN)
  }

  /// The same seed gives the same intervals, another seed others.
  @Test func seeds() throws {
    let model = try Self.tiny()
    func interval(_ seed: UInt64) throws -> [Double] {
      var random = SeededGenerator(seed: 8)
      let prompts = (0..<20).map { _ in
        Prompt((0..<6).map { _ in Int.random(in: 0..<10, using: &random) })
      }
      let result = try Evaluation(seed: seed).run(model, prompts)
      return try result.doubles("evaluate", "loss_ci_low")
        + result.doubles("evaluate", "ece_ci_high")
    }
    let first = try interval(0)
    #expect(try interval(0) == first)
    #expect(try interval(1) != first)
  }

  @Test func skippedTokens() throws {
    let model = try Self.tiny()
    let all = try Evaluation().run(model, Self.prompts)
    let some = try Evaluation(skippedTokens: [2, 6]).run(model, Self.prompts)
    let longest = 5
    let (a, b) = (try all.doubles("evaluate", "loss"), try some.doubles("evaluate", "loss"))
    for (prompt, item) in Self.prompts.enumerated() {
      for position in 0..<longest {
        let index = prompt * longest + position
        let isSkipped =
          position + 1 < item.tokens.count && [2, 6].contains(item.tokens[position + 1])
        #expect(isSkipped ? b[index].isNaN : b[index] == a[index] || a[index].isNaN)
      }
    }
    #expect(try some.doubles("evaluate", "count") == [5])
  }

  // MARK: what is refused

  private func problem(
    _ evaluation: Evaluation, _ model: GPT2, _ prompts: [Prompt] = prompts
  ) -> String {
    do {
      _ = try evaluation.run(model, prompts)
      return ""
    } catch {
      return "\(error)"
    }
  }

  @Test func refusals() throws {
    let model = try Self.tiny()
    let free = try Self.tiny("tiny-lnfree")
    #expect(
      problem(Evaluation(freezing: NormFreezing()), free)
        .contains("\(free.identity.name) has no LayerNorm to freeze"))
    #expect(
      problem(Evaluation(), model, [Prompt([1]), Prompt([2])]).contains("no token to predict"))
    #expect(
      problem(Evaluation(skippedTokens: [2]), model, [Prompt([1, 2])])
        .contains("not left out"))
    #expect(problem(Evaluation(skippedTokens: [999_999]), model).contains("999999"))
    let other = try GPT2.load(Fixtures.bundled("mini"))
    #expect(problem(Evaluation(against: other), model).contains("vocabulary"))
  }

  /// Weights that overflow give no mean of what is left, but an error.
  @Test func infinitePredictions() throws {
    let model = try Self.tiny("tiny-relu-untied") { checkpoint in
      for (name, tensor) in checkpoint.tensors where name.hasPrefix("unembed") {
        checkpoint.tensors[name] = Tensor(repeating: 3e38, shape: tensor.shape)
      }
    }
    let message = problem(Evaluation(), model)
    #expect(message.contains("at position 0 of prompt 0") && message.contains("finite"))
  }

  /// The ablated stream of a model with weights of 0, a constant stream: still the definitions.
  @Test func zeroWeights() throws {
    let model = try Self.tiny { checkpoint in
      for (name, tensor) in checkpoint.tensors {
        checkpoint.tensors[name] = Tensor(zeros: tensor.shape)
      }
    }
    let result = try Evaluation(freezing: NormFreezing()).run(model, Self.prompts)
    let loss = try result.doubles("evaluate", "loss_mean")[0]
    #expect(abs(loss - Foundation.log(Double(model.config.dVocab))) < 1e-9)
    #expect(try result.doubles("evaluate/freeze", "single_delta").allSatisfy { $0 == 0 })
    // z is 0: there is nothing that its change could be relative to.
    #expect(try result.doubles("evaluate/freeze", "relative_error").allSatisfy { !$0.isInfinite })
  }

  /// Models whose stream is compressed freeze their norms too.
  @Test(arguments: ["crmsnorm", "isometric"])
  func compressedStreams(_ step: String) throws {
    let plain = try Self.tiny()
    let processing = try WeightProcessing.parse("fold_ln,center_writing_weights,\(step)")
    let model = try GPT2.load(Fixtures.checkpoint("tiny-ln"), processing: processing)
    let results = try [plain, model].map {
      try Evaluation(freezing: NormFreezing()).run($0, Self.prompts)
    }
    for name in [
      "scale_mean", "relative_error", "single_delta", "single_predicted", "cumulative_loss",
    ] {
      let comparison = Comparison("tiny-ln as \(step), \(name)", relative: 2e-4)
      comparison.check(
        "values", try results[1].doubles("evaluate/freeze", name),
        try results[0].doubles("evaluate/freeze", name))
      comparison.report("array")
    }
  }
}
