import Results

/// The clouds of all tokens before, inside and behind each norm, with the warning where there are too
/// few tokens; nil without group `ln_geometry/corpus`.
func corpusTable(_ groups: [ResultGroup]) -> String? {
  guard let group = groups.first(where: { $0.path == "ln_geometry/corpus" }),
    let norms = group[dimension: "ln"], let clouds = group[dimension: "cloud"],
    let count = group[variable: "count"]?.values.doubles?.first
  else { return nil }
  let columns = [
    ("ones_share", "ones %", 100.0), ("mean_vector_share", "mean %", 100),
    ("mean_cosine", "cosine", 1), ("top_component_share", "top PC %", 100),
    ("effective_rank", "eff. rank", 1), ("stable_rank", "stable", 1),
    ("participation_ratio", "particip.", 1), ("intrinsic_dimension", "TwoNN", 1),
  ].compactMap { name, title, factor in
    group[variable: name]?.values.doubles.map { (title, factor, $0) }
  }
  var table = TextTable(
    [("norm", .left), ("cloud", .left)] + columns.map { ($0.0, .right) })
  for norm in 0..<norms.count {
    for cloud in 0..<clouds.count {
      let place = norm * clouds.count + cloud
      table.add(
        [cloud == 0 ? norms.label(at: norm) : "", clouds.label(at: cloud)]
          + columns.map { _, factor, values in
            values[place].isNaN ? "–" : fixed(values[place] * factor, 2)
          })
    }
  }
  var text = """
    the cloud of \(Int(count)) tokens at positions ≥ 1: shares of the mean square along the ones vector \
    and in the mean vector,
    mean cosine of two tokens, ranks of the covariance, intrinsic dimension:
    \(table.text)
    """
  if let warning = group.attributes["warning"] { text += "\nwarning: \(warning)" }
  return text
}

/// What the final norm's renormalisation does to direct effects, in one line; nil without group
/// `renormalisation`.
func renormalisationLine(_ groups: [ResultGroup]) -> String? {
  guard let group = groups.first(where: { $0.path == "renormalisation" }),
    let components = group[variable: "component_gap_pooled"]?.values.doubles?.first,
    let heads = group[variable: "head_gap_pooled"]?.values.doubles?.first
  else { return nil }
  return
    "renormalisation gap (direct effect less frozen attribution, of all direct effects): "
    + "components \(fixed(components, 2)) %, heads \(fixed(heads, 2)) %"
}
