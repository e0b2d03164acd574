public import Results

/// Entropy neurons as text: the neurons of the highest scores with what ablation does, the others'
/// medians, the first neurons together, and whether they look active.
///
/// - Parameter groups: the groups of the result; nothing but `neurons` is shown.
/// - Returns: the tables; nil where there is nothing to show.
public func neuronTables(_ groups: [ResultGroup]) -> String? {
  guard let group = groups.first(where: { $0.path == "neurons" }),
    let top = group[dimension: "neuron_top"], let norm = group.numbers("norm"),
    let variance = group.numbers("logit_variance"), let score = group.numbers("score"),
    let share = group.numbers("null_space_share")
  else { return nil }
  let layer = group.attributes["layer"]?.description ?? "?"
  let dimensions = group.attributes["null_space"]?.description ?? "?"
  let columns = [("norm", norm), ("logit variance", variance), ("score", score), ("rho", share)]
  let effects = EffectColumns(group)
  let reasons = group.numbers("ablated") ?? []
  let shown = shownNeurons(top, reasons)

  var table = TextTable(
    [("neuron", .left)] + (columns.map(\.0) + (effects?.titles ?? [])).map { ($0, .right) })
  for neuron in shown {
    table.add(
      ["L\(layer)N\(neuron)"] + columns.map { scientific($0.1[neuron]) }
        + (effects?.cells { $0[neuron] } ?? []))
  }
  // Without those at random the rest of the layer stands beside the highest scores.
  let drawn = reasons.indices.filter { reasons[$0] == 2 }
  let others = drawn.isEmpty ? norm.indices.filter { !shown.contains($0) } : drawn
  if !others.isEmpty {
    func median(_ values: [Double]) -> Double { middle(others.map { values[$0] }) }
    table.add(
      ["median of \(others.count)"] + columns.map { scientific(median($0.1)) }
        + (effects?.cells(median) ?? []))
  }
  var parts = [
    """
    neurons of layer \(layer); score: norm by logit variance, high for entropy neurons; rho: share of the \
    write in the last
    \(dimensions) singular directions of W_U\(effects == nil ? "" : "; held at their means, changes in nats:")
    \(table.text)
    """
  ]
  if let effects {
    parts += [verdict(effects, shown, others), togetherTable(group)].compactMap { $0 }
  }
  return parts.joined(separator: "\n\n")
}

/// What ablation of single neurons does.
private struct EffectColumns {
  let total: [Double]
  let direct: [Double]
  let titles: [String]
  private let values: [(values: [Double], isShare: Bool)]

  init?(_ group: ResultGroup) {
    let names = [
      ("loss", "loss_effect_total"), ("|loss|", "loss_effect_total_abs"),
      ("|direct|", "loss_effect_direct_abs"), ("mediated", "mediated_share"),
      ("entropy", "entropy_effect_total"), ("direct", "entropy_effect_direct"),
    ]
    let known = names.compactMap { title, name in
      group.numbers(name).map { (title, name, $0) }
    }
    guard known.count == names.count, let total = group.numbers("entropy_effect_total_abs"),
      let direct = group.numbers("entropy_effect_direct_abs")
    else { return nil }
    titles = known.map(\.0)
    values = known.map { ($0.2, $0.1 == "mediated_share") }
    (self.total, self.direct) = (total, direct)
  }

  func cells(_ value: ([Double]) -> Double) -> [String] {
    values.map { column, isShare in
      isShare ? share(value(column)) : scientific(value(column))
    }
  }

  private func share(_ value: Double) -> String { value.isNaN ? "–" : fixed(100 * value, 1) + "%" }
}

/// The neurons of the highest scores, and those that were asked for as far as a table can hold them.
private func shownNeurons(_ top: Dimension, _ reasons: [Double]) -> [Int] {
  let ranked = (0..<top.count).compactMap { Int(top.label(at: $0)) }
  let asked = reasons.indices.filter { reasons[$0] == 3 }
  return asked.isEmpty || asked.count > 64 ? ranked : asked
}

/// Whether the neurons act through the norm: totals far above the direct effects.
private func verdict(_ effects: EffectColumns, _ shown: [Int], _ others: [Int]) -> String? {
  func share(_ neurons: [Int]) -> Double? {
    let known = neurons.filter { !effects.total[$0].isNaN }
    let total = known.reduce(0) { $0 + effects.total[$1] }
    let direct = known.reduce(0) { $0 + effects.direct[$1] }
    return total > 0 ? 1 - direct / total : nil
  }
  guard let own = share(shown) else { return nil }
  let reading =
    own >= 0.5
    ? "they look like active entropy neurons"
    : own >= 0.1
      ? "part of what they do goes through the norm"
      : "no entropy neuron looks active: the norm does not make these effects"
  let control = share(others).map { ", of the others' \(percent($0))" } ?? ""
  return """
    the final norm mediates \(percent(own)) of their effects on the entropy\(control);
    \(reading)
    """
}

/// The first neurons together.
private func togetherTable(_ group: ResultGroup) -> String? {
  guard let counts = group[dimension: "count"], counts.count > 1,
    let loss = group.numbers("cumulative_loss"), let entropy = group.numbers("cumulative_entropy"),
    let lossChange = group.numbers("cumulative_loss_change"),
    let entropyChange = group.numbers("cumulative_entropy_change"),
    let tokens = group.numbers("tokens")?.first
  else { return nil }
  var table = TextTable(
    ["together", "loss", "change %", "entropy", "change %"].map { ($0, .right) })
  for index in 0..<counts.count {
    table.add([
      counts.label(at: index), fixedOrDash(loss[index], 4),
      fixedOrDash(lossChange[index], 3, signed: true),
      fixedOrDash(entropy[index], 4), fixedOrDash(entropyChange[index], 3, signed: true),
    ])
  }
  return """
    the first neurons together, means over \(Int(tokens)) predictions:
    \(table.text)
    """
}

/// Three significant digits of numbers that may be tiny or huge.
private func scientific(_ value: Double) -> String {
  if value.isNaN { return "–" }
  let size = abs(value)
  if size == 0 { return "0" }
  if size >= 0.01 && size < 1e5 { return significant(value) }
  var (mantissa, exponent) = (value, 0)
  while abs(mantissa) >= 10 && exponent < 400 {
    (mantissa, exponent) = (mantissa / 10, exponent + 1)
  }
  while abs(mantissa) < 1 && exponent > -400 {
    (mantissa, exponent) = (mantissa * 10, exponent - 1)
  }
  return "\(fixed(mantissa, 2))e\(exponent)"
}

private func middle(_ values: [Double]) -> Double {
  let sorted = values.filter { !$0.isNaN }.sorted()
  if sorted.isEmpty { return .nan }
  let half = sorted.count / 2
  return sorted.count % 2 == 1 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2
}
