import Results

extension PicturePage {
  private static let blocks = ["resid_pre", "resid_mid", "attn_out", "mlp_out"]
  private static let heads = ["head_z", "head_q", "head_k", "head_v", "head_pattern"]
  private static let siteWords = [
    "resid_pre": "residual stream", "resid_mid": "residual stream, middle",
    "attn_out": "attention output", "mlp_out": "MLP output", "head_z": "output", "head_q": "query",
    "head_k": "key", "head_v": "value", "head_pattern": "pattern",
  ]

  /// A sweep: blocks by position and heads by layer, facets on one scale; normalized effects first.
  mutating func patching() {
    let parts = analysis.split(separator: "/")
    guard parts.count == 2, parts[0] == "patch", parts[1] != "agreement" else { return }
    let method = parts[1].replacing("_", with: " ")
    let bundles = [
      ("blocks", "blocks", Self.blocks, ""), ("heads", "heads", Self.heads, ""),
      ("heads_by_pos", "heads by position", Self.heads, "_by_pos"),
    ]
    for (name, words, sites, suffix) in bundles {
      for (ending, meaning, isMain) in [
        ("_normalized", "normalized effects", true), ("", "effects", false),
        ("_stderr", "standard errors of the normalized effects", false),
        ("_ci_low", "lower ends of their 95 % intervals", false),
        ("_ci_high", "upper ends of their 95 % intervals", false),
      ] {
        let fields = sites.map { site in
          (Self.siteWords[site] ?? site, site + suffix + ending)
        }
        add(
          name + (isMain ? "" : ending.isEmpty ? "_effects" : ending),
          "Patching by \(method), \(words): \(meaning)", fields, isMain: isMain)
      }
    }
  }

  /// Estimates against exact effects, and the measures of their agreement.
  mutating func agreement() {
    guard analysis == "patch/agreement" else { return }
    let folder = context.group.path.split(separator: "/")
      .filter { $0 != "difference" }.dropLast().joined(separator: "/")
    if !isDifference, let exact = context.result[group: folder + "/activation"] {
      let methods = context.group[dimension: "method"]
      let panels = (0..<(methods?.count ?? 0)).flatMap { index -> [Picture.Panel] in
        let method = methods?.label(at: index) ?? ""
        let path = folder + "/" + method.replacing("-", with: "_")
        guard let estimated = context.result[group: path] else { return [] }
        return scatter(method, exact, estimated)
      }
      let cells = exact.variables.map(\.values.count).max() ?? 0
      add(
        "scatter", "Estimated against exact effects of patching",
        facts: ["normalized effects; on the line the estimate is exact"]
          + pointLimit(cells, limits.points),
        panels: panels)
    }
    for name in ["pearson", "spearman", "sign_flips", "top10_overlap", "abs_error"] {
      add(
        name,
        "Agreement with activation patching: " + name.replacing("_", with: " "), [("", name)],
        form: .bars)
    }
  }

  /// A panel for each model: a cloud for each site.
  private func scatter(
    _ method: String, _ exact: ResultGroup, _ estimated: ResultGroup
  ) -> [Picture.Panel] {
    let sites = exact.variables.filter {
      $0.name.hasSuffix("_normalized") && estimated[variable: $0.name]?.dimensions == $0.dimensions
    }
    let models =
      sites.lazy.flatMap(\.dimensions).contains("model") ? exact[dimension: "model"] : nil
    return (0..<(models?.count ?? 1)).compactMap { index in
      let model = models?.label(at: index)
      let clouds = sites.compactMap { site -> Picture.Points.Cloud? in
        guard let x = NamedNumbers(site, in: exact),
          let y = estimated[variable: site.name].flatMap({ NamedNumbers($0, in: estimated) }),
          x.values.count == y.values.count
        else { return nil }
        return cloud(
          String(site.name.dropLast("_normalized".count)), model: model,
          models == nil ? x : x.at("model", index), models == nil ? y : y.at("model", index))
      }
      guard !clouds.isEmpty else { return nil }
      let title = [method, model].compactMap(\.self).joined(separator: ", ")
      return Picture.Panel(
        title, model: model,
        clouds.allSatisfy { $0.x.isEmpty }
          ? .note("no value: no cell has both numbers")
          : .points(
            Picture.Points(
              x: "exact normalized effect", y: "estimated normalized effect", clouds: clouds,
              hasIdentityLine: true)))
    }
  }
}
