public import HookedGPT2
public import Results

/// What the attention heads of a model do.
///
/// **What it shows.** From the patterns on prompts: how spread each head's attention is, how much of it
/// rests on position 0, and whether the head attends to the previous token, to earlier places of the same token,
/// or to what came after them. From the weights: whether the head copies what it attends to, and which
/// earlier heads it could read.
///
/// **What it does not.** A pattern says where a head reads, not what it writes; weights say what could
/// be, not what is.
///
/// ```swift
/// let result = try HeadMeasures().run(model, prompts)
/// ```
public struct HeadMeasures: CollectedAnalysis {
  /// How many prompts run at once.
  public var batchSize: Int
  /// What is left out of the patterns, and what counts as what.
  public var patterns: HeadPatterns.Settings
  /// Whether the composition of all pairs of heads is asked for.
  public var composition: Bool

  /// The analysis with its defaults.
  public init(
    batchSize: Int = 8, patterns: HeadPatterns.Settings = HeadPatterns.Settings(),
    composition: Bool = false
  ) {
    self.batchSize = batchSize
    self.patterns = patterns
    self.composition = composition
  }

  /// `heads`.
  public var name: String { "heads" }

  /// One sentence that says what the result is.
  public func title(of model: GPT2) -> String { "Attention heads of \(model.identity.name)" }

  /// The collector of the groups `heads` and `heads/summary`.
  ///
  /// - Throws: `AnalysisError.unsuitable`, as ``HeadPatterns`` and ``HeadComposition``.
  public func collectors(_ model: GPT2, _ axes: PromptAxes) throws -> [any Collector] {
    if composition { try HeadComposition.check(model) }
    return [try HeadPatterns(model, axes, patterns)]
  }

  /// One for the weights, and one for each layer of the composition.
  public func steps(_ model: GPT2, _ prompts: [Prompt]) -> Int {
    composition ? 1 + model.config.nLayers : 1
  }

  /// The group `heads/weights` and, where asked for, `heads/composition`.
  ///
  /// - Throws: `AnalysisError.nonFinite`, `.unsuitable`; what `progress` throws.
  public func conclusions(
    _ model: GPT2, _ prompts: [Prompt], progress: () throws -> Void
  ) throws -> [ResultGroup] {
    var groups = [try HeadCopying().group(model)]
    try progress()
    if composition { groups.append(try HeadComposition().group(model, progress: progress)) }
    return groups
  }
}
