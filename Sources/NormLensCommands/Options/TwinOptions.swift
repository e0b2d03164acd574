import ArgumentParser
import NormLens

/// The models that an analysis looks at: one, or several side by side.
struct TwinOptions: ParsableArguments {
  @Argument(
    help:
      "A model file, a Hugging Face directory or weight file, or mini, mini-vanilla, mini-lnfree.",
    completion: .file())
  var model: String?

  @Option(
    name: .customLong("model"),
    help: ArgumentHelp(
      "A further model to compare with, on the same prompts; may be repeated. What any of them has been "
        + "through (--process) is done to all.", valueName: "model"), completion: .file())
  var further: [String] = []

  @OptionGroup var loading: LoadingOptions

  func validate() throws {
    if sources.isEmpty { throw ValidationError("Missing expected argument '<model>'") }
  }

  /// What is opened.
  var sources: [String] { [model].compactMap { $0 } + further }

  /// The files that are read.
  var inputs: [String] { sources.flatMap(Checkpoint.files) }

  /// Opens the models and brings them into one gauge.
  func load() throws -> [GPT2] {
    loading.compute.apply()
    let twins = try TwinModels(
      sources, processing: try loading.processing.steps, verify: !loading.noVerify)
    for note in twins.notes { Terminal.note(note) }
    return twins.models
  }

  /// What each of the models makes of the options, such as prompts, which must be the same to all.
  ///
  /// - Throws: `AnalysisError.models` where they are not; what `read` throws, of several models with the
  ///   model's name.
  func shared<Value>(
    _ models: [GPT2], read: (GPT2) throws -> Value, prompts: (Value) -> some Equatable
  ) throws -> Value {
    let first = try naming(models[0]) { try read(models[0]) }
    for model in models.dropFirst() {
      let other = try naming(model) { try read(model) }
      // Token ids that both take may still be other words.
      let (size, others) = (models[0].config.dVocab, model.config.dVocab)
      if size != others {
        throw AnalysisError.models(
          problem: "'\(models[0].identity.name)' and '\(model.identity.name)' have vocabularies of "
            + "\(size) and \(others) tokens; compare models of one vocabulary, or run them one by one"
        )
      }
      if prompts(other) == prompts(first) { continue }
      let names = "'\(models[0].identity.name)' and '\(model.identity.name)'"
      throw AnalysisError.models(
        problem: model.defaultPrependBOS == models[0].defaultPrependBOS
          ? "the prompts are other tokens to \(names); compare models of one vocabulary, or give token "
            + "ids"
          : "of \(names) only one puts a BOS token in front of text; give --no-bos, or token ids")
    }
    return first
  }

  /// What each model gives, in turn.
  ///
  /// - Throws: what `body` throws, of several models with the model's name.
  func each<Value>(_ models: [GPT2], _ body: (GPT2) throws -> Value) throws -> [Value] {
    try models.map { model in try naming(model) { try body(model) } }
  }

  /// Does something with one of the models; where there are several, an error says with which.
  private func naming<Value>(_ model: GPT2, _ body: () throws -> Value) throws -> Value {
    do {
      return try body()
    } catch let error where sources.count > 1 {
      guard let status = ExitStatus(error) else { throw error }
      throw CommandError("model '\(model.identity.name)': \(error)", status: status)
    }
  }
}

extension OutputOptions {
  /// Delivers the results of one analysis, one for each model, side by side.
  ///
  /// - Parameter table: one model's result as text.
  /// - Throws: `AnalysisError.models` where they cannot stand side by side; what `deliver` throws.
  func deliver(
    _ results: [ResultSet], of models: [GPT2], provenance: Provenance,
    table: (ResultSet) throws -> String
  ) throws {
    let twins = TwinRun(models)
    var result = try twins.combine(results)
    result.provenance = result.provenance.merging(provenance)
    try deliver(result) {
      if results.count == 1 { return try table(result) }
      return modelTables(twins.names, try results.map(table), result.groups)
    }
  }
}
