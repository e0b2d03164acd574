public import HookedGPT2
public import Results

/// What happens to the residual stream on its way through a model (command `stream`).
///
/// **What it shows.** How long the stream is before every sublayer, how its variance grows and who
/// writes it; how far each write turns the stream; how nearly a block is a linear map; how similar the
/// streams of two depths are; which single coordinates are massive; in how many directions a prompt's
/// tokens differ.
///
/// **What it does not.** None of this says what a block is for: two streams with a small angle between
/// them may differ in what matters. Beside angles and influences belongs the loss without the block.
///
/// Position 0 stands apart from the others, except where a published definition takes all tokens
/// together, which the variable's `long_name` then says.
///
/// ```swift
/// let result = try StreamMeasures().run(model, prompts)
/// ```
public struct StreamMeasures: CollectedAnalysis {
  /// How many prompts run at once.
  public var batchSize: Int
  /// Decides which tokens are sampled where there are too many to keep.
  public var seed: UInt64
  /// Whether entropies and curvatures are also given as published repositories compute them.
  public var referenceConventions: Bool
  /// Which changed models' losses stand beside the measures; none if nil.
  public var ablation: StreamAblation?
  /// What is measured of the attention heads in the same pass; nothing if nil.
  public var heads: HeadMeasures?

  /// The analysis with its defaults.
  public init(
    batchSize: Int = 8, seed: UInt64 = 0, referenceConventions: Bool = false,
    ablation: StreamAblation? = nil, heads: HeadMeasures? = nil
  ) {
    self.ablation = ablation
    self.heads = heads
    self.batchSize = batchSize
    self.seed = seed
    self.referenceConventions = referenceConventions
  }

  /// `stream`.
  public var name: String { "stream" }

  /// One sentence that says what the result is.
  public func title(of model: GPT2) -> String {
    "Residual stream measures of \(model.identity.name)"
  }

  /// The collectors of group `stream` and those below it, and those of the heads.
  ///
  /// - Throws: `AnalysisError.unsuitable` for a model whose stream has lost the ones direction.
  public func collectors(_ model: GPT2, _ axes: PromptAxes) throws -> [any Collector] {
    try model.requireOnesDirection(for: name)
    return try [
      StreamTokens(model, axes, seed: seed), StreamLinearity(model), StreamDistance(model),
      StreamMassive(model),
      StreamSpectra(model, axes, referenceConventions: referenceConventions),
    ] + (heads?.collectors(model, axes) ?? [])
  }

  /// The steps of the ablations and of the heads.
  public func steps(_ model: GPT2, _ prompts: [Prompt]) -> Int {
    (ablation?.steps(model, prompts) ?? 0) + (heads?.steps(model, prompts) ?? 0)
  }

  /// The group `stream/ablation` and those of the heads, where they are asked for.
  ///
  /// - Throws: as ``StreamAblation`` and ``HeadMeasures``.
  public func conclusions(
    _ model: GPT2, _ prompts: [Prompt], progress: () throws -> Void
  ) throws -> [ResultGroup] {
    let heads = try heads?.conclusions(model, prompts, progress: progress) ?? []
    guard let ablation else { return heads }
    return heads + [
      try ablation.run(model, prompts, batchSize: batchSize, seed: seed, progress: progress)
    ]
  }

  /// The bytes that the sums over all prompts take.
  public static func byteCount(_ config: GPT2Config) -> Int {
    StreamLinearity.byteCount(config) + StreamMassive.byteCount(config)
  }
}
