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

/// The prompts with their answers, joined to texts of at most `n_ctx` tokens: few keys in many
/// dimensions can all be chosen, whatever a model does.
func texts(_ model: GPT2) throws -> [Prompt] {
  var texts: [[Int]] = []
  for prompt in sets.flatMap(\.prompts) {
    let tokens = try model.tokens("\(prompt.clean)\(prompt.answer[0]).")
    if let last = texts.last, last.count + tokens.count - 1 <= model.config.nCtx {
      texts[texts.count - 1] += tokens.dropFirst()
    } else {
      texts.append(tokens)
    }
  }
  return texts.map { Prompt($0) }
}

for name in BundledModels.names {
  let model = try GPT2.load(name)
  let (prompts, texts) = (try sets.flatMap { try $0.cleanPrompts(model) }, try texts(model))
  var result = try LayerNormGeometry().run(model, prompts)
  let attribution = try DirectLogitAttribution().run(model, prompts)
  result.groups.append(RenormalisationGap().derive(from: attribution))
  var collectors: [any Collector] = [try Selectability(model, texts, keys: nil)]
  try CollectionPass(texts).run(model, &collectors, into: DiscardingSink())
  result.groups += try collectors[0].findings()

  /// A variable along its last axes, at some places of the first.
  func values(_ group: String, _ variable: String, _ places: Int...) -> ArraySlice<Double> {
    guard let group = result[group: group], let found = group[variable: variable],
      var values = found.values.doubles?[...]
    else { return [] }
    for (place, count) in zip(places, group.shape(of: found)) {
      let width = values.count / count
      values = values.dropFirst(place * width).prefix(width)
    }
    return values
  }
  func mean(_ values: some Sequence<Double>) -> Double {
    let known = values.filter { !$0.isNaN }
    return known.isEmpty ? .nan : known.reduce(0, +) / Double(known.count)
  }
  var table = TextTable(
    [("norm", .left)]
      + ["std", "p95/p05", "to ones", "projection", "total", "discarded %", "unselectable %"]
      .map { ($0, .right) } + [("margin", .right), ("gap %", .right)])
  for (row, site) in model.normSites.enumerated() {
    func tokens(_ variable: String) -> [Double] {
      Array(values("ln_geometry/summary", variable, 1, row))  // p05, p50, p95 at positions ≥ 1
    }
    let (layer, writes, keys) = (row / 2, "ln_geometry/writes", "selectability/summary")
    let discarded =
      row % 2 == 1
      ? mean((0..<model.config.nHeads).map { mean(values(writes, "head_discarded", layer, $0, 0)) })
      : row == 0 ? .nan : mean(values(writes, "mlp_discarded", layer - 1, 0))
    let isKeys = row % 2 == 0 && site.layer != nil
    let gaps = prompts.indices.map { prompt in
      site.layer == nil ? .nan : abs(mean(values("renormalisation", "component_gap_relative", prompt, row + 2)))
    }
    let (std, projection) = (tokens("std"), tokens("angle_projection"))
    let cells = [
      (std[1], 2), (std[2] / std[0], 2), (tokens("angle_to_ones")[1], 1), (projection[1], 2),
      (tokens("angle_total")[1], 1), (100 * discarded, 2),
      (isKeys ? 100 * mean(values(keys, "unselectable_share", layer)) : .nan, 2),
      (isKeys ? mean(values(keys, "relative_margin_median", layer)) : .nan, 3), (100 * mean(gaps), 2),
    ]
    table.add([site.label] + cells.map { $0.0.isNaN ? "–" : fixed($0.0, $0.1) })
  }
  print("\n\(name): \(prompts.count) prompts, keys of \(texts.count) texts\n\n\(table.text)")
  for index in result.groups.indices {
    result.groups[index].variables.removeAll {
      $0.isCoordinate || result.groups[index].path == "ln_geometry" && $0.dimensions.contains("pos")
    }
  }
  file = file.merged(with: result.nested(under: name.replacing("-", with: "_")))
}

if let path = CommandLine.arguments.dropFirst().first {
  try ResultFile.write(file, to: path)
  print("\nwrote \(path)")
}
