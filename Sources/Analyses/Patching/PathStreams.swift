import HookedGPT2
import Tensors

/// A prompt pair for path patching: the run that is patched, the run that the senders' outputs are
/// taken from, and what a change of the stream does to whatever reads it.
///
/// Everything is a difference to the base run: a change that is zero gives exactly zero.
struct PathRuns {
  let model: GPT2
  /// The run that is patched.
  let base: BaseRun
  /// The run whose outputs the senders write instead.
  let source: BaseRun
  /// The positions from the first token on in which the runs differ; empty for equal prompts.
  let rows: Range<Int>

  /// - Parameters:
  ///   - base: the run that is patched.
  ///   - source: the other one, which shares what it computed of their common beginning.
  init(_ model: GPT2, base: BaseRun, source: BaseRun) {
    self.model = model
    self.base = base
    self.source = source
    let common = zip(base.tokens, source.tokens).prefix { $0 == $1 }.count
    rows = common..<base.length
  }

  var config: GPT2Config { model.config }

  /// An activation of the base run at the positions that differ.
  func base(_ site: Site, _ layer: Int) throws(ModelError) -> Tensor {
    try base.cache.tensor(site, layer: layer).rows(rows)
  }

  private func difference(_ site: Site, _ layer: Int) throws(ModelError) -> Tensor {
    let from = try base(site, layer)
    return try source.cache.tensor(site, layer: layer).rows(rows) - from
  }

  /// How what a component writes differs between the runs, shape `[rows, d_model]`.
  func written(by component: PathSender.Component) throws(ModelError) -> Tensor {
    switch component {
    case .embed: return try difference(.residPre, 0)
    case .mlp(let layer): return try difference(.mlpOut, layer)
    case .head(let layer, let head):
      let z = try difference(.z, layer).column(head)
      return matmul(z, MatrixView(model.W_O(layer: layer, head: head)))
    }
  }

  // MARK: what a change of the stream does
  //
  // Shapes: a change of `n` senders is [n·rows, d_model], one sender after the other.

  /// `norm(x + change) − norm(x)` for the base run's stream `x`, shape `[rows, d_model]`.
  func read(_ change: Tensor, on x: Tensor, _ norm: GPT2Weights.Norm?) -> Tensor {
    guard let norm, change.count > 0 else { return change }
    let copies = change.shape[0] / x.shape[0]
    return norm(x.repeated(copies) + change) - norm(x).repeated(copies)
  }

  /// The change of a head's queries, keys or values: `[n·rows, d_head]` for what ln1 gives.
  func projected(_ read: Tensor, to receiver: PathReceiver) -> Tensor? {
    guard let (_, part, layer, head) = receiver.projection else { return nil }
    let start = part * config.dAttn + head * config.dHead
    return matmul(
      read,
      MatrixView(model.weights.blocks[layer].W_QKV).columns(start..<start + config.dHead))
  }

  /// The change of an MLP's output for a change of what it reads, both `[n·rows, d_model]`, at the
  /// base run's stream `residMid`, shape `[rows, d_model]`.
  func mlpOutput(_ change: Tensor, on residMid: Tensor, _ layer: Int) -> Tensor {
    let block = model.weights.blocks[layer]
    let W_in = MatrixView(block.W_in)
    let pre = matmul(block.ln2?(residMid) ?? residMid, W_in, bias: block.b_in)
    let preChange = matmul(read(change, on: residMid, block.ln2), W_in)
    let copies = change.shape[0] / residMid.shape[0]
    let post =
      config.activation(pre.repeated(copies) + preChange)
      - config.activation(pre).repeated(copies)
    return matmul(post, MatrixView(block.W_out))
  }

  /// The change of what a head writes at the last position, `[n, d_model]`, if its queries, keys or
  /// values alone change by `projected`, shape `[n·rows, d_head]`.
  func headOutput(_ projected: Tensor, of receiver: PathReceiver) throws(ModelError) -> Tensor? {
    guard let (_, part, layer, head) = receiver.projection else { return nil }
    let (length, width) = (base.length, rows.count)
    let count = projected.shape[0] / width
    func own(_ site: Site) throws(ModelError) -> Tensor {
      try base.cache.tensor(site, layer: layer).column(head)
    }
    // One copy more, which stays as it is: the same arithmetic for the base's output.
    func changed(_ x: Tensor) -> Tensor {
      var result = x.repeated(count + 1)
      for sender in 0..<count {
        let change = projected.rows(sender * width..<(sender + 1) * width)
        result.replaceRows(
          at: sender * length + rows.lowerBound, with: x.rows(rows) + change)
      }
      return result
    }
    let copies = count + 1
    var q = try own(.q)
    q =
      part == 0
      ? changed(q).gatheringRows((1...copies).map { $0 * length - 1 })
      : q.rows(length - 1..<length).repeated(copies)
    let (baseK, baseV) = (try own(.k), try own(.v))
    // Queries share keys and values that do not change.
    let shared = part == 0
    let k = shared ? baseK : part == 1 ? changed(baseK) : baseK.repeated(copies)
    let v = shared ? baseV : part == 2 ? changed(baseV) : baseV.repeated(copies)
    let segments = (0..<copies).map { copy in
      let first = shared ? 0 : copy * length
      return AttentionSegment(queries: copy..<copy + 1, keys: first..<first + length)
    }
    let dHead = config.dHead
    let z = causalAttention(
      q: q.reshaped([copies, 1, dHead]), k: k.reshaped([k.shape[0], 1, dHead]),
      v: v.reshaped([v.shape[0], 1, dHead]), segments: segments,
      scale: config.attentionScale(layer: layer)
    ).reshaped([copies, dHead])
    return matmul(
      z.rows(0..<count) - z.rows(count..<copies).repeated(count),
      MatrixView(model.W_O(layer: layer, head: head)))
  }

  /// The logits of `tokens` (all if nil) for changes of the final stream at the last position,
  /// `[n, d_model]` → `[n, tokens]`.
  func logits(_ change: Tensor, of tokens: [Int]?) throws(ModelError) -> Tensor {
    let last = try base.cache.tensor(.residPost, layer: config.nLayers - 1)
      .rows(base.length - 1..<base.length)
    let read = read(change, on: last, model.weights.lnFinal)
    let W_U = model.weights.W_U_transposed
    guard let tokens else {
      return matmulTransposed(read, MatrixView(W_U)).addingToRows(base.logits)
    }
    return matmulTransposed(read, MatrixView(W_U.gatheringRows(tokens)))
      .addingToRows(Tensor(tokens.map { base.logits[$0] }, shape: [tokens.count]))
  }
}

/// How the streams of several senders differ from the base run's, followed through the layers.
struct PathStreams {
  private let runs: PathRuns
  private let senders: [PathSender]
  /// Whether MLPs behind a sender answer to it; heads never do.
  private let throughMLPs: Bool
  /// `[sender·rows, d_model]`.
  private var change: Tensor
  /// The senders that have written, ascending.
  private(set) var active: [Int] = []

  init(_ runs: PathRuns, _ senders: [PathSender], throughMLPs: Bool) throws(ModelError) {
    self.runs = runs
    self.senders = senders
    self.throughMLPs = throughMLPs
    change = Tensor(zeros: [senders.count * runs.rows.count, runs.config.dModel])
    try write(at: -1)
  }

  /// The change that each active sender makes of the stream, `[active·rows, d_model]`.
  var changes: Tensor {
    let width = runs.rows.count
    return active.count == senders.count
      ? change
      : change.gatheringRows(active.flatMap { $0 * width..<($0 + 1) * width })
  }

  /// The heads of a layer write.
  mutating func attention(_ layer: Int) throws(ModelError) { try write(at: 2 * layer) }

  /// The MLP of a layer writes.
  mutating func mlp(_ layer: Int) throws(ModelError) {
    if throughMLPs && !active.isEmpty {
      let output = runs.mlpOutput(changes, on: try runs.base(.residMid, layer), layer)
      let width = runs.rows.count
      for (index, sender) in active.enumerated()
      where !senders[sender].components.contains(.mlp(layer: layer)) {
        add(output.rows(index * width..<(index + 1) * width), to: sender)
      }
    }
    try write(at: 2 * layer + 1)
  }

  private mutating func write(at stage: Int) throws(ModelError) {
    var active = Set(active)
    for (sender, node) in senders.enumerated() {
      for component in node.components where component.stage == stage {
        add(try runs.written(by: component), to: sender)
        active.insert(sender)
      }
    }
    self.active = active.sorted()
  }

  private mutating func add(_ rows: Tensor, to sender: Int) {
    let start = sender * runs.rows.count
    change.replaceRows(at: start, with: change.rows(start..<start + rows.shape[0]) + rows)
  }
}

extension Tensor {
  /// `copies` copies one after another along the first axis.
  fileprivate func repeated(_ copies: Int) -> Tensor {
    copies == 1 ? self : Tensor.concatenating(Array(repeating: self, count: copies))
  }
}
