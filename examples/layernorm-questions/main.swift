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
  if !group.variables.isEmpty { file.groups.append(group) }
}
let pairs = [(0, 1), (0, 2), (1, 2)]
let divergences = try pairs.map { first, second in
  try Evaluation(against: models[second]).run(models[first], prompts)[
    group: "evaluate", variable: "jsd_mean"]?.values.doubles?.first ?? .nan
}
let names = models.map(\.identity.name)
file.groups.append(
  ResultGroup(
    path: "divergence",
    dimensions: [Dimension("pair", .labels(pairs.map { "\(names[$0]), \(names[$1])" }))],
    variables: [
      ResultVariable(
        "jsd", ["pair"], .float64(divergences), longName: "mean Jensen-Shannon divergence",
        units: "nat", attributes: ["references": .string("arXiv:2507.02559")])
    ]))

/// A variable in each model at a place of its other axes, or the extreme over them.
@MainActor func row(_ group: String, _ name: String, at place: Int? = nil, times: Double = 1)
  -> [Double]
{
  guard let values = file[group: group, variable: name]?.values.doubles else { return [] }
  let cells = values.count / models.count
  return models.indices.map { model in
    let own = values[model * cells..<(model + 1) * cells].map { times * $0 }
    return place.map { own[$0] } ?? own.filter { !$0.isNaN }.min() ?? .nan
  }
}
var table = TextTable([("on \(prompts.count) windows", .left)] + names.map { ($0, .right) })
@MainActor func add(_ title: String, _ values: [Double], _ decimals: Int = 2) {
  table.add(
    [title] + (values.isEmpty ? names.map { _ in "–" } : values.map { fixed($0, decimals) }))
}
let final = models[0].config.streamLabels.count - 1  // stream/summary: class, stream, quantile
add("error of attribution, pooled %", row("dla", "nmae_pooled"))
add("error of attribution, mean of heads %", row("dla", "nmae_head_mean"))
add("sink rate %", row("heads/summary", "sink_rate_all", times: 100))
add("final stream at position 0, median norm", row("stream/summary", "norm", at: 3 * final + 1))
add("at later positions", row("stream/summary", "norm", at: 3 * (2 * final + 1) + 1))
add("8 entropy neurons ablated: entropy %", row("neurons", "cumulative_entropy_change", at: 8))
add("and loss %", row("neurons", "cumulative_loss_change", at: 8), 3)
add("least linear block, residual apart", row("stream/linearity", "linearity_without_residual"))
add("cross-entropy, nats", row("evaluate", "loss_mean"), 3)
add("its median", row("evaluate", "loss_median"), 3)
add("entropy, nats", row("evaluate", "entropy_mean"), 3)
add("calibration error", row("evaluate", "ece"), 4)
add("accuracy %", row("evaluate", "accuracy", times: 100))
print(table.text)
for (pair, divergence) in zip(pairs, divergences) {
  let (first, second) = (names[pair.0], names[pair.1])
  print("Jensen-Shannon divergence of \(first) and \(second): \(fixed(divergence, 4)) nats")
}
if let path = CommandLine.arguments.dropFirst().first { try ResultFile.write(file, to: path) }
