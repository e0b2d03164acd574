import Tensors

/// One run of a model over packed prompts: the equations of GPT-2 with a hook at every step.
///
/// Shapes: `rows` is the number of tokens of all prompts together.
struct ForwardPass {
  let config: GPT2Config
  let weights: GPT2Weights
  let packed: PackedTokens
  let plan: HookPlan
  private(set) var cache: ActivationCache
  private let recordedPositions: [[Int]]

  init(_ model: GPT2, _ packed: PackedTokens, _ plan: HookPlan) throws(ModelError) {
    config = model.config
    weights = model.weights
    self.packed = packed
    self.plan = plan
    recordedPositions = try packed.prompts.map { prompt throws(ModelError) in
      try plan.positions.resolved(length: prompt.count, hook: "positions")
    }
    cache = ActivationCache(
      config: model.config, tokens: packed.prompts, positions: recordedPositions)
  }

  // MARK: the model

  /// The stream that enters the first block, `[rows, d_model]`.
  mutating func embedding() throws -> Tensor {
    var embed = weights.W_E.gatheringRows(packed.tokens)
    var posEmbed = weights.W_pos.gatheringRows(packed.positions)
    try hook(.embed, &embed)
    try hook(.posEmbed, &posEmbed)
    return embed + posEmbed
  }

  /// One block: the stream `[rows, d_model]` before it to the stream after it.
  mutating func block(
    _ layer: Int, _ stream: Tensor, past: inout KeyValueCache?
  ) throws -> Tensor {
    let block = weights.blocks[layer]
    var residPre = stream
    try hook(.residPre, layer, &residPre)

    let attnOut = try attention(layer, block, residPre, past: &past)
    var residMid = residPre + attnOut
    try hook(.residMid, layer, &residMid)

    let mlpOut = try mlp(layer, block, residMid)
    var residPost = residMid + mlpOut
    try hook(.residPost, layer, &residPost)
    return residPost
  }

  /// `activation(ln2(x)·W_in + b_in)·W_out + b_out`, `[rows, d_model]`.
  private mutating func mlp(
    _ layer: Int, _ block: GPT2Weights.Block, _ residMid: Tensor
  ) throws -> Tensor {
    var mlpIn = residMid
    try hook(.mlpIn, layer, &mlpIn)
    let (x, _) = try normalize(mlpIn, block.ln2, layer, .ln2Scale, .ln2Normalized)
    var pre = matmul(x, MatrixView(block.W_in), bias: block.b_in)
    try hook(.mlpPre, layer, &pre)
    var post = config.activation(pre)
    try hook(.mlpPost, layer, &post)
    var mlpOut = matmul(post, MatrixView(block.W_out), bias: block.b_out)
    try hook(.mlpOut, layer, &mlpOut)
    return mlpOut
  }

  /// The logits of `rows` (all if nil), shape `[rows, d_vocab]`.
  mutating func unembed(_ stream: Tensor, rows: [Int]?) throws -> Tensor {
    let hooked = plan.uses([.lnFinalScale, .lnFinalNormalized, .unembedIn, .unembedOut])
    var stream = stream
    // Only hooks need the final norm of rows whose logits nobody reads.
    if let rows, !hooked { stream = stream.gatheringRows(rows) }
    var (x, _) = try normalize(stream, weights.lnFinal, nil, .lnFinalScale, .lnFinalNormalized)
    try hook(.unembedIn, &x)
    if let rows, hooked, !plan.uses([.unembedOut]) { x = x.gatheringRows(rows) }
    var logits = matmulTransposed(x, MatrixView(weights.W_U_transposed), bias: weights.b_U)
    try hook(.unembedOut, &logits)
    if let rows, plan.uses([.unembedOut]) { logits = logits.gatheringRows(rows) }
    return logits
  }

  /// What a block reads of the stream.
  ///
  /// With LayerNorm: `(x − mean)/scale ⊙ gain + bias`; with RMSNorm and CRMSNorm the same without the
  /// mean. Without any: `x` itself, since gain, bias and centring are folded into the weights that
  /// follow; `scale` is then 1 and `normalized` is `x − mean` (`x` where the
  /// stream is compressed), computed only when asked for.
  /// `changedScale` is what interventions made of the scale, nil where there were none.
  mutating func normalize(
    _ x: Tensor, _ ln: GPT2Weights.Norm?, _ layer: Int?, _ scaleSite: Site,
    _ normalizedSite: Site
  ) throws -> (output: Tensor, changedScale: Tensor?) {
    guard plan.uses([scaleSite, normalizedSite], layer) else { return (ln?(x) ?? x, nil) }

    let parts = ln?.parts(x)
    var scale = parts?.scale ?? Tensor(repeating: 1, shape: [x.shape[0], 1])
    try hook(scaleSite, layer, &scale)
    let scaleChanged = plan.changes([scaleSite], layer)
    var normalized =
      scaleChanged
      ? self.normalized(x, ln, scale: scale) : parts?.normalized ?? config.normalizedWithoutNorm(x)
    try hook(normalizedSite, layer, &normalized)

    let changedScale = scaleChanged ? scale : nil
    guard scaleChanged || plan.changes([normalizedSite], layer) else {
      return (parts?.output ?? x, nil)
    }
    return (ln?.affine(normalized) ?? normalized, changedScale)
  }

  /// A norm's normalised input for scales that interventions gave. Without a norm, centred all the
  /// same: the folded weights annihilate the mean.
  func normalized(_ x: Tensor, _ ln: GPT2Weights.Norm?, scale: Tensor) -> Tensor {
    ln?.normalized(x, scale: scale)
      ?? config.normalizedWithoutNorm(x).dividingRows(by: scale)
  }

  // MARK: hooks

  mutating func hook(_ site: Site, _ x: inout Tensor) throws { try hook(site, nil, &x) }

  /// Lets interventions change `x`, shape `[rows, …]`, and records what they leave.
  mutating func hook(_ site: Site, _ layer: Int?, _ x: inout Tensor) throws {
    let name = HookName(site, layer: layer)
    for intervention in plan.edits(name) {
      for (prompt, rows) in packed.rows.enumerated()
      where intervention.prompt == nil || intervention.prompt == prompt {
        if packed.rows.count == 1 {
          try intervention.apply(to: &x, at: name)
        } else {
          var own = x.rows(rows)
          try intervention.apply(to: &own, at: name)
          x.replaceRows(at: rows.lowerBound, with: own)
        }
      }
    }
    if plan.records(name) {
      let whole = x
      cache.record(
        name,
        packed.rows.indices.map { prompt in
          let own = whole.rows(packed.rows[prompt])
          return plan.positions == .all ? own : own.gatheringRows(recordedPositions[prompt])
        })
    }
  }

  /// The same for one prompt's scores or pattern, shape `[head, query_pos, key_pos]`.
  mutating func hookAttention(
    _ site: Site, _ layer: Int, prompt: Int, _ x: inout Tensor
  ) throws {
    let name = HookName(site, layer: layer)
    for intervention in plan.edits(name)
    where intervention.prompt == nil || intervention.prompt == prompt {
      try intervention.apply(to: &x, at: name)
    }
    if plan.records(name) {
      cache.record(
        name, prompt: prompt,
        plan.positions == .all ? x : x.gatheringAxis1(recordedPositions[prompt]))
    }
  }
}

extension GPT2Config {
  /// What `hook_normalized` is in a model without norms: the stream centred, as the folded weights see
  /// it; a compressed stream has no mean to lose.
  func normalizedWithoutNorm(_ x: Tensor) -> Tensor { hasOnesDirection ? x.centeringRows() : x }
}
