import Foundation
import NormLens

extension DemoCommand {
  /// Part 6: the models side by side on held-out text.
  func speeches(_ models: [GPT2]) throws -> [Written] {
    section(
      "6. What the removal of LayerNorm cost, on speeches that the models were not trained on")
    let source = "\(BundledModels.dataDirectory() ?? ".")/prompts/speeches.txt"
    let windows = try models[0].windows(
      of: readText(source), length: models[0].config.nCtx
    ).windows.prefix(16)
    let prompts = windows.map { Prompt($0) }
    var result = try Evaluation().run(models, prompts)
      .merged(with: HeadMeasures().run(models, prompts))
      .merged(with: StreamMeasures().run(models, prompts))
    result.title = "Predictions, heads and streams of the bundled models on speeches"
    result.provenance = result.provenance.merging(runProvenance(prependBOS: true, seed: 0))
    let path = "\(output)/speeches.h5"
    try ResultFile.write(result, to: path)

    let streams = models[0].config.streamLabels.count
    var table = TextTable(
      [("", .left)] + models.map { ($0.identity.name, .right) })
    /// A row of one number a model, the `place`th of those that each has.
    func add(
      _ title: String, _ group: String, _ variable: String, place: Int = 0, factor: Double = 1,
      decimals: Int
    ) {
      let values = result[group: group, variable: variable]?.values.doubles ?? []
      let each = values.count / models.count
      table.add(
        [title]
          + models.indices.map { model in
            place < each ? fixed(factor * values[model * each + place], decimals) : "–"
          })
    }
    add("loss, nats a token", "evaluate", "loss_mean", decimals: 3)
    add("entropy", "evaluate", "entropy_mean", decimals: 3)
    add("calibration error", "evaluate", "ece", decimals: 4)
    add("sink rate %", "heads/summary", "sink_rate_all", factor: 100, decimals: 2)
    // Axes: position class, stream, quantile.
    add(
      "length of the last stream at position 0", "stream/summary", "norm",
      place: 3 * (streams - 1) + 1, decimals: 1)
    add(
      "at other positions", "stream/summary", "norm", place: 3 * (2 * streams - 1) + 1,
      decimals: 1)
    Terminal.print(
      """
      \(prompts.count) windows of \(models[0].config.nCtx) tokens; lengths are medians. `--model` puts models \
      side by side in any analysis.

      \(table.text)
      """)
    return [Written(path: path, what: "predictions, heads and streams on speeches")]
  }
}
