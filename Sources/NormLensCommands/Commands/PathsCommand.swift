import ArgumentParser
import NormLens

/// `normlens paths`: what one component tells another.
struct PathsCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "paths",
    abstract: "Path patching: change what one component reads of another, and nothing else.",
    discussion: """
      A receiver is given the stream that it would read if a sender had written what it wrote in the \
      other run; its norm is recomputed. By default everything behind the receiver answers; \
      --frozen lets its change go straight to the final stream; --jointly patches all receivers at \
      once, with the heads between frozen, and the MLPs too without --through-mlps.

      Senders: embed, L5H1, 3_mlp_out, L5 (its heads), L5-8, heads, mlps, all; L5H1+L5H5 counts as \
      one. Receivers: L9H6.q, .k and .v (L9H6: all three), L9.q, L9-11.q, heads.q, heads, 9_mlp_in, \
      mlps, final, all. A cell without a path, where the receiver reads before the sender writes, \
      is NaN.
      """)

  @OptionGroup var models: TwinOptions
  @OptionGroup var pairs: PairOptions
  @Option(help: ArgumentHelp("Where paths begin.", valueName: "list"))
  var senders: String
  @Option(help: ArgumentHelp("Where they end.", valueName: "list"))
  var receivers: String
  @Flag(
    help: ArgumentHelp(
      "Patch the corrupted run with what senders write in the clean one, or the other way round."))
  var direction = SweepOptions.DirectionFlag.denoising
  @Option(
    help: ArgumentHelp(
      "What is measured: \(Metric.all.map(\.name).joined(separator: ", ")).", valueName: "name"))
  var metric = Metric.logitDifference.name
  @Flag(help: "Keep every other component as it was in the patched run: direct paths.")
  var frozen = false
  @Flag(help: "Patch all receivers at once.")
  var jointly = false
  @Flag(
    name: .customLong("through-mlps"),
    help: "With --jointly: MLPs between sender and receivers answer to the sender.")
  var throughMLPs = false
  @Option(help: "Where bootstrap samples come from.") var seed: UInt64 = 0
  @OptionGroup var memory: MemoryOptions
  @OptionGroup var output: OutputOptions
  @Option(help: "How many paths to list.") var top = 10

  func validate() throws {
    if frozen && jointly {
      throw ValidationError("--frozen and --jointly are two forms of path patching: give one")
    }
    if throughMLPs && !jointly { throw ValidationError("--through-mlps needs --jointly") }
    if top < 0 { throw ValidationError("--top \(top): expected 0 or more") }
  }

  func run() throws {
    try output.check(inputs: models.inputs + pairs.inputs)
    let metric = try SweepOptions.metric(named: self.metric)
    let models = try self.models.load()
    let pairs = try self.models.shared(
      models, read: { try self.pairs.load($0) }, prompts: { $0 })
    let results = try self.models.each(models) { try patch($0, pairs, metric) }
    let provenance = runProvenance(
      prependBOS: self.pairs.provenanceBOS(models[0]), seed: seed)
    try output.deliver(results, of: models, provenance: provenance) { Self.table($0, top: top) }
  }

  /// Patches the paths of one model.
  private func patch(_ model: GPT2, _ pairs: [PromptPair], _ metric: Metric) throws -> ResultSet {
    var patching = PathPatching(
      senders: try PathSender.parse(senders, model.config),
      receivers: try PathReceiver.parse(receivers, model.config),
      direction: direction == .noising ? .noising : .denoising, metric: metric,
      variant: frozen ? .frozen : jointly ? .jointly(throughMLPs: throughMLPs) : .recomputed)
    patching.bytes = try memory.limit
    patching.seed = seed
    // What finished tensors leave behind counts, too.
    TensorMemory.keptBytesLimit = min(1 << 30, patching.bytes / 2)
    let estimate = try patching.estimate(model, pairs)
    if !output.quiet && estimate.flops > 3e12 {
      Terminal.note(
        "\(estimate.effects) effects from \(estimate.runs) resumed runs, "
          + "\(fixed(estimate.flops / 1e12, 1)) TFLOP, at best "
          + duration(estimate.flops / MachineLimits.sgemmPeak()))
    }
    var progress = Progress("paths", total: estimate.effects, quiet: output.quiet)
    let result = try patching.run(model, pairs) { progress.update($0) }
    if !output.quiet, case .strings(let texts)? = result[group: "path"]?.attributes["warnings"] {
      for text in texts { Terminal.note("warning: \(text)") }
    }
    return result
  }

  /// The metrics and the strongest paths, means over prompts.
  static func table(_ result: ResultSet, top: Int) -> String {
    guard let group = result[group: "path"], let prompts = group[dimension: "prompt"]?.count,
      let senders = group[dimension: "sender"], let receivers = group[dimension: "receiver"],
      let effects = group[variable: "effect"], let values = effects.values.doubles,
      let normalized = group[variable: "effect_normalized"]?.values.doubles
    else { return "" }
    func mean(_ values: [Double], _ cell: Int, of cells: Int) -> Double {
      stride(from: cell, to: values.count, by: cells).reduce(0) { $0 + values[$1] }
        / Double(prompts)
    }
    func attribute(_ name: String) -> String { group.attributes[name]?.description ?? "" }
    func metric(_ name: String) -> String {
      fixed(mean(group[variable: name]?.values.doubles ?? [], 0, of: 1), 4)
    }
    let cells = normalized.count
    let means = (0..<cells).map { mean(values, $0, of: cells) }
    let low = group[variable: "effect_ci_low"]?.values.doubles
    let high = group[variable: "effect_ci_high"]?.values.doubles
    let paths = means.indices.filter { !means[$0].isNaN }
    let strongest = paths.filter { means[$0] != 0 }.sorted {
      (Swift.abs(means[$0]), $1) > (Swift.abs(means[$1]), $0)
    }.prefix(top)

    let unit = effects.units == "1" ? "" : " [\(effects.units)]"
    var columns: [(String, TextTable.Alignment)] = [
      ("sender", .left), ("receiver", .left), ("effect\(unit)", .right), ("normalized", .right),
    ]
    if low != nil { columns.append(("95 %", .left)) }
    var table = TextTable(columns)
    for cell in strongest {
      var row = [
        senders.label(at: cell / receivers.count), receivers.label(at: cell % receivers.count),
        fixed(means[cell], 4, signed: true), fixed(normalized[cell], 4, signed: true),
      ]
      if let low, let high {
        row.append("\(fixed(low[cell], 3, signed: true)) … \(fixed(high[cell], 3, signed: true))")
      }
      table.add(row)
    }
    let count = prompts == 1 ? "1 prompt" : "\(prompts) prompts"
    let heading = """
      \(attribute("direction")): paths into the \(attribute("patched_run")) run; downstream \
      \(attribute("downstream")); \(count)
      \(attribute("metric"))\(unit): clean \(metric("clean_metric")), corrupted \
      \(metric("corrupted_metric"))\(prompts == 1 ? "" : " (means)")
      """
    let shown =
      strongest.isEmpty
      ? "no path changed anything" : "\(table.text)"
    return """
      \(heading)

      \(strongest.count < paths.count ? "the strongest of \(paths.count) paths:\n" : "")\(shown)
      """
  }
}
