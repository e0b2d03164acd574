public import HookedGPT2
public import Results

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
  public var bytes = 2 << 30
  /// Where the bootstrap's choices come from.
  public var seed: UInt64 = 0

  /// Paths from every sender to every receiver.
  public init(
    senders: [PathSender], receivers: [PathReceiver], direction: Direction = .denoising,
    metric: Metric = .logitDifference, variant: Variant = .recomputed
  ) {
    self.senders = senders
    self.receivers = receivers
    self.direction = direction
    self.metric = metric
    self.variant = variant
  }

  /// Patches every path of every pair.
  ///
  /// - Parameters:
  ///   - model: the model.
  ///   - pairs: clean and corrupted prompts of one length each.
  ///   - progress: told after each batch how many effects are known; `estimate` says of how many.
  /// - Returns: group `path` with `effect(prompt, sender, receiver)` in units of the metric,
  ///   `effect_normalized(sender, receiver)` (mean effect ÷ mean difference of clean and corrupted
  ///   metric) and, for several pairs, its `_stderr`, `_ci_low` and `_ci_high`;
  ///   `clean_metric(prompt)`, `corrupted_metric(prompt)`. What a reader should be warned of is the
  ///   attribute `warnings`.
  /// - Throws: `AnalysisError` for pairs that cannot be compared, nodes that no path joins, effects
  ///   that are not finite; `ModelError` for nodes and tokens that the model does not have.
  /// - Complexity: a resumed run for each path, `(n_layers − ℓ)·(pos − p)` times a block's FLOPs for
  ///   a token, with the receiver in layer ℓ and p the first position at which the prompts differ;
  ///   `frozen` runs no blocks at all.
  public func run(
    _ model: GPT2, _ pairs: [PromptPair], progress: (Int) throws -> Void = { _ in }
  ) throws -> ResultSet {
    try check(model.config, pairs)
    var effects: [Float] = []
    var metrics: [(clean: Double, corrupted: Double, margin: Double)] = []
    var done = 0
    for (index, pair) in pairs.enumerated() {
      let runs = try PairRuns.run(model, [pair], metric: metric, first: index)[0]
      metrics.append((runs.cleanMetric, runs.corruptedMetric, runs.cleanMargin ?? .nan))
      effects += try withoutActuallyEscaping(progress) { progress in
        var sweep = try PathSweep(self, model, runs) { try progress(done + $0) }
        defer { done += sweep.done }
        return try sweep.run()
      }
    }
    return result(model, pairs, effects, metrics)
  }

  // MARK: paths

  /// The labels of the receivers' axis: of receivers that are patched jointly there is one.
  private var columns: [String] {
    let labels = receivers.map(\.description)
    guard case .jointly = variant, labels.count > 1 else { return labels }
    return [labels.count <= 4 ? labels.joined(separator: "+") : "\(labels.count) receivers"]
  }

  /// Whether a sender has a path to a receiver, or to one of those that are patched jointly.
  func hasPath(_ sender: PathSender, column: Int, _ config: GPT2Config) -> Bool {
    if case .jointly = variant {
      return receivers.contains { sender.stage < $0.stage(config) }
    }
    return sender.stage < receivers[column].stage(config)
  }

  private func check(_ config: GPT2Config, _ pairs: [PromptPair]) throws {
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
    for (index, pair) in pairs.enumerated() {
      try pair.check(prompt: index, config)
      try metric.check(pair, prompt: index)
    }
  }

  // MARK: cost

  /// What path patching will cost, before it is run.
  public struct Estimate: Sendable, Equatable {
    /// How many effects there are.
    public var effects: Int
    /// How many runs are resumed.
    public var runs: Int
    /// The FLOPs of the blocks in those runs, at most.
    public var flops: Double
  }

  /// What `run` will cost.
  ///
  /// - Throws: as `run` where the pairs or the choices are wrong.
  public func estimate(_ model: GPT2, _ pairs: [PromptPair]) throws -> Estimate {
    let config = model.config
    try check(config, pairs)
    let perToken = SuffixRuns.flopsPerBlockToken(config)
    /// The layers that are run for a receiver; nil where no run is resumed.
    func layers(_ receiver: PathReceiver) -> Int? {
      switch receiver {
      case .final: nil
      case .mlp(let layer): config.nLayers - layer - 1
      default: receiver.projection.map { config.nLayers - $0.layer }
      }
    }
    var cost = Estimate(effects: 0, runs: 0, flops: 0)
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
      let rows = pair.length - pair.firstDifference
      if rows == 0 { continue }
      cost.runs += runs
      cost.flops += Double(blocks) * Double(rows) * perToken
    }
    return cost
  }

  // MARK: result

  private func result(
    _ model: GPT2, _ pairs: [PromptPair], _ effects: [Float],
    _ metrics: [(clean: Double, corrupted: Double, margin: Double)]
  ) -> ResultSet {
    let longest = pairs.map(\.length).max() ?? 0
    let coordinates = PairCoordinates(
      pairs, model: model,
      positions: pairs.map { pair in (0..<longest).map { $0 < pair.length ? $0 : nil } },
      along: .indices(longest))
    let statistics = EffectStatistics(
      effects, gaps: metrics.map { $0.clean - $0.corrupted },
      weights: EffectStatistics.samples(pairs.count, seed: seed))
    let (base, source) =
      direction == .denoising ? ("corrupted", "clean") : ("clean", "corrupted")
    let whole = direction == .denoising ? "1" : "-1"
    let sign = "positive: what the \(source) run sends raises the metric of the \(base) run"
    let fraction = "\(whole): the path carries the whole difference of the runs"
    func normalized(_ suffix: String, _ values: [Float], _ longName: String) -> ResultVariable {
      ResultVariable(
        "effect_\(suffix)", ["sender", "receiver"], .float32(values), longName: longName,
        units: "1", sign: fraction)
    }
    var variables = coordinates.variables
    variables += metric.variables(
      clean: metrics.map(\.clean), corrupted: metrics.map(\.corrupted),
      margin: metrics.map(\.margin))
    variables += [
      ResultVariable(
        "effect", ["prompt", "sender", "receiver"], .float32(effects),
        longName: "effect of the path, NaN where there is none", units: metric.units, sign: sign,
        attributes: ["formula": .string("metric(patched) - metric(unpatched)")]),
      normalized("normalized", statistics.normalized, "mean effect, normalized"),
    ]
    if pairs.count > 1 {
      variables += [
        normalized("stderr", statistics.stderr, "standard error of effect_normalized"),
        normalized("ci_low", statistics.low, "bootstrap 2.5th percentile of effect_normalized"),
        normalized("ci_high", statistics.high, "bootstrap 97.5th percentile of effect_normalized"),
      ]
    }
    var group = ResultGroup(
      path: "path",
      dimensions: coordinates.dimensions + [
        Dimension("sender", .labels(senders.map(\.description))),
        Dimension("receiver", .labels(columns)),
      ], variables: variables,
      attributes: [
        "direction": .string(direction.rawValue), "metric": .string(metric.name),
        "patched_run": .string(base), "downstream": .string(downstream),
        "receivers": .strings(receivers.map(\.description)),
        "references": .string("arXiv:2304.05969; arXiv:2211.00593"),
      ])
    if pairs.count > 1 {
      group.attributes["bootstrap_samples"] = .integer(EffectStatistics.samples)
      group.attributes["bootstrap_seed"] = .integer(Int(truncatingIfNeeded: seed))
    }
    var warnings = PatchWarnings(
      pairs, metric, metrics.map(\.clean), metrics.map(\.corrupted), metrics.map(\.margin)
    ).texts
    if effects.allSatisfy({ $0 == 0 || $0.isNaN }) {
      warnings.append("no path changed anything: the runs agree wherever the senders write")
    }
    if !warnings.isEmpty { group.attributes["warnings"] = .strings(warnings) }
    return ResultSet(
      title: "Path patching of \(model.identity.name)", groups: [group],
      provenance: Provenance(model: model))
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
