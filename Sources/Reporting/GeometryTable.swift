public import Results

/// LayerNorm geometry as text: the medians over tokens, a row for each norm, position 0 beside the
/// others.
///
/// - Parameter groups: the groups of the result; `ln_geometry/summary` is shown.
/// - Returns: the tables; nil where there is nothing to show.
public func geometryTables(_ groups: [ResultGroup]) -> String? {
  let parts = [summaryTables(groups)].compactMap { $0 }
  return parts.isEmpty ? nil : parts.joined(separator: "\n\n")
}

private struct Column {
  let name: String
  let title: String
  var factor = 1.0
}

private let lengthColumns = [
  Column(name: "std", title: "std"), Column(name: "radius_ratio", title: "|z|/√d"),
  Column(name: "mean_share", title: "mean share %", factor: 100),
  Column(name: "kurtosis", title: "kurtosis"),
  Column(name: "top_third_share", title: "top third %", factor: 100),
]

private let angleColumns = [
  Column(name: "angle_to_ones", title: "to ones"),
  Column(name: "angle_projection", title: "projection"),
  Column(name: "angle_gain", title: "gain"), Column(name: "angle_bias", title: "bias"),
  Column(name: "angle_total", title: "total"),
]

/// Medians of lengths and shares, then of angles.
private func summaryTables(_ groups: [ResultGroup]) -> String? {
  guard let group = groups.first(where: { $0.path == "ln_geometry/summary" }),
    let norms = group[dimension: "ln"], let quantiles = group[dimension: "quantile"],
    let counts = group[variable: "count"]?.values.doubles,
    let median = (0..<quantiles.count).first(where: { quantiles.label(at: $0) == "p50" })
  else { return nil }

  func table(_ columns: [Column]) -> String {
    let known = columns.compactMap { column in
      group[variable: column.name]?.values.doubles.map { (column, $0) }
    }
    var table = TextTable(
      [("norm", .left)] + known.flatMap { [($0.0.title, .right), ("at 0", .right)] })
    for norm in 0..<norms.count {
      let cells = known.flatMap { column, values in
        [1, 0].map { kind in
          significant(
            column.factor * values[(kind * norms.count + norm) * quantiles.count + median])
        }
      }
      table.add([norms.label(at: norm)] + cells)
    }
    return table.text
  }
  return """
    medians over \(Int(counts.last ?? 0)) tokens at positions ≥ 1; beside them over \
    \(Int(counts.first ?? 0)) at position 0

    the stream x before each norm, and the length of z:
    \(table(lengthColumns))

    angles in degrees: of x to the ones vector, then what each step turns it by:
    \(table(angleColumns))
    """
}

/// Three significant digits where a person can read them.
private func significant(_ value: Double) -> String {
  if value.isNaN { return "–" }
  let magnitude = Swift.abs(value)
  return fixed(
    value,
    magnitude >= 100 ? 0 : magnitude >= 10 ? 1 : magnitude >= 1 ? 2 : magnitude >= 0.1 ? 3 : 4)
}
