import HookedGPT2
import OrderedCollections
import Results
import Tensors

/// The effects of a sweep while it runs, and the result that becomes of them.
struct PatchEffects {
  private let sweep: Sweep
  /// The effects of each site, shape `[prompt, axes…]`; NaN where a cell is not done or absent.
  private var values: [[Float]]
  private var cleanMetric: [Double]
  private var correctMargin: [Double]
  private var corruptedMetric: [Double]

  private static let group = "patch/activation"

  /// No effects yet, or those of a partial result.
  init(_ sweep: Sweep, resuming partial: ResultSet?) throws {
    self.sweep = sweep
    let prompts = sweep.pairs.count
    cleanMetric = Array(repeating: .nan, count: prompts)
    (corruptedMetric, correctMargin) = (cleanMetric, cleanMetric)
    values = sweep.experiment.sites.indices.map { site in
      let shape = sweep.shape(sweep.experiment.sites[site])
      let cells = shape.reduce(1, *)
      return (0..<prompts * cells).map { index in
        let fate = sweep.fate(
          site: site, prompt: index / cells, place: index % cells, shape: shape)
        if case .unchanged = fate { return 0 }
        return .nan
      }
    }
    if let partial { try take(partial) }
  }

  private mutating func take(_ partial: ResultSet) throws {
    let here = settings
    guard case .strings(let there)? = partial[group: "patch"]?.attributes["sweep_settings"],
      partial.provenance.facts["complete"] == .integer(0)
    else {
      throw AnalysisError.resume(
        setting: "kind of file", expected: "an unfinished sweep", found: "another result")
    }
    for (index, setting) in here.enumerated() {
      let found = index < there.count ? there[index] : "none"
      if setting == found { continue }
      let name = setting.prefix { $0 != ":" }
      throw AnalysisError.resume(
        setting: String(name), expected: String(setting.dropFirst(name.count + 2)),
        found: found.hasPrefix(name + ": ") ? String(found.dropFirst(name.count + 2)) : found)
    }
    func numbers(_ group: String, _ name: String, _ count: Int) throws -> [Double] {
      guard let found = partial[group: group, variable: name]?.values.doubles, found.count == count
      else {
        throw AnalysisError.resume(
          setting: "variable \(group)/\(name)", expected: "\(count) values", found: "others")
      }
      return found
    }
    let prompts = sweep.pairs.count
    cleanMetric = try numbers("patch", "clean_metric", prompts)
    corruptedMetric = try numbers("patch", "corrupted_metric", prompts)
    correctMargin = try numbers("patch", "clean_margin", prompts)
    for (index, site) in sweep.experiment.sites.enumerated() {
      values[index] = try numbers(Self.group, site.name, values[index].count).map { Float($0) }
    }
  }

  /// Everything that determines the effects to the last bit, as `name: value`.
  private var settings: [String] {
    let (experiment, config) = (sweep.experiment, sweep.model.config)
    func list(_ values: [String]) -> String { values.joined(separator: ",") }
    func checksum(_ tokens: [[Int]]) -> String {
      // Of each list its length and its elements, so that no two sets run together.
      var hash: UInt64 = 0xcbf2_9ce4_8422_2325
      for value in tokens.flatMap({ [$0.count] + $0 }) {
        hash = (hash ^ UInt64(bitPattern: Int64(value))) &* 0x100_0000_01b3
      }
      return String(hash, radix: 16)
    }
    let replacement =
      switch experiment.replacement {
      case .otherRun, .zero: replacementName
      case .mean(let over), .positionMean(let over): "\(replacementName) \(checksum(over))"
      }
    return [
      "weights: \(sweep.model.identity.weightsSHA256) \(sweep.model.identity.weightProcessing)",
      // What the weights' shapes do not tell.
      "model: \(config.nHeads) heads, \(config.normalization.rawValue) "
        + "\(config.layerNormEpsilon), \(config.activation.rawValue), attention scales "
        + "\(config.scaleAttnWeights) \(config.scaleAttnByInverseLayerIdx)",
      "sites: \(list(experiment.sites.map { "\($0.name)(\($0.site.rawValue))\($0.axes.map(\.rawValue))" }))",
      "direction: \(experiment.direction.rawValue)", "metric: \(experiment.metric.name)",
      "replacement: \(replacement)", "window: \(experiment.window)",
      "layers: \(list(sweep.layers.map(String.init)))",
      "positions: \(checksum(sweep.slots.positions.map { $0.map { $0 ?? -1 } }))",
      "noise: "
        + (experiment.noise.map {
          "\($0.deviations) deviations, seed \($0.seed), positions \(checksum(sweep.noisePositions))"
        } ?? "none"),
      "prompts: \(sweep.pairs.count) "
        + checksum(sweep.pairs.flatMap { [$0.clean, $0.corrupted, $0.answer, $0.wrong] }),
      "max-memory: \(experiment.bytes)", "threads: \(Threads.count)", "blas: \(BLAS.coreName)",
    ]
  }

  private var replacementName: String {
    switch sweep.experiment.replacement {
    case .otherRun: "other run"
    case .zero: "zero"
    case .mean: "mean over reference prompts and positions"
    case .positionMean: "mean over reference prompts at each position"
    }
  }

  // MARK: filling

  /// Takes the metrics of a group's runs.
  ///
  /// - Throws: `AnalysisError.resume` where a partial result has other ones, as it has if a metric of
  ///   one's own was changed under its old name.
  mutating func set(_ runs: [PairRuns], prompts: Range<Int>) throws(AnalysisError) {
    for (run, prompt) in zip(runs, prompts) {
      for (name, known, found) in [
        ("clean", cleanMetric[prompt], run.cleanMetric),
        ("corrupted", corruptedMetric[prompt], run.corruptedMetric),
      ] where !known.isNaN && known != found {
        throw .resume(
          setting: "metric of the \(name) prompt \(prompt)", expected: "\(found)", found: "\(known)"
        )
      }
      cleanMetric[prompt] = run.cleanMetric
      corruptedMetric[prompt] = run.corruptedMetric
      correctMargin[prompt] = run.cleanMargin ?? .nan
    }
  }

  /// Takes the effect of a cell.
  mutating func set(_ cell: SweepCell, _ effect: Double) {
    values[cell.site][index(cell)] = Float(effect)
  }

  /// Whether all of some cells are done.
  func hasAll(_ cells: [SweepCell]) -> Bool {
    cells.allSatisfy { !values[$0.site][index($0)].isNaN }
  }

  /// Whether the metrics of all of some prompts are known.
  func hasMetrics(of prompts: Range<Int>) -> Bool {
    prompts.allSatisfy { !cleanMetric[$0].isNaN }
  }

  private func index(_ cell: SweepCell) -> Int {
    cell.prompt * (values[cell.site].count / sweep.pairs.count) + cell.place
  }

  // MARK: results

  /// The effects so far, marked as incomplete.
  func partial() -> ResultSet {
    var result = ResultSet(
      title: title, groups: [patchGroup, effectGroup(statistics: false)],
      provenance: Provenance(model: sweep.model))
    result.groups[0].attributes["sweep_settings"] = .strings(settings)
    result.provenance.facts["complete"] = .integer(0)
    return result
  }

  /// The finished result.
  func result() throws -> ResultSet {
    var patch = patchGroup
    let warnings = PatchWarnings(
      sweep, values, cleanMetric, corruptedMetric, correctMargin
    ).texts
    if !warnings.isEmpty { patch.attributes["warnings"] = .strings(warnings) }
    return ResultSet(
      title: title, groups: [patch, effectGroup(statistics: true)],
      provenance: Provenance(model: sweep.model))
  }

  private var title: String { "Activation patching of \(sweep.model.identity.name)" }

  private var gaps: [Double] { zip(cleanMetric, corruptedMetric).map { $0 - $1 } }

  /// Group `patch`: the unpatched metrics.
  private var patchGroup: ResultGroup {
    let experiment = sweep.experiment
    let prompts = PairCoordinates(sweep.pairs, model: sweep.model)
    var attributes: OrderedDictionary<String, AttributeValue> = [
      "direction": .string(experiment.direction.rawValue),
      "metric": .string(experiment.metric.name), "replacement": .string(replacementName),
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
          clean: cleanMetric, corrupted: corruptedMetric, margin: correctMargin),
      attributes: attributes)
  }

  private func effectGroup(statistics: Bool) -> ResultGroup {
    let experiment = sweep.experiment
    let config = sweep.model.config
    let axes = Set(experiment.sites.flatMap(\.axes))
    let coordinates = PairCoordinates(
      sweep.pairs, model: sweep.model, positions: sweep.slots.positions,
      along: sweep.slots.coordinates)
    var dimensions = coordinates.dimensions
    dimensions.append(
      sweep.layers == Array(0..<config.nLayers)
        ? Dimension("layer", count: config.nLayers) : Dimension("layer", .integers(sweep.layers)))
    if axes.contains(.head) { dimensions.append(Dimension("head", count: config.nHeads)) }
    if axes.contains(.neuron) { dimensions.append(Dimension("neuron", count: config.dMLP)) }
    for axis in [PatchSite.Axis.queryPos, .keyPos] where axes.contains(axis) {
      dimensions.append(Dimension(axis.rawValue, sweep.slots.coordinates))
    }
    let weights =
      statistics ? EffectStatistics.samples(sweep.pairs.count, seed: experiment.seed) : nil
    let variables = zip(experiment.sites, values).flatMap { site, effects in
      self.variables(
        site, effects,
        weights.map { EffectStatistics(effects, gaps: gaps, weights: $0) })
    }
    var attributes: OrderedDictionary<String, AttributeValue> = [
      "window": .integer(experiment.window),
      "references": .string("arXiv:2202.05262; arXiv:2309.16042; arXiv:2404.15255"),
    ]
    if statistics && sweep.pairs.count > 1 {
      attributes["bootstrap_samples"] = .integer(EffectStatistics.samples)
      attributes["bootstrap_seed"] = .integer(Int(truncatingIfNeeded: experiment.seed))
    }
    return ResultGroup(
      path: Self.group, dimensions: dimensions,
      variables: coordinates.variables + variables, attributes: attributes)
  }

  private func variables(
    _ site: PatchSite, _ effects: [Float], _ statistics: EffectStatistics?
  ) -> [ResultVariable] {
    let axes = site.axes.map(\.rawValue)
    let hook = HookName(site.site, layer: 0).rawValue.replacing(
      "blocks.0.", with: "blocks.{layer}.")
    let window =
      sweep.experiment.window == 1
      ? "" : ", in \(sweep.experiment.window) layers from `layer` on"
    func variable(
      _ suffix: String, _ values: [Float], _ longName: String, _ units: String, _ formula: String
    ) -> ResultVariable {
      ResultVariable(
        site.name + suffix, (suffix.isEmpty ? ["prompt"] : []) + axes, .float32(values),
        longName: longName, units: units,
        sign: sweep.experiment.metric.signConvention(
          sweep.experiment.direction, normalized: !suffix.isEmpty),
        attributes: ["formula": .string(formula), "tl_hook": .string(hook)])
    }
    var result = [
      variable(
        "", effects, "effect of patching \(site.name)\(window)", sweep.experiment.metric.units,
        "metric(patched) - metric(unpatched)")
    ]
    guard let statistics else { return result }
    result.append(
      variable(
        "_normalized", statistics.normalized, "normalized effect of patching \(site.name)\(window)",
        "1", "mean effect / (mean clean metric - mean corrupted metric)"))
    if sweep.pairs.count > 1 {
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
