import ArgumentParser
import NormLens

/// `normlens geometry`: what the norms do to the stream.
struct GeometryCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "geometry",
    abstract: "LayerNorm geometry: lengths, shares and angles at every norm.",
    discussion: """
      For every norm and token: the stream's mean, deviation and length, its share along the ones \
      vector, and the angles that projection, gain and bias turn it by. The tables show medians over \
      tokens; position 0, whose stream is often far longer, stands apart. Then the cloud of all tokens \
      before and behind each norm, the share of each write that a norm does not see to first order, and \
      how straight the norm is. With answers in the prompts file: what the final norm's \
      renormalisation changes of direct effects. The file holds every token and is written while the \
      prompts run. Without LayerNorm the gain and the fixed divisor are folded into the weights, and \
      |z|/√d is the stream's own deviation.
      """)

  @OptionGroup var model: ModelOptions
  @OptionGroup var prompts: PromptOptions
  @OptionGroup var selectability: SelectabilityOptions
  @OptionGroup var memory: MemoryOptions
  @OptionGroup var output: OutputOptions
  @Option(
    parsing: .unconditional,  // else -1 would be taken for an option
    help: ArgumentHelp(
      "Keep the vectors of these tokens on their way through each norm: positions, or PROMPT:POSITION, "
        + "comma-separated; prompts count from 0, negative positions from the end.",
      valueName: "list"))
  var steps: String?
  @Option(
    help: "Seed of the samples: tokens where there are too many to keep, keys of --selectability.")
  var seed: UInt64 = 0

  func validate() throws {
    if steps != nil && output.output == nil && !output.json {
      throw ValidationError("--steps: vectors are not printed; name a file with -o, or take --json")
    }
    if selectability.keyMargins && output.output == nil && !output.json {
      throw ValidationError(
        "--key-margins: margins of keys are not printed; name a file with -o, or take --json")
    }
  }

  func run() throws {
    try output.check(inputs: model.inputs + prompts.inputs)
    let keys = try selectability.settings(seed: seed)
    let steps = try chosenSteps()
    let model = try model.load()
    let prompts = try prompts.load(model)
    let longest = prompts.map(\.tokens.count).max() ?? 1
    let config = model.config
    // The recorded streams, and what a forward pass has at once.
    let streams = (keys == nil ? 4 : 7) * config.nLayers + 12
    let bytes = 4 * longest * (streams * config.dModel + 2 * config.dMLP)
    // The second moments of every norm's cloud.
    let moments = 8 * config.dModel * config.dModel * model.normSites.count
    let geometry = LayerNormGeometry(
      batchSize: try memory.batch(
        min(prompts.count, 8), each: bytes, constant: moments, quiet: output.quiet),
      seed: seed, steps: steps, selectability: keys)
    var pass = try geometry.pass(model, prompts)
    let provenance = Provenance(model: model).merging(
      runProvenance(prependBOS: self.prompts.provenanceBOS(model), seed: seed))
    var progress = Progress("geometry", total: prompts.count, quiet: output.quiet)

    let stream = try output.output.map {
      try ResultStream(
        path: $0, title: pass.title, provenance: provenance, tables: pass.tables)
    }
    // JSON prints what the file holds.
    let kept = output.json && !output.quiet ? MemorySink(pass.tables) : nil
    var sinks: [any PromptSink] = []
    if let stream { sinks.append(stream) }
    if let kept { sinks.append(kept) }
    let findings = try pass.run(into: SeveralSinks(sinks)) { progress.update($0) }
    try stream?.finish(findings)
    if output.quiet { return }
    if let kept {
      return Terminal.print(
        JSONText.text(
          ResultSet(title: pass.title, groups: kept.result + findings, provenance: provenance)))
    }
    Terminal.print(geometryTables(pass.tables.map(\.group) + findings) ?? "")
    if let path = output.output { Terminal.print("wrote \(path)") }
  }
}

extension GeometryCommand {
  /// The tokens of `--steps`.
  private func chosenSteps() throws -> [NormStep] {
    guard let steps else { return [] }
    let words = listWords(steps)
    return try words.map { word in
      let parts = word.split(separator: ":", omittingEmptySubsequences: false)
      let numbers = parts.compactMap { Int($0) }
      guard numbers.count == parts.count, (1...2).contains(parts.count) else {
        throw CommandError(
          "--steps: '\(word)': expected POSITION or PROMPT:POSITION, such as 5 or 0:-1")
      }
      return NormStep(
        prompt: numbers.count == 2 ? numbers[0] : nil, position: numbers[numbers.count - 1])
    }
  }
}

/// Hands what it takes to several sinks, or to none.
private final class SeveralSinks: PromptSink {
  private let sinks: [any PromptSink]

  init(_ sinks: [any PromptSink]) { self.sinks = sinks }

  func take(_ path: String, _ variable: String, prompt: Int, _ values: [Float]) throws {
    for sink in sinks { try sink.take(path, variable, prompt: prompt, values) }
  }
}
