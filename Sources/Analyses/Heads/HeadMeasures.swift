public import HookedGPT2

/// What the attention heads of a model do.
///
/// **What it shows.** From the patterns on prompts: how spread each head's attention is, how much of it
/// rests on position 0, and whether the head attends to the previous token, to earlier places of the same token,
/// or to what came after them.
///
/// **What it does not.** A pattern says where a head reads, not what it writes.
///
/// ```swift
/// let result = try HeadMeasures().run(model, prompts)
/// ```
public struct HeadMeasures: CollectedAnalysis {
  /// How many prompts run at once.
  public var batchSize: Int
  /// What is left out of the patterns, and what counts as what.
  public var patterns: HeadPatterns.Settings

  /// The analysis with its defaults.
  public init(
    batchSize: Int = 8, patterns: HeadPatterns.Settings = HeadPatterns.Settings()
  ) {
    self.batchSize = batchSize
    self.patterns = patterns
  }

  /// `heads`.
  public var name: String { "heads" }

  /// One sentence that says what the result is.
  public func title(of model: GPT2) -> String { "Attention heads of \(model.identity.name)" }

  /// The collector of the groups `heads` and `heads/summary`.
  ///
  /// - Throws: `AnalysisError.unsuitable`, as ``HeadPatterns``.
  public func collectors(_ model: GPT2, _ axes: PromptAxes) throws -> [any Collector] {
    [try HeadPatterns(model, axes, patterns)]
  }
}
