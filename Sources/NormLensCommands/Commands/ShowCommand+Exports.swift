import Foundation
import NormLens

/// Numbers for other programs, written piece by piece: neither the values nor the text need to fit in
/// memory.
extension ShowCommand {
  /// Cells that are read and written at once.
  private static let pieceCells = 1 << 18

  // MARK: CSV

  func exportCSV(_ reader: ResultFileReader, _ selection: Selection) throws {
    guard what != nil else {
      throw CommandError(
        "\(file): --csv needs a group or a variable; groups: "
          + reader.groups.filter { !$0.variables.isEmpty }.map(\.path).joined(separator: ", "))
    }
    guard let part = selection.parts.first, selection.parts.count == 1 else {
      throw CommandError("\(file): --csv needs variables of one group, found several groups")
    }
    let names =
      selection.variables?[part.path]
      ?? part.variables.filter { !$0.isCoordinate }.map(\.name)
    let variables = names.compactMap { name in part.variables.first { $0.name == name } }
    guard let axes = variables.first?.dimensions else {
      throw CommandError("\(file): --csv: group '\(part.path)' has no variables")
    }
    guard variables.allSatisfy({ $0.dimensions == axes }) else {
      throw CommandError(
        "\(file): --csv needs variables of the same axes, found \(kinds(variables)); name some: "
          + "\(part.path)/\(names[0])")
    }
    let table = ResultCSV(
      axes: axes,
      coordinates: part.variables.filter(\.isCoordinate).map { ($0.name, $0.dimensions) },
      variables: names)
    var piece = part
    piece.variables = part.variables.filter {
      table.coordinates.contains($0.name) || names.contains($0.name)
    }
    let extents = axes.map { name in
      prompt != nil && name == "prompt"
        ? 1 : part.dimensions.first { $0.name == name }?.count ?? 0
    }
    let pieces = ArrayPieces(
      shape: extents, maximumCount: Self.pieceCells / Swift.max(1, names.count))
    try write { put throws(HDF5Error) in
      try put(Array(table.header.utf8))
      for ranges in pieces {
        let places = Dictionary(
          uniqueKeysWithValues: zip(axes, ranges).map { name, range in
            (name, name == "prompt" ? range.shifted(by: prompt ?? 0) : range)
          })
        let values = try reader.values(of: piece, ranges: places)
        try put(table.rows(values))
      }
    }
  }

  /// The axes of variables and who has them: `(layer, head): entropy, sink_rate, … 9 more`.
  private func kinds(_ variables: [ResultFileWriter.Variable]) -> String {
    var kinds: [(axes: [String], names: [String])] = []
    for variable in variables {
      if let known = kinds.firstIndex(where: { $0.axes == variable.dimensions }) {
        kinds[known].names.append(variable.name)
      } else {
        kinds.append((variable.dimensions, [variable.name]))
      }
    }
    return kinds.map { kind in
      let more = kind.names.count > 3 ? ", … \(kind.names.count - 3) more" : ""
      return "(\(kind.axes.joined(separator: ", "))): "
        + kind.names.prefix(3).joined(separator: ", ") + more
    }.joined(separator: "; ")
  }

  // MARK: Attention patterns

  func exportAttention(_ reader: ResultFileReader, _ selection: Selection) throws {
    let (group, variable) = try pattern(reader, selection)
    let name = "\(group.path)/\(variable.name)"
    let axis = { (name: String) in group.dimensions.first { $0.name == name } }
    guard let queries = axis("query_pos"), let keys = axis("key_pos") else { return }
    guard queries.coordinates == keys.coordinates else {
      throw CommandError(
        "\(file): \(name): CircuitsVis draws the patterns of all queries, found \(queries.count) "
          + "queries and \(keys.count) keys; record all positions", status: .data)
    }
    let prompts = axis("prompt")?.count ?? 1
    let isOfPrompts = variable.dimensions.contains("prompt")
    guard prompt != nil || !isOfPrompts || prompts == 1 else {
      throw CommandError(
        "\(file): \(name) has \(prompts) prompts; choose one with --prompt 0 … \(prompts - 1)")
    }
    let chosen = prompt ?? (prompts == 1 ? 0 : nil)
    let tokens = try tokens(reader, group, prompt: chosen)
    let others = variable.dimensions.filter { !["prompt", "query_pos", "key_pos"].contains($0) }
    var piece = group
    piece.variables = [variable]
    var page = AttentionJSON(tokens: tokens)
    try write { put throws(HDF5Error) in
      try put(Array(page.header.utf8))
      let extents = others.map { axis($0)?.count ?? 0 }
      for place in ArrayPieces(shape: extents, maximumCount: 1) {
        var ranges = Dictionary(uniqueKeysWithValues: zip(others, place))
        ranges["query_pos"] = 0..<tokens.count
        ranges["key_pos"] = 0..<tokens.count
        if let chosen { ranges["prompt"] = chosen..<chosen + 1 }
        let values = try reader.values(of: piece, ranges: ranges).variables[0].values
        let labels = zip(others, place).map { other, range in
          let label = axis(other)?.label(at: range.lowerBound) ?? ""
          return other == "layer" ? "L\(label)" : other == "head" ? "H\(label)" : label
        }
        let floats = values.doubles?.map { Float($0) } ?? []
        try put(Array(page.head(labels.joined(), floats).utf8))
      }
      try put(Array(page.footer.utf8))
    }
  }

  /// The patterns that were asked for, or the only ones that there are.
  private func pattern(
    _ reader: ResultFileReader, _ selection: Selection
  ) throws -> (ResultFileWriter.Group, ResultFileWriter.Variable) {
    func patterns(_ groups: [ResultFileWriter.Group]) -> [(path: String, group: Int, variable: Int)]
    {
      groups.indices.flatMap { group in
        groups[group].variables.indices.filter { index in
          let variable = groups[group].variables[index]
          return variable.type != .strings && variable.dimensions.contains("query_pos")
            && variable.dimensions.contains("key_pos")
        }.map { ("\(groups[group].path)/\(groups[group].variables[$0].name)", group, $0) }
      }
    }
    var found = patterns(selection.parts)
    // Beside the scores, the patterns are meant.
    if what == nil, found.count(where: { $0.path.hasSuffix("/pattern") }) == 1 {
      found.removeAll { !$0.path.hasSuffix("/pattern") }
    }
    guard let only = found.first, found.count == 1 else {
      let all = patterns(reader.groups).map(\.path)
      throw CommandError(
        all.isEmpty
          ? "\(file): --circuitsvis needs a variable with the axes query_pos and key_pos, found none; "
            + "'normlens cache MODEL --hooks pattern' records one"
          : "\(file): --circuitsvis needs one variable with the axes query_pos and key_pos; name one "
            + "of: \(all.joined(separator: ", "))")
    }
    let group = selection.parts[only.group]
    return (group, group.variables[only.variable])
  }

  /// The prompt's tokens, as text where the file has it, else their ids, else their positions.
  private func tokens(
    _ reader: ResultFileReader, _ group: ResultFileWriter.Group, prompt: Int?
  ) throws -> [String] {
    guard let keys = group.dimensions.first(where: { $0.name == "key_pos" }) else { return [] }
    let numbers = (0..<keys.count).map { keys.label(at: $0) }
    var piece = group
    piece.variables = group.variables.filter {
      ["token", "token_id"].contains($0.name) && $0.dimensions == ["prompt", "pos"]
    }
    guard let prompt, !piece.variables.isEmpty,
      piece.dimensions.first(where: { $0.name == "pos" })?.coordinates == keys.coordinates
    else { return numbers }
    let values = try reader.values(of: piece, ranges: ["prompt": prompt..<prompt + 1])
    var length = keys.count
    if case .integers(let ids)? = values[variable: "token_id"]?.values {
      length = ids.firstIndex { $0 < 0 } ?? length
      if values[variable: "token"] == nil { return ids.prefix(length).map(String.init) }
    }
    guard case .strings(let texts)? = values[variable: "token"]?.values else { return numbers }
    return Array(texts.prefix(length))
  }

  // MARK: Output

  /// Writes to the file that was named, or to standard output.
  private func write(
    _ body: (_ put: ([UInt8]) throws(HDF5Error) -> Void) throws(HDF5Error) -> Void
  ) throws {
    if let output {
      try FileBytes.write(to: output, body)
      Terminal.print("wrote \(output)")
    } else {
      try body { bytes in Terminal.write(Data(bytes)) }
    }
  }
}

extension Range<Int> {
  /// The range so many places further on.
  fileprivate func shifted(by places: Int) -> Range<Int> {
    lowerBound + places..<upperBound + places
  }
}
