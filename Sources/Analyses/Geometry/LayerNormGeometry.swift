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
public struct LayerNormGeometry: Sendable {
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

  /// The measurement of some prompts, ready to run: its tables say what it will write.
  public struct Pass {
    private let model: GPT2
    private let prompts: [Prompt]
    private let batchSize: Int
    private var collectors: [any Collector]
    /// What is written prompt by prompt.
    public let tables: [PromptTable]
    /// One sentence that says what the result is.
    public let title: String

    fileprivate init(_ geometry: LayerNormGeometry, _ model: GPT2, _ prompts: [Prompt]) throws {
      try model.requireOnesDirection(for: "geometry")
      let axes = try PromptAxes(prompts, model: model, analysis: "geometry")
      self.model = model
      self.prompts = prompts
      batchSize = geometry.batchSize
      collectors = [
        TokenGeometry(model, axes, seed: geometry.seed),
        CorpusGeometry(model, seed: geometry.seed),
        WriteDiscard(model, axes),
        NormShape(model, axes),
      ]
      if !geometry.steps.isEmpty {
        collectors.append(try NormSteps(model, axes, geometry.steps))
      }
      if let selectability = geometry.selectability {
        collectors.append(try Selectability(model, prompts, selectability))
        collectors.append(try QueryAlignment(model, prompts))
      }
      tables = collectors.flatMap(\.tables)
      title = "LayerNorm geometry of \(model.identity.name)"
    }

    /// Runs the model on the prompts.
    ///
    /// - Parameters:
    ///   - sink: takes the values of ``tables``.
    ///   - progress: told after each batch how many prompts are done.
    /// - Returns: what was found over all prompts: groups `ln_geometry/summary`, `/corpus`, `/writes`,
    ///   `/shape`, `selectability/summary`, `selectability/space/summary` and `query_alignment/summary`
    ///   where asked for, and `renormalisation` where every prompt has an answer.
    /// - Throws: `AnalysisError.nonFinite`, `ModelError`; what the sink throws.
    /// - Complexity: one forward pass a prompt without logits, and with answers a second one; memory
    ///   for the activations of a batch.
    public mutating func run(
      into sink: any PromptSink, progress: (Int) throws -> Void = { _ in }
    ) throws -> [ResultGroup] {
      try CollectionPass(prompts, batchSize: batchSize).run(
        model, &collectors, into: sink, progress: progress)
      var findings = try collectors.flatMap { try $0.findings() }
      if prompts.allSatisfy({ $0.answer != nil }) {
        let attribution = try DirectLogitAttribution(batchSize: batchSize).run(model, prompts)
        findings.append(RenormalisationGap().derive(from: attribution))
      }
      return findings
    }
  }

  /// Prepares the measurement of `prompts`.
  ///
  /// - Throws: `AnalysisError.noPrompts`; `.unsuitable` for a model whose stream has lost the ones
  ///   direction; `ModelError.nothingMatches` for steps of a token that there is not.
  public func pass(_ model: GPT2, _ prompts: [Prompt]) throws -> Pass {
    try Pass(self, model, prompts)
  }

  /// Measures `prompts` and keeps every token's values in memory.
  ///
  /// - Parameters:
  ///   - model: any model with a ones direction.
  ///   - prompts: the prompts.
  ///   - progress: told after each batch how many prompts are done.
  /// - Returns: group `ln_geometry` with `/summary`, `/corpus`, `/writes`, `/shape` and, where asked
  ///   for, `ln_steps`, `selectability` and `query_alignment` with their summaries; `renormalisation`
  ///   where every prompt has an answer.
  /// - Throws: `AnalysisError`, `ModelError`.
  public func run(
    _ model: GPT2, _ prompts: [Prompt], progress: (Int) throws -> Void = { _ in }
  ) throws -> ResultSet {
    var pass = try pass(model, prompts)
    let memory = MemorySink(pass.tables)
    let findings = try pass.run(into: memory, progress: progress)
    return ResultSet(
      title: pass.title, groups: memory.result + findings, provenance: Provenance(model: model))
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
