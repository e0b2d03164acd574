import HookedGPT2
import OrderedCollections
import Results

/// The metrics of the unpatched runs of prompt pairs; NaN where a pair was not run.
struct PairMetrics {
  var clean: [Double]
  var corrupted: [Double]
  /// The clean runs' answer logits less their wrong ones.
  var margin: [Double]

  init(count: Int) {
    clean = Array(repeating: .nan, count: count)
    (corrupted, margin) = (clean, clean)
  }

  /// Clean less corrupted.
  var gaps: [Double] { zip(clean, corrupted).map { $0 - $1 } }

  /// Takes the metrics of some runs.
  ///
  /// - Throws: `AnalysisError.resume` where a partial result has other ones, as it has if a metric of
  ///   one's own was changed under its old name.
  mutating func set(_ runs: [PairRuns], prompts: Range<Int>) throws(AnalysisError) {
    for (run, prompt) in zip(runs, prompts) {
      for (name, known, found) in [
        ("clean", clean[prompt], run.cleanMetric),
        ("corrupted", corrupted[prompt], run.corruptedMetric),
      ] where !known.isNaN && known != found {
        throw .resume(
          setting: "metric of the \(name) prompt \(prompt)", expected: "\(found)", found: "\(known)"
        )
      }
      clean[prompt] = run.cleanMetric
      corrupted[prompt] = run.corruptedMetric
      margin[prompt] = run.cleanMargin ?? .nan
    }
  }
}

/// What becomes of effects: groups of a result set, the same for exact effects and for estimates.
struct PatchResult {
  private let setup: PatchSetup
  private let metrics: PairMetrics

  init(_ setup: PatchSetup, _ metrics: PairMetrics) {
    self.setup = setup
    self.metrics = metrics
  }

  /// How effects were found, as results say it.
  struct Method {
    /// The name of the group under `patch`.
    let group: String
    /// What stands before "effect of …": nothing, or "estimated ".
    let words: String
    let formula: String
    let references: String
  }

  /// Activation patching.
  static let exact = Method(
    group: "activation", words: "", formula: "metric(patched) - metric(unpatched)",
    references: "arXiv:2202.05262; arXiv:2309.16042; arXiv:2404.15255")

  /// Where a method's effects are kept.
  static func path(_ method: Method) -> String { "patch/" + method.group }

  /// A result with these groups.
  func set(_ groups: [ResultGroup]) -> ResultSet {
    ResultSet(
      title: "Patching of \(setup.model.identity.name)", groups: groups,
      provenance: Provenance(model: setup.model))
  }

  /// Group `patch`: the unpatched metrics.
  var patch: ResultGroup {
    let experiment = setup.experiment
    let prompts = PairCoordinates(setup.pairs, model: setup.model)
    var attributes: OrderedDictionary<String, AttributeValue> = [
      "direction": .string(experiment.direction.rawValue),
      "metric": .string(experiment.metric.name), "replacement": .string(setup.replacementName),
      "patched_run": .string(experiment.direction == .denoising ? "corrupted" : "clean"),
    ]
    if let noise = experiment.noise {
      attributes["noise_deviations"] = .number(noise.deviations)
      attributes["noise_positions"] = .string(noise.positions.description)
      attributes["noise_seed"] = .integer(Int(truncatingIfNeeded: noise.seed))
    }
    return ResultGroup(
      path: "patch", dimensions: prompts.dimensions,
      variables: prompts.variables
        + experiment.metric.variables(
          clean: metrics.clean, corrupted: metrics.corrupted, margin: metrics.margin),
      attributes: attributes)
  }

  /// The effects that a method found, `[prompt, axes…]` of each site, with their statistics.
  func effects(_ method: Method, _ values: [[Float]], statistics: Bool = true) -> ResultGroup {
    let experiment = setup.experiment
    let config = setup.model.config
    let axes = Set(experiment.sites.flatMap(\.axes))
    let coordinates = PairCoordinates(
      setup.pairs, model: setup.model, positions: setup.slots.positions,
      along: setup.slots.coordinates)
    var dimensions = coordinates.dimensions
    dimensions.append(
      setup.layers == Array(0..<config.nLayers)
        ? Dimension("layer", count: config.nLayers) : Dimension("layer", .integers(setup.layers)))
    if axes.contains(.head) { dimensions.append(Dimension("head", count: config.nHeads)) }
    if axes.contains(.neuron) { dimensions.append(Dimension("neuron", count: config.dMLP)) }
    for axis in [PatchSite.Axis.queryPos, .keyPos] where axes.contains(axis) {
      dimensions.append(Dimension(axis.rawValue, setup.slots.coordinates))
    }
    let weights =
      statistics ? EffectStatistics.samples(setup.pairs.count, seed: experiment.seed) : nil
    let variables = zip(experiment.sites, values).flatMap { site, effects in
      self.variables(
        method, site, effects,
        weights.map { EffectStatistics(effects, gaps: metrics.gaps, weights: $0) })
    }
    // A group may be opened alone.
    var attributes: OrderedDictionary<String, AttributeValue> = [
      "direction": .string(experiment.direction.rawValue),
      "metric": .string(experiment.metric.name),
      "window": .integer(experiment.window),
      "references": .string(method.references),
    ]
    if statistics && setup.pairs.count > 1 {
      attributes["bootstrap_samples"] = .integer(EffectStatistics.samples)
      attributes["bootstrap_seed"] = .integer(Int(truncatingIfNeeded: experiment.seed))
    }
    return ResultGroup(
      path: Self.path(method), dimensions: dimensions,
      variables: coordinates.variables + variables, attributes: attributes)
  }

  private func variables(
    _ method: Method, _ site: PatchSite, _ effects: [Float], _ statistics: EffectStatistics?
  ) -> [ResultVariable] {
    let axes = site.axes.map(\.rawValue)
    let hook = HookName(site.site, layer: 0).rawValue.replacing(
      "blocks.0.", with: "blocks.{layer}.")
    let window =
      setup.experiment.window == 1
      ? "" : ", in \(setup.experiment.window) layers from `layer` on"
    func variable(
      _ suffix: String, _ values: [Float], _ longName: String, _ units: String, _ formula: String
    ) -> ResultVariable {
      ResultVariable(
        site.name + suffix, (suffix.isEmpty ? ["prompt"] : []) + axes, .float32(values),
        longName: longName, units: units,
        sign: setup.experiment.metric.signConvention(
          setup.experiment.direction, normalized: !suffix.isEmpty),
        attributes: ["formula": .string(formula), "tl_hook": .string(hook)])
    }
    var result = [
      variable(
        "", effects, "\(method.words)effect of patching \(site.name)\(window)",
        setup.experiment.metric.units,
        method.formula)
    ]
    guard let statistics else { return result }
    result.append(
      variable(
        "_normalized", statistics.normalized,
        "normalized \(method.words)effect of patching \(site.name)\(window)",
        "1", "mean effect / (mean clean metric - mean corrupted metric)"))
    if setup.pairs.count > 1 {
      result += [
        variable(
          "_stderr", statistics.stderr, "standard error of the normalized effect, gap held fixed",
          "1", "sd(effect)/sqrt(n)/|mean gap|"),
        variable(
          "_ci_low", statistics.low, "lower end of the 95 % bootstrap interval", "1",
          "2.5th percentile over resampled prompts"),
        variable(
          "_ci_high", statistics.high, "upper end of the 95 % bootstrap interval", "1",
          "97.5th percentile over resampled prompts"),
      ]
    }
    return result
  }
}
