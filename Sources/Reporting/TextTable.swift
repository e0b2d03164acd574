/// A table of text with aligned columns.
public struct TextTable: Sendable {
  /// On which side a column's text stands.
  public enum Alignment: Sendable {
    /// Text.
    case left
    /// Numbers.
    case right
  }

  private let header: [String]
  private let alignments: [Alignment]
  private var rows: [[String]] = []

  /// A table with these columns.
  public init(_ columns: [(String, Alignment)]) {
    header = columns.map(\.0)
    alignments = columns.map(\.1)
  }

  /// Adds a row.
  ///
  /// - Precondition: as many cells as columns.
  public mutating func add(_ cells: [String]) {
    precondition(
      cells.count == header.count, "TextTable: \(cells.count) cells for \(header.count) columns")
    rows.append(cells)
  }

  /// The table's lines: the header, a rule, the rows.
  public var text: String {
    let widths = header.indices.map { column in
      ([header] + rows).map { $0[column].columnCount }.max() ?? 0
    }
    func line(_ cells: [String]) -> String {
      let padded = cells.indices.map { column in
        cells[column].padded(widths[column], right: alignments[column] == .right)
      }
      return trimmed(padded.joined(separator: "  "))
    }
    let rule = widths.map { String(repeating: "-", count: $0) }
    return ([header, rule] + rows).map(line).joined(separator: "\n")
  }

  private func trimmed(_ line: String) -> String {
    var line = line
    while line.last == " " { line.removeLast() }
    return line
  }
}
