import ArgumentParser
import NormLens

/// What an analysis takes that measures all prompts in one pass: model, prompts, memory, output.
struct CollectionOptions: ParsableArguments {
  @OptionGroup var model: ModelOptions
  @OptionGroup var prompts: PromptOptions
  @OptionGroup var memory: MemoryOptions
  @OptionGroup var output: OutputOptions

  /// Loads the model, measures the prompts, writes the file while they run, and prints the tables.
  ///
  /// - Parameters:
  ///   - analysis: the analysis; its batch size is set here.
  ///   - seed: what samples are drawn by, if any are.
  ///   - generated: prompts that are made for the model instead of read.
  ///   - bytes: the bytes that a prompt of so many tokens needs.
  ///   - constant: the bytes that are needed in any case.
  ///   - table: the groups as text.
  func run<Analysis: CollectedAnalysis>(
    _ analysis: Analysis, seed: UInt64? = nil, generated: ((GPT2) throws -> [Prompt])? = nil,
    bytes: (GPT2Config, _ tokens: Int) -> Int, constant: (GPT2Config) -> Int = { _ in 0 },
    table: ([ResultGroup]) -> String
  ) throws {
    try output.check(inputs: model.inputs + prompts.inputs)
    let model = try model.load()
    let prompts = try generated?(model) ?? prompts.load(model)
    let longest = prompts.map(\.tokens.count).max() ?? 1
    var analysis = analysis
    analysis.batchSize = try memory.batch(
      min(prompts.count, 8), each: bytes(model.config, longest), constant: constant(model.config),
      quiet: output.quiet)
    var pass = try analysis.pass(model, prompts)
    let provenance = Provenance(model: model).merging(
      runProvenance(prependBOS: self.prompts.provenanceBOS(model), seed: seed))
    var progress = Progress(analysis.name, total: pass.steps, quiet: output.quiet)

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
    Terminal.print(table(pass.tables.map(\.group) + findings))
    if let path = output.output { Terminal.print("wrote \(path)") }
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
