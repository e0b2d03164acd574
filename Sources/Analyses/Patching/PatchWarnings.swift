import HookedGPT2

/// What a reader of a sweep must know before believing it.
struct PatchWarnings {
  /// One line each.
  private(set) var texts: [String] = []

  /// Looks at a finished sweep.
  init(_ setup: PatchSetup, _ values: [[Float]], _ metrics: PairMetrics) {
    self.init(setup, metrics)
    for (site, effects) in zip(setup.experiment.sites, values) where Self.areZero(effects) {
      texts.append(
        "no cell of \(site.name) changed anything: the two runs agree there, or nothing that was "
          + "patched reaches the answer")
    }
    texts += Self.ignoredPositions(setup)
  }

  /// Looks at finished estimates. What they have in common with the exact sweep is said in the same
  /// words, so that a result with both says it once.
  init(_ setup: PatchSetup, _ metrics: PairMetrics, estimates: [Estimates]) {
    self.init(setup, metrics)
    let (experiment, count) = (setup.experiment, setup.pairs.count)
    let flat = estimates.filter { !$0.flat.isEmpty }
    if let prompts = flat.first?.flat {
      let run = experiment.direction == .denoising ? "corrupted" : "clean"
      texts.append(
        "\(experiment.metric.name) has no slope at the \(run) run of "
          + "\(Self.list(prompts, of: count)): estimates by "
          + flat.map(\.method.name).joined(separator: ", ")
          + " are 0 there whatever patching does; take the other direction, another metric, or exact "
          + "patching")
    }
    for estimate in estimates where estimate.flat.count < count {
      let dead = zip(experiment.sites, estimate.values).filter { Self.areZero($0.1) }.map(\.0.name)
      if dead.isEmpty { continue }
      var reason = "the two runs agree there, or no gradient reaches it"
      if case .relevance(let rules) = estimate.method, rules.attentionPattern {
        reason += " (rule attention-pattern lets none through to queries, keys and patterns)"
      }
      texts.append(
        "all estimates of \(dead.joined(separator: ", ")) by \(estimate.method.name) are 0: "
          + reason)
    }
    texts += Self.ignoredPositions(setup)
  }

  /// What concerns the unpatched runs.
  private init(_ setup: PatchSetup, _ metrics: PairMetrics) {
    let experiment = setup.experiment
    self.init(
      setup.pairs, experiment.metric, metrics.clean, metrics.corrupted, metrics.margin,
      compared: experiment.noise == nil, zero: experiment.replacement == .otherRun)
  }

  private static func areZero(_ effects: [Float]) -> Bool {
    effects.allSatisfy { $0 == 0 || $0.isNaN }
  }

  /// Chosen positions that a sweep does not look at.
  private static func ignoredPositions(_ setup: PatchSetup) -> [String] {
    guard case .at = setup.experiment.positions else { return [] }
    let whole = setup.experiment.sites.filter {
      Set($0.axes).isDisjoint(with: [.pos, .queryPos, .keyPos])
    }
    if whole.isEmpty { return [] }
    let names = whole.map(\.name).joined(separator: ", ")
    return ["\(names): patched at all positions, not only at the chosen ones"]
  }

  /// Looks at the unpatched runs of prompt pairs.
  ///
  /// - Parameters:
  ///   - margins: the clean runs' answer logits less their wrong ones, NaN where there is none.
  ///   - compared: whether the corrupted prompts were run.
  ///   - zero: whether identical prompts have no effects.
  init(
    _ pairs: [PromptPair], _ metric: Metric, _ clean: [Double], _ corrupted: [Double],
    _ margins: [Double], compared: Bool = true, zero: Bool = true
  ) {
    let count = pairs.count
    // Pairs without a difference.
    let same = pairs.indices.filter { compared && pairs[$0].clean == pairs[$0].corrupted }
    if !same.isEmpty {
      texts.append(
        "clean and corrupted prompt are identical"
          + (count == 1 ? "" : " in \(Self.list(same, of: count))")
          + (zero ? ": their effects are all 0" : ""))
    }
    // A gap that is hardly one.
    let mean = { (values: [Double]) in values.reduce(0, +) / Double(values.count) }
    let gaps = zip(clean, corrupted).map { $0 - $1 }
    let gap = mean(gaps)
    let size = max(mean(clean.map(Swift.abs)), mean(corrupted.map(Swift.abs)))
    let deviation =
      (gaps.reduce(0) { $0 + ($1 - gap) * ($1 - gap) } / Double(max(1, count - 1))).squareRoot()
    let error = deviation / Double(count).squareRoot()
    if Swift.abs(gap) < 0.02 * size || (count > 1 && Swift.abs(gap) < 2 * error) || gap == 0 {
      texts.append(
        "the mean \(metric.name) of clean and corrupted runs differs by "
          + "\(Self.short(gap)) only (\(Self.short(mean(clean))) and \(Self.short(mean(corrupted)))"
          + (count > 1 ? ", standard error \(Self.short(error))" : "")
          + "): normalized effects mean little")
    }
    // Prompts that the model does not solve.
    let wrong = margins.indices.filter { margins[$0] <= 0 }
    if !wrong.isEmpty {
      texts.append(
        "the model gets \(Self.list(wrong, of: count)) wrong: the clean run prefers a wrong token")
    }
  }

  private static func list(_ prompts: [Int], of count: Int) -> String {
    if count == 1 { return "the prompt" }
    if prompts.count == count { return "all \(count) prompts" }
    return "\(prompts.count) of \(count) prompts ("
      + prompts.prefix(5).map(String.init).joined(separator: ", ")
      + (prompts.count > 5 ? ", …" : "") + ")"
  }

  /// A few digits.
  private static func short(_ value: Double) -> String {
    let scale = 10_000.0
    return Swift.abs(value) < 1e9 && Swift.abs(value) >= 1e-3
      ? String((value * scale).rounded() / scale) : String(value)
  }
}
