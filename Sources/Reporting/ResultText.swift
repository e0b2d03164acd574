import OrderedCollections
public import Results

/// A result as text: what it is, where it comes from, every variable with its axes and units, and
/// the numbers as far as they fit.
public struct ResultText: Sendable {
  /// The most rows of a table that are printed.
  public var rowLimit: Int
  /// The most columns of a table that are printed.
  public var columnLimit: Int

  /// Text with limits on a table's size.
  public init(rowLimit: Int = 24, columnLimit: Int = 12) {
    self.rowLimit = rowLimit
    self.columnLimit = columnLimit
  }

  /// The whole result.
  ///
  /// - Parameters:
  ///   - result: what to print.
  ///   - group: only the group at this path.
  ///   - variable: only the variables of this name.
  public func text(
    _ result: ResultSet, group: String? = nil, variable: String? = nil
  ) -> String {
    var parts: [String] = variable == nil ? [facts(result)] : []
    for (index, found) in result.groups.enumerated() where group == nil || found.path == group {
      if variable == nil { parts.append(overview(found, after: result.groups[..<index])) }
      let agreement = variable == nil ? agreementTable(found) : nil
      if let agreement { parts.append(agreement) }
      for item in found.variables
      where variable == item.name || (variable == nil && !item.isCoordinate) {
        if agreement != nil && agreementVariables.contains(item.name) { continue }
        parts.append(numbers(item, in: found))
      }
    }
    return parts.joined(separator: "\n\n")
  }

  /// What there is, without the numbers: where it comes from, every group with its variables.
  public func contents(_ result: ResultSet) -> String {
    let groups = result.groups.enumerated().flatMap { index, group in
      [overview(group, after: result.groups[..<index]), agreementTable(group)].compactMap(\.self)
    }
    return ([facts(result)] + groups).joined(separator: "\n\n")
  }

  private func facts(_ result: ResultSet) -> String {
    let known = result.provenance.facts.filter { !$0.value.description.isEmpty }
    return ([result.title] + known.map { "  \($0.key): \(shown($0.value.description))" }).joined(
      separator: "\n")
  }

  /// A group's attributes and variables; secondary coordinates that an earlier group of the result
  /// has just so are only named.
  private func overview(_ group: ResultGroup, after earlier: ArraySlice<ResultGroup>) -> String {
    var table = TextTable([
      ("variable", .left), ("axes", .left), ("units", .left), ("what it is", .left),
    ])
    var repeated: [String] = []
    for variable in group.variables {
      if variable.isCoordinate, earlier.contains(where: { $0.variables.contains(variable) }) {
        repeated.append(variable.name)
        continue
      }
      let axes = zip(variable.dimensions, group.shape(of: variable)).map { name, extent in
        let all = name == "prompt" ? group.promptsInFile : nil
        return "\(name)=\(all ?? extent)"
      }
      table.add([
        variable.name, axes.isEmpty ? "scalar" : axes.joined(separator: ", "), variable.units,
        variable.longName,
      ])
    }
    var lines =
      ["[\(group.path)]"] + group.attributes.map { "  \($0.key): \(shown($0.value.description))" }
    if !repeated.isEmpty { lines.append("  as above: \(repeated.joined(separator: ", "))") }
    if group.variables.count > repeated.count { lines.append(table.text) }
    return lines.joined(separator: "\n")
  }

  /// One variable: a scalar, a column, or the last two axes as tables, one for each step along the
  /// others, as far as the limits allow.
  public func numbers(_ variable: ResultVariable, in group: ResultGroup) -> String {
    let shape = group.shape(of: variable)
    let heading = "\(group.path)/\(variable.name) [\(variable.units)]"
    if variable.values.count == 0 { return "\(heading): empty" }
    guard let last = variable.dimensions.last.flatMap({ group[dimension: $0] }) else {
      return "\(heading): \(cell(variable, 0))"
    }
    let rows = variable.dimensions.dropLast().last.flatMap { group[dimension: $0] }
    let tableSize = last.count * (rows?.count ?? 1)
    let leading = Array(zip(variable.dimensions, shape).dropLast(2))
    // Of a part of a file, what the whole file has is counted.
    let all = leading.reduce(1) { $0 * ($1.0 == "prompt" ? group.promptsInFile ?? $1.1 : $1.1) }
    let tables = variable.values.count / tableSize

    var parts: [String] = []
    let shownTables = Swift.min(tables, Swift.max(1, rowLimit / 8))
    for index in 0..<shownTables {
      var place: [String] = []
      var rest = index
      for (name, extent) in leading.reversed() {
        let label = shown(group[dimension: name]?.label(at: rest % extent) ?? "")
        place.insert("\(name) \(label)", at: 0)
        rest /= extent
      }
      let title = place.isEmpty ? heading : "\(heading), \(place.joined(separator: ", "))"
      parts.append(
        title + "\n" + grid(variable, index * tableSize, rows: rows, columns: last, group))
    }
    if all > shownTables { parts.append("… \(all - shownTables) more tables") }
    return parts.joined(separator: "\n")
  }

  private func grid(
    _ variable: ResultVariable, _ start: Int, rows: Dimension?, columns: Dimension,
    _ group: ResultGroup
  ) -> String {
    guard let rows else {
      // One axis: a column of label and value.
      var table = TextTable([(columns.name, .left), (variable.name, .right)])
      for index in 0..<Swift.min(columns.count, rowLimit) {
        table.add([columns.label(at: index), cell(variable, start + index)])
      }
      let more = extent(columns, group) - Swift.min(columns.count, rowLimit)
      return table.text + (more > 0 ? "\n… \(more) more" : "")
    }
    let shownColumns = Swift.min(columns.count, columnLimit)
    var header: [(String, TextTable.Alignment)] = [("\(rows.name)\\\(columns.name)", .left)]
    header += (0..<shownColumns).map { (columns.label(at: $0), .right) }
    if columns.count > shownColumns { header.append(("…", .left)) }
    var table = TextTable(header)
    for row in 0..<Swift.min(rows.count, rowLimit) {
      var cells = [rows.label(at: row)]
      cells += (0..<shownColumns).map { cell(variable, start + row * columns.count + $0) }
      if columns.count > shownColumns { cells.append("") }
      table.add(cells)
    }
    let more = extent(rows, group) - Swift.min(rows.count, rowLimit)
    return table.text + (more > 0 ? "\n… \(more) more rows" : "")
  }

  /// How long an axis is in the file.
  private func extent(_ axis: Dimension, _ group: ResultGroup) -> Int {
    axis.name == "prompt" ? group.promptsInFile ?? axis.count : axis.count
  }

  private func cell(_ variable: ResultVariable, _ index: Int) -> String {
    switch variable.values {
    case .float32(let values): compact(Double(values[index]))
    case .float64(let values): compact(values[index])
    case .integers(let values): String(values[index])
    case .strings(let values): shown(values[index])
    }
  }
}
