public import Results

/// The attention heads as text: grids of the scores with a row for each layer, the best heads of each kind,
/// entropies and sinks of all.
///
/// - Parameter groups: the groups of the result; `heads/summary`, `heads/weights` and `heads/composition`
///   are shown as far as they are there.
/// - Returns: the tables; nil where there is nothing to show.
public func headTables(_ groups: [ResultGroup]) -> String? {
  let summary = groups.first { $0.path == "heads/summary" }
  var parts: [String] = []
  if let summary {
    parts += patternGrids.compactMap { grid($0, in: summary) }
    parts += [bestHeads(summary), missingScores(summary), entropyLine(summary), sinkLine(summary)]
      .compactMap { $0 }
  }
  if let weights = groups.first(where: { $0.path == "heads/weights" }) {
    parts += [
      grid(copying, in: weights), largest(copying.name, in: weights).map { "most copying: \($0)" },
    ].compactMap { $0 }
  }
  if let composition = groups.first(where: { $0.path == "heads/composition" }) {
    parts += [compositionTable(composition)].compactMap { $0 }
  }
  return parts.isEmpty ? nil : parts.joined(separator: "\n\n")
}

private struct Grid {
  let name: String
  let title: String
}

private let patternGrids = [
  Grid(name: "entropy_ratio", title: "entropy over the causal maximum ln(T!)/T"),
  Grid(
    name: "sink_rate_rest", title: "sink rate: share of queries after the first that attend to it"),
  Grid(name: "previous_token_mul", title: "share of attention on the previous token"),
  Grid(
    name: "duplicate_token_mul", title: "share of attention on earlier places of the same token"),
  Grid(name: "induction_mul", title: "share of attention on what followed the same token before"),
  Grid(
    name: "induction_offset",
    title: "induction: attention from the second copy to the next in the first"),
]

private let copying = Grid(
  name: "copying", title: "copying score of the OV circuit, by the weights")

/// One number for each head; nil where none has one.
private func grid(_ grid: Grid, in group: ResultGroup) -> String? {
  guard let layers = group[dimension: "layer"], let heads = group[dimension: "head"],
    let values = group.numbers(grid.name), values.contains(where: { !$0.isNaN })
  else { return nil }
  var table = TextTable([("", .right)] + (0..<heads.count).map { ("H\($0)", .right) })
  for layer in 0..<layers.count {
    table.add(
      ["L\(layer)"] + (0..<heads.count).map { twoDecimals(values[layer * heads.count + $0]) })
  }
  return "\(grid.title):\n\(table.text)"
}

/// Two decimals without the leading zero.
private func twoDecimals(_ value: Double) -> String {
  if value.isNaN { return "–" }
  let text = fixed(value, 2)
  if text.hasPrefix("0.") { return String(text.dropFirst()) }
  if text.hasPrefix("-0.") { return text == "-0.00" ? ".00" : "-" + text.dropFirst(2) }
  return text
}

/// The heads with the largest scores of each detector.
private func bestHeads(_ group: ResultGroup) -> String? {
  let kinds = [
    ("previous token", "previous_token_mul"), ("duplicate token", "duplicate_token_mul"),
    ("induction", "induction_mul"), ("induction by offset", "induction_offset"),
    ("most even", "entropy_ratio"), ("sinks", "sink_rate_rest"),
  ]
  var table = TextTable([("", .left), ("largest", .left)])
  var isEmpty = true
  for (title, name) in kinds {
    guard let best = largest(name, in: group) else { continue }
    table.add([title, best])
    isEmpty = false
  }
  return isEmpty ? nil : table.text
}

/// The five heads of the largest values, as `L5H1 0.93`.
private func largest(_ name: String, in group: ResultGroup) -> String? {
  guard let heads = group[dimension: "head"]?.count,
    let values = group.numbers(name)
  else { return nil }
  let order = values.indices.filter { !values[$0].isNaN }.sorted { values[$0] > values[$1] }
  if order.isEmpty { return nil }
  return order.prefix(5)
    .map { "L\($0 / heads)H\($0 % heads) \(fixed(values[$0], 2))" }.joined(separator: "  ")
}

/// Says where prompts have no score.
private func missingScores(_ group: ResultGroup) -> String? {
  guard let prompts = group.numbers("prompts")?.first else { return nil }
  var lines: [String] = []
  for (title, name, need) in [
    ("previous token", "previous_token", "two tokens"),
    ("duplicate token", "duplicate_token", "a token that occurs twice"),
    ("induction", "induction", "a token that occurs twice"),
  ] {
    guard let scored = group.numbers("\(name)_prompts")?.first,
      scored < prompts
    else { continue }
    lines.append(
      "\(title): \(Int(prompts - scored)) of \(Int(prompts)) prompts have no score, which needs \(need)"
    )
  }
  return lines.isEmpty ? nil : lines.joined(separator: "\n")
}

/// How many heads lie in each quarter of the largest entropy.
private func entropyLine(_ group: ResultGroup) -> String? {
  guard let counts = group.numbers("quarter_count"),
    let shares = group.numbers("quarter_share"), !shares.contains(where: \.isNaN)
  else { return nil }
  let quarters = zip(counts, shares).map { "\(Int($0)) (\(fixed(100 * $1, 0)) %)" }
  return "entropy, heads by quarter of the causal maximum, lowest first: "
    + quarters.joined(separator: ", ")
}

/// The sink rate of all heads.
private func sinkLine(_ group: ResultGroup) -> String? {
  guard let all = group.numbers("sink_rate_all")?.first, !all.isNaN,
    let rest = group.numbers("sink_rate_rest_all")?.first,
    let attention = group.numbers("first_attention_all")?.first
  else { return nil }
  if rest.isNaN { return "sink rate \(percent(all)): prompts of one token attend to themselves" }
  return "sink rate \(percent(all)) of (head, query), \(percent(rest)) without query 0; "
    + "mean attention to position 0 \(percent(attention))"
}

/// The pairs of heads that compose most.
private func compositionTable(_ group: ResultGroup) -> String? {
  guard let layers = group[dimension: "layer"]?.count, let heads = group[dimension: "head"]?.count,
    case .number(let random)? = group[variable: "q_composition"]?.attributes["random"]
  else { return nil }
  var table = TextTable([("", .left), ("largest", .left)])
  for (title, name) in [
    ("queries", "q_composition"), ("keys", "k_composition"), ("values", "v_composition"),
  ] {
    guard let values = group.numbers(name) else { continue }
    let order = values.indices.filter { !values[$0].isNaN }.sorted { values[$0] > values[$1] }
    let best = order.prefix(5).map { index in
      let (from, to) = (index / (layers * heads), index % (layers * heads))
      return "L\(from / heads)H\(from % heads)→L\(to / heads)H\(to % heads) "
        + fixed(values[index], 3)
    }
    if !best.isEmpty { table.add([title, best.joined(separator: "  ")]) }
  }
  return
    "composition of pairs of heads, by the weights; \(fixed(random, 3)) by chance:\n\(table.text)"
}
