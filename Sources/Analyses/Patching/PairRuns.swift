import HookedGPT2
import Tensors

/// The two runs of a prompt pair, and how a run's logits become its metric.
struct PairRuns {
  let pair: PromptPair
  let clean: BaseRun
  let corrupted: BaseRun
  let metric: Metric
  /// The metric of the clean run.
  let cleanMetric: Double
  /// The metric of the corrupted run.
  let corruptedMetric: Double
  private let prediction: AnswerLogits.Prediction?

  /// Runs pairs together.
  ///
  /// Both runs of a pair share what they computed of their common beginning, so that patching it
  /// changes exactly nothing.
  ///
  /// - Parameters:
  ///   - pairs: some pairs.
  ///   - first: the place of the first among all pairs, for messages.
  ///   - noise: what disturbs the corrupted runs, which are then of the clean tokens.
  /// - Throws: `ModelError`; `AnalysisError.nonFinite`.
  static func run(
    _ model: GPT2, _ pairs: [PromptPair], metric: Metric, first: Int = 0,
    noise: [Intervention]? = nil
  ) throws -> [PairRuns] {
    let clean: [BaseRun]
    var corrupted: [BaseRun]
    if let noise {
      clean = try BaseRun.batch(model, pairs.map(\.clean))
      corrupted = try BaseRun.batch(model, pairs.map(\.clean), interventions: noise)
    } else {
      // All at once: the weights are read from memory once.
      let both = try BaseRun.batch(model, pairs.map(\.clean) + pairs.map(\.corrupted))
      clean = Array(both[..<pairs.count])
      corrupted = Array(both[pairs.count...])
    }
    return try pairs.indices.map { index in
      try corrupted[index].sharePrefix(of: clean[index])
      let runs = try PairRuns(pairs[index], clean[index], corrupted[index], metric)
      for (name, value) in [("clean", runs.cleanMetric), ("corrupted", runs.corruptedMetric)]
      where !value.isFinite {
        throw AnalysisError.nonFinite(
          analysis: "patch", what: "metric \(metric.name) of the \(name) prompt \(first + index)")
      }
      return runs
    }
  }

  private init(
    _ pair: PromptPair, _ clean: BaseRun, _ corrupted: BaseRun, _ metric: Metric
  ) throws {
    self.pair = pair
    self.clean = clean
    self.corrupted = corrupted
    self.metric = metric
    let prediction: AnswerLogits.Prediction? =
      if case .vocabulary = metric.scope { .init(clean.logits) } else { nil }
    self.prediction = prediction
    cleanMetric = try metric(Self.answers(clean.logits, pair, prediction))
    corruptedMetric = try metric(Self.answers(corrupted.logits, pair, prediction))
  }

  /// A whole run's logits as the metric sees them; `prediction` is the clean run's where the metric
  /// looks at the whole vocabulary.
  private static func answers(
    _ logits: Tensor, _ pair: PromptPair, _ prediction: AnswerLogits.Prediction?
  ) -> AnswerLogits {
    guard let prediction else {
      let tokens = pair.answer + pair.wrong
      return AnswerLogits(
        answers: Tensor(tokens.map { logits[$0] }, shape: [tokens.count]), pair)
    }
    let sum = rowStatistics(logits.reshaped([1, logits.count]), target: nil)[0].logSumExp
    return AnswerLogits(vocabulary: logits, logSum: sum, pair, clean: prediction)
  }

  /// The derivative of the metric by the logits of a run of this pair: of either of its two, or of one
  /// between them.
  ///
  /// - Parameter prompt: the pair's place among all, for messages.
  /// - Throws: `AnalysisError.noGradient`, `.gradientCount`, `.nonFinite`.
  func gradient(at run: BaseRun, prompt: Int) throws -> LogitGradient {
    let slope = try metric.gradient(Self.answers(run.logits, pair, prediction))
    func filled(
      _ slope: [Double], _ count: Int, _ logits: String
    ) throws(AnalysisError) -> [Double] {
      if slope.isEmpty { return Array(repeating: 0, count: count) }
      if slope.count != count {
        throw .gradientCount(
          metric: metric.name, prompt: prompt, logits: logits, expected: count, found: slope.count)
      }
      return slope
    }
    let tokens = pair.answer + pair.wrong
    let sparse =
      try filled(slope.answer, pair.answer.count, "the answer tokens")
      + filled(slope.wrong, pair.wrong.count, "the wrong tokens")
    var values = sparse
    if !slope.vocabulary.isEmpty {
      values = try filled(slope.vocabulary, run.logits.count, "the vocabulary")
      for (token, value) in zip(tokens, sparse) { values[token] += value }
    }
    guard values.allSatisfy(\.isFinite) else {
      throw AnalysisError.nonFinite(
        analysis: "patch", what: "the gradient of metric \(metric.name) at prompt \(prompt)")
    }
    return LogitGradient(
      at: [run.length - 1], tokens: slope.vocabulary.isEmpty ? tokens : nil,
      Tensor(values.map { Float($0) }, shape: [1, values.count]))
  }

  /// The metric of a patched run of this pair.
  ///
  /// - Parameters:
  ///   - logits: those of `metric.tokens(pair)`.
  ///   - logSum: log Σ exp of them where they are the whole vocabulary's.
  func value(_ logits: Tensor, logSum: Double) throws -> Double {
    guard let prediction else { return try metric(AnswerLogits(answers: logits, pair)) }
    return try metric(
      AnswerLogits(vocabulary: logits, logSum: logSum, pair, clean: prediction))
  }

  /// The run that patches act on.
  func base(_ direction: ActivationPatching.Direction) -> BaseRun {
    direction == .denoising ? corrupted : clean
  }

  /// The run whose activations are put into it.
  func source(_ direction: ActivationPatching.Direction) -> BaseRun {
    direction == .denoising ? clean : corrupted
  }

  /// The metric of the run that patches act on.
  func baseMetric(_ direction: ActivationPatching.Direction) -> Double {
    direction == .denoising ? corruptedMetric : cleanMetric
  }

  /// The clean run's highest answer logit less its highest wrong one; nil without either.
  var cleanMargin: Double? {
    guard let right = pair.answer.map({ clean.logits[$0] }).max() else { return nil }
    guard let wrong = pair.wrong.map({ clean.logits[$0] }).max() else { return nil }
    return Double(right - wrong)
  }
}

extension [PairRuns] {
  /// The effects of patched runs on their bases' metric, in its units: exactly 0 for a run that
  /// changes nothing.
  ///
  /// - Parameters:
  ///   - runs: patched runs whose base is an index into these pairs.
  ///   - engine: runs on the bases of these pairs.
  /// - Throws: `ModelError`; `AnalysisError.nonFinite`.
  func effects(
    of runs: [PatchedRun], _ engine: SuffixRuns, _ direction: ActivationPatching.Direction
  ) throws -> [Double] {
    guard let metric = first?.metric, !runs.isEmpty else { return [] }
    let tokens = compactMap { metric.tokens($0.pair) }
    let found = try engine.logits(runs, tokens: metric.scope == .answers ? tokens : nil)
    var sums: [Double] = []
    if metric.scope == .vocabulary {
      sums = rowStatistics(Tensor.stacking(found.map(\.logits)), target: nil).map(\.logSumExp)
    }
    return try runs.indices.map { index in
      if !found[index].differs { return 0 }
      let pair = self[runs[index].base]
      let value = try pair.value(
        found[index].logits, logSum: sums.isEmpty ? .nan : sums[index])
      guard value.isFinite else {
        throw AnalysisError.nonFinite(
          analysis: "patch",
          what: "metric \(metric.name) of a run patched at "
            + (runs[index].interventions.first?.target.description ?? "nothing"))
      }
      return value - pair.baseMetric(direction)
    }
  }
}
