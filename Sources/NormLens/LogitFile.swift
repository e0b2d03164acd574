public import Analyses
import HDF5Store
public import HookedGPT2
import OrderedCollections
public import Results
import Tensors

/// Writes the logits of every position, one prompt at a time.
public enum LogitFile {
  /// Runs the model and writes group `logits` with `logits(prompt, pos, vocab)`, NaN past a
  /// prompt's end; the file appears complete or not at all.
  ///
  /// - Parameters:
  ///   - model: any model.
  ///   - prompts: what to run.
  ///   - path: the result file.
  ///   - provenance: facts added to those of the model.
  ///   - interventions: the changes of each prompt's run.
  ///   - progress: told after each prompt how many are done; may throw to stop.
  /// - Throws: `ModelError`, `HDF5Error`, whatever the closures throw.
  public static func write(
    _ model: GPT2, _ prompts: [Prompt], to path: String, provenance: Provenance = Provenance(),
    interventions: (Prompt) throws -> [Intervention] = { _ in [] },
    progress: (Int) throws -> Void = { _ in }
  ) throws {
    let axes = try PromptAxes(prompts, model: model, analysis: "logits")
    let vocabulary = model.config.dVocab
    let coordinates = axes.tokenCoordinates
    let logits = ResultFileWriter.Variable(
      "logits", ["prompt", "pos", "vocab"], .float32,
      attributes: [
        "long_name": .string("logits of the next token"), "units": .string("logit"),
        "sign_convention": .string("larger = more likely"),
        "tl_hook": .string("unembed.hook_out"),
      ], chunk: [1, min(axes.longest, 16), vocabulary])
    let writer = try ResultFileWriter(
      path: path, title: "Logits of \(model.identity.name)",
      provenance: Provenance(model: model).merging(provenance),
      groups: [
        ResultFileWriter.Group(
          path: "logits",
          dimensions: [axes.prompt, axes.position, Dimension("vocab", count: vocabulary)],
          variables: coordinates.map { ResultFileWriter.Variable($0) } + [logits])
      ])
    for variable in coordinates {
      try writer.write(
        group: "logits", variable: variable.name, start: [0, 0],
        count: [prompts.count, axes.longest], values: variable.values)
    }
    for (index, prompt) in prompts.enumerated() {
      let values = try model.run(prompt.tokens, interventions: try interventions(prompt))
      guard values.isFinite else {
        throw ModelError.nonFinite(what: "the logits of prompt \(index)")
      }
      try writer.write(
        group: "logits", variable: "logits", start: [index, 0, 0],
        count: [1, prompt.tokens.count, vocabulary], tensor: values)
      try progress(index + 1)
    }
    try writer.finish()
  }
}
