public import HookedGPT2
import OrderedCollections
public import Results

/// How well a model predicts text: cross-entropy with its distribution over tokens, entropy,
/// calibration, and how far the predictions are from another model's.
///
/// **What it shows.** The loss of every token and what a mean hides: median and percentiles, the worst
/// tokens, the loss by position. One sample in ten thousand, with tokens that training had never shown,
/// put the published mean loss of GPT-2 XL without LayerNorm at 130 nats (arXiv:2507.02559, appendix E):
/// hence a warning where few tokens carry much of the mean.
///
/// **What it does not.** Position 0 predicts from a BOS token, or from the text's own first token where
/// there is none: the published evaluations have none and count every next token, end-of-text included.
/// Tokens of one prompt are not independent, so that standard errors and intervals are over prompts.
///
/// Baroni et al. 2025, arXiv:2507.02559; Guo et al. 2017, arXiv:1706.04599 (calibration).
///
/// ```swift
/// let result = try Evaluation().run(model, prompts)
/// ```
public struct Evaluation: CollectedAnalysis {
  /// How many prompts run at once.
  public var batchSize: Int
  /// The bins of the calibration, of equal width.
  public var bins: Int
  /// Tokens that are not counted where they are to be predicted.
  public var skippedTokens: Set<Int>
  /// A second model that predicts the same tokens.
  public var against: GPT2?
  /// How the norms' scales are frozen one after another; not at all if nil (group `evaluate/freeze`).
  public var freezing: NormFreezing?
  /// Seeds the samples of tokens and the bootstrap.
  public var seed: UInt64

  /// The evaluation with its defaults.
  ///
  /// - Precondition: at least one bin.
  public init(
    batchSize: Int = 8, bins: Int = 10, skippedTokens: Set<Int> = [], against: GPT2? = nil,
    freezing: NormFreezing? = nil, seed: UInt64 = 0
  ) {
    precondition(bins > 0, "Evaluation: \(bins) bins")
    self.batchSize = batchSize
    self.bins = bins
    self.skippedTokens = skippedTokens
    self.against = against
    self.freezing = freezing
    self.seed = seed
  }

  /// `evaluate`.
  public var name: String { "evaluate" }

  /// One sentence that says what the result is.
  public func title(of model: GPT2) -> String {
    "Predictions of \(model.identity.name)"
      + (against.map { " against those of \($0.identity.name)" } ?? "")
  }

  /// The collector of group `evaluate` with `/calibration`, `/position`, `/worst` and, against a second
  /// model, `/changes`.
  ///
  /// - Throws: `AnalysisError.unsuitable` where no token is left to predict, for a second model of another
  ///   vocabulary or with too few positions, and for norms to freeze that there are not;
  ///   `ModelError.tokenOutOfRange` for a skipped token that the vocabulary does not have.
  public func collectors(_ model: GPT2, _ axes: PromptAxes) throws -> [any Collector] {
    if let token = skippedTokens.sorted().first(where: { !(0..<model.config.dVocab).contains($0) })
    {
      throw AnalysisError.unsuitable(
        analysis: name,
        problem: "a token to leave out has id \(token); expected 0 to \(model.config.dVocab - 1)")
    }
    if !axes.prompts.contains(where: { !targets($0).isEmpty }) {
      throw AnalysisError.unsuitable(
        analysis: name,
        problem: "no token to predict: expected a prompt of at least two tokens"
          + (skippedTokens.isEmpty ? "" : " whose second or a later one is not left out"))
    }
    if let against { try check(against, model, axes) }
    if freezing != nil && model.config.normalization == .none {
      throw AnalysisError.unsuitable(
        analysis: name, problem: "\(model.identity.name) has no LayerNorm to freeze")
    }
    return [TokenPredictions(self, model, axes)]
  }

  /// The steps of the frozen norms.
  public func steps(_ model: GPT2, _ prompts: [Prompt]) -> Int {
    freezing?.steps(model, prompts.map(\.tokens), skipping: skippedTokens) ?? 0
  }

  /// The group `evaluate/freeze` where asked for, by further runs.
  ///
  /// - Throws: `AnalysisError.nonFinite`, `ModelError`; what `progress` throws.
  public func conclusions(
    _ model: GPT2, _ prompts: [Prompt], progress: () throws -> Void
  ) throws -> [ResultGroup] {
    guard let freezing else { return [] }
    return [
      try freezing.run(
        model, prompts.map(\.tokens), batchSize: batchSize, skipping: skippedTokens,
        progress: progress)
    ]
  }

  /// The bytes of the logits that exist at once: blocks of them, of a whole prompt for a gradient.
  public func logitBytes(_ config: GPT2Config) -> Int {
    let rows = min(config.logitBlock, batchSize * config.nCtx)
    return 4 * config.dVocab
      * max(rows * (against == nil ? 1 : 2), freezing == nil ? 0 : 4 * config.nCtx)
  }

  /// The tokens of a prompt that are predicted and counted.
  func targets(_ prompt: Prompt) -> [Int] {
    prompt.tokens.dropFirst().filter { !skippedTokens.contains($0) }
  }

  /// Two models' predictions can be compared where tokens mean the same in both.
  private func check(_ other: GPT2, _ model: GPT2, _ axes: PromptAxes) throws {
    func unsuitable(_ problem: String) -> AnalysisError {
      .unsuitable(
        analysis: name,
        problem: "\(other.identity.name) cannot be compared with \(model.identity.name): \(problem)"
      )
    }
    if other.config.dVocab != model.config.dVocab {
      throw unsuitable(
        "its vocabulary has \(other.config.dVocab) tokens, expected \(model.config.dVocab)")
    }
    if axes.longest > other.config.nCtx {
      throw unsuitable(
        "a prompt has \(axes.longest) tokens and it has n_ctx = \(other.config.nCtx) positions; cut "
          + "the text into windows (--context \(other.config.nCtx))")
    }
    let tokenizers: (Tokenizer, Tokenizer)
    do {
      tokenizers = (try model.tokenizer, try other.tokenizer)
    } catch ModelError.noTokenizer {
      // Only ids to go by.
      return
    }
    for id in 0..<model.config.dVocab {
      let pieces = (try? tokenizers.0.piece(id), try? tokenizers.1.piece(id))
      if pieces.0 != pieces.1 {
        throw unsuitable(
          "its token \(id) is '\(pieces.1 ?? "none")', expected '\(pieces.0 ?? "none")'")
      }
    }
  }
}
