import ArgumentParser
import NormLens

/// What every analysis of prompts takes: model, prompts, answer, interventions, memory, output.
struct AnalysisOptions: ParsableArguments {
  @OptionGroup var model: ModelOptions
  @OptionGroup var prompts: PromptOptions
  @OptionGroup var answer: AnswerOptions
  @OptionGroup var interventions: InterventionOptions
  @OptionGroup var memory: MemoryOptions
  @OptionGroup var output: OutputOptions

  /// What an analysis works on.
  struct Work {
    let model: GPT2
    let prompts: [Prompt]
    let interventions: [Intervention]
    /// How many prompts fit into memory at once.
    let batchSize: Int
  }

  /// Loads the model, runs the analysis on the prompts, prints the result and writes it.
  ///
  /// - Parameters:
  ///   - name: what the progress line calls it.
  ///   - wrong: the token that the answer is compared with.
  ///   - bytes: the bytes of activations that a prompt of so many tokens needs.
  ///   - analysis: the analysis; it tells after each batch how many prompts are done.
  ///   - table: the result as text.
  func run(
    _ name: String, wrong: String? = nil, bytes: (GPT2Config, _ tokens: Int) -> Int,
    _ analysis: (Work, _ progress: (Int) -> Void) throws -> ResultSet,
    table: (ResultSet) -> String
  ) throws {
    try output.check(inputs: model.inputs + prompts.inputs)
    let model = try model.load()
    let text = try prompts.read(model, answered: answer.answer != nil)
    if !output.quiet { text.note() }
    let prompts = try answer.apply(to: text.prompts, wrong: wrong, model)
    let longest = prompts.map(\.tokens.count).max() ?? 1
    let work = Work(
      model: model, prompts: prompts, interventions: try interventions.interventions(model),
      batchSize: try memory.batch(
        min(prompts.count, 64), each: bytes(model.config, longest), quiet: output.quiet))
    var progress = Progress(name, total: prompts.count, quiet: output.quiet)
    var result = try analysis(work) { progress.update($0) }
    result.provenance = result.provenance.merging(
      runProvenance(prependBOS: self.prompts.provenanceBOS(model)).merging(text.facts))
    try output.deliver(result) { table(result) }
  }
}
