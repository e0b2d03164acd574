public import Tensors

/// A patched run: a base run with interventions.
public struct PatchedRun: Sendable {
  /// The index of its base run.
  public var base: Int
  /// What is changed, in order.
  public var interventions: [Intervention]

  /// A patched run.
  public init(base: Int, _ interventions: [Intervention]) {
    self.base = base
    self.interventions = interventions
  }
}

/// A step of the model that patched runs do not compute: they keep what their base runs had.
public enum FrozenStep: Sendable, Hashable {
  /// Every norm divides by the scale of the base run's row. Without norms there is nothing to freeze.
  case layerNorm
  /// Every head attends as in the base run, whatever its queries and keys are. What an intervention
  /// makes of queries, keys and scores is then lost; one at the pattern acts on the base's.
  case pattern
}

/// Many patched runs at once, each resumed at the layer and position where it first differs from its
/// base run.
///
/// A change in layer ℓ at position p leaves everything before ℓ, and in every layer everything before
/// p, as it was. The layers are walked upward once with all runs together: what differs is packed into
/// one matrix product per weight, what does not is read from the base runs. A run joins where its
/// first intervention acts, so 180 patches of a stream are one walk in which the rows grow with the
/// layers. Rows that an intervention leaves bit for bit as they were count as unchanged; a run that
/// changes nothing has exactly its base run's logits.
///
/// In the last layer only the row that is read is computed beyond keys and values. A run costs about
/// `(n_layers − ℓ)·(pos − p)` times a block's FLOPs for one token.
public struct SuffixRuns {
  private let model: GPT2
  private let config: GPT2Config
  private let bases: [BaseRun]
  private let frozen: Set<FrozenStep>

  /// Runs on top of `bases`.
  ///
  /// - Parameters:
  ///   - model: the model.
  ///   - bases: unpatched runs.
  ///   - frozen: what every patched run keeps of its base run instead of computing it.
  public init(_ model: GPT2, bases: [BaseRun], freezing frozen: Set<FrozenStep> = []) {
    self.model = model
    self.config = model.config
    self.bases = bases
    self.frozen = frozen
  }

  /// The sites at which an intervention may act.
  public static let sites: Set<Site> = [
    .residPre, .q, .k, .v, .attnScores, .pattern, .z, .result, .attnOut, .residMid, .mlpPre,
    .mlpPost, .mlpOut, .residPost,
  ]

  /// The logits of patched runs at their bases' read positions.
  ///
  /// - Parameters:
  ///   - runs: the runs, in any order.
  ///   - tokens: the tokens whose logits are wanted of a run of each base; nil means all.
  /// - Returns: one tensor a run, shape `[tokens]`, and whether the run differs from its base.
  /// - Throws: `ModelError` for interventions that cannot be carried out.
  public func logits(
    _ runs: [PatchedRun], tokens: [[Int]]?
  ) throws -> [(logits: Tensor, differs: Bool)] {
    var walk = try SuffixWalk(model, bases, runs, freezing: frozen)
    for layer in 0..<config.nLayers { try walk.block(layer) }
    return try walk.readout(tokens)
  }
}

// MARK: cost

extension SuffixRuns {
  /// What a run costs: where it starts, and from there on all layers and positions.
  public struct Cost: Sendable, Equatable {
    /// The first layer that is computed.
    public var layer: Int
    /// The first position.
    public var position: Int
    /// The rows that the run adds to a walk's matrix products: `pos − position`.
    public var rows: Int
    /// `(n_layers − layer)·(pos − position)`: how often one token passes one block.
    public var blockTokens: Int
    /// The most memory that the run needs during a walk, in bytes.
    public var bytes: Int

    /// The cost of a run on a base of `length` tokens that differs from `layer` and `position` on.
    public init(_ config: GPT2Config, layer: Int, position: Int, length: Int) {
      self.layer = layer
      self.position = position
      rows = length - position
      blockTokens = (config.nLayers - layer) * rows
      // Of each row the streams before and after attention, what the norm makes of them, the neurons
      // and their output, or else queries, keys, values, z and their output; copies where rows of
      // several kinds are joined. An activation that is edited exists once as a whole.
      let (d, m) = (max(config.dModel, config.dAttn), config.dMLP)
      bytes = 4 * (rows * max(8 * d, 5 * d + m) + length * d)
    }
  }

  /// FLOPs of one block for one token: `2·(4·d_model·n_heads·d_head + 2·d_model·d_mlp)`.
  public static func flopsPerBlockToken(_ config: GPT2Config) -> Double {
    let (d, a, m) = (Double(config.dModel), Double(config.dAttn), Double(config.dMLP))
    return 2 * (4 * d * a + 2 * d * m)
  }

  /// What `run` costs at most; it costs nothing if it turns out to change nothing.
  ///
  /// - Throws: `ModelError` for positions and layers that do not exist.
  public func cost(_ run: PatchedRun) throws(ModelError) -> Cost {
    let length = bases[run.base].length
    var (layer, position) = (config.nLayers, length)
    for intervention in run.interventions {
      let target = intervention.target
      for name in try target.names(config) { layer = min(layer, name.layer ?? 0) }
      let rows =
        intervention.mixesPositions
        ? [0] : try target.positions.resolved(length: length, hook: target.description)
      position = min(position, rows.min() ?? 0)
    }
    return Cost(config, layer: layer, position: position, length: length)
  }

  /// The runs in batches that a walk can hold, each as ascending indices into `runs`.
  ///
  /// Runs that start early come first, so that a batch walks few layers for nothing. A batch ends
  /// at some thousand rows even where there is memory for more: matrix products are no faster with
  /// more rows, and everything else is slower once it no longer fits into a cache.
  ///
  /// - Parameters:
  ///   - runs: the runs.
  ///   - bytes: the memory for one walk beside the bases; a single run may exceed it.
  /// - Throws: as `cost(_:)`.
  public func batches(_ runs: [PatchedRun], bytes: Int) throws(ModelError) -> [[Int]] {
    Self.batches(try runs.map { run throws(ModelError) in try cost(run) }, bytes: bytes)
  }

  /// As `batches(_:bytes:)`, for runs that need not exist yet.
  public static func batches(_ costs: [Cost], bytes: Int) -> [[Int]] {
    let order = costs.indices.sorted { (costs[$0].layer, $0) < (costs[$1].layer, $1) }
    var batches: [[Int]] = []
    var (usedBytes, usedRows) = (0, 0)
    for index in order {
      let cost = costs[index]
      if batches.isEmpty || usedBytes + cost.bytes > bytes || usedRows + cost.rows > rowsPerWalk {
        batches.append([])
        (usedBytes, usedRows) = (0, 0)
      }
      batches[batches.count - 1].append(index)
      usedBytes += cost.bytes
      usedRows += cost.rows
    }
    return batches.map { $0.sorted() }
  }

  /// The rows after which a batch ends.
  static let rowsPerWalk = 4096
}
