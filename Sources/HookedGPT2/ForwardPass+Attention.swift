import Tensors

extension ForwardPass {
  /// `softmax(scale·q·kᵀ)·v·W_O + b_O`, `[rows, d_model]`.
  ///
  /// Attention is the only step that mixes positions.
  mutating func attention(
    _ layer: Int, _ block: GPT2Weights.Block, _ residPre: Tensor, past: inout KeyValueCache?
  ) throws -> Tensor {
    let (rows, heads, dHead) = (residPre.shape[0], config.nHeads, config.dHead)
    let inputs = try attentionInputs(layer, block, residPre)
    var q = inputs.q.reshaped([rows, heads, dHead])
    var k = inputs.k.reshaped([rows, heads, dHead])
    var v = inputs.v.reshaped([rows, heads, dHead])
    try hook(.q, layer, &q)
    try hook(.k, layer, &k)
    try hook(.v, layer, &v)

    var z = try mixedValues(layer, q, k, v, past: &past)
    try hook(.z, layer, &z)

    var attnOut: Tensor
    let resultName = HookName(.result, layer: layer)
    if plan.uses(resultName) {
      var result = Self.headResults(z, block.W_O)
      try hook(.result, layer, &result)
      attnOut =
        plan.changes(resultName)
        ? result.summingAxis1().addingToRows(block.b_O)
        : matmul(z, MatrixView(block.W_O), bias: block.b_O)
    } else {
      attnOut = matmul(z, MatrixView(block.W_O), bias: block.b_O)
    }
    try hook(.attnOut, layer, &attnOut)
    return attnOut
  }

  /// `z = pattern·v`, shape `[rows, head, d_head]`; the pattern exists as a whole only where a hook
  /// wants it.
  private mutating func mixedValues(
    _ layer: Int, _ q: Tensor, _ k: Tensor, _ v: Tensor, past: inout KeyValueCache?
  ) throws -> Tensor {
    let scale = config.attentionScale(layer: layer)
    if past != nil {
      let keys = past?.append(k, v, layer: layer) ?? 0
      guard let past else { return v }
      let segment = AttentionSegment(queries: 0..<q.shape[0], keys: 0..<keys)
      return causalAttention(
        q: q, k: past.k[layer], v: past.v[layer], segments: [segment], scale: scale)
    }
    guard plan.uses([.attnScores, .pattern], layer) else {
      return causalAttention(q: q, k: k, v: v, segments: packed.segments, scale: scale)
    }
    var z = Tensor(uninitialized: v.shape)
    guard plan.changes([.attnScores, .pattern], layer) else {
      for (prompt, segment) in packed.segments.enumerated() {
        var (scores, pattern) = causalAttentionParts(
          q: q, k: k, v: v, segment: segment, scale: scale, into: &z)
        try hookAttention(.attnScores, layer, prompt: prompt, &scores)
        try hookAttention(.pattern, layer, prompt: prompt, &pattern)
      }
      return z
    }
    let scoresChanged = plan.changes([.attnScores], layer)
    for (prompt, segment) in packed.segments.enumerated() {
      var scores = attentionScores(q: q, k: k, segment: segment, scale: scale)
      try hookAttention(.attnScores, layer, prompt: prompt, &scores)
      // Edited scores need not be causal any more.
      var pattern = scoresChanged ? softmax(scores) : causalSoftmax(scores)
      try hookAttention(.pattern, layer, prompt: prompt, &pattern)
      applyAttention(pattern: pattern, v: v, segment: segment, into: &z)
    }
    return z
  }

  /// Queries, keys and values, `[rows, head·d_head]` each.
  private mutating func attentionInputs(
    _ layer: Int, _ block: GPT2Weights.Block, _ residPre: Tensor
  ) throws -> (q: Tensor, k: Tensor, v: Tensor) {
    let a = config.dAttn
    let (x, changedScale) = try normalize(residPre, block.ln1, layer, .ln1Scale, .ln1Normalized)
    let W = MatrixView(block.W_QKV)
    func project(_ part: Int) -> Tensor {
      let columns = part * a..<(part + 1) * a
      return matmul(x, W.columns(columns), bias: block.b_QKV.rows(columns))
    }
    guard plan.uses(Site.headInputs, layer) else {
      return (project(0), project(1), project(2))
    }

    // Each head reads its own copy of the stream, [rows, head, d_model].
    var attnIn = residPre.repeatingRows(config.nHeads)
    try hook(.attnIn, layer, &attnIn)
    let allChanged = plan.changes([.attnIn], layer)
    var projected: [Tensor] = []
    for (part, site) in [Site.qInput, .kInput, .vInput].enumerated() {
      var input = attnIn
      if plan.uses([site], layer) { try hook(site, layer, &input) }
      let changed = allChanged || plan.changes([site], layer)
      projected.append(
        changed ? projectHeads(input, part, block, fixedScale: changedScale) : project(part))
    }
    return (projected[0], projected[1], projected[2])
  }

  /// Queries (part 0), keys (1) or values (2) of heads that read their own inputs
  /// `[rows, head, d_model]`, through ln1: `[rows, head·d_head]`. A scale that interventions changed
  /// holds for every head's input, so that a frozen scale is frozen for them too.
  private func projectHeads(
    _ input: Tensor, _ part: Int, _ block: GPT2Weights.Block, fixedScale: Tensor?
  ) -> Tensor {
    let (rows, heads, dHead, a) = (input.shape[0], config.nHeads, config.dHead, config.dAttn)
    var output = Tensor(uninitialized: [rows, heads, dHead])
    for head in 0..<heads {
      let stream = input.column(head)
      let x: Tensor
      if let fixedScale {
        let normalized = self.normalized(stream, block.ln1, scale: fixedScale)
        x = block.ln1?.affine(normalized) ?? normalized
      } else {
        x = block.ln1?(stream) ?? stream
      }
      let columns = part * a + head * dHead..<part * a + (head + 1) * dHead
      output.replaceColumn(
        head,
        with: matmul(x, MatrixView(block.W_QKV).columns(columns), bias: block.b_QKV.rows(columns)))
    }
    return output.reshaped([rows, heads * dHead])
  }

  /// What each head writes, `z_h·W_O[h]`: `[rows, head, d_head]` → `[rows, head, d_model]`.
  static func headResults(_ z: Tensor, _ W_O: Tensor) -> Tensor {
    let (rows, heads, dHead) = (z.shape[0], z.shape[1], z.shape[2])
    var result = Tensor(uninitialized: [rows, heads, W_O.shape[1]])
    for head in 0..<heads {
      let W = MatrixView(W_O).rows(head * dHead..<(head + 1) * dHead)
      result.replaceColumn(head, with: matmul(z.column(head), W))
    }
    return result
  }
}

/// Keys and values of the tokens that have been run, for generation one token at a time.
struct KeyValueCache {
  /// Each layer's keys, shape `[n_ctx, head, d_head]`; the first `count` rows are filled.
  private(set) var k: [Tensor]
  /// Each layer's values, shape `[n_ctx, head, d_head]`.
  private(set) var v: [Tensor]
  /// The tokens whose keys and values every layer holds.
  private(set) var count = 0

  init(_ config: GPT2Config, capacity: Int) {
    let shape = [capacity, config.nHeads, config.dHead]
    k = (0..<config.nLayers).map { _ in Tensor(zeros: shape) }
    v = (0..<config.nLayers).map { _ in Tensor(zeros: shape) }
  }

  /// Adds the new tokens' keys and values and returns how many the layer then has.
  mutating func append(_ newK: Tensor, _ newV: Tensor, layer: Int) -> Int {
    k[layer].replaceRows(at: count, with: newK)
    v[layer].replaceRows(at: count, with: newV)
    return count + newK.shape[0]
  }

  /// Tells that all layers have the next `tokens` tokens.
  mutating func advance(_ tokens: Int) { count += tokens }
}
