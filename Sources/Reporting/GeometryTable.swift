public import Results

/// LayerNorm geometry as text: the medians over tokens, a row for each norm, position 0 beside the
/// others.
///
/// - Parameter groups: the groups of the result; `ln_geometry/summary`, `/corpus`, `/writes`, `/shape`,
///   `renormalisation`, `selectability` and `query_alignment` are shown as far as they are there.
/// - Returns: the tables; nil where there is nothing to show.
public func geometryTables(_ groups: [ResultGroup]) -> String? {
  let parts = [
    summaryTables(groups), corpusTable(groups), writeTable(groups), shapeTable(groups),
    renormalisation(groups), selectabilityTables(groups),
  ].compactMap { $0 }
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

private let corpusColumns = [
  Column(name: "ones_share", title: "ones %", factor: 100),
  Column(name: "mean_vector_share", title: "mean vector %", factor: 100),
  Column(name: "mean_cosine", title: "mean cosine"),
  Column(name: "top_component_share", title: "top component %", factor: 100),
  Column(name: "effective_rank", title: "effective rank"),
  Column(name: "intrinsic_dimension", title: "TwoNN"),
]

/// The cloud of all tokens before and behind each norm.
private func corpusTable(_ groups: [ResultGroup]) -> String? {
  guard let group = groups.first(where: { $0.path == "ln_geometry/corpus" }),
    let norms = group[dimension: "ln"], let clouds = group[dimension: "cloud"],
    let count = group[variable: "count"]?.values.doubles?.first
  else { return nil }
  let known = corpusColumns.compactMap { column in
    group[variable: column.name]?.values.doubles.map { (column, $0) }
  }
  var table = TextTable(
    [("norm", .left)] + known.flatMap { [($0.0.title, .right), ("out", .right)] })
  for norm in 0..<norms.count {
    let cells = known.flatMap { column, values in
      [0, clouds.count - 1].map { significant(column.factor * values[norm * clouds.count + $0]) }
    }
    table.add([norms.label(at: norm)] + cells)
  }
  var lines = [
    "all \(Int(count)) tokens at positions ≥ 1 as a cloud, of the stream and of the norm's output:",
    table.text,
  ]
  if case .string(let warning)? = group.attributes["warning"] { lines.append("(\(warning))") }
  return lines.joined(separator: "\n")
}

/// What the final norm's renormalisation changes, in one line.
private func renormalisation(_ groups: [ResultGroup]) -> String? {
  guard let group = groups.first(where: { $0.path == "renormalisation" }),
    let components = group[variable: "component_gap_pooled"]?.values.doubles?.first,
    let heads = group[variable: "head_gap_pooled"]?.values.doubles?.first
  else { return nil }
  return """
    direct effects differ from frozen attribution, since the final norm renormalises, by \
    \(significant(components)) % over components
    and \(significant(heads)) % over heads (Σ|gap| over Σ|direct effect|)
    """
}

/// Shares of writes that norms discard: means over heads, and of each layer's MLP.
private func writeTable(_ groups: [ResultGroup]) -> String? {
  guard let group = groups.first(where: { $0.path == "ln_geometry/writes" }),
    let layers = group[dimension: "layer"], let heads = group[dimension: "head"],
    let ofHeads = group[variable: "head_discarded"]?.values.doubles,
    let ofHeadsOnes = group[variable: "head_discarded_ones"]?.values.doubles,
    let ofMLPs = group[variable: "mlp_discarded"]?.values.doubles,
    let ofMLPsOnes = group[variable: "mlp_discarded_ones"]?.values.doubles
  else { return nil }
  func share(_ value: Double) -> String { significant(100 * value) }
  func mean(_ values: [Double], _ layer: Int, _ reader: Int) -> Double {
    let known = (0..<heads.count).map { values[(layer * heads.count + $0) * 2 + reader] }
      .filter { !$0.isNaN }
    return known.isEmpty ? .nan : known.reduce(0, +) / Double(known.count)
  }
  var table = TextTable(
    [("layer", .right)]
      + ["heads", "MLP"].flatMap { writer in
        ["\(writer): next %", "ones %", "final %", "ones %"].map { ($0, .right) }
      })
  for layer in 0..<layers.count {
    let heads = [0, 1].flatMap {
      [mean(ofHeads, layer, $0), mean(ofHeadsOnes, layer, $0)].map(share)
    }
    let mlp = [0, 1].flatMap {
      [ofMLPs[layer * 2 + $0], ofMLPsOnes[layer * 2 + $0]].map(share)
    }
    table.add([layers.label(at: layer)] + heads + mlp)
  }
  return """
    share of each write that the next and the final norm discard to first order; ones %: its part along
    the ones vector (positions ≥ 1; heads: mean over heads):
    \(table.text)
    """
}

/// How straight each norm's cloud of coordinates is.
private func shapeTable(_ groups: [ResultGroup]) -> String? {
  guard let group = groups.first(where: { $0.path == "ln_geometry/shape" }),
    let norms = group[dimension: "ln"]
  else { return nil }
  let columns = [
    ("linear_slope", "slope"), ("linear_r2", "linear R²"), ("tanh_c", "tanh c"),
    ("tanh_alpha", "α"), ("tanh_r2", "R²"), ("erf_c", "erf c"), ("erf_alpha", "α"), ("erf_s", "s"),
    ("erf_r2", "R²"),
  ].compactMap { name, title in
    group[variable: name]?.values.doubles.map {
      (isR2: name.hasSuffix("r2"), title: title, values: $0)
    }
  }
  var table = TextTable([("norm", .left)] + columns.map { ($0.title, .right) })
  for norm in 0..<norms.count {
    table.add(
      [norms.label(at: norm)]
        + columns.map {
          let value = $0.values[norm]
          return $0.isR2 && !value.isNaN ? fixed(value, 4) : significant(value)
        })
  }
  return """
    fits through the coordinates of stream and z: slope·x, c·tanh(αx), c·erf(αx + s):
    \(table.text)
    """
}
