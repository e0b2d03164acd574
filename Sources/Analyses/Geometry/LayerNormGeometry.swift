public import HookedGPT2
public import Results
import Tensors

/// What the norms of a model do to its residual stream.
///
/// **What it shows.** LayerNorm takes the mean away, divides by the standard deviation, and applies a
/// gain and a bias. For every norm and token: how long the stream is, how much of it lies along the ones
/// vector and is removed, and the angle that each step turns it by.
///
/// **What it does not.** Small angles do not mean that a norm does nothing: its divisor differs from
/// token to token, which is what a model without LayerNorm has lost. There the divisor is folded into
/// the weights, and `radius_ratio` is the standard deviation itself: its spread over tokens is what a
/// norm would remove.
///
/// Position 0 stands apart from the others everywhere: its stream may be fifty times as long.
///
/// Brody et al. 2023, arXiv:2305.02582; Gupta et al. 2024, arXiv:2409.12951.
///
/// ```swift
/// let result = try LayerNormGeometry().run(model, prompts)
/// ```
public struct LayerNormGeometry: CollectedAnalysis {
  /// How many prompts run at once.
  public var batchSize: Int
  /// Decides which tokens are sampled where there are too many to keep.
  public var seed: UInt64

  /// The tokens whose way through the norms is kept as vectors (group `ln_steps`).
  public var steps: [NormStep]

  /// What is asked of the keys and queries of each head; nothing if nil (groups `selectability`,
  /// `query_alignment`).
  public var selectability: Selectability.Settings?

  /// The analysis with its defaults.
  public init(
    batchSize: Int = 8, seed: UInt64 = 0, steps: [NormStep] = [],
    selectability: Selectability.Settings? = nil
  ) {
    self.selectability = selectability
    self.steps = steps
    self.batchSize = batchSize
    self.seed = seed
  }

  /// `geometry`.
  public var name: String { "geometry" }

  /// One sentence that says what the result is.
  public func title(of model: GPT2) -> String { "LayerNorm geometry of \(model.identity.name)" }

  /// The collectors of groups `ln_geometry` with `/summary`, `/corpus`, `/writes`, `/shape` and, where
  /// asked for, `ln_steps`, `selectability` and `query_alignment` with their summaries.
  ///
  /// - Throws: `AnalysisError.unsuitable` for a model whose stream has lost the ones direction;
  ///   `ModelError.nothingMatches` for steps of a token that there is not.
  public func collectors(_ model: GPT2, _ axes: PromptAxes) throws -> [any Collector] {
    try model.requireOnesDirection(for: name)
    var collectors: [any Collector] = [
      TokenGeometry(model, axes, seed: seed),
      CorpusGeometry(model, seed: seed),
      WriteDiscard(model, axes),
      NormShape(model, axes),
    ]
    if !steps.isEmpty { collectors.append(try NormSteps(model, axes, steps)) }
    if let selectability {
      collectors.append(try Selectability(model, axes.prompts, selectability))
      collectors.append(try QueryAlignment(model, axes.prompts))
    }
    return collectors
  }

  /// The group `renormalisation` where every prompt has an answer, by a second forward pass.
  public func conclusions(
    _ model: GPT2, _ prompts: [Prompt], progress: () throws -> Void
  ) throws -> [ResultGroup] {
    guard prompts.allSatisfy({ $0.answer != nil }) else { return [] }
    let attribution = try DirectLogitAttribution(batchSize: batchSize).run(model, prompts)
    return [RenormalisationGap().derive(from: attribution)]
  }
}

extension GPT2 {
  /// Refuses a model whose stream has lost the ones direction.
  ///
  /// - Throws: `AnalysisError.unsuitable`.
  func requireOnesDirection(for analysis: String) throws {
    if config.hasOnesDirection { return }
    let done = identity.weightProcessing.filter { ["crmsnorm", "isometric"].contains($0) }
    throw AnalysisError.unsuitable(
      analysis: analysis,
      problem: "the stream of this model (\(done.joined(separator: ", "))) has "
        + "\(config.dModel) coordinates, expected \(config.normWidth), the ones direction among "
        + "them; measure the model before that processing")
  }
}
