import ArgumentParser
import NormLens

/// What every analysis of prompts takes: model, prompts, answer, interventions, memory, output.
struct AnalysisOptions: ParsableArguments {
  @OptionGroup var models: TwinOptions
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

  /// Loads the models, runs the analysis on the prompts, prints the result and writes it.
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
    try output.check(inputs: models.inputs + prompts.inputs)
    let models = try self.models.load()
    let (prompts, text) = try self.models.shared(
      models,
      read: { model -> ([Prompt], LoadedPrompts) in
        let text = try self.prompts.read(model, answered: answer.answer != nil)
        return (try answer.apply(to: text.prompts, wrong: wrong, model), text)
      }, prompts: \.0)
    if !output.quiet { text.note() }
    let longest = prompts.map(\.tokens.count).max() ?? 1
    let results = try self.models.each(models) { model in
      let work = Work(
        model: model, prompts: prompts, interventions: try interventions.interventions(model),
        batchSize: try memory.batch(
          min(prompts.count, 64), each: bytes(model.config, longest), quiet: output.quiet))
      var progress = Progress(name, total: prompts.count, quiet: output.quiet)
      return try analysis(work) { progress.update($0) }
    }
    let provenance = runProvenance(prependBOS: self.prompts.provenanceBOS(models[0]))
    try output.deliver(
      results, of: models, provenance: provenance.merging(text.facts), table: table)
  }
}
