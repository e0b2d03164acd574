import HookedGPT2
import OrderedCollections
import Results

/// The axes and variables of ``Selectability``.
struct SelectabilityTable {
  let axes: PromptAxes
  let config: GPT2Config
  let settings: Selectability.Settings

  static let perKeyNames: Set<String> = ["label", "margin", "first_unselectable"]

  var heads: PromptTable {
    let head = ["prompt", "layer", "head"]
    var dimensions = [axes.prompt, layer, Dimension("head", count: config.nHeads)]
    var variables =
      common(head, "the head's keys") + [
        variable(
          "margin_first", head, "margin of the key at position 0", "key norm", formula: Self.margin),
        variable(
          "ever_argmax_share", head,
          "share of all keys at positions ≥ 1 that have the largest score of at least one query",
          "1", formula: "share of j with j = argmax_j q_t·k_j for some t ≥ j"),
        variable(
          "selection_cost", head,
          "norm of the shortest query that gives a key the attention weight 0.9, median of the "
            + "selectable keys", "query norm",
          formula: "ln((n − 1)·p/(1 − p)) / (scale·margin), p = 0.9, n = the prompt's tokens"),
        trivial("d_head", config.dHead),
      ]
    if settings.perKey {
      dimensions.append(Dimension("key_pos", count: axes.longest))
      var label = variable(
        "label", head + ["key_pos"], "what can become of the key; NaN where it was not asked about",
        "1", formula: "tied: equal to another key; unselectable: in the convex hull of the others")
      label.attributes["flag_values"] = .integers([0, 1, 2, 3])
      label.attributes["flag_meanings"] = .string("selectable tied unselectable unsolved")
      variables += [
        label,
        variable(
          "margin", head + ["key_pos"], "margin of the key; NaN where it was not asked about",
          "key norm", formula: Self.margin),
        variable(
          "first_unselectable", head + ["key_pos"],
          "first query position that cannot choose the key; −1 where there is none, NaN where it was "
            + "not asked about", "position",
          formula: "min t with k_j in the convex hull of k_0 … k_t without k_j"),
      ]
    }
    return PromptTable(
      ResultGroup(
        path: "selectability", dimensions: dimensions, variables: [], attributes: attributes),
      variables: variables)
  }

  var spaces: PromptTable {
    let space = ["prompt", "layer", "space"]
    return PromptTable(
      ResultGroup(
        path: "selectability/space",
        dimensions: [axes.prompt, layer, Dimension("space", .labels(Selectability.spaces))],
        variables: [], attributes: attributes),
      variables: common(space, "the keys") + [trivial("d_model", config.dModel)])
  }

  private var layer: Dimension { Dimension("layer", count: config.nLayers) }

  private static let margin = "dist(k_i, conv{k_j: j ≠ i}), the keys without b_K"

  /// What is said of every set of keys.
  private func common(_ axes: [String], _ of: String) -> [ResultVariable] {
    [
      variable(
        "unselectable_share", axes, "share of \(of) that no query can choose", "1",
        formula: "margin ≤ \(KeyMargins.tolerance)·max_j ‖k_j − k_i‖"),
      variable(
        "tied_share", axes, "share of \(of) that are equal to another key", "1",
        formula: "min_j ‖k_j − k_i‖ ≤ 2^-22·max_j ‖k_j − k_i‖"),
      variable("margin_median", axes, "median margin of \(of)", "key norm", formula: Self.margin),
      variable(
        "margin_p05", axes, "5th percentile of the margins of \(of)", "key norm",
        formula: Self.margin),
      variable(
        "relative_margin_median", axes, "median margin of \(of) relative to their spread", "1",
        formula: "margin / √(mean ‖k_j − mean k‖²)"),
      variable(
        "self_query_share", axes, "share of \(of) that choose themselves as queries", "1",
        formula: "‖k_i‖² > max_j k_i·k_j, the keys without b_K"),
      variable(
        "causal_unselectable_share", axes,
        "of all pairs of a key and a query that sees it, the share in which no query could choose "
          + "the key; ties included", "1",
        formula: "Σ_j (n − first_unselectable_j) / Σ_j (n − j)"),
      variable(
        "unsolved", axes, "keys for which the solver found no answer, left out of the shares", "1",
        formula: "count"),
    ]
  }

  private func trivial(_ width: String, _ value: Int) -> ResultVariable {
    variable(
      "trivially_selectable", ["prompt"],
      "1 where so few keys in general position are all selectable, whatever the model does", "1",
      formula: "n ≤ \(width) + 1 = \(value + 1)")
  }

  private func variable(
    _ name: String, _ axes: [String], _ longName: String, _ units: String, formula: String
  ) -> ResultVariable {
    ResultVariable(
      name, axes, .float32([]), longName: longName, units: units,
      attributes: ["formula": .string(formula), "references": .string("arXiv:2305.02582")])
  }

  private var attributes: OrderedDictionary<String, AttributeValue> {
    [
      "keys": .string(settings.keys.map { "\($0) of each prompt and position 0" } ?? "all"),
      "key_seed": .integer(Int(truncatingIfNeeded: settings.seed)),
      "positions": .string("1 and later; position 0 is a key among the others and reported apart"),
    ]
  }
}
