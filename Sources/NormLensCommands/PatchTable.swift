import NormLens

/// The result of a patching sweep as text: the metrics; for one method a map of each small site and
/// the strongest cells, for several the strongest cells side by side and how far the methods agree.
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
    guard let patch = result[group: "patch"] else { return "" }
    let methods = result.groups.filter { group in
      group.path.hasPrefix("patch/") && sites.allSatisfy { group[variable: $0.name] != nil }
    }
    var parts = [heading(patch, methods)]
    if methods.count == 1 {
      parts += sites.compactMap { site($0, methods[0], top) }
    } else {
      parts += sites.compactMap { comparison($0, methods, top) }
    }
    parts += agreement(result)
    return parts.joined(separator: "\n\n")
  }

  /// The method whose group this is, as the command line calls it.
  private static func name(_ method: ResultGroup) -> String {
    String(method.path.dropFirst("patch/".count)).replacing("_", with: "-")
  }

  /// How the effects were found; nil for the exact ones alone.
  private static func methodLine(_ methods: [ResultGroup]) -> String? {
    let words = methods.map { method in
      switch name(method) {
      case "activation": "activation (exact)"
      case "relevance":
        "relevance (rules: \(method.attributes["rules"]?.description ?? ""))"
      case "integrated-gradients":
        "integrated-gradients (\(method.attributes["steps"]?.description ?? "") steps)"
      case let name: name
      }
    }
    return words == ["activation (exact)"] ? nil : "found by \(words.joined(separator: ", "))"
  }

  private static func heading(_ patch: ResultGroup, _ methods: [ResultGroup]) -> String {
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
        methodLine(methods),
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
    if !isMap || shape[1] > 1 { parts.append(strongest(site, variable, values, group, top)) }
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
    _ site: PatchSite, _ variable: ResultVariable, _ values: [Double], _ group: ResultGroup,
    _ top: Int
  ) -> String {
    let interval = [site.name + "_ci_low", site.name + "_ci_high"].map {
      group[variable: $0]?.values.doubles ?? []
    }
    return strongest(values, top).map { cell in
      let range =
        interval[0].isEmpty
        ? ""
        : "  95 % [\(fixed(interval[0][cell], 3, signed: true)), "
          + "\(fixed(interval[1][cell], 3, signed: true))]"
      return "  \(fixed(values[cell], 4, signed: true))\(range)  \(place(cell, variable, group))"
    }.joined(separator: "\n")
  }

  /// The cells of the largest effects, largest first.
  private static func strongest(_ values: [Double], _ top: Int) -> ArraySlice<Int> {
    values.indices.filter { !values[$0].isNaN && values[$0] != 0 }
      .sorted { (Swift.abs(values[$0]), $1) > (Swift.abs(values[$1]), $0) }.prefix(top)
  }

  /// A cell in words: `L1 pos 14 | to|`.
  private static func place(
    _ cell: Int, _ variable: ResultVariable, _ group: ResultGroup
  ) -> String {
    var rest = cell
    var words: [String] = []
    for (name, extent) in zip(variable.dimensions, group.shape(of: variable)).reversed() {
      words.insert(label(name, rest % extent, group, short: false), at: 0)
      rest /= extent
    }
    return words.joined(separator: " ")
  }

  /// One site by several methods: the cells that are strongest by the first of them.
  private static func comparison(
    _ site: PatchSite, _ methods: [ResultGroup], _ top: Int
  ) -> String? {
    let maps = methods.compactMap { $0[variable: site.name + "_normalized"] }
    let values = maps.compactMap(\.values.doubles)
    guard values.count == methods.count, let map = maps.first else { return nil }
    if top == 0 { return nil }
    let cells = strongest(values[0], top)
    let heading = "\(site.name), normalized: the strongest cells by \(name(methods[0]))"
    if cells.isEmpty { return heading + ": none" }
    var table = TextTable([("cell", .left)] + methods.map { (name($0), .right) })
    for cell in cells {
      table.add(
        [place(cell, map, methods[0])]
          + values.map { $0[cell] == 0 ? "0" : fixed($0[cell], 4, signed: true) })
    }
    return "\(heading)\n\(table.text)"
  }

  // MARK: how far estimates are to be believed

  private static func agreement(_ result: ResultSet) -> [String] {
    let group = result[group: "patch/agreement"]
    let table = group.flatMap(agreementTable)
    return [
      table.map {
        "agreement with activation, over the cells of the normalized maps:\n"
          + ([$0] + dashes(group)).joined(separator: "\n")
      },
      conservation(result),
    ].compactMap(\.self)
  }

  /// Why there are dashes in the table of agreement: each reason once.
  private static func dashes(_ group: ResultGroup?) -> [String] {
    guard case .strings(let texts)? = group?.attributes["undefined"] else { return [] }
    var reasons: [(reason: String, places: [String])] = []
    for text in texts {
      let parts = text.split(separator: ": ", maxSplits: 1).map(String.init)
      guard parts.count == 2 else { continue }
      let place = parts[0].replacing(", ", with: " ")
      if let index = reasons.firstIndex(where: { $0.reason == parts[1] }) {
        reasons[index].places.append(place)
      } else {
        reasons.append((parts[1], [place]))
      }
    }
    return reasons.map { "– \($0.reason): \($0.places.joined(separator: ", "))" }
  }

  /// What the ledger of relevance says.
  private static func conservation(_ result: ResultSet) -> String? {
    guard let group = result[group: "patch/relevance"],
      let streams = group[dimension: "stream"],
      let errors = group[variable: "conservation_error"]?.values.doubles,
      let first = group.attributes["conservation_exact_from"]?.description
    else { return nil }
    guard let start = (0..<streams.count).first(where: { streams.label(at: $0) == first }) else {
      return "relevance is conserved at no stream by these rules"
    }
    let units =
      group[variable: "conservation_error"].map { $0.units == "1" ? "" : " \($0.units)" } ?? ""
    let exact = errors.indices.filter { $0 % streams.count >= start }
    let largest = exact.reduce(0) { max($0, Swift.abs(errors[$1])) }
    let allowed = group[variable: "conservation_tolerance"]?.values.doubles ?? []
    if exact.contains(where: { $0 < allowed.count && !(Swift.abs(errors[$0]) <= allowed[$0]) }) {
      return "relevance should be conserved from \(first) on and is not: error up to "
        + "\(compact(largest))\(units)"
    }
    return "relevance is conserved from \(first) on: error at most \(compact(largest))\(units)"
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
