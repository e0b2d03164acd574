public import Tensors

extension GPT2 {
  /// The logits of one prompt, and its activations with the gradients of a number at them.
  ///
  /// ```swift
  /// // How the logit difference changes with the residual stream.
  /// let (logits, cache) = try model.runWithGradients(tokens, hooks: [.residPre(.all)]) { logits in
  ///   LogitGradient(at: [logits.shape[0] - 1], tokens: [mary, john], Tensor([1, -1], shape: [1, 2]))
  /// }
  /// let stream = try cache.tensor(.residPre, layer: 3)      // [pos, d_model]
  /// let gradient = try cache.gradient(.residPre, layer: 3)  // [pos, d_model]
  /// let same = try cache["resid_pre3_grad"]
  /// ```
  ///
  /// - Parameters:
  ///   - tokens: token ids.
  ///   - hooks: the activations whose values and gradients are recorded; `.residPre(3).gradient` means
  ///     the gradients alone.
  ///   - rules: how the backward pass goes through what is not linear; the derivative by default.
  ///   - metric: the number's derivative by the logits, which it is given: `[pos, d_vocab]`.
  /// - Returns: the logits, shape `[pos, d_vocab]`, and what was recorded, gradients under the hooks'
  ///   names with `_grad` behind them.
  /// - Throws: `ModelError` for bad tokens and hooks, for positions and tokens of the derivative that do
  ///   not exist, for one of a wrong width, and for numbers that are not finite; whatever `metric` throws.
  /// - Complexity: about 7/3 of a forward pass. The memory is that of what is recorded and of
  ///   `9·n_layers·pos·d_model` floats.
  public func runWithGradients(
    _ tokens: [Int], hooks: [HookFilter], rules: BackwardRules = .gradient,
    of metric: (_ logits: Tensor) throws -> LogitGradient
  ) throws -> (logits: Tensor, cache: ActivationCache) {
    let (logits, cache) = try runWithGradients(
      batch: [tokens], hooks: hooks, rules: rules, of: { _, logits in try metric(logits) })
    return (logits[0], cache)
  }

  /// The same of several prompts, of any lengths.
  ///
  /// - Parameters:
  ///   - prompts: token ids of each prompt.
  ///   - hooks: as for one prompt.
  ///   - rules: as for one prompt.
  ///   - metric: the derivative of a prompt's number by its logits, given the prompt's index and its
  ///     logits, `[pos, d_vocab]`.
  /// - Returns: each prompt's logits and what was recorded.
  /// - Throws: as for one prompt.
  public func runWithGradients(
    batch prompts: [[Int]], hooks: [HookFilter], rules: BackwardRules = .gradient,
    of metric: (_ prompt: Int, _ logits: Tensor) throws -> LogitGradient
  ) throws -> (logits: [Tensor], cache: ActivationCache) {
    var activations: Set<HookName> = []
    var gradients: Set<HookName> = []
    for filter in hooks {
      var plain = filter
      plain.isGradient = false
      let names = try plain.recordedNames(config)
      gradients.formUnion(names)
      if !filter.isGradient { activations.formUnion(names) }
    }
    if hooks.isEmpty {
      throw ModelError.nothingMatches(filter: "[]", reason: "no hooks were given to record")
    }
    let (logits, run) = try runWithCache(
      batch: prompts,
      hooks: BaseRun.sites.map { HookFilter($0) } + hooks.filter { !$0.isGradient })
    let bases = run.filtered { BaseRun.sites.contains($0.site) }
    let runs = prompts.indices.map { prompt in
      BaseRun(
        tokens: prompts[prompt], logits: logits[prompt].row(prompts[prompt].count - 1),
        cache: bases.only(prompt: prompt))
    }
    let start = try prompts.indices.map { try metric($0, logits[$0]) }
    var recorder = GradientRecorder(
      wanted: gradients, cache: run.filtered { activations.contains($0) })
    try BackwardPass(self, runs, rules: rules).walk(from: start, &recorder)
    return (logits, recorder.cache)
  }
}

/// Records the gradients at some hooks.
private struct GradientRecorder: BackwardVisitor {
  let wanted: Set<HookName>
  var cache: ActivationCache

  func wants(_ name: HookName) -> Bool { wanted.contains(name) }
  mutating func visit(_ name: HookName, run: Int, _ gradient: Tensor) {
    cache.record(name.gradient, prompt: run, gradient)
  }
}
