import Tensors

/// One walk through the layers.
struct SuffixWalk {
  let config: GPT2Config
  private let weights: GPT2Weights
  let runs: [PatchedRun]
  let frozen: Set<FrozenStep>
  private let bases: [BaseRun]
  /// The interventions at a hook of each run that has some, ascending in the run.
  private(set) var edits: [HookName: [(cell: Int, interventions: [Intervention])]] = [:]
  /// Runs whose interventions in the last layer mix positions: all of its rows are computed.
  private var mixing: Set<Int> = []
  /// Where the streams that enter the next layer differ from the bases'.
  private(set) var stream: RowOverlay

  init(
    _ model: GPT2, _ bases: [BaseRun], _ runs: [PatchedRun], freezing frozen: Set<FrozenStep>
  ) throws(ModelError) {
    config = model.config
    weights = model.weights
    self.bases = bases
    self.runs = runs
    self.frozen = frozen
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

  func length(_ cell: Int) -> Int { bases[runs[cell].base].length }

  func base(_ site: Site, _ layer: Int) -> (Int) throws(ModelError) -> Tensor {
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
    // No row differs yet: an edit of what the MLP writes may make some.
    guard !layout.isEmpty else {
      return try edited(RowOverlay(empty: [config.dModel]), .mlpOut, layer)
    }
    let input = try residMid.gathered(layout, base: base(.residMid, layer))
    let x = try normalized(input, block.ln2, .residMid, layer)
    var neurons = RowOverlay(matmul(x, MatrixView(block.W_in), bias: block.b_in), layout)
    try editInPlace(&neurons, .mlpPre, layer)
    config.activation.apply(to: &neurons.rows)
    try editInPlace(&neurons, .mlpPost, layer)
    let output = matmul(neurons.rows, MatrixView(block.W_out), bias: block.b_out)
    return try edited(RowOverlay(output, layout), .mlpOut, layer)
  }

  // MARK: norms

  /// What a norm makes of rows of the stream at `site`, by the base runs' scales if those are frozen.
  func normalized(
    _ overlay: RowOverlay, _ norm: GPT2Weights.Norm?, _ site: Site, _ layer: Int
  ) throws(ModelError) -> Tensor {
    guard let norm, !overlay.isEmpty else { return overlay.rows }
    guard frozen.contains(.layerNorm) else { return norm(overlay.rows) }
    var scales: [Int: [Float]] = [:]
    var scale: [Float] = []
    for entry in overlay.entries {
      let base = runs[entry.cell].base
      if scales[base] == nil {
        scales[base] = norm.parts(try self.base(site, layer)(entry.cell)).scale.scalars
      }
      scale += scales[base]?[entry.positions] ?? []
    }
    let rows = norm.normalized(overlay.rows, scale: Tensor(scale, shape: [scale.count, 1]))
    return norm.affine(rows)
  }

  // MARK: readout

  /// The logits of every run.
  func readout(_ tokens: [[Int]]?) throws -> [(logits: Tensor, differs: Bool)] {
    // Runs whose changes do not reach the row that is read end like their bases.
    let read = stream.entries.filter { $0.positions.contains(length($0.cell) - 1) }
    let last = try stream.gathered(
      RowOverlay.layout(read.map { ($0.cell, length($0.cell) - 1..<length($0.cell)) }),
      base: base(.residPost, config.nLayers - 1))
    let x = try normalized(last, weights.lnFinal, .residPost, config.nLayers - 1)
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
  func edited(
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
  func layout(_ wanted: [Int: Range<Int>], isLast: Bool) -> [RowOverlay.Entry] {
    RowOverlay.layout(
      wanted.sorted { $0.key < $1.key }.compactMap { cell, rows in
        let read = length(cell) - 1
        if !isLast || mixing.contains(cell) { return (cell, rows) }
        return rows.contains(read) ? (cell, read..<read + 1) : nil
      })
  }

  func lastRowsOnly(
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
func hull(_ a: Range<Int>?, _ b: Range<Int>?) -> Range<Int>? {
  guard let a, let b else { return a ?? b }
  return min(a.lowerBound, b.lowerBound)..<max(a.upperBound, b.upperBound)
}

/// The rows in which two tensors of one shape are not bit for bit the same.
func differingRows(_ a: Tensor, _ b: Tensor) -> Range<Int>? {
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
func differingQueries(_ a: Tensor, _ b: Tensor) -> Range<Int>? {
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
