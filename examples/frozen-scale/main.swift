// How much of an attribution is an artefact of freezing the final LayerNorm's scale?
//
// Zeroes one head in a real run, once as the model computes and once with every LayerNorm's scale
// kept at its old value, and holds both changes against the head's direct logit attribution. Only
// the last layer's heads have no later component to work through.
import NormLens

let text = "When Mary and John went to the store, John gave a drink to"
print("change of logit(Mary) - logit(John) when a head of the last layer is taken away")
for name in BundledModels.names {
  let model = try GPT2.load(name)
  let (tokens, tokenizer) = (try model.tokens(text), try model.tokenizer)
  let (mary, john) = (try tokenizer.singleToken(" Mary"), try tokenizer.singleToken(" John"))
  let layer = model.config.nLayers - 1

  let (logits, cache) = try model.runWithCache(
    tokens, hooks: [.ln1Scale(.all), .ln2Scale(.all), .lnFinalScale, .mlpOut(.layer(layer))])
  let attribution = try DirectLogitAttribution().run(
    model, [Prompt(tokens, answer: mary, wrong: john)])
  let heads = attribution[group: "dla", variable: "head_contribution"]?.values.doubles ?? []
  let frozen = try Intervention.freezeLayerNorm(cache)
  // The MLP after the heads is held too: what is left is a head's direct path.
  let direct = try Intervention.freeze([.mlpOut], to: cache)

  func difference(_ logits: Tensor) -> Double {
    Double(logits[tokens.count - 1, mary] - logits[tokens.count - 1, john])
  }
  var table = TextTable([
    ("head", .left), ("attribution", .right), ("ablated", .right),
    ("ablated, scales frozen", .right),
  ])
  for head in 0..<model.config.nHeads {
    let zero = Intervention.zero(.z(layer: layer, head: head))
    let ablated = try model.run(tokens, interventions: direct + [zero])
    let both = try model.run(tokens, interventions: frozen + direct + [zero])
    table.add([
      "L\(layer)H\(head)", fixed(heads[layer * model.config.nHeads + head], 4, signed: true),
      fixed(difference(logits) - difference(ablated), 4, signed: true),
      fixed(difference(logits) - difference(both), 4, signed: true),
    ])
  }
  print("\n\(name)\n\(table.text)")
}
