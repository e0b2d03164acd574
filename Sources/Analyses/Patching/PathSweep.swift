import HookedGPT2
import Tensors

/// All paths of one prompt pair: the senders' streams are walked through the layers, a few senders at
/// a time, and what receivers make of them is measured, in resumed runs where anything follows.
struct PathSweep {
  private let patching: PathPatching
  private let runs: PathRuns
  private let pair: PairRuns
  /// The tokens whose logits are read; nil means all.
  private let tokens: [Int]?
  private let engine: SuffixRuns
  private let report: (Int) throws -> Void
  /// The receivers' numbers by the place where they read.
  private let readers: [Int: [Int]]
  private let columns: Int
  /// The effects, `[sender, receiver]`.
  private var effects: [Float]
  /// Resumed runs that wait for company, the cell that each is for, and what they hold.
  private var waiting: [(cell: Int, run: PatchedRun)] = []
  private var waitingBytes = 0

  /// How many effects are known.
  private(set) var done = 0

  /// - Parameter report: told how many effects are known.
  init(
    _ patching: PathPatching, _ model: GPT2, _ pair: PairRuns,
    _ report: @escaping (Int) throws -> Void
  ) throws {
    self.patching = patching
    self.pair = pair
    self.report = report
    tokens = patching.metric.tokens(pair.pair)
    let base = pair.base(patching.direction)
    runs = PathRuns(model, base: base, source: pair.source(patching.direction))
    engine = SuffixRuns(model, bases: [base])
    let config = model.config
    readers = Dictionary(grouping: patching.receivers.indices) {
      patching.receivers[$0].stage(config)
    }
    columns = if case .jointly = patching.variant { 1 } else { patching.receivers.count }
    effects = Array(repeating: .nan, count: patching.senders.count * columns)
  }

  /// The effects, `[sender, receiver]`, NaN where there is no path.
  mutating func run() throws -> [Float] {
    // A batch of senders that start at one depth walks few layers for nothing.
    let order = patching.senders.indices.sorted {
      (patching.senders[$0].stage, $0) < (patching.senders[$1].stage, $1)
    }
    let size = max(1, patching.bytes / 4 / bytesOfSender)
    for start in stride(from: 0, to: order.count, by: size) {
      try walk(Array(order[start..<min(order.count, start + size)]))
    }
    try flush()
    return effects
  }

  /// What a sender needs while its stream is walked: streams, a norm, neurons, logits.
  private var bytesOfSender: Int {
    let config = runs.config
    let logits = tokens?.count ?? config.dVocab
    let rows = max(runs.rows.count, 1)
    return 4 * (rows * (5 * config.dModel + 3 * config.dMLP) + 3 * logits)
  }

  private mutating func walk(_ senders: [Int]) throws {
    let nodes = senders.map { patching.senders[$0] }
    guard !runs.rows.isEmpty else { return try unchanged(senders) }
    let through = if case .jointly(true) = patching.variant { true } else { false }
    var streams = try PathStreams(runs, nodes, throughMLPs: through)
    var joint: [Int: [Intervention]] = [:]
    for stage in 0...2 * runs.config.nLayers {
      if let here = readers[stage], !streams.active.isEmpty {
        let active = streams.active.map { senders[$0] }
        switch patching.variant {
        case .recomputed: try recompute(here, stage, active, streams.changes)
        case .frozen: try goStraight(here, stage, active, streams.changes)
        // Jointly with others the final stream is refused: here it is the only receiver.
        case .jointly where stage == 2 * runs.config.nLayers:
          try goStraight(here, stage, active, streams.changes)
        case .jointly: try collect(here, stage, active, streams.changes, into: &joint)
        }
      }
      if stage < 2 * runs.config.nLayers {
        try stage % 2 == 0 ? streams.attention(stage / 2) : streams.mlp(stage / 2)
      }
    }
    for (sender, interventions) in joint.sorted(by: { $0.key < $1.key }) {
      try enqueue(sender, PatchedRun(base: 0, interventions))
    }
  }

  /// Equal prompts: whatever is patched stays as it was.
  private mutating func unchanged(_ senders: [Int]) throws {
    var count = 0
    for sender in senders {
      for column in 0..<columns
      where patching.hasPath(patching.senders[sender], column: column, runs.config) {
        effects[sender * columns + column] = 0
        count += 1
      }
    }
    try finished(count)
  }

  // MARK: receivers

  /// What replaces the activations of the receivers `here` for each active sender.
  ///
  /// - Parameter change: of the stream, `[active·rows, d_model]`.
  private func replacements(
    _ here: [Int], _ stage: Int, _ change: Tensor,
    _ body: (_ receiver: Int, _ sender: Int, Intervention) throws -> Void
  ) throws {
    let (layer, width) = (stage / 2, runs.rows.count)
    let count = change.shape[0] / width
    let positions = PositionSelection.at(Array(runs.rows))
    let block = runs.model.weights.blocks[layer]
    if stage % 2 == 1 {
      let output = runs.mlpOutput(change, on: try runs.base(.residMid, layer), layer)
      let base = try runs.base(.mlpOut, layer)
      for receiver in here {
        for sender in 0..<count {
          let value = base + output.rows(sender * width..<(sender + 1) * width)
          let target = HookFilter(.mlpOut, layers: .layer(layer), positions: positions)
          try body(receiver, sender, .replace(target, with: value))
        }
      }
      return
    }
    let read = runs.read(change, on: try runs.base(.residPre, layer), block.ln1)
    for receiver in here {
      let node = patching.receivers[receiver]
      guard let (site, _, _, head) = node.projection,
        let projected = runs.projected(read, to: node)
      else { continue }
      let base = try runs.base(site, layer).column(head)
      let target = HookFilter(
        site, layers: .layer(layer), head: head, positions: positions)
      for sender in 0..<count {
        let value = base + projected.rows(sender * width..<(sender + 1) * width)
        try body(receiver, sender, .replace(target, with: value))
      }
    }
  }

  private mutating func recompute(
    _ here: [Int], _ stage: Int, _ active: [Int], _ change: Tensor
  ) throws {
    if stage == 2 * runs.config.nLayers { return try goStraight(here, stage, active, change) }
    var found: [(cell: Int, run: PatchedRun)] = []
    try replacements(here, stage, change) { receiver, sender, replacement in
      found.append(
        (active[sender] * columns + receiver, PatchedRun(base: 0, [replacement])))
    }
    for (cell, run) in found { try enqueue(cell, run) }
  }

  private func collect(
    _ here: [Int], _ stage: Int, _ active: [Int], _ change: Tensor,
    into joint: inout [Int: [Intervention]]
  ) throws {
    try replacements(here, stage, change) { _, sender, replacement in
      joint[active[sender], default: []].append(replacement)
    }
  }

  /// The receivers' changes at the last position, added to the final stream.
  private mutating func goStraight(
    _ here: [Int], _ stage: Int, _ active: [Int], _ change: Tensor
  ) throws {
    let (layer, width) = (stage / 2, runs.rows.count)
    let lastRows = (1...active.count).map { $0 * width - 1 }
    let last = change.gatheringRows(lastRows)
    if stage == 2 * runs.config.nLayers {
      return try measure(changes: last, active, here)
    }
    if stage % 2 == 1 {
      let residMid = try runs.base(.residMid, layer).rows(width - 1..<width)
      return try measure(changes: runs.mlpOutput(last, on: residMid, layer), active, here)
    }
    let read = runs.read(
      change, on: try runs.base(.residPre, layer), runs.model.weights.blocks[layer].ln1)
    for receiver in here {
      let node = patching.receivers[receiver]
      guard let projected = runs.projected(read, to: node),
        let output = try runs.headOutput(projected, of: node)
      else { continue }
      try measure(changes: output, active, [receiver])
    }
  }

  /// The effects of changes of the final stream, `[active, d_model]`, each for the same receivers.
  private mutating func measure(
    changes: Tensor, _ active: [Int], _ receivers: [Int]
  ) throws {
    let logits = try runs.logits(changes, of: tokens)
    let sums = tokens == nil ? rowStatistics(logits, target: nil).map(\.logSumExp) : []
    let base = pair.baseMetric(patching.direction)
    for (index, sender) in active.enumerated() {
      let metric = try pair.value(logits.row(index), logSum: sums.isEmpty ? .nan : sums[index])
      for receiver in receivers {
        let cell = sender * columns + receiver
        try set(cell, changes.row(index).maximumMagnitude == 0 ? 0 : metric - base)
      }
    }
    try finished(active.count * receivers.count)
  }

  private mutating func set(_ cell: Int, _ effect: Double) throws(AnalysisError) {
    guard effect.isFinite else {
      throw .nonFinite(
        analysis: "paths",
        what: "an effect of \(patching.senders[cell / columns]) on \(patching.metric.name)")
    }
    effects[cell] = Float(effect)
  }

  private mutating func finished(_ count: Int) throws {
    done += count
    try report(done)
  }

  // MARK: resumed runs

  /// Takes up a run; those that have gathered are run once they fill their share of the memory.
  private mutating func enqueue(_ cell: Int, _ run: PatchedRun) throws {
    waiting.append((cell, run))
    // A replaced head's rows, mostly; a joint run has one for each receiver.
    waitingBytes += run.interventions.reduce(0) { sum, intervention in
      let width =
        intervention.target.site == .mlpOut ? runs.config.dModel : runs.config.dHead
      return sum + 4 * runs.rows.count * width + 1024
    }
    if waitingBytes > patching.bytes / 4 { try flush() }
  }

  private mutating func flush() throws {
    let patched = waiting.map(\.run)
    let batches = try engine.batches(patched, bytes: min(patching.bytes / 2, Self.batchBytes))
    for batch in batches {
      let found = try [pair].effects(of: batch.map { patched[$0] }, engine, patching.direction)
      for (index, effect) in zip(batch, found) { try set(waiting[index].cell, effect) }
      try finished(batch.count)
    }
    waiting = []
    waitingBytes = 0
  }

  /// More runs at once than this make no product faster, and progress rarer.
  private static let batchBytes = 256 << 20
}
