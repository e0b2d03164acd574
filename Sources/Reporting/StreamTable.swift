public import Results

/// Measures of the residual stream as text.
///
/// - Parameter groups: the groups of the result; `stream/summary`, `/growth` and the others below
///   `stream` are shown as far as they are there.
/// - Returns: the tables; nil where there is nothing to show.
public func streamTables(_ groups: [ResultGroup]) -> String? {
  let parts = [
    tokenTable(groups), shareTable(groups), blockTables(groups), massiveTable(groups),
    spectrumTable(groups), ablationTables(groups),
  ].compactMap { $0 }
  return parts.isEmpty ? nil : parts.joined(separator: "\n\n")
}

/// Lengths, growth and turns: a row for each stream, position 0 beside the others.
private func tokenTable(_ groups: [ResultGroup]) -> String? {
  guard let group = groups.first(where: { $0.path == "stream/summary" }),
    let growth = groups.first(where: { $0.path == "stream/growth" }),
    let streams = group[dimension: "stream"], let quantiles = group[dimension: "quantile"],
    let counts = group.numbers("count"),
    let median = (0..<quantiles.count).first(where: { quantiles.label(at: $0) == "p50" })
  else { return nil }
  let columns: [(title: String, values: [Double], isQuantile: Bool)] = [
    ("norm", "norm", group), ("variance", "variance_mean", growth), ("growth", "growth", growth),
    ("turn °", "turn_angle", group), ("|Δ|/|x|", "relative_write", group),
    ("cos(Δ, x)", "write_cosine", group),
  ].compactMap { title, name, group in
    group.numbers(name).map { (title, $0, group.path == "stream/summary") }
  }
  var table = TextTable(
    [("stream", .left)] + columns.flatMap { [($0.title, .right), ("at 0", .right)] })
  for stream in 0..<streams.count {
    let cells = columns.flatMap { column in
      [1, 0].map { kind in
        let place = kind * streams.count + stream
        return significant(
          column.values[column.isQuantile ? place * quantiles.count + median : place])
      }
    }
    table.add([streams.label(at: stream)] + cells)
  }
  return """
    \(Int(counts.last ?? 0)) tokens at positions ≥ 1, beside them \(Int(counts.first ?? 0)) at \
    position 0: medians, but means of the variance;
    growth: the variance over that of the stream before; Δ: the write that made the stream:
    \(table.text)
    """
}

/// What each sublayer has of the last stream's variance, a row for each block.
private func shareTable(_ groups: [ResultGroup]) -> String? {
  guard let group = groups.first(where: { $0.path == "stream/growth" }),
    let components = group[dimension: "component"], let layers = group[dimension: "layer"],
    let shares = group.numbers("final_share"),
    components.count == 2 * layers.count + 1
  else { return nil }
  var table = TextTable(
    [("layer", .right)]
      + ["attention %", "at 0", "MLP %", "at 0"].map { ($0, .right) })
  func share(_ kind: Int, _ component: Int) -> String {
    significant(100 * shares[kind * components.count + component])
  }
  for layer in 0..<layers.count {
    table.add(
      [layers.label(at: layer)]
        + [1, 2].flatMap { part in [1, 0].map { share($0, 2 * layer + part) } })
  }
  return """
    share of the last stream's variance that each write has, means over positions ≥ 1 and at position 0
    (embedding: \(share(1, 0)) and \(share(0, 0)) %):
    \(table.text)
    """
}

/// How linear each block is, how far it turns the stream, and which runs of blocks turn it least.
private func blockTables(_ groups: [ResultGroup]) -> String? {
  guard let linear = groups.first(where: { $0.path == "stream/linearity" }),
    let growth = groups.first(where: { $0.path == "stream/growth" }),
    let distance = groups.first(where: { $0.path == "stream/distance" }),
    let layers = linear[dimension: "layer"], let states = distance[dimension: "layer"],
    let distances = distance.numbers("angular_distance"),
    let influence = growth.numbers("block_influence")
  else { return nil }
  let scores = [
    "linearity", "linearity_adjusted", "linearity_without_residual",
    "linearity_without_residual_adjusted",
  ].compactMap { linear.numbers($0) }
  var table = TextTable(
    [("layer", .right)]
      + ["linearity", "adjusted", "without residual", "adjusted", "influence", "angle/π"].map {
        ($0, .right)
      })
  for layer in 0..<layers.count {
    table.add(
      [layers.label(at: layer)] + scores.map { fixedOrDash($0[layer], 4) }
        + [
          significant(influence[layer]),
          significant(distances[layer * states.count + layer + 1]),
        ])
  }
  var lines = [
    "blocks: linearity 1 - min|XA - Y|²/|Y|² (adjusted: chance taken away), influence 1 - cos over all",
    "tokens, angular distance to the next state at the last token:", table.text,
  ]
  if case .string(let warning)? = linear.attributes["warning"] { lines.append("(\(warning))") }
  if let skips = skipTable(distances, states) { lines += ["", skips] }
  return lines.joined(separator: "\n")
}

/// For each number n of blocks the run of n blocks with the smallest angle between its ends.
private func skipTable(_ distances: [Double], _ states: Dimension) -> String? {
  var table = TextTable([("blocks", .right), ("best to skip", .left), ("angle/π", .right)])
  var isEmpty = true
  for n in 1..<max(states.count - 1, 1) {
    let known = (0..<states.count - n).map { ($0, distances[$0 * states.count + $0 + n]) }
      .filter { !$0.1.isNaN }
    guard let best = known.min(by: { $0.1 < $1.1 }) else { continue }
    isEmpty = false
    table.add([
      String(n), n == 1 ? "\(best.0)" : "\(best.0)–\(best.0 + n - 1)", significant(best.1),
    ])
  }
  return isEmpty ? nil : "runs of blocks that turn the last token's stream least:\n\(table.text)"
}

/// The largest activations of each stream.
private func massiveTable(_ groups: [ResultGroup]) -> String? {
  guard let group = groups.first(where: { $0.path == "stream/massive" }),
    let streams = group[dimension: "stream"], let ranks = group[dimension: "rank"],
    let top = group.numbers("top_activation"),
    let positions = group.numbers("top_activation_pos"),
    let coordinates = group.numbers("top_activation_dim"),
    let medians = group.numbers("median_activation"),
    let ratios = group.numbers("ratio"),
    let massive = group.numbers("massive")
  else { return nil }
  let names = ["largest |x|", "second", "third"]
  var table = TextTable(
    [("stream", .left)]
      + names.prefix(ranks.count).flatMap { [($0, .right), ("pos:dim", .right)] }
      + ["median", "ratio", "massive"].map { ($0, .right) })
  for stream in 0..<streams.count {
    let largest = (0..<min(ranks.count, names.count)).flatMap { rank in
      let place = stream * ranks.count + rank
      return [
        significant(top[place]),
        top[place].isNaN ? "–" : "\(Int(positions[place])):\(Int(coordinates[place]))",
      ]
    }
    table.add(
      [streams.label(at: stream)] + largest
        + [
          significant(medians[stream]), significant(ratios[stream]), String(Int(massive[stream])),
        ])
  }
  return """
    single activations of all tokens; massive: |x| > 100 and ≥ 1000 × the median:
    \(table.text)
    """
}

/// Entropy, effective rank and curvature: means over prompts.
private func spectrumTable(_ groups: [ResultGroup]) -> String? {
  guard let group = groups.first(where: { $0.path == "stream/spectra/summary" }),
    let streams = group[dimension: "stream"]
  else { return nil }
  let columns = [
    ("prompt_entropy", "entropy"), ("prompt_entropy_normalized", "of its maximum"),
    ("effective_rank", "effective rank"), ("curvature", "curvature"),
  ].flatMap { name, title in
    [(name, title), (name + "_reference", "reference")].compactMap { name, title in
      group.numbers(name).map { (title, $0) }
    }
  }
  var table = TextTable([("stream", .left)] + columns.map { ($0.0, .right) })
  for stream in 0..<streams.count {
    table.add([streams.label(at: stream)] + columns.map { significant($0.1[stream]) })
  }
  return """
    the tokens of a prompt about their mean, means over prompts (nats; curvature in radians):
    \(table.text)
    """
}
