public import Tensors

/// The activations that a run recorded, by hook.
///
/// A prompt's activation has the site's shape: `[pos, d_model]`, `[pos, head, d_head]`,
/// `[head, query_pos, key_pos]`, and so has the gradient at it, which stands under the hook's name with
/// `_grad` behind it. Prompts of a batch may differ in length; nothing is padded.
public struct ActivationCache: Sendable {
  /// The model's configuration.
  public let config: GPT2Config
  /// The token ids of each prompt.
  public let tokens: [[Int]]
  /// The recorded positions of each prompt (the query positions of attention sites).
  public let positions: [[Int]]
  private var tensors: [HookName: [Tensor]] = [:]
  /// The recorded hooks in the order in which they fired.
  public private(set) var names: [HookName] = []

  init(config: GPT2Config, tokens: [[Int]], positions: [[Int]]) {
    self.config = config
    self.tokens = tokens
    self.positions = positions
  }

  /// How many prompts were run.
  public var promptCount: Int { tokens.count }

  mutating func record(_ name: HookName, _ perPrompt: [Tensor]) {
    if tensors.updateValue(perPrompt, forKey: name) == nil { names.append(name) }
  }

  mutating func record(_ name: HookName, prompt: Int, _ tensor: Tensor) {
    if tensors[name] == nil { names.append(name) }
    tensors[name, default: []].append(tensor)
    precondition(tensors[name]?.count == prompt + 1, "ActivationCache: prompts out of order")
  }

  /// The hooks that `isIncluded` chooses.
  func filtered(_ isIncluded: (HookName) -> Bool) -> ActivationCache {
    var cache = ActivationCache(config: config, tokens: tokens, positions: positions)
    cache.names = names.filter(isIncluded)
    cache.tensors = tensors.filter { isIncluded($0.key) }
    return cache
  }

  /// What was recorded of one prompt, as if it had been run alone.
  func only(prompt: Int) -> ActivationCache {
    var cache = ActivationCache(
      config: config, tokens: [tokens[prompt]], positions: [positions[prompt]])
    cache.names = names
    cache.tensors = tensors.mapValues { [$0[prompt]] }
    return cache
  }

  /// Puts the first `count` positions of another run's activations in place of this run's, for sites
  /// whose first axis is the position.
  mutating func takeRows(_ count: Int, of other: ActivationCache) throws(ModelError) {
    for name in names {
      let rows = try other.tensor(name).rows(0..<count)
      tensors[name]?[0].replaceRows(at: 0, with: rows)
    }
  }

  /// One prompt's activation at `name`, shape as the site's.
  ///
  /// - Throws: `ModelError.notRecorded`.
  /// - Precondition: `prompt` is one of the run's.
  public func tensor(_ name: HookName, prompt: Int = 0) throws(ModelError) -> Tensor {
    guard let perPrompt = tensors[name] else {
      throw .notRecorded(hook: name.rawValue, recorded: names.map(\.rawValue))
    }
    precondition(
      prompt >= 0 && prompt < perPrompt.count,
      "ActivationCache: prompt \(prompt) of \(perPrompt.count)")
    return perPrompt[prompt]
  }

  /// One prompt's activation of `site` in `layer`; negative layers count from the last.
  ///
  /// - Throws: `ModelError.notRecorded`, `.layerOutOfRange`.
  public func tensor(
    _ site: Site, layer: Int? = nil, prompt: Int = 0
  ) throws(ModelError) -> Tensor {
    let resolved = layer.map { $0 < 0 ? $0 + config.nLayers : $0 }
    return try tensor(HookName(site, layer: resolved), prompt: prompt)
  }

  /// One prompt's gradient at `site` in `layer`, shape as the site's; negative layers count from the
  /// last.
  ///
  /// - Throws: `ModelError.notRecorded`, `.layerOutOfRange`.
  public func gradient(
    _ site: Site, layer: Int? = nil, prompt: Int = 0
  ) throws(ModelError) -> Tensor {
    let resolved = layer.map { $0 < 0 ? $0 + config.nLayers : $0 }
    return try tensor(HookName(site, layer: resolved).gradient, prompt: prompt)
  }

  /// The only prompt's activation at a hook given by its name or shorthand (`"resid_post-1"`), or the
  /// gradient there (`"resid_post-1_grad"`).
  public subscript(name: String) -> Tensor {
    get throws(ModelError) {
      try tensor(HookName(parsing: name, nLayers: config.nLayers))
    }
  }

  /// All prompts' activations at `name`, shape `[batch, …]`.
  ///
  /// - Throws: `ModelError.unequalLengths` where prompts differ in length, `.notRecorded`.
  public func batched(_ name: HookName) throws(ModelError) -> Tensor {
    let perPrompt = try (0..<promptCount).map { prompt throws(ModelError) in
      try tensor(name, prompt: prompt)
    }
    guard perPrompt.allSatisfy({ $0.shape == perPrompt[0].shape }) else {
      throw .unequalLengths(what: "batched '\(name)'", lengths: tokens.map(\.count))
    }
    return Tensor.stacking(perPrompt)
  }

  /// The bytes of the recorded activations.
  public var byteCount: Int {
    tensors.values.reduce(0) { $0 + $1.reduce(0) { $0 + 4 * $1.count } }
  }
}
