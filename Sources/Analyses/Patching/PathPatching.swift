public import HookedGPT2
public import Results
import Tensors

/// Path patching: what one component tells another.
///
/// The edge from a sender s to a receiver r is patched by giving r, and nobody else, the stream that
/// it would have read if s had written what it wrote in the other run:
///
///     x_r = x_r(base) + Σ_s (out_s(source) − out_s(base))
///
/// at every position. r's own norm is recomputed from x_r, exactly, and so is what r makes of it: the
/// queries, keys or values of one head, an MLP's output, the logits. An effect is
/// metric(patched) − metric(base).
///
/// What happens behind r is the variant's: everything is recomputed, or every other component stays
/// as it was and r's output goes straight to the final stream. Wang et al.'s form patches a set of
/// receivers at once.
///
/// A sender has a path to what reads the stream after it has written: a head to the MLP of its own
/// layer, too, but to no head of it. Other cells of the result are NaN.
///
/// ```swift
/// PathPatching(senders: PathSender.heads(config), receivers: [.q(layer: 9, head: 6)])
///   .run(model, pairs)
/// ```
///
/// Goldowsky-Dill et al. 2023, arXiv:2304.05969; Wang et al. 2022, arXiv:2211.00593 (`jointly`).
public struct PathPatching: Sendable {
  /// Which run is patched.
  public typealias Direction = ActivationPatching.Direction

  /// What happens behind a receiver, and whether receivers are patched one by one.
  public enum Variant: Sendable, Hashable {
    /// Everything behind the receiver answers to its new value.
    case recomputed
    /// Every other component keeps its value in the base run: the receiver's change goes straight
    /// to the final stream.
    case frozen
    /// All receivers at once, as Wang et al. do: with the sender's output replaced and all other
    /// heads frozen, what each receiver reads is recorded; then all of it is patched into the base
    /// run, in which nothing is frozen. MLPs on the way are frozen too unless `throughMLPs`.
    case jointly(throughMLPs: Bool)
  }

  /// Where paths begin, each by itself.
  public var senders: [PathSender]
  /// Where they end.
  public var receivers: [PathReceiver]
  /// Which run is patched: the corrupted one (denoising) or the clean one.
  public var direction: Direction
  /// What is measured.
  public var metric: Metric
  /// What happens behind a receiver.
  public var variant: Variant
  /// The memory for patched runs beside the model and two unpatched runs, in bytes.
  public var bytes: Int

  /// Paths from every sender to every receiver.
  public init(
    senders: [PathSender], receivers: [PathReceiver], direction: Direction = .denoising,
    metric: Metric = .logitDifference, variant: Variant = .recomputed, bytes: Int = 1 << 30
  ) {
    self.senders = senders
    self.receivers = receivers
    self.direction = direction
    self.metric = metric
    self.variant = variant
    self.bytes = bytes
  }

  /// Patches every path of every pair.
  ///
  /// - Parameters:
  ///   - model: the model.
  ///   - pairs: clean and corrupted prompts of one length each.
  ///   - progress: told after each batch how many effects are known; `cost` says of how many.
  /// - Returns: group `path` with `effect(prompt, sender, receiver)` in units of the metric,
  ///   `effect_normalized(sender, receiver)`, `clean_metric(prompt)`, `corrupted_metric(prompt)`.
  /// - Throws: `AnalysisError` for pairs that cannot be compared, nodes that no path joins, effects
  ///   that are not finite; `ModelError` for nodes and tokens that the model does not have.
  /// - Complexity: a resumed run for each path, `(n_layers − ℓ)·(pos − p)` times a block's FLOPs for
  ///   a token, with the receiver in layer ℓ and p the first position at which the prompts differ;
  ///   `frozen` runs no blocks at all.
  public func run(
    _ model: GPT2, _ pairs: [PromptPair], progress: (Int) throws -> Void = { _ in }
  ) throws -> ResultSet {
    try check(model, pairs)
    let cells = senders.count * columns.count
    var effects: [Double] = []
    var (clean, corrupted): ([Double], [Double]) = ([], [])
    var done = 0
    for (index, pair) in pairs.enumerated() {
      let cleanRun = try BaseRun(model, tokens: pair.clean)
      let corruptedRun = try BaseRun(model, tokens: pair.corrupted)
      let measure = PathMeasure(metric, pair, clean: cleanRun)
      clean.append(try measure(cleanRun))
      corrupted.append(try measure(corruptedRun))
      let denoising = direction == .denoising
      let runs = try PathRuns(
        model, base: denoising ? corruptedRun : cleanRun,
        source: denoising ? cleanRun : corruptedRun)
      var sweep = try PathSweep(self, runs, measure) {
        done += $0
        try progress(done)
      }
      let found = try sweep.run()
      precondition(found.count == cells, "PathPatching: \(found.count) effects of \(cells)")
      for (cell, effect) in found.enumerated() where !effect.isFinite {
        let (sender, receiver) = (cell / columns.count, cell % columns.count)
        if hasPath(senders[sender], column: receiver, model.config) {
          throw AnalysisError.nonFinite(
            analysis: "paths",
            what: "prompt \(index): the effect of \(senders[sender]) → \(columns[receiver])")
        }
      }
      effects += found
    }
    return try result(model, pairs, effects, clean: clean, corrupted: corrupted)
  }

  // MARK: paths

  /// The labels of the receivers' axis: of receivers that are patched jointly there is one.
  private var columns: [String] {
    let labels = receivers.map(\.description)
    guard case .jointly = variant, labels.count > 1 else { return labels }
    return [labels.count <= 4 ? labels.joined(separator: "+") : "\(labels.count) receivers"]
  }

  private func hasPath(_ sender: PathSender, column: Int, _ config: GPT2Config) -> Bool {
    if case .jointly = variant {
      return receivers.contains { sender.stage < $0.stage(config) }
    }
    return sender.stage < receivers[column].stage(config)
  }

  private func check(_ model: GPT2, _ pairs: [PromptPair]) throws {
    let config = model.config
    for sender in senders { try sender.check(config) }
    for receiver in receivers { try receiver.check(config) }
    if pairs.isEmpty { throw AnalysisError.noPrompts(analysis: "paths") }
    let isJoint = if case .jointly = variant { true } else { false }
    if isJoint && receivers.count > 1 && receivers.contains(.final) {
      throw AnalysisError.paths(
        problem: "'final' patched jointly with others hides them: only the logits read it; ask for "
          + "it by itself")
    }
    let exists = senders.contains { sender in
      columns.indices.contains { hasPath(sender, column: $0, config) }
    }
    if !exists {
      throw AnalysisError.paths(
        problem: "none of the \(senders.count) senders writes before one of the "
          + "\(receivers.count) receivers reads; a head's first reader is its own layer's MLP")
    }
    for (index, pair) in pairs.enumerated() { try check(pair, index, config) }
  }

  private func check(_ pair: PromptPair, _ index: Int, _ config: GPT2Config) throws {
    if pair.clean.isEmpty { throw ModelError.emptyPrompt(prompt: index) }
    if pair.clean.count != pair.corrupted.count {
      throw AnalysisError.pair(
        prompt: index,
        problem: "\(pair.clean.count) clean and \(pair.corrupted.count) corrupted tokens; expected "
          + "as many")
    }
    if pair.length > config.nCtx {
      throw ModelError.promptTooLong(prompt: index, tokens: pair.length, limit: config.nCtx)
    }
    for tokens in [pair.clean, pair.corrupted, pair.answer, pair.wrong] {
      for (position, token) in tokens.enumerated()
      where !(0..<config.dVocab).contains(token) {
        throw ModelError.tokenOutOfRange(
          prompt: index, position: position, token: token, limit: config.dVocab)
      }
    }
    try metric.check(pair, prompt: index)
  }

  // MARK: cost

  /// What a run takes.
  public struct Cost: Sendable, Equatable {
    /// How many effects there are.
    public var effects: Int
    /// How many runs are resumed.
    public var runs: Int
    /// The FLOPs of the blocks in those runs, at most.
    public var flops: Double
  }

  /// What `run` would take, from the prompts' lengths and where they first differ.
  public func cost(_ model: GPT2, _ pairs: [PromptPair]) -> Cost {
    let config = model.config
    let perToken = SuffixRuns(model, bases: []).flopsPerBlockToken
    /// The layers that are run for a receiver; nil where no run is resumed.
    func layers(_ receiver: PathReceiver) -> Int? {
      switch receiver {
      case .final: nil
      case .mlp(let layer): config.nLayers - layer - 1
      default: receiver.projection.map { config.nLayers - $0.layer }
      }
    }
    var cost = Cost(effects: 0, runs: 0, flops: 0)
    var (runs, blocks) = (0, 0)
    for sender in senders {
      let reached = receivers.filter { sender.stage < $0.stage(config) }
      if reached.isEmpty { continue }
      switch variant {
      case .frozen: cost.effects += reached.count
      case .recomputed:
        cost.effects += reached.count
        runs += reached.count { layers($0) != nil }
        blocks += reached.reduce(0) { $0 + (layers($1) ?? 0) }
      case .jointly:
        cost.effects += 1
        guard let most = reached.compactMap(layers).max() else { continue }
        runs += 1
        blocks += most
      }
    }
    cost.effects *= pairs.count
    for pair in pairs {
      let common = zip(pair.clean, pair.corrupted).prefix { $0 == $1 }.count
      let rows = pair.length - common
      if rows == 0 { continue }
      cost.runs += runs
      cost.flops += Double(blocks) * Double(rows) * perToken
    }
    return cost
  }

  // MARK: result

  private func result(
    _ model: GPT2, _ pairs: [PromptPair], _ effects: [Double], clean: [Double],
    corrupted: [Double]
  ) throws -> ResultSet {
    let axes = try PromptAxes(
      pairs.map { Prompt($0.clean, answer: $0.answer.first, wrong: $0.wrong.first) },
      model: model, analysis: "paths")
    let cells = senders.count * columns.count
    let gap = (clean.reduce(0, +) - corrupted.reduce(0, +)) / Double(pairs.count)
    let normalized = (0..<cells).map { cell in
      let sum = stride(from: cell, to: effects.count, by: cells).reduce(0) { $0 + effects[$1] }
      return gap == 0 ? Double.nan : sum / Double(pairs.count) / gap
    }
    let base = direction == .denoising ? "corrupted" : "clean"
    let source = direction == .denoising ? "clean" : "corrupted"
    let sign = "positive: the path from the \(source) run raises the metric of the \(base) run"
    var variables = axes.tokenCoordinates + (try axes.answerCoordinates(model))
    if metric.needs == .nothing { variables.removeAll { ["answer", "wrong"].contains($0.name) } }
    variables += [
      ResultVariable(
        "effect", ["prompt", "sender", "receiver"], .float64(effects),
        longName: "patched − unpatched metric, NaN where there is no path", units: metric.units,
        sign: sign),
      ResultVariable(
        "effect_normalized", ["sender", "receiver"], .float64(normalized),
        longName: "mean effect ÷ (mean clean − mean corrupted metric)", units: "1",
        sign: "1 (denoising) or −1 (noising): the path carries the whole difference"),
      ResultVariable(
        "clean_metric", ["prompt"], .float64(clean), longName: "\(metric.name) of the clean run",
        units: metric.units, sign: "the metric's own"),
      ResultVariable(
        "corrupted_metric", ["prompt"], .float64(corrupted),
        longName: "\(metric.name) of the corrupted run", units: metric.units,
        sign: "the metric's own"),
    ]
    let group = ResultGroup(
      path: "path",
      dimensions: [
        axes.prompt, axes.position, Dimension("sender", .labels(senders.map(\.description))),
        Dimension("receiver", .labels(columns)),
      ], variables: variables,
      attributes: [
        "direction": .string(direction.rawValue), "metric": .string(metric.name),
        "downstream": .string(downstream), "receivers": .strings(receivers.map(\.description)),
      ])
    return ResultSet(
      title: "Path patching", groups: [group], provenance: Provenance(model: model))
  }

  private var downstream: String {
    switch variant {
    case .recomputed: "recomputed"
    case .frozen: "frozen"
    case .jointly(false): "recomputed; receivers jointly, heads and MLPs before them frozen"
    case .jointly(true): "recomputed; receivers jointly, heads before them frozen"
    }
  }
}

/// The metric of a pair's runs.
struct PathMeasure {
  let metric: Metric
  let pair: PromptPair
  private let clean: AnswerLogits.Prediction?
  /// The tokens whose logits a run must give; nil means all.
  let tokens: [Int]?

  init(_ metric: Metric, _ pair: PromptPair, clean: BaseRun) {
    self.metric = metric
    self.pair = pair
    tokens = metric.tokens(pair)
    self.clean = tokens == nil ? AnswerLogits.Prediction(clean.logits) : nil
  }

  func callAsFunction(_ run: BaseRun) throws -> Double {
    try self([tokens.map { run.logits(of: $0) } ?? run.logits])[0]
  }

  /// The metric of each run with these logits, shape `[tokens]`.
  func callAsFunction(_ logits: [Tensor]) throws -> [Double] {
    guard let clean else { return try logits.map { try metric(AnswerLogits(answers: $0, pair)) } }
    if logits.isEmpty { return [] }
    let statistics = rowStatistics(Tensor.stacking(logits), target: nil)
    return try zip(logits, statistics).map { logits, row in
      try metric(
        AnswerLogits(vocabulary: logits, logSum: row.logSumExp, pair, clean: clean))
    }
  }
}
