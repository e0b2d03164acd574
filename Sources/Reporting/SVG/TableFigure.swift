/// Rows of text under a header; what does not fit is cut, and what is left out is told.
struct TableFigure: PanelFigure {
  private let table: Picture.Table
  private let style: SVGStyle
  private let width: Double
  private let columns: [Column]

  /// More rows than this are left out.
  private static let rowLimit = 40

  private struct Column {
    let left, width: Double
    let isNumeric: Bool
  }

  /// A table laid out for a width.
  init(_ table: Picture.Table, style: SVGStyle, width: Double) {
    (self.table, self.style, self.width) = (table, style, width)
    columns = Self.columns(table, style, width)
  }

  private static let gap = 12.0

  /// As wide as their texts where that fits; otherwise the widest give way, and the last are left out
  /// where not even narrow ones fit.
  private static func columns(
    _ table: Picture.Table, _ style: SVGStyle, _ width: Double
  ) -> [Column] {
    let narrow = style.tick * 5
    let count = Swift.min(table.columns.count, Swift.max(1, Int((width + gap) / (narrow + gap))))
    let rows = table.rows.prefix(rowLimit)
    let natural = (0..<count).map { column in
      rows.map { TextFit.width(cut(text($0, column)), style.tick) }.max() ?? 0
    }
    var widths = (0..<count).map {
      Swift.max(natural[$0], TextFit.width(cut(table.columns[$0]), style.tick) * 1.1)
    }
    var excess = widths.reduce(0, +) + Double(count - 1) * gap - width
    while excess > 0.5, let widest = widths.indices.max(by: { widths[$0] < widths[$1] }),
      widths[widest] > narrow
    {
      let less = Swift.min(excess, Swift.max(1, widths[widest] * 0.1), widths[widest] - narrow)
      widths[widest] -= less
      excess -= less
    }
    var left = 0.0
    return (0..<count).map { column in
      defer { left += widths[column] + gap }
      return Column(
        left: left, width: widths[column],
        isNumeric: !rows.isEmpty && rows.allSatisfy { isNumber(text($0, column)) })
    }
  }

  private static func text(_ row: [String], _ column: Int) -> String {
    row.indices.contains(column) ? row[column] : ""
  }

  private static func cut(_ text: String) -> String { TextFit.cut(text, characters: 60) }

  private static func isNumber(_ text: String) -> Bool {
    text.isEmpty || text == "–" || text == "-"
      || text.unicodeScalars.allSatisfy { "0123456789+-−.,eE%∞ ".unicodeScalars.contains($0) }
  }

  private var lead: Double { SVGStyle.lead(style.tick) + 2 }

  private var omissions: String {
    let rows = table.rows.count - Self.rowLimit
    let missing = table.columns.count - columns.count
    return [
      rows > 0 ? "… \(rows) more \(rows == 1 ? "row" : "rows")" : "",
      missing > 0 ? "… \(missing) more \(missing == 1 ? "column" : "columns")" : "",
    ].filter { !$0.isEmpty }.joined(separator: ", ")
  }

  var height: Double {
    let lines = 1 + Swift.min(table.rows.count, Self.rowLimit) + (omissions.isEmpty ? 0 : 1)
    return Double(lines) * lead + 10
  }

  func draw(into svg: inout SVGWriter) {
    write(table.columns, y: style.tick + 1, isBold: true, into: &svg)
    svg.rule((0, lead), (tableWidth, lead), ink: SVGStyle.axis)
    var y = lead + style.tick + 3
    for row in table.rows.prefix(Self.rowLimit) {
      write(row, y: y, isBold: false, into: &svg)
      y += lead
    }
    svg.line(omissions, x: 0, y: y, size: style.tick, ink: SVGStyle.faint)
  }

  private var tableWidth: Double { columns.last.map { $0.left + $0.width } ?? width }

  private func write(
    _ row: [String], y: Double, isBold: Bool, into svg: inout SVGWriter
  ) {
    for (number, column) in columns.enumerated() {
      let whole = Self.text(row, number)
      let room = isBold ? column.width / 1.1 : column.width
      let text = TextFit.cut(whole, to: room + 0.5, style.tick)
      svg.line(
        column.isNumeric ? signedNumber(text) : text,
        x: column.isNumeric ? column.left + column.width : column.left, y: y, size: style.tick,
        anchor: column.isNumeric ? .end : .start, isBold: isBold,
        title: text == whole ? nil : whole)
    }
  }

  /// A number of a table with a true minus sign; its name in the header stays as it is.
  private func signedNumber(_ text: String) -> String {
    Self.isNumber(text) ? text.replacing("-", with: "−") : text
  }
}
