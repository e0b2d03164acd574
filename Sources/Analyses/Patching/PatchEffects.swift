import HookedGPT2
import Results
import Tensors

/// The effects of a sweep while it runs, and the result that becomes of them.
struct PatchEffects {
  private let sweep: Sweep
  private var setup: PatchSetup { sweep.setup }
  /// The effects of each site, shape `[prompt, axes…]`; NaN where a cell is not done or absent.
  private var values: [[Float]]
  private var metrics: PairMetrics

  /// No effects yet, or those of a partial result.
  init(_ sweep: Sweep, resuming partial: ResultSet?) throws {
    self.sweep = sweep
    let setup = sweep.setup
    let prompts = setup.pairs.count
    metrics = PairMetrics(count: prompts)
    values = setup.experiment.sites.indices.map { site in
      let shape = setup.shape(setup.experiment.sites[site])
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
    let prompts = setup.pairs.count
    metrics.clean = try numbers("patch", "clean_metric", prompts)
    metrics.corrupted = try numbers("patch", "corrupted_metric", prompts)
    metrics.margin = try numbers("patch", "clean_margin", prompts)
    for (index, site) in setup.experiment.sites.enumerated() {
      values[index] = try numbers(
        PatchResult.path(PatchResult.exact), site.name, values[index].count
      ).map { Float($0) }
    }
  }

  /// Everything that determines the effects to the last bit, as `name: value`.
  private var settings: [String] {
    let (experiment, config) = (setup.experiment, setup.model.config)
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
      case .otherRun, .zero: setup.replacementName
      case .mean(let over), .positionMean(let over): "\(setup.replacementName) \(checksum(over))"
      }
    return [
      "weights: \(setup.model.identity.weightsSHA256) \(setup.model.identity.weightProcessing)",
      // What the weights' shapes do not tell.
      "model: \(config.nHeads) heads, \(config.normalization.rawValue) "
        + "\(config.layerNormEpsilon), \(config.activation.rawValue), attention scales "
        + "\(config.scaleAttnWeights) \(config.scaleAttnByInverseLayerIdx)",
      "sites: \(list(experiment.sites.map { "\($0.name)(\($0.site.rawValue))\($0.axes.map(\.rawValue))" }))",
      "direction: \(experiment.direction.rawValue)", "metric: \(experiment.metric.name)",
      "replacement: \(replacement)", "window: \(experiment.window)",
      "layers: \(list(setup.layers.map(String.init)))",
      "positions: \(checksum(setup.slots.positions.map { $0.map { $0 ?? -1 } }))",
      "noise: "
        + (experiment.noise.map {
          "\($0.deviations) deviations, seed \($0.seed), positions \(checksum(setup.noisePositions))"
        } ?? "none"),
      "prompts: \(setup.pairs.count) "
        + checksum(setup.pairs.flatMap { [$0.clean, $0.corrupted, $0.answer, $0.wrong] }),
      "max-memory: \(experiment.bytes)", "threads: \(Threads.count)", "blas: \(BLAS.coreName)",
    ]
  }

  // MARK: filling

  /// Takes the metrics of a group's runs.
  ///
  /// - Throws: `AnalysisError.resume` where a partial result has other ones, as it has if a metric of
  ///   one's own was changed under its old name.
  mutating func set(_ runs: [PairRuns], prompts: Range<Int>) throws(AnalysisError) {
    try metrics.set(runs, prompts: prompts)
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
    prompts.allSatisfy { !metrics.clean[$0].isNaN }
  }

  private func index(_ cell: SweepCell) -> Int {
    cell.prompt * (values[cell.site].count / setup.pairs.count) + cell.place
  }

  // MARK: results

  /// The effects so far, marked as incomplete.
  func partial() -> ResultSet {
    let result = PatchResult(setup, metrics)
    var groups = [result.patch, result.effects(PatchResult.exact, values, statistics: false)]
    groups[0].attributes["sweep_settings"] = .strings(settings)
    var partial = result.set(groups)
    partial.provenance.facts["complete"] = .integer(0)
    return partial
  }

  /// The finished result.
  func result() -> ResultSet {
    let result = PatchResult(setup, metrics)
    var patch = result.patch
    let warnings = PatchWarnings(setup, values, metrics).texts
    if !warnings.isEmpty { patch.attributes["warnings"] = .strings(warnings) }
    return result.set([patch, result.effects(PatchResult.exact, values)])
  }
}
