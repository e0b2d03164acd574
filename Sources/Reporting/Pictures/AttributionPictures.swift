import Results

extension PicturePage {
  /// Direct logit attribution: components in stream order, heads by layer, and how far the frozen
  /// scale is from the direct effect.
  mutating func attribution() {
    guard analysis == "dla" else { return }
    let heads = variable("head_contribution")?.values.count ?? 0
    add(
      "components", "Direct logit attribution by component",
      [
        ("attribution, scale frozen", "contribution"),
        ("direct effect", "component_direct_effect"),
      ], form: .bars)
    add(
      "heads", "Direct logit attribution by head",
      [
        ("attribution, scale frozen", "head_contribution"),
        ("direct effect", "head_direct_effect"),
      ])
    add(
      "frozen_scale", "Attribution with the scale frozen against the direct effect, heads",
      facts: ["in logits; on the line the attribution is exact"]
        + pointLimit(heads, limits.points),
      panels: against("head_direct_effect", "head_contribution"))
  }
}
