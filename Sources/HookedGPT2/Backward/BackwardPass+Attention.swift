import Tensors

extension BackwardPass {
  /// From `resid_mid` to `resid_pre`, through `softmax(scale·q·kᵀ)·v·W_O + b_O` and ln1; nil where the
  /// walk ends before. Keys and values carry gradients to every position before a query's.
  func attention(
    _ block: GPT2Weights.Block, _ level: Level, _ g: Tensor,
    _ visitor: inout some BackwardVisitor
  ) throws -> (residPre: Tensor, rows: PackedRows)? {
    let layer = level.layer ?? 0
    let (a, heads, dHead) = (config.dAttn, config.nHeads, config.dHead)
    try visit(.attnOut, level, g, &visitor)
    try visit(
      .attnOut(layer), level,
      input: {
        let z = try packed(.z, layer, level.rows)
        return z.reshaped([level.rows.count, a])
      }, g, &visitor)
    try visit(.result, level, g.repeatingRows(heads), &visitor)
    guard level.plan.reaches(layer, .z) else { return nil }

    let g_z = matmulTransposed(g, MatrixView(block.W_O))
      .reshaped([level.rows.count, heads, dHead])
    try visit(.z, level, g_z, &visitor)
    guard level.plan.reaches(layer, .attention) else { return nil }

    var below = level
    below.rows = PackedRows(
      level.rows.positions.enumerated().map { run, positions in
        first[run]..<positions.upperBound
      })
    let g_qkv = try throughPattern(level, below, g_z, &visitor)
    for (part, site) in [(2, Site.v), (1, .k), (0, .q)] {
      try visit(site, below, g_qkv.column(part), &visitor)
    }
    let residPre = try packed(.residPre, layer, below.rows)
    let flat = g_qkv.reshaped([below.rows.count, 3 * a])
    try visit(
      .qkv(layer), below, input: { block.ln1?(residPre) ?? residPre }, flat, &visitor)
    guard level.plan.reaches(layer, .ln1) else { return nil }

    // Where the pattern is a constant, nothing reaches queries and keys.
    let W = MatrixView(block.W_QKV)
    let values = g_qkv.column(2).reshaped([below.rows.count, a])
    let g_x =
      rules.attentionPattern
      ? matmulTransposed(values, W.columns(2 * a..<3 * a)) : matmulTransposed(flat, W)
    let sites = NormSites(.ln1(layer), .ln1Normalized, .ln1Scale, block.ln1)
    let g_in = try norm(sites, below, g_x, at: residPre, &visitor)
    try visitHeadInputs(block, below, g_qkv, at: residPre, &visitor)
    return (level.rows.spreading(g, to: below.rows) + g_in, below.rows)
  }

  /// From z to q, k and v, `[rows, 3, head, d_head]`. The whole gradients at a pattern and at scores
  /// exist only where they are wanted, one run's at a time.
  private func throughPattern(
    _ level: Level, _ below: Level, _ g_z: Tensor, _ visitor: inout some BackwardVisitor
  ) throws -> Tensor {
    let layer = level.layer ?? 0
    let segments = try runs.indices.map { run in
      AttentionGradientSegment(
        AttentionInputs(
          q: try runs[run].activation(.q, layer), k: try runs[run].activation(.k, layer),
          v: try runs[run].activation(.v, layer)),
        queries: level.rows.positions[run], at: level.rows.starts[run],
        positions: below.rows.positions[run], at: below.rows.starts[run])
    }
    let scale = config.attentionScale(layer: layer)
    var result = Tensor(zeros: [below.rows.count, 3, config.nHeads, config.dHead])
    let (scoresName, patternName) = (level.name(.attnScores), level.name(.pattern))
    guard level.plan.wants(scoresName) || level.plan.wants(patternName) else {
      addAttentionGradients(g_z, segments, scale: scale, shares: rules.shares, to: &result)
      return result
    }
    for run in runs.indices {
      let (scores, pattern) = addAttentionGradientParts(
        g_z, segments[run], scale: scale, shares: rules.shares, to: &result)
      let shape = [config.nHeads, wanted(run).count, runs[run].length]
      if level.plan.wants(patternName) {
        try visitor.visit(patternName, run: run, pattern.padded(to: shape, with: 0))
      }
      if level.plan.wants(scoresName) {
        try visitor.visit(scoresName, run: run, scores.padded(to: shape, with: 0))
      }
    }
    return result
  }

  /// The gradients at the stream as each head reads it, `[pos, head, d_model]`, one run at a time:
  /// each head's through its own copy of ln1.
  private func visitHeadInputs(
    _ block: GPT2Weights.Block, _ level: Level, _ g_qkv: Tensor, at residPre: Tensor,
    _ visitor: inout some BackwardVisitor
  ) throws {
    let (a, heads, dHead) = (config.dAttn, config.nHeads, config.dHead)
    let all = level.plan.wants(level.name(.attnIn))
    let parts = [(2, Site.vInput), (1, .kInput), (0, .qInput)].filter {
      all || level.plan.wants(level.name($0.1))
    }
    if parts.isEmpty { return }
    for run in runs.indices {
      let rows = level.rows.rows(of: run)
      let (x, own) = (residPre.rows(rows), g_qkv.rows(rows))
      let alone = PackedRows([level.rows.positions[run]])
      var sum: Tensor?
      for (part, site) in parts {
        let g = own.column(part)
        var inputs = Tensor(uninitialized: [rows.count, heads, config.dModel])
        for head in 0..<heads {
          let columns = part * a + head * dHead..<part * a + (head + 1) * dHead
          let g_x = matmulTransposed(g.column(head), MatrixView(block.W_QKV).columns(columns))
          inputs.replaceColumn(
            head,
            with: block.ln1.map {
              $0.gradient(g_x, at: x, fixedScale: rules.ln).input
            } ?? g_x)
        }
        if level.plan.wants(level.name(site)) {
          try visitor.visit(
            level.name(site), run: run, alone.unpacking(inputs, run: 0, into: wanted(run)))
        }
        if all { sum = sum.map { $0 + inputs } ?? inputs }
      }
      if let sum {
        try visitor.visit(
          level.name(.attnIn), run: run, alone.unpacking(sum, run: 0, into: wanted(run)))
      }
    }
  }
}

extension BackwardRules {
  /// What the rules make of attention's two products. By the uniform rule z's gradient is halved for
  /// the pattern and for the values, and the scores' again for queries and keys.
  var shares: AttentionGradientShares {
    let half: Float = uniformAttention ? 0.5 : 1
    return AttentionGradientShares(
      pattern: attentionPattern ? 0 : half, values: half, queriesAndKeys: half)
  }
}
