// What do the norms of a model do, and what has a model without them lost?
//
// The bundled models read 112 indirect-object prompts: how far each norm turns the stream, what it
// discards of the write before it, which keys of attention no query can choose (arXiv:2305.02582), and
// what the final norm's scale, which follows when a part is taken away, makes of the part's direct effect
// (arXiv:2507.02559). A path as argument keeps the numbers.
import NormLens

let directory = "\(BundledModels.dataDirectory() ?? ".")/prompts"
let sets = try ["ioi", "ioi-templates"].map { try PromptSet.read("\(directory)/\($0).json") }
var file = ResultSet(title: "What LayerNorm does in the bundled models", groups: [])

for name in BundledModels.names {
  let model = try GPT2.load(name)
  let prompts = try sets.flatMap { try $0.cleanPrompts(model) }
  var result = try LayerNormGeometry().run(model, prompts)
  // Of few keys in many dimensions each can be chosen: the prompts with their answers make long texts.
  var texts: [Prompt] = []
  for prompt in prompts {
    let tokens = prompt.tokens + [prompt.answer ?? 0]
    if let last = texts.indices.last, texts[last].tokens.count + tokens.count <= model.config.nCtx {
      texts[last].tokens += tokens.dropFirst()
    } else {
      texts.append(Prompt(tokens))
    }
  }
  var keys: [any Collector] = [try Selectability(model, texts)]
  try CollectionPass(texts).run(model, &keys, into: DiscardingSink())
  result.groups += try keys[0].findings()

  /// The mean |value| of a variable where some axes are at an index; NaN where nothing is.
  func mean(_ group: String, _ variable: String, _ at: [String: Int]) -> Double {
    guard let group = result[group: group], let found = group[variable: variable],
      let values = found.values.doubles
    else { return .nan }
    let axes = Array(zip(found.dimensions, group.shape(of: found)).reversed())
    let chosen = values.indices.filter { cell in
      var rest = cell
      return axes.allSatisfy { axis, count in
        defer { rest /= count }
        return at[axis] == nil || at[axis] == rest % count
      }
    }
    return chosen.reduce(0) { $0 + abs(values[$1]) } / Double(chosen.count)
  }
  let titles = ["std", "p95/p05", "to ones", "projection", "total", "discarded %", "gap %"]
  var table = TextTable(
    ([("norm", .left)] + titles.map { ($0, .right) }) + [
      ("unselectable %", .right), ("own query %", .right), ("margin", .right),
    ])
  for (row, site) in model.normSites.enumerated() {
    func tokens(_ variable: String, _ quantile: Int = 1) -> Double {  // at positions ≥ 1
      mean("ln_geometry/summary", variable, ["position_class": 1, "ln": row, "quantile": quantile])
    }
    // The write before this norm, the part that reads it, the keys that are made behind it.
    let layer = row / 2
    let write = row % 2 == 1 ? ("head_discarded", layer) : ("mlp_discarded", layer - 1)
    let part = ["component": site.layer == nil ? -1 : row + 2]
    func keys(_ variable: String) -> Double {
      mean("selectability/summary", variable, ["layer": row % 2 == 1 ? -1 : layer])
    }
    let cells = [
      (tokens("std"), 2), (tokens("std", 2) / tokens("std", 0), 2), (tokens("angle_to_ones"), 1),
      (tokens("angle_projection"), 2), (tokens("angle_total"), 1),
      (100 * mean("ln_geometry/writes", write.0, ["layer": write.1, "reader": 0]), 2),
      (100 * mean("renormalisation", "component_gap_relative", part), 2),
      (100 * keys("unselectable_share"), 2), (100 * keys("self_query_share"), 1),
      (keys("relative_margin_median"), 3),
    ]
    table.add([site.label] + cells.map { $0.0.isNaN ? "–" : fixed($0.0, $0.1) })
  }
  print("\n\(name): \(prompts.count) prompts, keys of \(texts.count) texts\n\n\(table.text)")
  for index in result.groups.indices {  // the file is to stay small
    result.groups[index].variables.removeAll { $0.dimensions.contains("pos") }
  }
  file = file.merged(with: result.nested(under: name.replacing("-", with: "_")))
}
if let path = CommandLine.arguments.dropFirst().first { try ResultFile.write(file, to: path) }
