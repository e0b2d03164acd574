import Tensors

/// The backward pass through a model, by hand: from the derivative of a number by the logits down to
/// the embeddings, with the derivative at every hook on the way.
///
/// What it needs of the forward pass is what `BaseRun` kept; patterns and neurons are computed again,
/// one layer at a time. Per block, with g the gradient at `resid_post`:
///
///     g_post = g·W_outᵀ                g_pre = g_post ⊙ activation′(pre)
///     g     += norm2′(g_pre·W_inᵀ)
///     g_z    = g·W_Oᵀ                  g_pattern = g_z·vᵀ             g_v = patternᵀ·g_z
///     g_scores = pattern ⊙ (g_pattern − Σ pattern ⊙ g_pattern)
///     g_q    = scale·g_scores·k        g_k = scale·g_scoresᵀ·q
///     g     += norm1′(g_q·W_Qᵀ + g_k·W_Kᵀ + g_v·W_Vᵀ)
///
/// with the derivatives replaced as `BackwardRules` say.
public struct BackwardPass {
  let model: GPT2
  let runs: [BaseRun]
  let rules: BackwardRules
  let first: [Int]

  /// A pass through some runs.
  ///
  /// - Parameters:
  ///   - model: the model that was run.
  ///   - runs: the runs, of any lengths.
  ///   - rules: how it goes through what is not linear.
  ///   - first: of each run the first position whose gradients are wanted; nil means all. Gradients at
  ///     a position depend on those at later ones only, so that what comes before need not be
  ///     computed.
  /// - Precondition: a first position for each run, at most its length.
  public init(
    _ model: GPT2, _ runs: [BaseRun], rules: BackwardRules = .gradient, from first: [Int]? = nil
  ) {
    self.model = model
    self.runs = runs
    self.rules = rules
    self.first = first ?? runs.map { _ in 0 }
    precondition(
      self.first.count == runs.count, "BackwardPass: \(runs.count) runs, first \(first ?? [])")
  }

  /// Walks down.
  ///
  /// - Parameters:
  ///   - start: of each run the derivative by its logits; those at positions before the run's first
  ///     are left out.
  ///   - visitor: what looks at the gradients.
  /// - Throws: `ModelError.nothingMatches` for a position that a run does not have,
  ///   `.tokenOutOfRange`, `.nonFinite` where a derivative or a gradient is no number; whatever the
  ///   visitor throws.
  /// - Precondition: a start for each run.
  /// - Complexity: about 4/3 of a forward pass through the blocks: each weight is read once, that of
  ///   `W_in` twice. The memory is that of one layer's neurons and of the largest gradient looked at.
  public func walk(from start: [LogitGradient], _ visitor: inout some BackwardVisitor) throws {
    try check(start)
    let plan = BackwardPlan(config, visitor)
    var level: Level
    var g: Tensor
    (g, level) = try unembedding(start, plan, &visitor)
    for layer in (0..<config.nLayers).reversed() {
      guard plan.reaches(layer, .output) else { return }
      let block = model.weights.blocks[layer]
      level.layer = layer
      try visit(.residPost, level, g, &visitor)
      try visit(.mlpOut, level, g, &visitor)
      guard plan.reaches(layer, .neurons) else { return }
      guard let residMid = try mlp(block, level, g, &visitor) else { return }
      guard let (residPre, rows) = try attention(block, level, residMid, &visitor) else { return }
      g = residPre
      level.rows = rows
      if !g.isFinite {
        throw ModelError.nonFinite(what: "the gradient at \(HookName(.residPre, layer: layer))")
      }
      try visit(.residPre, level, g, &visitor)
    }
    try visit(.posEmbed, level, g, &visitor)
    try visit(.embed, level, g, &visitor)
  }

  /// Where a walk is: its rows and what is asked of it.
  struct Level {
    /// The block.
    var layer: Int?
    /// The rows whose gradients may differ from 0.
    var rows: PackedRows
    let plan: BackwardPlan

    func name(_ site: Site) -> HookName { HookName(site, layer: site.isPerLayer ? layer : nil) }
  }

  var config: GPT2Config { model.config }

  private func check(_ start: [LogitGradient]) throws(ModelError) {
    precondition(
      start.count == runs.count, "BackwardPass: \(start.count) starts for \(runs.count) runs")
    for (run, gradient) in start.enumerated() {
      let length = runs[run].length
      if let bad = gradient.positions.first(where: { !(0..<length).contains($0) }) {
        throw .nothingMatches(
          filter: "logits of prompt \(run)",
          reason: "position \(bad) of a prompt of \(length) tokens")
      }
      if let bad = gradient.tokens?.first(where: { !(0..<config.dVocab).contains($0) }) {
        throw .tokenOutOfRange(
          prompt: run, position: gradient.positions.first ?? 0, token: bad, limit: config.dVocab)
      }
      precondition(
        gradient.tokens != nil || gradient.values.shape[1] == config.dVocab,
        "LogitGradient: values \(gradient.values.shape) for \(config.dVocab) tokens")
      if !gradient.values.isFinite {
        throw .nonFinite(what: "the derivative by the logits of prompt \(run)")
      }
    }
  }

  // MARK: the unembedding

  /// From the logits to the stream after the last block; its rows are those between the first and the
  /// last position that are read.
  private func unembedding(
    _ start: [LogitGradient], _ plan: BackwardPlan, _ visitor: inout some BackwardVisitor
  ) throws -> (Tensor, Level) {
    if plan.wants(HookName(.unembedOut)) {
      for run in runs.indices {
        try visitor.visit(HookName(.unembedOut), run: run, dense(start[run], run: run))
      }
    }
    // Which of the positions that are read are not before the first.
    let read = start.enumerated().map { run, gradient in
      gradient.positions.indices.filter { gradient.positions[$0] >= first[run] }
    }
    let rows = PackedRows(
      zip(start, read).enumerated().map { run, pair in
        let (gradient, read) = pair
        guard let low = read.first, let high = read.last else { return first[run]..<first[run] }
        return gradient.positions[low]..<gradient.positions[high] + 1
      })
    let products = byUnembedding(zip(start, read).map { $0.rows($1) })
    var g = Tensor(zeros: [rows.count, config.dModel])
    for run in runs.indices {
      for (row, index) in read[run].enumerated() {
        let position = start[run].positions[index] - rows.positions[run].lowerBound
        g.replaceRows(
          at: rows.starts[run] + position, with: products[run].rows(row..<row + 1))
      }
    }
    let level = Level(layer: nil, rows: rows, plan: plan)
    try visit(.unembedIn, level, g, &visitor)
    let stream = try packed(.residPost, config.nLayers - 1, rows)
    let sites = NormSites(.lnFinal, .lnFinalNormalized, .lnFinalScale, model.weights.lnFinal)
    return (try norm(sites, level, g, at: stream, &visitor), level)
  }

  /// The derivatives by the logits times `W_Uᵀ`, `[positions, d_model]` each; those by the whole
  /// vocabulary together, so that `W_U` is read once.
  private func byUnembedding(_ start: [LogitGradient]) -> [Tensor] {
    let W_U = model.weights.W_U_transposed
    let whole = start.filter { $0.tokens == nil }.map(\.values)
    let products =
      whole.isEmpty
      ? Tensor(zeros: [0, config.dModel])
      : matmul(Tensor.concatenating(whole), MatrixView(W_U))
    var used = 0
    return start.map { gradient in
      if let tokens = gradient.tokens {
        let rows = W_U.gatheringRows(tokens)
        return matmul(gradient.values, MatrixView(rows))
      }
      defer { used += gradient.positions.count }
      return products.rows(used..<used + gradient.positions.count)
    }
  }

  /// A derivative by all logits from the run's first position on, `[pos − first, d_vocab]`.
  private func dense(_ gradient: LogitGradient, run: Int) -> Tensor {
    var result = Tensor(zeros: [runs[run].length - first[run], config.dVocab])
    var target = result.mutableSpan
    let values = gradient.values.span
    let width = gradient.values.shape[1]
    for (row, position) in gradient.positions.enumerated() where position >= first[run] {
      for column in 0..<width {
        let token = gradient.tokens?[column] ?? column
        target[(position - first[run]) * config.dVocab + token] += values[row * width + column]
      }
    }
    return result
  }

  // MARK: the MLP

  /// From `resid_post` to `resid_mid`, through `activation(ln2(x)·W_in + b_in)·W_out + b_out`; nil
  /// where the walk ends before.
  private func mlp(
    _ block: GPT2Weights.Block, _ level: Level, _ g: Tensor,
    _ visitor: inout some BackwardVisitor
  ) throws -> Tensor? {
    let layer = level.layer ?? 0
    let residMid = try packed(.residMid, layer, level.rows)
    let x = block.ln2?(residMid) ?? residMid
    let pre = matmul(x, MatrixView(block.W_in), bias: block.b_in)
    try visit(.mlpOut(layer), level, input: { config.activation(pre) }, g, &visitor)
    let g_post = matmulTransposed(g, MatrixView(block.W_out))
    try visit(.mlpPost, level, g_post, &visitor)
    let g_pre = config.activation.gradient(g_post, at: pre, share: rules.identity)
    try visit(.mlpPre, level, g_pre, &visitor)
    try visit(.mlpIn(layer), level, input: { x }, g_pre, &visitor)
    guard level.plan.reaches(layer, .ln2) else { return nil }

    let g_x = matmulTransposed(g_pre, MatrixView(block.W_in))
    let sites = NormSites(.ln2(layer), .ln2Normalized, .ln2Scale, block.ln2)
    let g_in = try norm(sites, level, g_x, at: residMid, &visitor)
    try visit(.mlpIn, level, g_in, &visitor)
    let sum = g + g_in
    try visit(.residMid, level, sum, &visitor)
    return sum
  }

  // MARK: norms

  /// A norm with the names of its hooks and its parameters.
  struct NormSites {
    let step: ParameterStep
    let normalized: Site
    let scale: Site
    let norm: GPT2Weights.Norm?

    init(_ step: ParameterStep, _ normalized: Site, _ scale: Site, _ norm: GPT2Weights.Norm?) {
      self.step = step
      self.normalized = normalized
      self.scale = scale
      self.norm = norm
    }
  }

  /// From a norm's output to its input `x`. Without norms the folded weights read the stream itself:
  /// `normalized` is then their input, its gradient theirs, and `scale` divides it.
  func norm(
    _ sites: NormSites, _ level: Level, _ g: Tensor, at x: Tensor,
    _ visitor: inout some BackwardVisitor
  ) throws -> Tensor {
    guard let norm = sites.norm else {
      try visit(sites.normalized, level, g, &visitor)
      try visit(sites.scale, level, byScaleOne(g, config.normalizedWithoutNorm(x)), &visitor)
      return g
    }
    try visit(sites.step, level, input: { norm.parts(x).normalized }, g, &visitor)
    let gradient = norm.gradient(
      g, at: x, fixedScale: rules.ln,
      keepingNormalized: level.plan.wants(level.name(sites.normalized)))
    try visit(sites.normalized, level, gradient.normalized, &visitor)
    try visit(sites.scale, level, gradient.scale, &visitor)
    return gradient.input
  }

  /// The gradient at a scale of 1, `−Σ ĝ ⊙ normalized`, `[rows, 1]`.
  private func byScaleOne(_ g: Tensor, _ normalized: Tensor) -> Tensor {
    let rows = g.shape[0]
    return Tensor(
      (0..<rows).map { Float(-g.row($0).dot(normalized.row($0))) }, shape: [rows, 1])
  }

  // MARK: rows

  /// Rows of what the runs kept of a site.
  func packed(_ site: Site, _ layer: Int, _ rows: PackedRows) throws(ModelError) -> Tensor {
    rows.packing(try runs.map { run throws(ModelError) in try run.activation(site, layer) })
  }

  /// The positions that a run's gradients are handed over for.
  func wanted(_ run: Int) -> Range<Int> { first[run]..<runs[run].length }

  /// Hands the gradient at a hook over, run by run, if it is wanted.
  func visit(
    _ site: Site, _ level: Level, _ gradient: @autoclosure () throws -> Tensor,
    _ visitor: inout some BackwardVisitor
  ) throws {
    let name = level.name(site)
    guard level.plan.wants(name) else { return }
    let gradient = try gradient()
    for run in runs.indices {
      try visitor.visit(
        name, run: run, level.rows.unpacking(gradient, run: run, into: wanted(run)))
    }
  }

  /// Hands a step's input and the gradient at its output over, run by run, if they are wanted.
  func visit(
    _ step: ParameterStep, _ level: Level, input: () throws -> Tensor, _ gradient: Tensor,
    _ visitor: inout some BackwardVisitor
  ) throws {
    guard level.plan.wants(step) else { return }
    for run in runs.indices {
      try visitor.visit(
        step, run: run,
        input: { level.rows.unpacking(try input(), run: run, into: wanted(run)) },
        gradient: level.rows.unpacking(gradient, run: run, into: wanted(run)))
    }
  }
}

extension LogitGradient {
  /// The derivatives by the logits at some of the positions, given by index.
  fileprivate func rows(_ indices: [Int]) -> LogitGradient {
    if indices.count == positions.count { return self }
    return LogitGradient(
      at: indices.map { positions[$0] }, tokens: tokens, values.gatheringRows(indices))
  }
}
