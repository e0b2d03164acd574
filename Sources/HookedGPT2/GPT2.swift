import Synchronization
public import Tensors

/// A GPT-2 style transformer that can be watched and changed while it runs.
///
/// The model is immutable: recording and interventions belong to one run. `Sendable`, so several
/// tasks may run it at once.
public final class GPT2: Sendable {
  /// Who the model is and where it comes from.
  public struct Identity: Sendable, Equatable {
    /// The model's name.
    public var name: String
    /// SHA-256 over its tensors; empty where unknown.
    public var weightsSHA256: String
    /// What was done to the weights since they were published.
    public var weightProcessing: [String]
    /// Where the weights come from.
    public var source: String
    /// Their licence.
    public var license: String

    /// An identity; unknown facts stay empty.
    public init(
      name: String, weightsSHA256: String = "", weightProcessing: [String] = [],
      source: String = "", license: String = ""
    ) {
      self.name = name
      self.weightsSHA256 = weightsSHA256
      self.weightProcessing = weightProcessing
      self.source = source
      self.license = license
    }
  }

  /// The model's shape and arithmetic.
  public let config: GPT2Config
  /// The model's parameters.
  public let weights: GPT2Weights
  /// Who the model is.
  public let identity: Identity
  /// Whether text gets a BOS token in front unless asked otherwise.
  public let defaultPrependBOS: Bool
  private let tokenizerSource: @Sendable () throws -> Tokenizer
  private let loadedTokenizer = Mutex<Tokenizer?>(nil)

  /// A model of its parts.
  ///
  /// - Parameters:
  ///   - config: its configuration.
  ///   - weights: its parameters.
  ///   - identity: who it is.
  ///   - defaultPrependBOS: whether text gets a BOS token in front unless asked otherwise.
  ///   - tokenizer: called when text is first seen.
  public init(
    config: GPT2Config, weights: GPT2Weights, identity: Identity, defaultPrependBOS: Bool = true,
    tokenizer: @escaping @Sendable () throws -> Tokenizer = { throw ModelError.noTokenizer }
  ) {
    self.config = config
    self.weights = weights
    self.identity = identity
    self.defaultPrependBOS = defaultPrependBOS
    tokenizerSource = tokenizer
  }

  /// The model's tokenizer, loaded when first used.
  ///
  /// - Throws: `ModelError.noTokenizer`, or what loading it threw.
  public var tokenizer: Tokenizer {
    get throws {
      try loadedTokenizer.withLock { loaded in
        if let loaded { return loaded }
        let tokenizer = try tokenizerSource()
        loaded = tokenizer
        return tokenizer
      }
    }
  }

  /// The token ids of `text`.
  ///
  /// - Parameters:
  ///   - text: the text.
  ///   - prependBOS: whether a BOS token stands in front; nil means the model's default, which is
  ///     to put one there as TransformerLens does.
  /// - Throws: `ModelError.noTokenizer`.
  public func tokens(_ text: String, prependBOS: Bool? = nil) throws -> [Int] {
    let tokenizer = try tokenizer
    var ids = tokenizer.encode(text)
    if prependBOS ?? defaultPrependBOS {
      guard let bos = tokenizer.bos else { throw ModelError.noTokenizer }
      ids.insert(bos, at: 0)
    }
    return ids
  }

  // MARK: one prompt

  /// The logits of one prompt.
  ///
  /// - Parameters:
  ///   - tokens: token ids.
  ///   - interventions: changes of activations, in order.
  /// - Returns: shape `[pos, d_vocab]`.
  /// - Throws: `ModelError` for bad tokens, hooks or interventions; whatever an edit throws.
  /// - Complexity: about 2 FLOPs for each parameter and token.
  public func run(_ tokens: [Int], interventions: [Intervention] = []) throws -> Tensor {
    try run(batch: [tokens], interventions: interventions)[0]
  }

  /// The logits of one prompt and the activations that `hooks` choose.
  ///
  /// - Parameters:
  ///   - tokens: token ids.
  ///   - hooks: what to record.
  ///   - positions: the positions to record; all by default.
  ///   - interventions: changes of activations, in order.
  /// - Returns: logits, shape `[pos, d_vocab]`, and the recorded activations.
  /// - Throws: `ModelError` for bad tokens, hooks or interventions; whatever an edit throws.
  public func runWithCache(
    _ tokens: [Int], hooks: [HookFilter], positions: PositionSelection = .all,
    interventions: [Intervention] = []
  ) throws -> (logits: Tensor, cache: ActivationCache) {
    let (logits, cache) = try runWithCache(
      batch: [tokens], hooks: hooks, positions: positions, interventions: interventions)
    return (logits[0], cache)
  }

  // MARK: batches

  /// Which positions' logits are wanted.
  public enum LogitRows: Sendable, Hashable {
    /// Every position's.
    case all
    /// Those of some positions of each prompt.
    case at(PositionSelection)
    /// None: the run ends with the last activation that a hook asks for.
    case none

    /// Only each prompt's last.
    public static let last = LogitRows.at(.last)
  }

  /// The logits of several prompts, of any lengths.
  ///
  /// - Parameters:
  ///   - prompts: token ids of each prompt.
  ///   - logits: which positions' logits; their memory is `4·d_vocab` bytes a position.
  ///   - interventions: changes of activations, in order.
  /// - Returns: each prompt's logits, shape `[pos, d_vocab]` with as many positions as asked for.
  /// - Throws: `ModelError` for bad tokens, hooks or interventions; whatever an edit throws.
  public func run(
    batch prompts: [[Int]], logits: LogitRows = .all, interventions: [Intervention] = []
  ) throws -> [Tensor] {
    try forward(
      prompts, hooks: [], positions: .all, interventions: interventions, logits: logits
    ).logits
  }

  /// The logits of several prompts, of any lengths, and the activations that `hooks` choose.
  ///
  /// - Parameters:
  ///   - prompts: token ids of each prompt.
  ///   - hooks: what to record.
  ///   - positions: the positions to record; all by default.
  ///   - logits: which positions' logits.
  ///   - interventions: changes of activations, in order.
  /// - Returns: each prompt's logits and the recorded activations.
  /// - Throws: `ModelError` for bad tokens, hooks or interventions; whatever an edit throws.
  public func runWithCache(
    batch prompts: [[Int]], hooks: [HookFilter], positions: PositionSelection = .all,
    logits: LogitRows = .all, interventions: [Intervention] = []
  ) throws -> (logits: [Tensor], cache: ActivationCache) {
    if hooks.isEmpty {
      throw ModelError.nothingMatches(filter: "[]", reason: "no hooks were given to record")
    }
    return try forward(
      prompts, hooks: hooks, positions: positions, interventions: interventions, logits: logits)
  }

  /// The residual stream that enters block `layer`; later blocks are not run.
  ///
  /// - Parameters:
  ///   - layer: 0 gives the embeddings, `n_layers` the stream before the final LayerNorm.
  ///   - prompts: token ids of each prompt.
  ///   - hooks: what to record; may be empty.
  ///   - interventions: changes of activations, in order.
  /// - Returns: each prompt's stream, shape `[pos, d_model]`, and the recorded activations.
  /// - Throws: `ModelError`; in particular `.nothingMatches` for a hook at or after `layer`.
  public func run(
    batch prompts: [[Int]], stoppingAtLayer layer: Int, hooks: [HookFilter] = [],
    positions: PositionSelection = .all, interventions: [Intervention] = []
  ) throws -> (streams: [Tensor], cache: ActivationCache) {
    let packed = try PackedTokens(prompts, config: config)
    let plan = try HookPlan(
      hooks: hooks, interventions: interventions, positions: positions, prompts: prompts,
      stopAtLayer: layer, config: config)
    var pass = try ForwardPass(self, packed, plan)
    var stream = try pass.embedding()
    var past: KeyValueCache?
    for layer in 0..<layer { stream = try pass.block(layer, stream, past: &past) }
    return (packed.rows.map { stream.rows($0) }, pass.cache)
  }

  /// Runs some blocks on residual streams that are already there: what skips, repeats or reorders
  /// blocks, or resumes behind a changed stream.
  ///
  /// - Parameters:
  ///   - layers: the blocks, in the order in which they run; may be empty.
  ///   - streams: each prompt's stream before the first of them, shape `[pos, d_model]`.
  ///   - interventions: changes of activations in these blocks, in order.
  /// - Returns: each prompt's stream behind the last of them, of the same shapes.
  /// - Throws: `ModelError.layerOutOfRange`; `.emptyPrompt`, `.promptTooLong` for streams of no or too
  ///   many positions; as for any run for interventions.
  /// - Precondition: every stream has rows of `d_model` scalars.
  public func run(
    layers: [Int], on streams: [Tensor], interventions: [Intervention] = []
  ) throws -> [Tensor] {
    for stream in streams {
      precondition(
        stream.rank == 2 && stream.shape[1] == config.dModel,
        "run(layers:on:): a stream of shape \(stream.shape), expected [pos, \(config.dModel)]")
    }
    for layer in layers where layer < 0 || layer >= config.nLayers {
      throw ModelError.layerOutOfRange(hook: "blocks", layer: layer, layers: config.nLayers)
    }
    // Positions are in the streams already: which tokens they were made of does not matter.
    let packed = try PackedTokens(
      streams.map { Array(repeating: 0, count: $0.shape[0]) }, config: config)
    let plan = try HookPlan(
      hooks: [], interventions: interventions, positions: .all, prompts: packed.prompts,
      stopAtLayer: nil, config: config)
    for intervention in interventions {
      for name in try intervention.target.names(config)
      where !(name.layer.map(layers.contains) ?? false) {
        throw ModelError.nothingMatches(
          filter: name.rawValue, reason: "blocks \(layers) run and nothing else")
      }
    }
    var pass = try ForwardPass(self, packed, plan)
    var stream = streams.count == 1 ? streams[0] : Tensor.concatenating(streams)
    var past: KeyValueCache?
    for layer in layers { stream = try pass.block(layer, stream, past: &past) }
    return packed.rows.map { stream.rows($0) }
  }

  private func forward(
    _ prompts: [[Int]], hooks: [HookFilter], positions: PositionSelection,
    interventions: [Intervention], logits: LogitRows
  ) throws -> (logits: [Tensor], cache: ActivationCache) {
    let packed = try PackedTokens(prompts, config: config)
    let plan = try HookPlan(
      hooks: hooks, interventions: interventions, positions: positions, prompts: prompts,
      stopAtLayer: nil, config: config)
    var pass = try ForwardPass(self, packed, plan)
    let last = if case .none = logits { plan.lastLayer(config) } else { config.nLayers }

    var stream = try pass.embedding()
    var past: KeyValueCache?
    for layer in 0..<min(config.nLayers, last + 1) {
      stream = try pass.block(layer, stream, past: &past)
    }
    guard last == config.nLayers else {
      return (prompts.map { _ in Tensor(zeros: [0, config.dVocab]) }, pass.cache)
    }
    // Each prompt's rows of the stream whose logits are wanted.
    let wanted: [[Int]] = try packed.rows.map { rows throws(ModelError) in
      switch logits {
      case .all: Array(rows)
      case .none: []
      case .at(let positions):
        try positions.resolved(length: rows.count, hook: "logits").map { rows.lowerBound + $0 }
      }
    }
    let all = try pass.unembed(stream, rows: logits == .all ? nil : wanted.flatMap(\.self))
    var start = 0
    let perPrompt = wanted.map { rows in
      defer { start += rows.count }
      return all.rows(start..<start + rows.count)
    }
    return (perPrompt, pass.cache)
  }

  /// The mean of one activation over prompts and positions, for mean ablation.
  ///
  /// - Parameters:
  ///   - name: a hook whose first axis is the position.
  ///   - prompts: token ids of the reference prompts.
  /// - Returns: the site's shape without the positions' axis: `[d_model]`, `[head, d_head]`.
  /// - Throws: `ModelError`; attention sites have no mean over prompts.
  public func meanActivation(_ name: HookName, over prompts: [[Int]]) throws -> Tensor {
    if name.site.isAttention {
      throw ModelError.intervention(
        hook: name.rawValue, problem: "patterns of different prompts have no mean")
    }
    let (_, cache) = try runWithCache(batch: prompts, hooks: [HookFilter(name)], logits: .none)
    let rows = try prompts.indices.map { try cache.tensor(name, prompt: $0) }
    return Tensor.concatenating(rows).meanOverRows()
  }
}
