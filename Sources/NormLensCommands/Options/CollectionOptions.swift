import ArgumentParser
import NormLens

/// What an analysis takes that measures all prompts in one pass: models, prompts, memory, output.
struct CollectionOptions: ParsableArguments {
  @OptionGroup var models: TwinOptions
  @OptionGroup var prompts: PromptOptions
  @OptionGroup var memory: MemoryOptions
  @OptionGroup var output: OutputOptions

  /// Loads the models, measures the prompts, writes the file while they run, and prints the tables.
  ///
  /// - Parameters:
  ///   - analysis: the analysis; its batch size is set here.
  ///   - seed: what samples are drawn by, if any are.
  ///   - generated: prompts that are made for the model instead of read.
  ///   - bytes: the bytes that a prompt of so many tokens needs.
  ///   - constant: the bytes that are needed in any case.
  ///   - window: the tokens of the windows that a long text is cut into without `--context`; nil leaves
  ///     it whole.
  ///   - check: refuses prompts that the analysis can say nothing of.
  ///   - table: the groups as text.
  func run<Analysis: CollectedAnalysis>(
    _ analysis: Analysis, seed: UInt64? = nil, generated: ((GPT2) throws -> [Prompt])? = nil,
    bytes: (GPT2Config, _ tokens: Int) -> Int, constant: (GPT2Config) -> Int = { _ in 0 },
    window: (GPT2Config) -> Int? = { _ in nil }, check: ([Prompt]) throws -> Void = { _ in },
    table: ([ResultGroup]) -> String
  ) throws {
    try output.check(inputs: models.inputs + prompts.inputs)
    let models = try self.models.load()
    // Several models read the same windows.
    let window = models.compactMap { window($0.config) }.min()
    let (prompts, text) = try self.models.shared(
      models,
      read: { model -> ([Prompt], LoadedPrompts?) in
        if let generated { return (try generated(model), nil) }
        let text = try self.prompts.read(model, window: window)
        return (text.prompts, text)
      }, prompts: \.0)
    if !output.quiet { text?.note() }
    try check(prompts)
    let longest = prompts.map(\.tokens.count).max() ?? 1
    var analysis = analysis
    analysis.batchSize = try memory.batch(
      min(prompts.count, 8), each: models.map { bytes($0.config, longest) }.max() ?? 0,
      constant: models.reduce(0) { $0 + constant($1.config) }, quiet: output.quiet)
    var pass = try analysis.pass(models, prompts)
    let provenance = pass.provenance.merging(
      runProvenance(prependBOS: self.prompts.provenanceBOS(models[0]), seed: seed)
        .merging(text?.facts ?? Provenance()))
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
          ResultSet(
            title: pass.title, groups: ResultGroup.joining(kept.result + findings),
            provenance: provenance)))
    }
    let texts = pass.parts.map {
      table(ResultGroup.joining($0.tables.map(\.group) + $0.findings))
    }
    let groups = ResultGroup.joining(pass.tables.map(\.group) + findings)
    Terminal.print(
      texts.count == 1 ? texts[0] : modelTables(TwinRun(models).names, texts, groups))
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
