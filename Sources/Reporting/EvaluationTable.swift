public import Results

/// An evaluation as text: loss, entropy and calibration over all tokens, the loss by position, the worst
/// tokens; the comparison with a second model and the frozen norms as far as they are there.
///
/// - Parameter groups: the groups of the result.
/// - Returns: the tables; nil where there is nothing to show.
public func evaluationTables(_ groups: [ResultGroup]) -> String? {
  let parts = [
    overview(groups), calibrationTable(groups), positionTable(groups), worstTable(groups),
    comparison(groups), changesTable(groups), freezeTable(groups),
  ].compactMap { $0 }
  return parts.isEmpty ? nil : parts.joined(separator: "\n\n")
}

private func group(_ groups: [ResultGroup], _ path: String) -> ResultGroup? {
  groups.first { $0.path == path }
}

extension ResultGroup {
  fileprivate func number(_ name: String) -> Double? { numbers(name)?.first }
  fileprivate func texts(_ name: String) -> [String]? {
    if case .strings(let texts)? = self[variable: name]?.values { texts } else { nil }
  }
  /// `3.214 [3.102, 3.330]`, without bounds where there are none.
  fileprivate func estimate(_ name: String, _ mean: String, _ decimals: Int) -> String {
    let value = fixed(number(mean) ?? .nan, decimals)
    guard let low = number("\(name)_ci_low"), let high = number("\(name)_ci_high"), !low.isNaN
    else { return value }
    return "\(value)  [\(fixed(low, decimals)), \(fixed(high, decimals))]"
  }
}

/// The numbers over all tokens.
private func overview(_ groups: [ResultGroup]) -> String? {
  guard let group = group(groups, "evaluate"), let count = group.number("count"),
    let mean = group.number("loss_mean"), let error = group.number("loss_stderr")
  else { return nil }
  func value(_ name: String) -> Double { group.number(name) ?? .nan }
  let spread =
    error.isNaN ? "  (one prompt: no standard error)" : " ± \(fixed(error, 4))  nats"
  var lines = [
    "tokens      \(Int(count))",
    "loss        \(fixed(mean, 4))\(spread)",
    "median      \(fixed(value("loss_median"), 4))",
    "p95         \(fixed(value("loss_p95"), 4)); p99 \(fixed(value("loss_p99"), 4)), "
      + "p99.9 \(fixed(value("loss_p999"), 4)), largest \(fixed(value("loss_max"), 4))",
    "perplexity  \(significant(value("perplexity"))); \(fixed(value("bits"), 4)) bits a token",
    "entropy     \(group.estimate("entropy", "entropy_mean", 4))",
    "accuracy    \(percent(value("accuracy")))",
    "ECE         \(group.estimate("ece", "ece", 5))",
  ]
  if !error.isNaN {
    lines.append(
      "(± standard error and [95 % interval] over prompts; loss \(group.estimate("loss", "loss_mean", 4)))"
    )
  }
  return lines.joined(separator: "\n")
}

private func calibrationTable(_ groups: [ResultGroup]) -> String? {
  guard let group = group(groups, "evaluate/calibration"), let bins = group[dimension: "bin"],
    let counts = group.numbers("count"), let confidence = group.numbers("confidence"),
    let accuracy = group.numbers("accuracy")
  else { return nil }
  var table = TextTable([
    ("likeliest token's p", .left), ("tokens", .right), ("confidence", .right),
    ("accuracy", .right),
  ])
  for bin in 0..<bins.count {
    table.add(
      [bins.label(at: bin), "\(Int(counts[bin]))"]
        + [confidence[bin], accuracy[bin]].map { fixedOrDash($0, 4) })
  }
  return "calibration:\n\(table.text)"
}

/// The loss at positions 0, 1, 2, 4, 8, … and the last.
private func positionTable(_ groups: [ResultGroup]) -> String? {
  guard let group = group(groups, "evaluate/position"), let counts = group.numbers("count"),
    let mean = group.numbers("loss_mean"), let median = group.numbers("loss_median"),
    let entropy = group.numbers("entropy_mean"), let last = counts.lastIndex(where: { $0 > 0 })
  else { return nil }
  let powers = sequence(first: 1) { 2 * $0 }.prefix { $0 < last }
  var table = TextTable(
    ["pos", "tokens", "loss", "median", "entropy"].map { ($0, .right) })
  for position in [0] + powers + (last > 0 ? [last] : []) where counts[position] > 0 {
    table.add(
      ["\(position)", "\(Int(counts[position]))"]
        + [mean[position], median[position], entropy[position]].map { fixed($0, 3) })
  }
  return "predicted from position:\n\(table.text)"
}

private func worstTable(_ groups: [ResultGroup]) -> String? {
  guard let group = group(groups, "evaluate/worst"), let loss = group.numbers("loss"),
    let prompts = group.numbers("loss_prompt"), let positions = group.numbers("loss_pos"),
    let ids = group.numbers("token_id")
  else { return nil }
  let texts = group.texts("token")
  var table = TextTable([
    ("prompt", .right), ("pos", .right), ("token", .left), ("loss", .right),
  ])
  for rank in loss.indices {
    table.add([
      "\(Int(prompts[rank]))", "\(Int(positions[rank]))",
      texts.map { "|\(shown($0[rank]))|" } ?? "\(Int(ids[rank]))", fixed(loss[rank], 3),
    ])
  }
  var lines = ["the worst tokens, with the position that they are predicted from:", table.text]
  if case .string(let warning)? = group.attributes["warning"] { lines.append("(\(warning))") }
  return lines.joined(separator: "\n")
}

/// The second model in a few lines.
private func comparison(_ groups: [ResultGroup]) -> String? {
  guard let group = group(groups, "evaluate"), let jsd = group.number("jsd_mean"),
    let other = group.number("loss_mean_against"), let agreement = group.number("top_agreement"),
    case .string(let name)? = group.attributes["against_model"]
  else { return nil }
  return """
    against \(name) (Δ = this model's loss less its; positive: this model is worse):
    loss of it     \(fixed(other, 4))
    Δ loss         \(group.estimate("delta_loss", "delta_loss_mean", 4))
    JSD            \(jsd < 1e-4 ? "\(jsd)" : group.estimate("jsd", "jsd_mean", 5))  nats
    KL(this‖it)    \(significant(group.number("kl_mean") ?? .nan)); KL(it‖this) \
    \(significant(group.number("kl_reverse_mean") ?? .nan))
    same top token \(percent(agreement))
    """
}

private func changesTable(_ groups: [ResultGroup]) -> String? {
  guard let group = group(groups, "evaluate/changes"), let delta = group.numbers("delta_loss"),
    let prompts = group.numbers("delta_loss_prompt"),
    let positions = group.numbers("delta_loss_pos"), let ids = group.numbers("token_id"),
    let ranks = group[dimension: "rank"]
  else { return nil }
  let texts = group.texts("token")
  let columns: [(String, TextTable.Alignment)] = [
    ("prompt", .right), ("pos", .right), ("token", .left), ("Δ loss", .right),
  ]
  var table = TextTable(columns)
  for index in delta.indices where index % ranks.count < 5 && !delta[index].isNaN {
    table.add([
      "\(Int(prompts[index]))", "\(Int(positions[index]))",
      texts.map { "|\(shown($0[index]))|" } ?? "\(Int(ids[index]))",
      fixed(delta[index], 3, signed: true),
    ])
  }
  return "the largest differences:\n\(table.text)"
}

/// Frozen norms: alone, then one after another.
private func freezeTable(_ groups: [ResultGroup]) -> String? {
  guard let group = group(groups, "evaluate/freeze"), let norms = group[dimension: "ln"],
    let removal = group[dimension: "removal"], let loss = group.number("loss"),
    let count = group.number("count")
  else { return nil }
  func table(
    _ axis: Dimension, _ title: String, _ columns: [(name: String, title: String)]
  ) -> String {
    let known = columns.compactMap { column in
      group.numbers(column.name).map { (column.title, $0) }
    }
    var table = TextTable([(title, .left)] + known.map { ($0.0, .right) })
    for index in 0..<axis.count {
      table.add([axis.label(at: index)] + known.map { precise($0.1[index]) })
    }
    return table.text
  }
  return """
    norms with the scale frozen at its mean, loss \(fixed(loss, 4)) of \(Int(count)) tokens without:
    \(table(norms, "norm", [
        ("scale_mean", "mean scale"), ("relative_error", "relative error"),
        ("single_delta", "Δ loss"), ("single_predicted", "by gradient"),
      ]))

    one after another:
    \(table(removal, "up to", [
        ("cumulative_loss", "loss"), ("cumulative_delta", "Δ loss"),
        ("cumulative_predicted", "sum of single Δ"),
      ]))
    """
}

/// Four decimals, more for what is small.
private func precise(_ value: Double) -> String {
  if value.isNaN { return "–" }
  return value != 0 && abs(value) < 1e-3 ? fixed(value, 7) : fixed(value, 4)
}
