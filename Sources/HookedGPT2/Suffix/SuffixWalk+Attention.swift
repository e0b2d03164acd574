import Tensors

extension SuffixWalk {
  /// `softmax(scale·q·kᵀ)·v·W_O + b_O` of the rows that differ.
  func attention(
    _ layer: Int, _ block: GPT2Weights.Block, isLast: Bool
  ) throws -> RowOverlay {
    let (a, heads, dHead) = (config.dAttn, config.nHeads, config.dHead)
    let x = RowOverlay(try normalized(stream, block.ln1, .residPre, layer), stream.entries)
    let W = MatrixView(block.W_QKV)
    func project(_ part: Int, _ site: Site, _ x: RowOverlay) throws -> RowOverlay {
      let columns = part * a..<(part + 1) * a
      let rows = matmul(x.rows, W.columns(columns), bias: block.b_QKV.rows(columns))
      return try edited(
        RowOverlay(rows.reshaped([x.rows.shape[0], heads, dHead]), x.entries), site, layer)
    }
    // Of the last layer's queries only those that are read.
    let none = RowOverlay(empty: [heads, dHead])
    let isFrozen = frozen.contains(.pattern)
    let q =
      isFrozen
      ? none : try project(0, .q, isLast ? lastRowsOnly(x, base(.residPre, layer)) : x)
    let k = isFrozen ? none : try project(1, .k, x)
    let v = try project(2, .v, x)

    // Which rows of z differ: from the first changed key or value on, or where a query has changed.
    var wanted: [Int: Range<Int>] = [:]
    for entry in q.entries { wanted[entry.cell] = entry.positions }
    for entry in k.entries + v.entries {
      wanted[entry.cell] = hull(
        wanted[entry.cell], entry.positions.lowerBound..<length(entry.cell))
    }
    let patterned = patternEdits(layer)
    let plain = self.layout(wanted.filter { patterned[$0.key] == nil }, isLast: isLast)
    let mixed =
      plain.isEmpty ? none : try self.mixed(layer, plain, q, k, v)
    let pieces = try mixedByPattern(layer, patterned, wanted, q, k, v)
    var z = try edited(mixed.replacing(pieces), .z, layer)
    if isLast { z = try lastRowsOnly(z, base(.z, layer)) }

    var output = RowOverlay(
      z.isEmpty
        ? Tensor(zeros: [0, config.dModel])
        : matmul(z.rows, MatrixView(block.W_O), bias: block.b_O), z.entries)
    output = try editedResults(layer, block, z, output)
    return try edited(output, .attnOut, layer)
  }

  /// z of a layout, for runs whose scores and pattern nobody edits.
  private func mixed(
    _ layer: Int, _ layout: [RowOverlay.Entry], _ q: RowOverlay, _ k: RowOverlay, _ v: RowOverlay
  ) throws -> RowOverlay {
    var numbers: [Int: Int] = [:]
    var inputs: [AttentionInputs] = []
    var patterns: [Tensor] = []
    var segments: [ResumedSegment] = []
    for entry in layout {
      let cell = entry.cell
      let base = runs[cell].base
      if numbers[base] == nil {
        numbers[base] = inputs.count
        inputs.append(
          AttentionInputs(
            q: try self.base(.q, layer)(cell), k: try self.base(.k, layer)(cell),
            v: try self.base(.v, layer)(cell)))
        if frozen.contains(.pattern) { patterns.append(try baseAttention(layer, cell).pattern) }
      }
      segments.append(
        ResumedSegment(
          base: numbers[base] ?? 0, positions: entry.positions, queries: q.own(cell),
          keys: k.own(cell), values: v.own(cell)))
    }
    let z = resumedAttention(
      AttentionInputs(q: q.rows, k: k.rows, v: v.rows), bases: inputs,
      patterns: patterns.isEmpty ? nil : patterns, segments: segments,
      scale: config.attentionScale(layer: layer))
    return RowOverlay(z, layout)
  }

  /// The attention of a cell's base run.
  private func baseAttention(
    _ layer: Int, _ cell: Int
  ) throws(ModelError) -> (scores: Tensor, pattern: Tensor) {
    let length = length(cell)
    let scores = attentionScores(
      q: try base(.q, layer)(cell), k: try base(.k, layer)(cell),
      segment: AttentionSegment(queries: 0..<length, keys: 0..<length),
      scale: config.attentionScale(layer: layer))
    return (scores, causalSoftmax(scores))
  }

  /// The runs whose scores or pattern are edited in this layer, with these interventions.
  private func patternEdits(
    _ layer: Int
  ) -> [Int: (scores: [Intervention], pattern: [Intervention])] {
    var result: [Int: (scores: [Intervention], pattern: [Intervention])] = [:]
    for (cell, interventions) in edits[HookName(.attnScores, layer: layer)] ?? [] {
      result[cell, default: ([], [])].scores = interventions
    }
    for (cell, interventions) in edits[HookName(.pattern, layer: layer)] ?? [] {
      result[cell, default: ([], [])].pattern = interventions
    }
    return result
  }

  /// z of cells whose scores or pattern are edited; the rows that differ are told by the pattern.
  private func mixedByPattern(
    _ layer: Int, _ edits: [Int: (scores: [Intervention], pattern: [Intervention])],
    _ changed: [Int: Range<Int>], _ q: RowOverlay, _ k: RowOverlay, _ v: RowOverlay
  ) throws -> [RowOverlay.Piece] {
    /// The attention of base runs: that of every cell whose queries and keys are its base's.
    var known: [Int: (scores: Tensor, pattern: Tensor)] = [:]
    var pieces: [RowOverlay.Piece] = []
    for (cell, (scoreEdits, patternEdits)) in edits.sorted(by: { $0.key < $1.key }) {
      let (length, number) = (length(cell), runs[cell].base)
      let segment = AttentionSegment(queries: 0..<length, keys: 0..<length)
      let before: (scores: Tensor, pattern: Tensor)
      if q.entry(cell) == nil && k.entry(cell) == nil {
        if let kept = known[number] {
          before = kept
        } else {
          before = try baseAttention(layer, cell)
          known[number] = before
        }
      } else {
        let scores = attentionScores(
          q: try q.whole(cell, base: base(.q, layer)), k: try k.whole(cell, base: base(.k, layer)),
          segment: segment, scale: config.attentionScale(layer: layer))
        before = (scores, causalSoftmax(scores))
      }
      var (scores, pattern) = before
      // A frozen pattern is the base's whatever the scores are.
      if !scoreEdits.isEmpty && !frozen.contains(.pattern) {
        for intervention in scoreEdits {
          try intervention.apply(to: &scores, at: HookName(.attnScores, layer: layer))
        }
        pattern = softmax(scores)
      }
      for intervention in patternEdits {
        try intervention.apply(to: &pattern, at: HookName(.pattern, layer: layer))
      }
      // An edit may reach rows before those that keys and values have changed.
      let isBase = changed[cell] == nil
      guard let rows = isBase ? differingQueries(pattern, before.pattern) : 0..<length else {
        continue
      }
      var z = Tensor(uninitialized: [length, config.nHeads, config.dHead])
      applyAttention(
        pattern: pattern, v: try v.whole(cell, base: base(.v, layer)), segment: segment, into: &z)
      pieces.append((cell, rows, z.rows(rows)))
    }
    return pieces
  }

  /// What edits of single heads' results make of `attn_out`.
  private func editedResults(
    _ layer: Int, _ block: GPT2Weights.Block, _ z: RowOverlay, _ output: RowOverlay
  ) throws -> RowOverlay {
    let name = HookName(.result, layer: layer)
    guard let here = edits[name] else { return output }
    var pieces: [RowOverlay.Piece] = []
    for (cell, interventions) in here {
      let before = ForwardPass.headResults(try z.whole(cell, base: base(.z, layer)), block.W_O)
      var after = before
      for intervention in interventions { try intervention.apply(to: &after, at: name) }
      let already = z.entry(cell)?.positions
      guard let rows = hull(differingRows(after, before), already) else { continue }
      let sums = after.rows(rows).summingAxis1().addingToRows(block.b_O)
      pieces.append((cell, rows, sums))
    }
    return output.replacing(pieces)
  }

}
