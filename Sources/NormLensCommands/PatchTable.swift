import NormLens

/// The result of a patching sweep as text: the metrics, a map of each small site, the strongest
/// cells.
enum PatchTable {
  /// The widest map that is printed.
  private static let columnLimit = 16
  private static let rowLimit = 48

  /// What the sweep warned of.
  static func warnings(_ result: ResultSet) -> [String] {
    if case .strings(let texts)? = result[group: "patch"]?.attributes["warnings"] {
      texts
    } else {
      []
    }
  }

  /// The whole text.
  static func text(_ result: ResultSet, _ sites: [PatchSite], top: Int) -> String {
    guard let patch = result[group: "patch"], let effects = result[group: "patch/activation"]
    else { return "" }
    return ([heading(patch)] + sites.compactMap { site($0, effects, top) })
      .joined(separator: "\n\n")
  }

  private static func heading(_ patch: ResultGroup) -> String {
    func mean(_ name: String) -> Double {
      let values = patch[variable: name]?.values.doubles ?? []
      return values.reduce(0, +) / Double(max(1, values.count))
    }
    func attribute(_ name: String) -> String { patch.attributes[name]?.description ?? "" }
    let count = patch[dimension: "prompt"]?.count ?? 0
    let units = patch[variable: "clean_metric"]?.units ?? "1"
    let margins = patch[variable: "clean_margin"]?.values.doubles?.filter { !$0.isNaN } ?? []
    var lines =
      ([
        "\(attribute("direction")): the \(attribute("patched_run")) run, patched with "
          + (attribute("replacement") == "other run"
            ? "the \(attribute("patched_run") == "clean" ? "corrupted" : "clean") run's values"
            : attribute("replacement"))
          + "; \(count) \(count == 1 ? "prompt" : "prompts")",
        (patch.attributes["noise_deviations"].map {
          "the corrupted run is the clean prompt with noise of \($0) deviations on the embeddings, "
            + "positions: \(attribute("noise_positions"))"
        }),
        "\(attribute("metric"))\(units == "1" ? "" : " [\(units)]"): clean "
          + "\(fixed(mean("clean_metric"), 4)), corrupted \(fixed(mean("corrupted_metric"), 4))"
          + (count == 1 ? "" : " (means)"),
      ] as [String?]).compactMap(\.self)
    if count > 1 && !margins.isEmpty {
      lines.append("the model prefers the answer in \(margins.filter { $0 > 0 }.count) of \(count)")
    }
    return lines.joined(separator: "\n")
  }

  /// One site: a map of layers and one other axis where it fits, and the strongest cells.
  private static func site(_ site: PatchSite, _ group: ResultGroup, _ top: Int) -> String? {
    guard let variable = group[variable: site.name + "_normalized"],
      let values = variable.values.doubles
    else { return nil }
    var parts = ["\(site.name), normalized:"]
    let shape = group.shape(of: variable)
    let isMap = shape.count == 2 && shape[1] <= columnLimit && shape[0] <= rowLimit
    if isMap { parts.append(map(variable, values, shape, group)) }
    if !isMap || shape[1] > 1 { parts.append(strongest(site, variable, values, shape, group, top)) }
    return parts.filter { !$0.isEmpty }.joined(separator: "\n")
  }

  private static func map(
    _ variable: ResultVariable, _ values: [Double], _ shape: [Int], _ group: ResultGroup
  ) -> String {
    let columns = (0..<shape[1]).map { label(variable.dimensions[1], $0, group, short: true) }
    var table = TextTable(
      [("layer", .right)] + columns.map { ($0, .right) })
    for row in 0..<shape[0] {
      table.add(
        [group[dimension: "layer"]?.label(at: row) ?? ""]
          + (0..<shape[1]).map { number(values[row * shape[1] + $0]) })
    }
    return table.text
  }

  private static func number(_ value: Double) -> String {
    if value.isNaN { return "–" }
    // An exact zero is a cell that changed nothing; the sign of a small one says nothing.
    return value == 0 ? "0" : fixed(Swift.abs(value) < 0.005 ? 0 : value, 2)
  }

  private static func strongest(
    _ site: PatchSite, _ variable: ResultVariable, _ values: [Double], _ shape: [Int],
    _ group: ResultGroup, _ top: Int
  ) -> String {
    let interval = [site.name + "_ci_low", site.name + "_ci_high"].map {
      group[variable: $0]?.values.doubles ?? []
    }
    let order = values.indices.filter { !values[$0].isNaN && values[$0] != 0 }
      .sorted { (Swift.abs(values[$0]), $1) > (Swift.abs(values[$1]), $0) }
    return order.prefix(top).map { cell in
      var rest = cell
      var words: [String] = []
      for (name, extent) in zip(variable.dimensions, shape).reversed() {
        words.insert(label(name, rest % extent, group, short: false), at: 0)
        rest /= extent
      }
      let range =
        interval[0].isEmpty
        ? ""
        : "  95 % [\(fixed(interval[0][cell], 3, signed: true)), "
          + "\(fixed(interval[1][cell], 3, signed: true))]"
      return "  \(fixed(values[cell], 4, signed: true))\(range)  \(words.joined(separator: " "))"
    }.joined(separator: "\n")
  }

  /// How a coordinate is written: positions with their token if all prompts have the same there.
  private static func label(
    _ dimension: String, _ index: Int, _ group: ResultGroup, short: Bool
  ) -> String {
    let coordinate = group[dimension: dimension]?.label(at: index) ?? String(index)
    switch dimension {
    case "layer": return "L\(coordinate)"
    case "head": return "H\(coordinate)"
    case "neuron": return "N\(coordinate)"
    default:
      let found = token(at: index, group)
      let token = found == coordinate ? "" : found
      if short { return token.isEmpty ? shown(coordinate) : token }
      let name = dimension == "pos" ? "pos" : String(dimension.prefix { $0 != "_" })
      return "\(name) \(shown(coordinate))" + (token.isEmpty ? "" : " |\(token)|")
    }
  }

  /// The token or the name at a position where all prompts agree; empty where they do not.
  private static func token(at index: Int, _ group: ResultGroup) -> String {
    let width = group[dimension: "pos"]?.count ?? 1
    for name in ["token", "label"] {
      guard case .strings(let texts)? = group[variable: name]?.values else { continue }
      let column = stride(from: index, to: texts.count, by: width).map { texts[$0] }
      if let first = column.first, !first.isEmpty, column.allSatisfy({ $0 == first }) {
        return shown(first)
      }
    }
    return ""
  }
}
