public import Results

/// Tables of several models: each model's own under its name, then every measure that differs, the models
/// side by side.
///
/// - Parameters:
///   - names: the models' names.
///   - texts: each model's own tables.
///   - groups: what the models have in common, with the axis `model`.
public func modelTables(_ names: [String], _ texts: [String], _ groups: [ResultGroup]) -> String {
  let own = zip(names, texts).map { name, text in
    "\(name)\n\(String(repeating: "=", count: name.columnCount))\n\n\(text)"
  }
  return (own + [modelComparison(names, groups)].compactMap { $0 }).joined(separator: "\n\n")
}

/// Every measure that differs between models, side by side; of one with several numbers the place where they
/// are farthest apart. Values of prompts are means over them; values of single tokens are left out.
///
/// - Returns: nil where nothing differs.
public func modelComparison(_ names: [String], _ groups: [ResultGroup]) -> String? {
  var table = TextTable(
    [("measure", .left), ("where", .left)] + names.map { ($0, .right) })
  var isEmpty = true
  for group in groups where group[dimension: "model"] != nil {
    for variable in group.variables where variable.dimensions.contains("model") {
      if variable.isCoordinate { continue }
      guard let found = farthest(variable, in: group, models: names.count) else { continue }
      isEmpty = false
      table.add(
        ["\(group.path)/\(variable.name)", found.place] + found.values.map { compact($0) })
    }
  }
  if isEmpty { return nil }
  return """
    every measure that differs, where the models are farthest apart:
    \(table.text)
    """
}

/// The place at which models differ most, and their values there.
private func farthest(
  _ variable: ResultVariable, in group: ResultGroup, models: Int
) -> (place: String, values: [Double])? {
  let values: [Double]
  switch variable.values {
  case .float32, .float64: values = variable.values.doubles ?? []
  case .integers, .strings: return nil
  }
  let perToken = ["pos", "query_pos", "key_pos"]
  let isRaw = variable.dimensions.first == "prompt"
  if isRaw && variable.dimensions.contains(where: perToken.contains) { return nil }
  // Without prompts: (model, …).
  let shape = group.shape(of: variable)
  let prompts = isRaw ? shape[0] : 1
  let axes = variable.dimensions.filter { $0 != "prompt" && $0 != "model" }
  let cells = axes.reduce(1) { $0 * (group[dimension: $1]?.count ?? 1) }
  guard values.count == prompts * models * cells else { return nil }
  func mean(_ model: Int, _ cell: Int) -> Double {
    let known = (0..<prompts).map { values[($0 * models + model) * cells + cell] }
      .filter { !$0.isNaN }
    return known.isEmpty ? .nan : known.reduce(0, +) / Double(known.count)
  }
  var best: (cell: Int, distance: Double, values: [Double])?
  for cell in 0..<cells {
    let here = (0..<models).map { mean($0, cell) }
    let known = here.filter { !$0.isNaN }
    guard let least = known.min(), let most = known.max(), most > least else { continue }
    if most - least > best?.distance ?? 0 { best = (cell, most - least, here) }
  }
  guard let best else { return nil }
  var rest = best.cell
  var labels: [String] = []
  for axis in axes.reversed() {
    guard let dimension = group[dimension: axis] else { continue }
    let index = rest % dimension.count
    rest /= dimension.count
    switch dimension.coordinates {
    case .indices, .integers: labels.insert("\(axis) \(dimension.label(at: index))", at: 0)
    case .labels: labels.insert(dimension.label(at: index), at: 0)
    }
  }
  return (labels.joined(separator: ", "), best.values)
}
