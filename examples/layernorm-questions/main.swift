// What becomes of a model when its LayerNorms are removed?
//
// The questions of arXiv:2507.02559, asked of the bundled models on speeches that they were not trained
// on: is direct logit attribution exact, do heads still rest on position 0 and is its stream still long,
// do entropy neurons still act, is a block nearly linear, how does variance grow, and what does it cost?
// A path as argument keeps the numbers.
import Foundation
import NormLens

let path = "\(BundledModels.dataDirectory() ?? ".")/prompts/speeches.txt"
let models = try TwinModels(BundledModels.names).models
let text = try String(contentsOfFile: path, encoding: .utf8)
let windows = try models[0].windows(of: text, length: models[0].config.nCtx).windows
let prompts = windows.map { Prompt($0) }
// Attribution asks for the token that came next.
let questions = windows.map { Prompt(Array($0.dropLast()), answer: $0.last) }
let attribution = try TwinRun(models).combine(
  models.map { try DirectLogitAttribution().run($0, questions) })
let scores = try EntropyNeurons().withoutText(models[0])[group: "neurons", variable: "score"]
let ranked = (scores?.values.doubles ?? []).enumerated().sorted { $0.element > $1.element }
let neurons = EntropyNeurons(ablated: .neurons(ranked.prefix(8).map(\.offset)), cumulated: 8)
let parts = [
  attribution, try HeadMeasures().run(models, prompts), try StreamMeasures().run(models, prompts),
  try neurons.run(models, prompts), try Evaluation().run(models, prompts),
]
var file = ResultSet(
  title: "What changes without LayerNorm", groups: [], provenance: attribution.provenance)
for var group in parts.flatMap(\.groups) {  // the file is to stay small
  group.variables.removeAll { $0.dimensions.contains("prompt") }
  if group.path.hasSuffix("/difference") || group.path == "evaluate/worst" { continue }
  if !group.variables.isEmpty { file.groups.append(group) }
}
let pairs = [(0, 1), (0, 2), (1, 2)]
let divergences = try pairs.map { first, second in
  try Evaluation(against: models[second]).run(models[first], prompts)[
    group: "evaluate", variable: "jsd_mean"]?.values.doubles?.first ?? .nan
}
let names = models.map(\.identity.name)
let labels = pairs.map { "\(names[$0]), \(names[$1])" }
file.groups.append(
  ResultGroup(
    path: "divergence", dimensions: [Dimension("pair", .labels(labels))],
    variables: [
      ResultVariable(
        "jsd", ["pair"], .float64(divergences), longName: "mean Jensen-Shannon divergence",
        units: "nat")
    ]))

// What is shown: title, group, variable, which of a model's numbers, factor, decimals.
let last = models[0].config.streamLabels.count - 1  // stream/summary: class, stream, quantile
let rows: [(String, String, String, Int, Double, Int)] = [
  ("error of attribution, pooled %", "dla", "nmae_pooled", 0, 1, 2),
  ("error of attribution, mean of heads %", "dla", "nmae_head_mean", 0, 1, 2),
  ("sink rate %", "heads/summary", "sink_rate_all", 0, 100, 2),
  ("last stream at position 0", "stream/summary", "norm", 3 * last + 1, 1, 1),
  ("at later positions", "stream/summary", "norm", 3 * (2 * last + 1) + 1, 1, 1),
  ("8 high-score neurons held: entropy %", "neurons", "cumulative_entropy_change", 8, 1, 3),
  ("and loss %", "neurons", "cumulative_loss_change", 8, 1, 3),
  (
    "block 2, linearity without residual", "stream/linearity", "linearity_without_residual", 2, 1, 3
  ),
  ("cross-entropy, nats", "evaluate", "loss_mean", 0, 1, 3),
  ("its median", "evaluate", "loss_median", 0, 1, 3),
  ("entropy, nats", "evaluate", "entropy_mean", 0, 1, 3),
  ("calibration error", "evaluate", "ece", 0, 1, 4),
  ("accuracy %", "evaluate", "accuracy", 0, 100, 2),
]
var table = TextTable([("on \(prompts.count) windows", .left)] + names.map { ($0, .right) })
for (title, group, variable, place, factor, decimals) in rows {
  let values = file[group: group, variable: variable]?.values.doubles ?? []
  let each = values.count / names.count
  table.add([title] + names.indices.map { fixed(factor * values[$0 * each + place], decimals) })
}
print(table.text)
for (label, jsd) in zip(labels, divergences) { print("JSD \(label): \(fixed(jsd, 4)) nats") }
if let path = CommandLine.arguments.dropFirst().first { try ResultFile.write(file, to: path) }
