// How does a small model find the indirect object, with LayerNorm and without?
//
// "When Mary and John went to the store, John gave a drink to" → " Mary". The corrupted prompt has
// the other name in the second place (S2), so that its answer is the other. Three questions, on each
// of the bundled models: where in the stream is the difference, which heads carry it, and what do they
// tell the head that writes the answer?
import NormLens

for name in BundledModels.names {
  let model = try GPT2.load(name)
  let set = try PromptSet.ioi(model: model, count: 32, seed: 1, templates: [9, 10, 11, 12])
  let pairs = try set.pairs(model)
  func values(_ result: ResultSet, _ group: String, _ variable: String) -> [Double] {
    result[group: group, variable: variable]?.values.doubles ?? []
  }

  // The stream, by the role of the token: templates differ in length, roles do not.
  var stream = ActivationPatching(of: .residPre, direction: .denoising, metric: .logitDifference)
  stream.positions = .labels
  let streams = try stream.run(model, pairs)
  let clean = values(streams, "patch", "clean_metric")
  print("\n\(name): prefers the right name in \(clean.filter { $0 > 0 }.count) of \(clean.count)")
  let roles = pairs[0].positions.keys
  var map = TextTable([("resid_pre", .left)] + roles.map { ($0, .right) })
  let effects = values(streams, "patch/activation", "resid_pre_normalized")
  for layer in 0..<model.config.nLayers {
    let row = effects[layer * roles.count..<(layer + 1) * roles.count]
    map.add(["layer \(layer)"] + row.map { fixed($0, 2) })
  }
  print(map.text)

  // The heads: which of their parts matters?
  let heads = try ActivationPatching(of: PatchSite.heads).run(model, pairs)
  var strongest: (head: Int, effect: Double) = (0, 0)
  for site in PatchSite.heads {
    let effects = values(heads, "patch/activation", "\(site.name)_normalized")
    let order = effects.indices.sorted { effects[$0] > effects[$1] }
    let shown = order.prefix(3).map { index in
      "\(label(index)) \(fixed(effects[index], 2))"
    }
    print("\(site.name): \(shown.joined(separator: ", "))")
    // The head that writes the answer reads where the answer is: its query matters.
    if site == .headQ { strongest = (order[0], effects[order[0]]) }
  }
  func label(_ index: Int) -> String {
    "L\(index / model.config.nHeads)H\(index % model.config.nHeads)"
  }

  // What the strongest query reads: exact paths from everything before it.
  let (layer, head) = (strongest.head / model.config.nHeads, strongest.head % model.config.nHeads)
  let senders = PathSender.all(model.config)
  let paths = try PathPatching(senders: senders, receivers: [.q(layer: layer, head: head)])
    .run(model, pairs)
  let path = values(paths, "path", "effect_normalized")
  let best = path.indices.filter { !path[$0].isNaN }.sorted { path[$0] > path[$1] }.prefix(3)
  print(
    "to the query of \(label(strongest.head)): "
      + best.map { "\(senders[$0]) \(fixed(path[$0], 2))" }.joined(separator: ", "))
}
