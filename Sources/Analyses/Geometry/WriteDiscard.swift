import HookedGPT2
import OrderedCollections
import Results
import Tensors

/// How much of what each head and MLP writes a norm does not see to first order (group
/// `ln_geometry/writes`).
///
/// LayerNorm's Jacobian, diag(g)·(I − ûûᵀ − zzᵀ/d)/scale with û = 1/√d, has the ones direction and, up
/// to ε, the direction z of the stream itself in its kernel: of a write w the norm discards the share
///
///     [(w·û)² + (w·z)²/‖z‖²]/‖w‖²
///
/// for the stream that it reads with the write in it. RMSNorm discards the radial part only, a model
/// without norms the ones part only, whose weights annihilate it. The readers are the next norm after
/// the write and the final one. Brody et al. 2023, arXiv:2305.02582.
///
/// No head's write is formed: with w = v·W (v the head's values, W its rows of W_O), w·û = v·(Wû),
/// ‖w‖² = v·(WWᵀ)·vᵀ and w·z = v·(Wz).
///
/// Of the positions ≥ 1 at most ``tokens`` are asked, evenly spaced over all prompts; position 0 of each.
struct WriteDiscard: Collector {
  /// The most tokens at positions ≥ 1 that are asked.
  static let tokens = 4096

  private let sites: [NormSite]
  private let config: GPT2Config
  private let layers: [Layer]
  private let isFolded: Bool
  private let centers: Bool
  private var asked: EvenTokens
  /// Of heads and MLPs.
  private var heads: Sums
  private var mlps: Sums

  /// What a layer's W_O makes of the quantities above.
  private struct Layer {
    /// W·û of each row, shape `[n_heads·d_head]`.
    let ones: Tensor
    /// WWᵀ of each head, shape `[d_head, d_head]`.
    let gram: [Tensor]
  }

  /// Sums of shares over positions.
  fileprivate struct Sums {
    let cells: Int
    /// Of the ones direction and of the radial one: `[class, reader, cell]`.
    var ones: [Double]
    var radial: [Double]
    /// Positions with a write.
    var count: [Int]

    init(cells: Int) {
      self.cells = cells
      ones = Array(repeating: 0, count: 4 * cells)
      radial = ones
      count = Array(repeating: 0, count: 4 * cells)
    }

    mutating func add(_ kind: Int, _ reader: Int, _ cell: Int, ones: Double, radial: Double) {
      let place = (kind * 2 + reader) * cells + cell
      self.ones[place] += ones
      self.radial[place] += radial
      count[place] += 1
    }
  }

  /// A norm as a reader: the direction of z for each row, and its square.
  private struct Reader {
    let direction: Tensor
    let squares: Tensor
  }

  init(_ model: GPT2, _ axes: PromptAxes, tokens: Int = WriteDiscard.tokens) {
    let config = model.config
    asked = EvenTokens(axes, limit: tokens)
    self.config = config
    sites = model.normSites
    isFolded = config.normalization == .none
    centers = config.normalization != .rmsNorm
    let root = Float(Double(config.dModel).squareRoot())
    layers = model.weights.blocks.enumerated().map { layer, block in
      let rows = Tensor(repeating: 1 / root, shape: [config.dModel])
      let count = block.W_O.shape[0]
      return Layer(
        ones: block.W_O.groupDots(rows, groups: 1).reshaped([count]),
        gram: (0..<config.nHeads).map { head in
          let W_O = model.W_O(layer: layer, head: head)
          return matmulTransposed(W_O, MatrixView(W_O))
        })
    }
    heads = Sums(cells: config.nLayers * config.nHeads)
    mlps = Sums(cells: config.nLayers)
  }

  var hooks: [HookFilter] { sites.map { HookFilter($0.input) } + [.z(.all), .mlpOut(.all)] }

  /// The rows of a batch that are asked, and which of them are at position 0.
  private struct Choice {
    var rows: [Int] = []
    var isFirst: [Bool] = []
    var isAll = true

    func callAsFunction(_ name: HookName, _ batch: CollectedBatch) throws -> Tensor {
      let all = try batch.rows(name)
      return isAll ? all : all.gatheringRows(rows)
    }
  }

  mutating func collect(_ batch: CollectedBatch, into sink: any PromptSink) throws {
    var (chosen, start) = (Choice(isAll: asked.stride == 1), 0)
    for prompt in 0..<batch.count {
      let length = batch.length(prompt)
      for position in [0] + asked.next(length: length) {
        chosen.rows.append(start + position)
        chosen.isFirst.append(position == 0)
      }
      start += length
    }
    let final = try reader(sites[sites.count - 1], batch, chosen)
    for layer in 0..<config.nLayers {
      let middle = try reader(sites[2 * layer + 1], batch, chosen)
      let isLast = layer == config.nLayers - 1
      let next = isLast ? final : try reader(sites[2 * layer + 2], batch, chosen)
      try collectHeads(layer, batch, chosen, [middle, final])
      try collectMLP(layer, batch, chosen, [next, final])
    }
  }

  /// The rows that a norm divides; nil where no norm does.
  private func reader(
    _ site: NormSite, _ batch: CollectedBatch, _ chosen: Choice
  ) throws -> Reader? {
    if isFolded { return nil }
    let stream = try chosen(site.input, batch)
    let direction = centers ? stream.centeringRows() : stream
    return Reader(direction: direction, squares: direction.groupDots(direction, groups: 1))
  }

  private mutating func collectHeads(
    _ layer: Int, _ batch: CollectedBatch, _ chosen: Choice, _ readers: [Reader?]
  ) throws {
    let values = try chosen(HookName(.z, layer: layer), batch)
    let count = config.nHeads
    let flat = values.reshaped([values.shape[0], values.rowCount])
    var images = Tensor(uninitialized: values.shape)
    for head in 0..<count {
      images.replaceColumn(
        head, with: matmul(values.column(head), MatrixView(layers[layer].gram[head])))
    }
    let squares = flat.groupDots(images.reshaped(flat.shape), groups: count)
    let ones = flat.groupDots(layers[layer].ones, groups: count)
    for (place, reader) in readers.enumerated() {
      let along = reader.map { reader in
        let read = matmulTransposed(
          reader.direction, MatrixView(batch.model.weights.blocks[layer].W_O))
        return flat.groupDots(read, groups: count)
      }
      heads.add(
        from: layer * count, ones, along, squares, reader?.squares, chosen.isFirst, reader: place,
        withOnes: centers)
    }
  }

  private mutating func collectMLP(
    _ layer: Int, _ batch: CollectedBatch, _ chosen: Choice, _ readers: [Reader?]
  ) throws {
    let writes = try chosen(HookName(.mlpOut, layer: layer), batch)
    let squares = writes.groupDots(writes, groups: 1)
    let unit = Tensor(
      repeating: Float(1 / Double(config.dModel).squareRoot()), shape: [config.dModel])
    let ones = writes.groupDots(unit, groups: 1)
    for (place, reader) in readers.enumerated() {
      mlps.add(
        from: layer, ones, reader.map { writes.groupDots($0.direction, groups: 1) }, squares,
        reader?.squares, chosen.isFirst, reader: place, withOnes: centers)
    }
  }

  func findings() -> [ResultGroup] {
    let (layer, head) = (
      Dimension("layer", count: config.nLayers), Dimension("head", count: config.nHeads)
    )
    var variables: [ResultVariable] = []
    for (name, what, axes, sums) in [
      ("head", "head", ["layer", "head", "reader"], heads),
      ("mlp", "MLP", ["layer", "reader"], mlps),
    ] {
      for (kind, ending, where_) in [
        (1, "", "positions >= 1"), (0, "_first", "position 0"),
      ] {
        for (part, of, formula) in [
          ("", "", Self.wholeFormula(config.normalization)),
          (
            "_ones", " along the ones vector",
            centers ? "(w.u)^2/|w|^2, u = 1/sqrt(d)" : "0: RMSNorm keeps the mean"
          ),
          (
            "_radial", " along z",
            isFolded ? "0: nothing is divided by the stream's length" : "(w.z)^2/(|w|^2 |z|^2)"
          ),
        ] {
          variables.append(
            ResultVariable(
              "\(name)_discarded\(part)\(ending)", axes,
              .float32(sums.means(kind, part)),
              longName:
                "share of the \(what)'s write\(of) that the reader discards to first order, "
                + "mean over \(where_)", units: "1",
              attributes: ["formula": .string(formula), "references": .string("arXiv:2305.02582")]))
        }
      }
    }
    return [
      ResultGroup(
        path: "ln_geometry/writes",
        dimensions: [layer, head, Dimension("reader", .labels(["next", "final"]))],
        variables: variables,
        attributes: [
          "write": .string(
            "w of a head: z.W_O with b_V, without b_O; of an MLP: all that it adds, with b_out"),
          "reader": .string(
            "next = ln2 of the layer for heads, the next layer's ln1 (or ln_final) for MLPs; final = "
              + "ln_final"),
          "tokens": .integer(asked.count),
          "token_choice": .string(
            asked.stride == 1
              ? "all" : "position 0 of every prompt, of the others one in \(asked.stride)"),
        ])
    ]
  }

  private static func wholeFormula(_ normalization: Normalization) -> String {
    switch normalization {
    case .none: "(w.u)^2/|w|^2, u = 1/sqrt(d)"
    case .rmsNorm: "(w.z)^2/(|w|^2 |z|^2)"
    default: "[(w.u)^2 + (w.z)^2/|z|^2]/|w|^2, u = 1/sqrt(d)"
    }
  }
}

extension WriteDiscard.Sums {
  /// Adds the shares of a batch: `ones`, `along` (w·z without z's length) and `squares` (‖w‖²) of shape
  /// `[rows, cell]`, `readerSquares` of shape `[rows, 1]`.
  fileprivate mutating func add(
    from first: Int, _ ones: Tensor, _ along: Tensor?, _ squares: Tensor, _ readerSquares: Tensor?,
    _ isFirst: [Bool], reader: Int, withOnes: Bool
  ) {
    let (rows, count) = (squares.shape[0], squares.rowCount)
    let (onesSpan, squareSpan) = (ones.span, squares.span)
    for row in 0..<rows {
      let kind = isFirst[row] ? 0 : 1
      let length = readerSquares.map { Double($0.span[row]) } ?? 0
      for cell in 0..<count {
        let place = row * count + cell
        let square = Double(squareSpan[place])
        // No write has no share.
        if !(square > 0) { continue }
        let one = Double(onesSpan[place])
        let dot = along.map { Double($0.span[place]) } ?? 0
        add(
          kind, reader, first + cell, ones: withOnes ? one * one / square : 0,
          radial: length > 0 ? dot * dot / (square * length) : 0)
      }
    }
  }

  /// Means over positions of a class, `[cell, reader]`; NaN where nothing was written.
  fileprivate func means(_ kind: Int, _ part: String) -> [Float] {
    (0..<cells).flatMap { cell in
      (0..<2).map { reader in
        let place = (kind * 2 + reader) * cells + cell
        let sum = (part != "_radial" ? ones[place] : 0) + (part != "_ones" ? radial[place] : 0)
        return count[place] == 0 ? .nan : Float(sum / Double(count[place]))
      }
    }
  }
}
