/// What a run has to record and to change, by hook; checked before anything is computed.
struct HookPlan {
  private let recorded: Set<HookName>
  private let edits: [HookName: [Intervention]]
  let positions: PositionSelection

  static let nothing = HookPlan()

  private init() {
    recorded = []
    edits = [:]
    positions = .all
  }

  init(
    hooks: [HookFilter], interventions: [Intervention], positions: PositionSelection,
    prompts: [[Int]], stopAtLayer: Int?, config: GPT2Config
  ) throws(ModelError) {
    var recorded: Set<HookName> = []
    for filter in hooks { recorded.formUnion(try filter.recordedNames(config)) }
    var edits: [HookName: [Intervention]] = [:]
    for intervention in interventions {
      let names = try intervention.target.names(config)
      if let prompt = intervention.prompt, prompt < 0 || prompt >= prompts.count {
        throw .intervention(
          hook: intervention.target.description,
          problem: "prompt \(prompt) of a batch of \(prompts.count)")
      }
      for name in names { edits[name, default: []].append(intervention) }
    }
    if let stopAtLayer {
      guard stopAtLayer >= 0 && stopAtLayer <= config.nLayers else {
        throw .layerOutOfRange(hook: "stop", layer: stopAtLayer, layers: config.nLayers + 1)
      }
      for name in recorded.union(edits.keys) {
        let fires =
          name.site == .embed || name.site == .posEmbed || (name.layer ?? .max) < stopAtLayer
        if !fires {
          throw .nothingMatches(
            filter: name.rawValue, reason: "the run stops before layer \(stopAtLayer)")
        }
      }
    }
    for prompt in prompts { _ = try positions.resolved(length: prompt.count, hook: "positions") }
    self.recorded = recorded
    self.edits = edits
    self.positions = positions
    try refuseContradictions(config)
  }

  func records(_ name: HookName) -> Bool { recorded.contains(name) }
  func edits(_ name: HookName) -> [Intervention] { edits[name] ?? [] }
  func changes(_ name: HookName) -> Bool { edits[name] != nil }
  func uses(_ name: HookName) -> Bool { records(name) || changes(name) }

  func uses(_ sites: [Site], _ layer: Int? = nil) -> Bool {
    sites.contains { uses(HookName($0, layer: layer)) }
  }
  func changes(_ sites: [Site], _ layer: Int? = nil) -> Bool {
    sites.contains { changes(HookName($0, layer: layer)) }
  }

  /// The last block that must run if nobody wants logits.
  func lastLayer(_ config: GPT2Config) -> Int {
    if uses([.lnFinalScale, .lnFinalNormalized, .unembedIn, .unembedOut]) { return config.nLayers }
    return recorded.compactMap(\.layer).max() ?? -1
  }

  /// A head that reads its own input has its own LayerNorm statistics, so an edit of the shared
  /// normalised stream has nothing to act on.
  private func refuseContradictions(_ config: GPT2Config) throws(ModelError) {
    for layer in 0..<config.nLayers
    where changes(HookName(.ln1Normalized, layer: layer)) && changes(Site.headInputs, layer) {
      throw .intervention(
        hook: HookName(.ln1Normalized, layer: layer).rawValue,
        problem: "cannot be combined with an edit of attn_in, q_input, k_input or v_input "
          + "in the same layer; edit one of the two")
    }
  }
}

extension HookFilter {
  /// The hooks of a choice that is to be recorded.
  func recordedNames(_ config: GPT2Config) throws(ModelError) -> [HookName] {
    if head != nil || positions != .all || element != nil {
      throw .nothingMatches(
        filter: description,
        reason: "whole activations are recorded; select positions for the run, heads afterwards")
    }
    return try names(config)
  }
}

extension Site {
  /// The stream as each head reads it.
  static let headInputs: [Site] = [.attnIn, .qInput, .kInput, .vInput]
}
