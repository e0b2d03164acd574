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
  let isLeftOut = group.path.hasSuffix("/difference") || group.path == "evaluate/worst"
  if !group.variables.isEmpty && !isLeftOut { file.groups.append(group) }
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

let found = file
/// A variable's numbers in one of the models.
let numbers = { (model: Int, group: String, name: String) -> [Double] in
  let values = found[group: group, variable: name]?.values.doubles ?? []
  let count = values.count / names.count
  return Array(values[model * count..<(model + 1) * count])
}
let last = models[0].config.streamLabels.count - 1  // stream/summary: class, stream, quantile
let rows: [(String, Int, (Int) -> Double)] = [
  ("error of attribution, pooled %", 2, { numbers($0, "dla", "nmae_pooled")[0] }),
  ("error of attribution, mean of heads %", 2, { numbers($0, "dla", "nmae_head_mean")[0] }),
  ("sink rate %", 2, { 100 * numbers($0, "heads/summary", "sink_rate_all")[0] }),
  ("last stream at position 0", 1, { numbers($0, "stream/summary", "norm")[3 * last + 1] }),
  ("at later positions", 1, { numbers($0, "stream/summary", "norm")[3 * (2 * last + 1) + 1] }),
  (
    "8 high-score neurons held: entropy %", 3,
    { numbers($0, "neurons", "cumulative_entropy_change")[8] }
  ),
  ("and loss %", 3, { numbers($0, "neurons", "cumulative_loss_change")[8] }),
  (
    "share of their effects through the norm %", 1,
    { model in
      let sums = ["total", "direct"].map { kind in
        numbers(model, "neurons", "entropy_effect_\(kind)_abs").filter { !$0.isNaN }.reduce(0, +)
      }
      return 100 * (1 - sums[1] / sums[0])
    }
  ),
  (
    "least linear block, residual apart", 3,
    { numbers($0, "stream/linearity", "linearity_without_residual").min() ?? .nan }
  ),
  ("cross-entropy, nats", 3, { numbers($0, "evaluate", "loss_mean")[0] }),
  ("its median", 3, { numbers($0, "evaluate", "loss_median")[0] }),
  ("entropy, nats", 3, { numbers($0, "evaluate", "entropy_mean")[0] }),
  ("calibration error", 4, { numbers($0, "evaluate", "ece")[0] }),
  ("accuracy %", 2, { 100 * numbers($0, "evaluate", "accuracy")[0] }),
]
var table = TextTable([("on \(prompts.count) windows", .left)] + names.map { ($0, .right) })
for (title, decimals, value) in rows {
  table.add([title] + models.indices.map { fixed(value($0), decimals) })
}
print(table.text)
for (label, jsd) in zip(labels, divergences) { print("JSD \(label): \(fixed(jsd, 4)) nats") }
if let path = CommandLine.arguments.dropFirst().first { try ResultFile.write(file, to: path) }
