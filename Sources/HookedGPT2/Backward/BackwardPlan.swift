/// What a backward pass is asked for, and how far down it has to go.
struct BackwardPlan {
  /// How far a block has been walked, from its output down.
  enum Stage: Int, Comparable {
    /// `resid_post` and `mlp_out`, which need nothing of the block.
    case output
    /// The neurons.
    case neurons
    /// The norm before the MLP, and all that stands between it and z.
    case ln2
    /// z.
    case z
    /// The pattern, the scores, values, keys and queries.
    case attention
    /// The norm before attention, and what it reads.
    case ln1

    static func < (left: Stage, right: Stage) -> Bool { left.rawValue < right.rawValue }
  }

  private let hooks: Set<HookName>
  private let steps: Set<ParameterStep>
  /// The lowest block that is walked, `n_layers` if none is, and how far.
  private let bottom: (layer: Int, stage: Stage)?

  init(_ config: GPT2Config, _ visitor: some BackwardVisitor) {
    let hooks = HookName.all(nLayers: config.nLayers, optional: true).filter { visitor.wants($0) }
    let hasNorms = config.normalization != .none
    let perBlock: (Int) -> [ParameterStep] = { layer in
      (hasNorms ? [.ln1(layer), .ln2(layer)] : [])
        + [.qkv(layer), .attnOut(layer), .mlpIn(layer), .mlpOut(layer)]
    }
    let steps = ((0..<config.nLayers).flatMap(perBlock) + (hasNorms ? [.lnFinal] : []))
      .filter { visitor.wants($0) }
    self.hooks = Set(hooks)
    self.steps = Set(steps)
    let places = hooks.compactMap(Self.place) + steps.compactMap(Self.place)
    bottom = places.min { ($0.layer, $1.stage) < ($1.layer, $0.stage) }
  }

  func wants(_ name: HookName) -> Bool { hooks.contains(name) }
  func wants(_ step: ParameterStep) -> Bool { steps.contains(step) }

  /// Whether the pass goes down to this stage of this block.
  func reaches(_ layer: Int, _ stage: Stage) -> Bool {
    guard let bottom else { return false }
    return bottom.layer < layer || bottom.layer == layer && bottom.stage >= stage
  }

  /// Where a hook's gradient is found; nil above the blocks.
  private static func place(_ name: HookName) -> (layer: Int, stage: Stage)? {
    let stage: Stage
    switch name.site {
    case .lnFinalScale, .lnFinalNormalized, .unembedIn, .unembedOut: return nil
    case .residPost, .mlpOut: stage = .output
    case .mlpPost, .mlpPre: stage = .neurons
    case .ln2Scale, .ln2Normalized, .mlpIn, .residMid, .attnOut, .result: stage = .ln2
    case .z: stage = .z
    case .pattern, .attnScores, .q, .k, .v: stage = .attention
    case .embed, .posEmbed, .residPre, .attnIn, .qInput, .kInput, .vInput, .ln1Scale,
      .ln1Normalized:
      stage = .ln1
    }
    return (name.layer ?? 0, stage)
  }

  private static func place(_ step: ParameterStep) -> (layer: Int, stage: Stage)? {
    switch step {
    case .lnFinal: nil
    case .mlpOut(let layer), .mlpIn(let layer): (layer, .neurons)
    case .ln2(let layer), .attnOut(let layer): (layer, .ln2)
    case .qkv(let layer): (layer, .attention)
    case .ln1(let layer): (layer, .ln1)
    }
  }
}
