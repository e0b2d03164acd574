// Takes one attention head away and looks at the answer, with LayerNorm and without.
import NormLens

let text = "When Mary and John went to the store, John gave a drink to"
for name in ["mini", "mini-lnfree"] {
  let model = try GPT2.load(name)
  let tokens = try model.tokens(text)
  let answer = try model.tokenizer.singleToken(" Mary")
  let (logits, cache) = try model.runWithCache(tokens, hooks: [.pattern(2)])
  let ablated = try model.run(tokens, interventions: [.zero(.z(layer: 2, head: 2))])
  let last = tokens.count - 1
  let attention = try cache["pattern2"].row(2).row(last)  // head 2, [key_pos]
  let seen = try model.tokenizer.piece(tokens[attention.topIndices(1)[0]])
  print(
    "\(name): L2H2 looks at '\(seen)'; logit of ' Mary' \(fixed(Double(logits[last, answer]), 2)),")
  print("  without the head \(fixed(Double(ablated[last, answer]), 2))")
}
