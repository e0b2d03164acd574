import Results

/// Which keys can be chosen and how queries lie, a row for each layer: means over prompts and heads.
///
/// - Parameter groups: the groups of a result; `selectability/summary`, `selectability/space/summary`
///   and `query_alignment/summary` are shown.
/// - Returns: the tables; nil where there is nothing to show.
func selectabilityTables(_ groups: [ResultGroup]) -> String? {
  let parts = [headTable(groups), spaceTable(groups), alignmentTable(groups)].compactMap { $0 }
  return parts.isEmpty ? nil : parts.joined(separator: "\n\n")
}

/// The mean of the numbers that are there.
private func mean(_ values: some Sequence<Double>) -> Double {
  let known = values.filter { !$0.isNaN }
  return known.isEmpty ? .nan : known.reduce(0, +) / Double(known.count)
}

private func headTable(_ groups: [ResultGroup]) -> String? {
  guard let group = groups.first(where: { $0.path == "selectability/summary" }),
    let layers = group[dimension: "layer"]?.count, let heads = group[dimension: "head"]?.count
  else { return nil }
  let columns: [(name: String, title: String, factor: Double)] = [
    ("unselectable_share", "unselectable %", 100), ("tied_share", "tied %", 100),
    ("causal_unselectable_share", "causal %", 100),
    ("relative_margin_median", "margin/spread", 1), ("selection_cost", "query norm", 1),
    ("self_query_share", "own query %", 100), ("ever_argmax_share", "ever largest %", 100),
  ]
  let known = columns.compactMap { column in
    group[variable: column.name]?.values.doubles.map { (column, $0) }
  }
  var table = TextTable([("layer", .right)] + known.map { ($0.0.title, .right) })
  for layer in 0..<layers {
    table.add(
      ["\(layer)"]
        + known.map { column, values in
          significant(column.factor * mean(values[layer * heads..<(layer + 1) * heads]))
        })
  }
  var text = """
    keys that no query of their head can choose (positions ≥ 1; means over heads), the median distance
    of a key from the hull of the others, the norm of a query that gives it the weight 0.9, and the keys
    that are their own best query, or the largest for some query of the prompt:
    \(table.text)
    """
  if let trivial = group[variable: "trivially_selectable"]?.values.doubles?.first, trivial > 0 {
    text +=
      "\n\(significant(100 * trivial)) % of the prompts are so short that their keys are trivially "
      + "selectable:\nat most d_head + 1 of them, in general position"
  }
  let unsolved = (group[variable: "unsolved"]?.values.doubles ?? []).filter { $0 > 0 }
  if !unsolved.isEmpty {
    text += "\nheads with keys that the solver found no answer for: \(unsolved.count)"
  }
  return text
}

private func spaceTable(_ groups: [ResultGroup]) -> String? {
  guard let group = groups.first(where: { $0.path == "selectability/space/summary" }),
    let layers = group[dimension: "layer"]?.count, let spaces = group[dimension: "space"],
    let shares = group[variable: "unselectable_share"]?.values.doubles,
    let margins = group[variable: "relative_margin_median"]?.values.doubles
  else { return nil }
  let labels = (0..<spaces.count).map { spaces.label(at: $0) }
  var table = TextTable(
    [("layer", .right)] + labels.flatMap { [("\($0) %", .right), ("margin", .right)] })
  for layer in 0..<layers {
    table.add(
      ["\(layer)"]
        + labels.indices.flatMap { space in
          let cell = layer * labels.count + space
          return [significant(100 * shares[cell]), significant(margins[cell])]
        })
  }
  return """
    unselectable keys, and margin relative to spread, of what becomes a key on its way through ln1:
    \(table.text)
    """
}

private func alignmentTable(_ groups: [ResultGroup]) -> String? {
  guard let group = groups.first(where: { $0.path == "query_alignment/summary" }),
    let layers = group[dimension: "layer"]?.count, let heads = group[dimension: "head"]?.count,
    let angle = group[variable: "angle_to_ones"]
  else { return nil }
  let columns: [(name: String, title: String, factor: Double)] = [
    ("angle_to_ones", "angle to ones", 1), ("ones_share", "along ones %", 100),
    ("usable_norm", "|Pu|", 1), ("spread_bound", "spread bound", 1), ("entropy", "entropy", 1),
  ]
  let known = columns.compactMap { column in
    group[variable: column.name]?.values.doubles.map { (column, $0) }
  }
  var table = TextTable([("layer", .right)] + known.map { ($0.0.title, .right) })
  for layer in 0..<layers {
    // The second class of positions: those from 1 on.
    let cells = (layers + layer) * heads..<(layers + layer + 1) * heads
    table.add(
      ["\(layer)"]
        + known.map { column, values in significant(column.factor * mean(values[cells])) })
  }
  var text = """
    effective queries u (positions ≥ 1; medians over queries, means over heads): angle to the ones
    direction in degrees, what of them lies across it, and the entropy of the attention in nats:
    \(table.text)
    """
  if case .string(let why)? = angle.attributes["not_computed"] {
    text += "\nno angle: \(why)"
  } else if case .number(let random)? = angle.attributes["random_directions"] {
    text += "\nrandom directions lie at \(fixed(random, 2))°"
  }
  return text
}
