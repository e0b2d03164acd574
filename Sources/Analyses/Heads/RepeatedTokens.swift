public import HookedGPT2

/// Prompts of random tokens that stand twice: [BOS +] r + r.
///
/// In them only an induction head can tell what comes next, since no text is behind them (Olsson et al. 2022,
/// arXiv:2209.11895).
public struct RepeatedTokens: Sendable, Equatable {
  /// How many prompts.
  public var count: Int
  /// The tokens of r, all different.
  public var length: Int
  /// Decides which tokens they are.
  public var seed: UInt64

  /// So many prompts with so many tokens twice.
  ///
  /// - Precondition: both are 1 or more.
  public init(count: Int, length: Int = 50, seed: UInt64 = 0) {
    precondition(count >= 1 && length >= 1, "RepeatedTokens: \(count) prompts of \(length) tokens")
    self.count = count
    self.length = length
    self.seed = seed
  }

  /// The prompts for a model; BOS stands before them where there is a tokenizer that has one.
  ///
  /// - Parameter prependBOS: whether BOS stands before them; nil means the model's default.
  /// - Throws: `ModelError.promptTooLong`; `AnalysisError.unsuitable` where the vocabulary is too small;
  ///   errors of the tokenizer.
  public func prompts(_ model: GPT2, prependBOS: Bool? = nil) throws -> [Prompt] {
    let bos: Int? =
      (prependBOS ?? model.defaultPrependBOS) ? try Self.bos(model) : nil
    let total = 2 * length + (bos == nil ? 0 : 1)
    if total > model.config.nCtx {
      throw ModelError.promptTooLong(prompt: 0, tokens: total, limit: model.config.nCtx)
    }
    let choices = model.config.dVocab - (bos == nil ? 0 : 1)
    if length > choices {
      throw AnalysisError.unsuitable(
        analysis: "heads",
        problem: "\(length) different tokens were asked for, the vocabulary has \(choices)")
    }
    var random = SeededGenerator(seed: seed)
    return (0..<count).map { _ in
      var drawn: [Int] = []
      var seen: Set<Int> = bos.map { [$0] } ?? []
      while drawn.count < length {
        let token = Int.random(in: 0..<model.config.dVocab, using: &random)
        if seen.insert(token).inserted { drawn.append(token) }
      }
      return Prompt((bos.map { [$0] } ?? []) + drawn + drawn)
    }
  }

  private static func bos(_ model: GPT2) throws -> Int? {
    do {
      return try model.tokenizer.bos
    } catch ModelError.noTokenizer {
      return nil
    }
  }
}
