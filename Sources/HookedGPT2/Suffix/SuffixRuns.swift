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

  /// Runs on top of `bases`.
  public init(_ model: GPT2, bases: [BaseRun]) {
    self.model = model
    self.config = model.config
    self.bases = bases
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
    var walk = try Walk(model, bases, runs)
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
    /// `(n_layers − layer)·(pos − position)`: how often one token passes one block.
    public var blockTokens: Int
    /// The most memory that the run needs during a walk, in bytes.
    public var bytes: Int

    /// The cost of a run on a base of `length` tokens that differs from `layer` and `position` on.
    public init(_ config: GPT2Config, layer: Int, position: Int, length: Int) {
      let rows = length - position
      // A row of the stream, its projections, the neurons before and after, and the gathered keys.
      let row = 12 * config.dModel + 2 * config.dMLP
      self.layer = layer
      self.position = position
      blockTokens = (config.nLayers - layer) * rows
      bytes = 4 * (rows * row + 2 * length * config.dModel)
    }
  }

  /// FLOPs of one block for one token: `2·(4·d_model² + 2·d_model·d_mlp)`.
  public var flopsPerBlockToken: Double { Self.flopsPerBlockToken(config) }

  /// As `flopsPerBlockToken`, of any model.
  public static func flopsPerBlockToken(_ config: GPT2Config) -> Double {
    let (d, m) = (Double(config.dModel), Double(config.dMLP))
    return 2 * (4 * d * d + 2 * d * m)
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
  /// Runs that start early come first, so that a batch walks few layers for nothing.
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
    var used = Int.max / 2
    for index in order {
      if used + costs[index].bytes > bytes {
        batches.append([])
        used = 0
      }
      batches[batches.count - 1].append(index)
      used += costs[index].bytes
    }
    return batches.map { $0.sorted() }
  }
}

/// One walk through the layers.
private struct Walk {
  private let config: GPT2Config
  private let weights: GPT2Weights
  private let bases: [BaseRun]
  private let runs: [PatchedRun]
  /// The interventions at a hook of each run that has some, ascending in the run.
  private var edits: [HookName: [(cell: Int, interventions: [Intervention])]] = [:]
  /// Runs whose interventions in the last layer mix positions: all of its rows are computed.
  private var mixing: Set<Int> = []
  /// Where the streams that enter the next layer differ from the bases'.
  private var stream: RowOverlay

  init(_ model: GPT2, _ bases: [BaseRun], _ runs: [PatchedRun]) throws(ModelError) {
    config = model.config
    weights = model.weights
    self.bases = bases
    self.runs = runs
    stream = RowOverlay(empty: [model.config.dModel])
    for (cell, run) in runs.enumerated() {
      precondition(bases.indices.contains(run.base), "SuffixRuns: base \(run.base)")
      for intervention in run.interventions {
        let target = intervention.target
        guard SuffixRuns.sites.contains(target.site) else {
          throw .intervention(
            hook: target.description, problem: "a sweep cannot resume a run from this site")
        }
        for name in try target.names(config) {
          Self.add(intervention, of: cell, to: &edits[name, default: []])
          if name.layer == config.nLayers - 1 && intervention.mixesPositions { mixing.insert(cell) }
        }
      }
    }
  }

  private static func add(
    _ intervention: Intervention, of cell: Int,
    to list: inout [(cell: Int, interventions: [Intervention])]
  ) {
    if list.last?.cell == cell {
      list[list.count - 1].interventions.append(intervention)
    } else {
      list.append((cell, [intervention]))
    }
  }

  private func length(_ cell: Int) -> Int { bases[runs[cell].base].length }

  private func base(_ site: Site, _ layer: Int) -> (Int) throws(ModelError) -> Tensor {
    { cell throws(ModelError) in try bases[runs[cell].base].activation(site, layer) }
  }

  // MARK: a block

  /// One block, in the order of `ForwardPass.block`.
  mutating func block(_ layer: Int) throws {
    let block = weights.blocks[layer]
    let isLast = layer == config.nLayers - 1
    stream = try edited(stream, .residPre, layer)

    let attnOut = try attention(layer, block, isLast: isLast)
    // resid_mid = resid_pre + attn_out.
    var residMid = try sum(
      stream, base(.residPre, layer), attnOut, base(.attnOut, layer), isLast: isLast)
    residMid = try edited(residMid, .residMid, layer)

    let mlpOut = try mlp(layer, block, residMid, isLast: isLast)
    let residPost = try sum(
      residMid, base(.residMid, layer), mlpOut, base(.mlpOut, layer), isLast: isLast)
    stream = try edited(residPost, .residPost, layer)
  }

  /// `activation(ln2(x)·W_in + b_in)·W_out + b_out` of the rows that differ.
  private func mlp(
    _ layer: Int, _ block: GPT2Weights.Block, _ residMid: RowOverlay, isLast: Bool
  ) throws -> RowOverlay {
    var wanted: [Int: Range<Int>] = [:]
    for entry in residMid.entries { wanted[entry.cell] = entry.positions }
    for site in [Site.mlpPre, .mlpPost] {
      for (cell, interventions) in edits[HookName(site, layer: layer)] ?? [] {
        for intervention in interventions {
          wanted[cell] = hull(wanted[cell], try touched(intervention, cell))
        }
      }
    }
    let layout = layout(wanted, isLast: isLast)
    guard !layout.isEmpty else { return RowOverlay(empty: [config.dModel]) }
    let input = try residMid.gathered(layout, base: base(.residMid, layer))
    let x = block.ln2?(input.rows) ?? input.rows
    var pre = RowOverlay(matmul(x, MatrixView(block.W_in), bias: block.b_in), layout)
    try editInPlace(&pre, .mlpPre, layer)
    var post = RowOverlay(config.activation(pre.rows), layout)
    try editInPlace(&post, .mlpPost, layer)
    let output = RowOverlay(matmul(post.rows, MatrixView(block.W_out), bias: block.b_out), layout)
    return try edited(output, .mlpOut, layer)
  }

  // MARK: attention

  private func attention(
    _ layer: Int, _ block: GPT2Weights.Block, isLast: Bool
  ) throws -> RowOverlay {
    let (d, heads, dHead) = (config.dModel, config.nHeads, config.dHead)
    let x = RowOverlay(
      stream.isEmpty ? stream.rows : block.ln1?(stream.rows) ?? stream.rows, stream.entries)
    let W = MatrixView(block.W_QKV)
    func project(_ part: Int, _ site: Site, _ x: RowOverlay) throws -> RowOverlay {
      let columns = part * d..<(part + 1) * d
      let rows = matmul(x.rows, W.columns(columns), bias: block.b_QKV.rows(columns))
      return try edited(
        RowOverlay(rows.reshaped([x.rows.shape[0], heads, dHead]), x.entries), site, layer)
    }
    // Of the last layer's queries only those that are read.
    let q = try project(0, .q, isLast ? lastRowsOnly(x, base(.residPre, layer)) : x)
    let (k, v) = (try project(1, .k, x), try project(2, .v, x))

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
      plain.isEmpty ? RowOverlay(empty: [heads, dHead]) : try self.mixed(layer, plain, q, k, v)
    let pieces = try mixedByPattern(layer, patterned, wanted, q, k, v)
    var z = try edited(mixed.replacing(pieces), .z, layer)
    if isLast { z = try lastRowsOnly(z, base(.z, layer)) }

    var output = RowOverlay(
      z.isEmpty
        ? Tensor(zeros: [0, d])
        : matmul(z.rows, MatrixView(block.W_O), bias: block.b_O), z.entries)
    output = try editedResults(layer, block, z, output)
    return try edited(output, .attnOut, layer)
  }

  /// z of a layout by the ordinary kernel.
  private func mixed(
    _ layer: Int, _ layout: [RowOverlay.Entry], _ q: RowOverlay, _ k: RowOverlay, _ v: RowOverlay
  ) throws -> RowOverlay {
    // Keys and values from the first position to each cell's last row.
    let keyLayout = RowOverlay.layout(layout.map { ($0.cell, 0..<$0.positions.upperBound) })
    let queries = try q.gathered(layout, base: base(.q, layer))
    let keys = try k.gathered(keyLayout, base: base(.k, layer))
    let values = try v.gathered(keyLayout, base: base(.v, layer))
    let segments = zip(layout, keyLayout).map { query, key in
      AttentionSegment(
        queries: query.start..<query.start + query.positions.count,
        keys: key.start..<key.start + key.positions.count)
    }
    return RowOverlay(
      causalAttention(
        q: queries.rows, k: keys.rows, v: values.rows, segments: segments,
        scale: config.attentionScale(layer: layer)), layout)
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
    let scale = config.attentionScale(layer: layer)
    /// The attention of base runs: that of every cell whose queries and keys are its base's.
    var baseAttention: [Int: (scores: Tensor, pattern: Tensor)] = [:]
    var pieces: [RowOverlay.Piece] = []
    for (cell, (scoreEdits, patternEdits)) in edits.sorted(by: { $0.key < $1.key }) {
      let (length, number) = (length(cell), runs[cell].base)
      let segment = AttentionSegment(queries: 0..<length, keys: 0..<length)
      let isBase = changed[cell] == nil
      let before: (scores: Tensor, pattern: Tensor)
      if isBase, let known = baseAttention[number] {
        before = known
      } else {
        let scores = attentionScores(
          q: try q.whole(cell, base: base(.q, layer)), k: try k.whole(cell, base: base(.k, layer)),
          segment: segment, scale: scale)
        before = (scores, causalSoftmax(scores))
        if isBase { baseAttention[number] = before }
      }
      var (scores, pattern) = before
      for intervention in scoreEdits {
        try intervention.apply(to: &scores, at: HookName(.attnScores, layer: layer))
      }
      if !scoreEdits.isEmpty { pattern = softmax(scores) }
      for intervention in patternEdits {
        try intervention.apply(to: &pattern, at: HookName(.pattern, layer: layer))
      }
      // An edit may reach rows before those that keys and values have changed.
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

  // MARK: readout

  /// The logits of every run.
  func readout(_ tokens: [[Int]]?) throws -> [(logits: Tensor, differs: Bool)] {
    // Runs whose changes do not reach the row that is read end like their bases.
    let read = stream.entries.filter { $0.positions.contains(length($0.cell) - 1) }
    let last = stream.rows.gatheringRows(
      read.map { $0.start + length($0.cell) - 1 - $0.positions.lowerBound })
    let x = read.isEmpty ? last : weights.lnFinal?(last) ?? last
    var patched: [Int: Tensor] = [:]
    if let tokens {
      // The few directions that are read, of each base.
      for base in Set(read.map { runs[$0.cell].base }) {
        let members = read.indices.filter { runs[read[$0].cell].base == base }
        let W = weights.W_U_transposed.gatheringRows(tokens[base])
        let bias = weights.b_U.map { b in Tensor(tokens[base].map { b[$0] }, shape: [W.shape[0]]) }
        let logits = matmulTransposed(x.gatheringRows(members), MatrixView(W), bias: bias)
        for (row, member) in members.enumerated() { patched[read[member].cell] = logits.row(row) }
      }
    } else if !read.isEmpty {
      let logits = matmulTransposed(x, MatrixView(weights.W_U_transposed), bias: weights.b_U)
      for (row, entry) in read.enumerated() { patched[entry.cell] = logits.row(row) }
    }
    return runs.indices.map { cell in
      if let logits = patched[cell] { return (logits, true) }
      let whole = bases[runs[cell].base].logits
      guard let tokens = tokens?[runs[cell].base] else { return (whole, false) }
      return (Tensor(tokens.map { whole[$0] }, shape: [tokens.count]), false)
    }
  }

  // MARK: edits

  /// An activation after the interventions at `site`: the rows that they change are added.
  private func edited(
    _ overlay: RowOverlay, _ site: Site, _ layer: Int
  ) throws -> RowOverlay {
    let name = HookName(site, layer: layer)
    guard let here = edits[name] else { return overlay }
    var pieces: [RowOverlay.Piece] = []
    for (cell, interventions) in here {
      let original = try base(site, layer)(cell)
      var value = try overlay.whole(cell, base: base(site, layer))
      for intervention in interventions { try intervention.apply(to: &value, at: name) }
      // Rows that had changed before count as changed, whatever they are now.
      guard let rows = hull(differingRows(value, original), overlay.entry(cell)?.positions) else {
        continue
      }
      pieces.append((cell, rows, value.rows(rows)))
    }
    return overlay.replacing(pieces)
  }

  /// Carries interventions out where every row that they touch is in the overlay already.
  private func editInPlace(_ overlay: inout RowOverlay, _ site: Site, _ layer: Int) throws {
    let name = HookName(site, layer: layer)
    for (cell, interventions) in edits[name] ?? [] {
      guard let entry = overlay.entry(cell) else { continue }
      // Rows that nobody reads stay zero.
      var value = Tensor(zeros: [length(cell)] + overlay.rows.shape.dropFirst())
      value.replaceRows(at: entry.positions.lowerBound, with: overlay.rows(of: entry))
      for intervention in interventions { try intervention.apply(to: &value, at: name) }
      overlay.rows.replaceRows(at: entry.start, with: value.rows(entry.positions))
    }
  }

  /// The rows that an intervention reads or writes, when it acts on a site without a base.
  private func touched(
    _ intervention: Intervention, _ cell: Int
  ) throws(ModelError) -> Range<Int> {
    let length = length(cell)
    if intervention.mixesPositions { return 0..<length }
    let positions = try intervention.target.positions.resolved(
      length: length, hook: intervention.target.description)
    return (positions.min() ?? 0)..<(positions.max() ?? 0) + 1
  }

  // MARK: rows

  /// `x + y` wherever one of them differs from its base.
  private func sum(
    _ x: RowOverlay, _ xBase: (Int) throws(ModelError) -> Tensor, _ y: RowOverlay,
    _ yBase: (Int) throws(ModelError) -> Tensor, isLast: Bool
  ) throws -> RowOverlay {
    var wanted: [Int: Range<Int>] = [:]
    for entry in x.entries { wanted[entry.cell] = entry.positions }
    for entry in y.entries {
      wanted[entry.cell] = hull(wanted[entry.cell], entry.positions)
    }
    let layout = layout(wanted, isLast: isLast)
    guard !layout.isEmpty else { return RowOverlay(empty: [config.dModel]) }
    let (a, b) = (try x.gathered(layout, base: xBase), try y.gathered(layout, base: yBase))
    return RowOverlay(a.rows + b.rows, layout)
  }

  /// The wanted rows as a layout; of the last layer only those that are read.
  private func layout(_ wanted: [Int: Range<Int>], isLast: Bool) -> [RowOverlay.Entry] {
    RowOverlay.layout(
      wanted.sorted { $0.key < $1.key }.compactMap { cell, rows in
        let read = length(cell) - 1
        if !isLast || mixing.contains(cell) { return (cell, rows) }
        return rows.contains(read) ? (cell, read..<read + 1) : nil
      })
  }

  private func lastRowsOnly(
    _ overlay: RowOverlay, _ base: (Int) throws(ModelError) -> Tensor
  ) throws -> RowOverlay {
    var wanted: [Int: Range<Int>] = [:]
    for entry in overlay.entries { wanted[entry.cell] = entry.positions }
    return try overlay.gathered(layout(wanted, isLast: true), base: base)
  }
}

extension Intervention {
  /// Whether what it makes of one position may depend on others.
  var mixesPositions: Bool {
    switch operation {
    case .edit, .mean: true
    case .replace, .add, .zero: false
    }
  }
}

/// The smallest range that holds both, as far as they are there.
private func hull(_ a: Range<Int>?, _ b: Range<Int>?) -> Range<Int>? {
  guard let a, let b else { return a ?? b }
  return min(a.lowerBound, b.lowerBound)..<max(a.upperBound, b.upperBound)
}

/// The rows in which two tensors of one shape are not bit for bit the same.
private func differingRows(_ a: Tensor, _ b: Tensor) -> Range<Int>? {
  let (count, width) = (a.shape[0], a.rowCount)
  let (x, y) = (a.span, b.span)
  var (first, last): (Int?, Int) = (nil, 0)
  for row in 0..<count {
    for i in row * width..<(row + 1) * width where x[i].bitPattern != y[i].bitPattern {
      if first == nil { first = row }
      last = row
      break
    }
  }
  return first.map { $0..<last + 1 }
}

/// The queries whose pattern, shape `[head, query_pos, key_pos]`, is not bit for bit the same.
private func differingQueries(_ a: Tensor, _ b: Tensor) -> Range<Int>? {
  let (heads, queries, keys) = (a.shape[0], a.shape[1], a.shape[2])
  let (x, y) = (a.span, b.span)
  var (first, last) = (queries, -1)
  for head in 0..<heads {
    for query in 0..<queries {
      let start = (head * queries + query) * keys
      for i in start..<start + keys where x[i].bitPattern != y[i].bitPattern {
        first = min(first, query)
        last = max(last, query)
        break
      }
    }
  }
  return last < 0 ? nil : first..<last + 1
}
