import Results

extension PicturePage {
  /// Direct logit attribution: components in stream order, heads by layer, and how far the frozen
  /// scale is from the direct effect.
  mutating func attribution() {
    guard analysis == "dla" else { return }
    let heads = variable("head_contribution")?.values.count ?? 0
    add(
      "components", "Direct logit attribution by component",
      [
        ("attribution, scale frozen", "contribution"),
        ("direct effect", "component_direct_effect"),
      ], form: .bars)
    add(
      "heads", "Direct logit attribution by head",
      [
        ("attribution, scale frozen", "head_contribution"),
        ("direct effect", "head_direct_effect"),
      ])
    add(
      "frozen_scale", "Attribution with the scale frozen against the direct effect, heads",
      facts: ["in logits; on the line the attribution is exact"]
        + pointLimit(heads, limits.points),
      panels: against("head_direct_effect", "head_contribution"))
  }

  /// Two variables of the same axes against each other: a cloud for each model.
  func against(_ x: String, _ y: String) -> [Picture.Panel] {
    guard !isDifference, let pair = numbers([x, y]), pair[0].names == pair[1].names,
      let horizontal = variable(x), let vertical = variable(y)
    else { return [] }
    let models = pair[0].axes.first { PictureLimits.modelAxes.contains($0.name) }
    let clouds = (0..<(models?.count ?? 1)).map { index in
      let cut = pair.map { numbers in models.map { numbers.at($0.name, index) } ?? numbers }
      let name = models?.label(at: index)
      return cloud(name ?? "", model: name, cut[0], cut[1])
    }
    func title(_ variable: ResultVariable) -> String {
      let unit = variable.units == "1" ? "" : " [\(PictureContext.unit(variable.units))]"
      return PictureContext.name(of: variable).title + unit
    }
    return [
      Picture.Panel(
        "",
        clouds.allSatisfy { $0.x.isEmpty }
          ? .note("no value: no cell has both numbers")
          : .points(
            Picture.Points(
              x: title(horizontal), y: title(vertical), clouds: clouds, hasIdentityLine: true)))
    ]
  }

  /// The cells of two variables as points, each named by its place.
  func cloud(
    _ name: String, model: String?, _ x: NamedNumbers, _ y: NamedNumbers
  ) -> Picture.Points.Cloud {
    let known = x.values.indices.filter { x.values[$0].isFinite && y.values[$0].isFinite }
    let chosen = evenly(known, limits.points)
    return Picture.Points.Cloud(
      name, model: model, x: chosen.map { x.values[$0] }, y: chosen.map { y.values[$0] },
      labels: chosen.map { place($0, x.axes) })
  }

  /// A cell's place in words: `layer 2, head 5`.
  private func place(_ index: Int, _ axes: [Dimension]) -> String {
    var (rest, words) = (index, [String]())
    for axis in axes.reversed() {
      words.insert("\(axis.name) \(shown(axis.label(at: rest % axis.count)))", at: 0)
      rest /= axis.count
    }
    return words.joined(separator: ", ")
  }

  /// At most so many of a list, evenly spaced, with the first and the last.
  func evenly<Element>(_ all: [Element], _ count: Int) -> [Element] {
    if all.count <= count { return all }
    if count < 2 { return Array(all.prefix(Swift.max(0, count))) }
    return (0..<count).map { all[$0 * (all.count - 1) / (count - 1)] }
  }

  /// What ``evenly(_:_:)`` leaves out of a list, for a picture's facts; empty where all is drawn.
  func leftOut(_ all: Int, _ count: Int, _ what: String) -> [String] {
    all > count ? ["\(count) of \(all) \(what), evenly spaced"] : []
  }

  /// That clouds of so many cells have a limit, for a picture's facts; empty where none reaches it.
  func pointLimit(_ cells: Int, _ most: Int) -> [String] {
    cells > most ? ["at most \(most) points of each kind, evenly chosen"] : []
  }

  /// The logit lens: the predictions of every stream, written in their cells.
  mutating func lens() {
    guard analysis == "logit_lens" else { return }
    if variable("top_token") != nil {
      add(
        "predictions", "Logit lens: what each residual stream predicts next",
        [("", "top_prob")], texts: "top_token", also: ["top_token_id"])
    }
    for (name, words) in [
      ("prob", "probability of the answer"), ("logit", "logit of the answer"),
      ("rank", "how many tokens lie before the answer"), ("entropy", "entropy of the prediction"),
    ] {
      add(name, "Logit lens: " + words, [("", name)])
    }
  }

  /// Attention patterns of recorded runs, a thumbnail a head.
  mutating func patterns() {
    guard analysis == "activations" else { return }
    add("pattern", "Attention patterns", [("", "pattern")])
  }
}
