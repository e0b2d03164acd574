/// A picture's heat maps as text for a terminal, in the colours and between the ends that every other
/// drawing of the picture has.
///
/// A cell is two columns wide or, where its labels or texts ask for it and the width allows, wider;
/// where many cells must stand beside each other it is half a character high (`▀`). Without colours a
/// cell is its sign and a character for its size. What does not fit is counted, never dropped silently.
public struct TerminalMap: Sendable {
  /// The colours that the terminal shows.
  public var colours: TerminalColours
  /// The terminal's columns.
  public var width: Int
  /// The most rows of a map.
  public var rowLimit: Int
  /// The most maps of a picture.
  public var panelLimit: Int

  /// Maps for a terminal.
  public init(
    colours: TerminalColours, width: Int = 80, rowLimit: Int = 64, panelLimit: Int = 24
  ) {
    self.colours = colours
    self.width = Swift.max(width, 20)
    self.rowLimit = rowLimit
    self.panelLimit = panelLimit
  }

  /// The picture's first view, or why it has nothing to draw; nil where it is no heat map.
  public func text(_ picture: Picture) -> String? {
    guard let view = picture.views.first else { return nil }
    let notes = view.panels.compactMap { panel -> String? in
      guard case .note(let text) = panel.drawing else { return nil }
      return [panel.title, text].filter { !$0.isEmpty }.map(shown).joined(separator: ": ")
    }
    if notes.count == view.panels.count, !notes.isEmpty {
      return ([shown(picture.title).fitted(width)] + notes.map { "  " + $0 }).joined(
        separator: "\n")
    }
    guard let scale = view.scale else { return nil }
    let maps = view.panels.compactMap { panel -> (title: String, cells: Picture.Cells)? in
      guard case .cells(let cells) = panel.drawing else { return nil }
      return (shown(panel.title), cells)
    }
    guard let first = maps.first else { return nil }
    var lines = [shown(picture.title).fitted(width)]
    lines += picture.facts.flatMap { wrapped([shown($0)], indent: "  ") }
    if picture.views.count > 1 {
      lines += wrapped(
        ["\(shown(view.choice)); 1 of \(picture.views.count) views"], indent: "  ")
    }
    lines +=
      view.prompt.map { wrapped(["\(shown(view.choice)): \(shown($0))"], indent: "  ") } ?? []
    lines += wrapped(
      ["rows: \(shown(first.cells.y.title)), columns: \(shown(first.cells.x.title))"], indent: "  ")
    lines.append("")

    let shownMaps = maps.prefix(panelLimit)
    let style = Style(self, picture.layout, scale, shownMaps.map(\.cells))
    lines += beside(
      shownMaps.map { block(title: $0.title, $0.cells, scale, style) }, isDense: style.isHalf)
    if maps.count > shownMaps.count {
      lines.append("… \(maps.count - shownMaps.count) more maps: normlens plot draws them all")
    }
    lines += notes.flatMap { wrapped([$0], indent: "") }
    let others = view.panels.count {
      switch $0.drawing {
      case .cells, .note: false
      default: true
      }
    }
    if others > 0 { lines.append("… \(others) panels that are no heat maps: normlens plot") }
    lines.append("")
    lines.append(
      legend(scale, hasMissing: maps.contains { $0.cells.values.contains(where: \.isNaN) }))
    lines += names(shownMaps.map(\.cells), style)
    return lines.map(trimmed).joined(separator: "\n")
  }

  // MARK: Layout

  /// How wide and high the cells of a picture's maps are.
  private struct Style {
    /// Columns of a cell.
    var cell = 2
    /// Whether a line has two rows of cells.
    var isHalf = false
    /// Columns before the cells, the gap included; 0 where rows are not labelled.
    var label = 0
    /// Whether the cells' texts are written into them.
    var hasTexts = false

    init(
      _ map: TerminalMap, _ layout: Picture.Layout, _ scale: ColourScale, _ maps: [Picture.Cells]
    ) {
      let columns = maps.map(\.x.labels.count).max() ?? 0
      let rows = maps.map(\.y.labels.count).max() ?? 0
      if case .thumbnails = layout, maps.count > 1 {
        isHalf = map.colours != .none
        cell = isHalf || !scale.isSigned ? 1 : 2
        return
      }
      func widest(_ texts: [String]) -> Int { texts.map { shown($0).columnCount }.max() ?? 0 }
      label = Swift.min(14, widest(maps.flatMap(\.y.labels))) + 1
      let texts = map.colours == .none ? 0 : widest(maps.flatMap { $0.texts ?? [] })
      let wish = Swift.max(2, Swift.max(texts, widest(maps.flatMap(\.x.labels))) + 1)
      let room = (map.width - label) / Swift.max(1, columns)
      if texts > 0 && room >= 5 {
        (cell, hasTexts) = (Swift.min(wish, room, 14), true)
      } else if wish <= Swift.min(room, 12) {
        cell = wish
      } else if map.colours != .none && (room < 2 || rows > map.rowLimit) {
        (cell, isHalf) = (1, true)
      } else if room < 2 && !scale.isSigned {
        cell = 1
      }
    }
  }

  /// Lines that stand together and the columns they fill.
  private struct Block {
    var lines: [String]
    var width: Int
  }

  /// A map with its title, its rows' labels and its columns' numbers.
  private func block(
    title: String, _ cells: Picture.Cells, _ scale: ColourScale, _ style: Style
  ) -> Block {
    let columns = Swift.min(cells.x.labels.count, (width - style.label) / style.cell)
    let rows = Swift.min(cells.y.labels.count, rowLimit * (style.isHalf ? 2 : 1))
    var lines: [String] = []
    for row in stride(from: 0, to: rows, by: style.isHalf ? 2 : 1) {
      let name =
        style.label == 0
        ? ""
        : shown(cells.y.labels[row]).fitted(style.label - 1)
          .padded(style.label - 1, right: true) + " "
      let body =
        style.isHalf
        ? halves(cells, row, rows, columns, scale) : whole(cells, row, columns, scale, style)
      lines.append(name + body)
    }
    let used = style.label + columns * style.cell
    if style.label > 0 {
      let ticks = ticks(cells.x, columns, style.cell)
      if !ticks.isEmpty { lines.append(String(repeating: " ", count: style.label) + ticks) }
    }
    var widths = [used]
    func add(_ text: String) {
      widths.append(text.columnCount)
      lines.append(text)
    }
    if cells.y.labels.count > rows { add("… \(cells.y.labels.count - rows) more rows") }
    if cells.x.labels.count > columns { add("… \(cells.x.labels.count - columns) more columns") }
    if !title.isEmpty {
      let heading = title.fitted(Swift.min(width, Swift.max(used, 24)))
      widths.append(heading.columnCount)
      lines.insert(heading, at: 0)
    }
    return Block(lines: lines, width: widths.max() ?? used)
  }

  /// Blocks beside each other, as many as the width holds, and below each other.
  private func beside(_ blocks: [Block], isDense: Bool) -> [String] {
    let gap = isDense ? 2 : 3
    var lines: [String] = []
    var next = 0
    while next < blocks.count {
      var end = next + 1
      var total = blocks[next].width
      while end < blocks.count, total + gap + blocks[end].width <= width {
        total += gap + blocks[end].width
        end += 1
      }
      let row = blocks[next..<end]
      if next > 0 { lines.append("") }
      for line in 0..<(row.map(\.lines.count).max() ?? 0) {
        let parts = row.map { block in
          let text = line < block.lines.count ? block.lines[line] : ""
          return text
            + String(repeating: " ", count: Swift.max(0, block.width - plainWidth(text)))
        }
        lines.append(parts.joined(separator: String(repeating: " ", count: gap)))
      }
      next = end
    }
    return lines
  }

  // MARK: Cells

  /// One row, each cell as wide as the style says.
  private func whole(
    _ cells: Picture.Cells, _ row: Int, _ columns: Int, _ scale: ColourScale, _ style: Style
  ) -> String {
    var line = ""
    var last: ColourScale.Colour?
    for column in 0..<columns {
      let index = row * cells.x.labels.count + column
      let value = cells.values[index]
      guard colours != .none else {
        line += symbol(value, scale, width: style.cell)
        continue
      }
      let colour = scale.colour(value)
      if colour != last {
        line += colours.code(colour, isBackground: true)
        line += "\u{1B}[38;5;\(colour.isDark ? 15 : 16)m"
      }
      last = colour
      let text = value.isNaN ? "·" : style.hasTexts ? shown(cells.texts?[index] ?? "") : ""
      line += text.fitted(style.cell - (style.hasTexts ? 1 : 0)).padded(style.cell, right: false)
    }
    return line + colours.reset
  }

  /// Two rows in one line: the upper one in the letters' colour, the lower one behind them.
  private func halves(
    _ cells: Picture.Cells, _ row: Int, _ rows: Int, _ columns: Int, _ scale: ColourScale
  ) -> String {
    var line = ""
    var last: [ColourScale.Colour] = []
    for column in 0..<columns {
      let pair = (row..<Swift.min(row + 2, rows)).map {
        scale.colour(cells.values[$0 * cells.x.labels.count + column])
      }
      if pair != last {
        line += colours.code(pair[0], isBackground: false)
        if pair.count == 2 { line += colours.code(pair[1], isBackground: true) }
      }
      last = pair
      line += "▀"
    }
    return line + colours.reset
  }

  /// A cell without colours: sign and size; a dot where nothing was computed.
  private func symbol(_ value: Double, _ scale: ColourScale, width: Int) -> String {
    let text: String
    if value.isNaN {
      text = "·"
    } else if scale.isSigned {
      // Without the signs themselves among the sizes.
      let sizes = Array(" .:=*#%@")
      let share = scale.high > 0 ? Swift.min(1, Swift.abs(value) / scale.high) : 0
      let size = Int((share * Double(sizes.count - 1)).rounded())
      text = size == 0 ? " " : (value < 0 ? "-" : "+") + String(sizes[size])
    } else {
      let sizes = Array(" .:-=+*#%@")
      let size = sizes[Int((scale.fraction(value) * Double(sizes.count - 1)).rounded())]
      text = String(repeating: size, count: Swift.min(width, 2))
    }
    return text.padded(width, right: false)
  }

  // MARK: Legends

  /// Names or numbers under the columns: their labels where they fit, else numbers.
  private func ticks(_ axis: Picture.Axis, _ columns: Int, _ cell: Int) -> String {
    let labels = needsNames(axis, cell) ? axis.labels.indices.map(String.init) : axis.labels
    let texts = labels.prefix(columns).map(shown)
    let widest = texts.map(\.columnCount).max() ?? 0
    let step = (widest + cell) / cell
    return stride(from: 0, to: texts.count, by: step)
      .map { texts[$0].padded(step * cell, right: false) }.joined()
  }

  /// Whether columns have numbers because their labels do not fit below them; labels that are numbers
  /// themselves may be written at every other column only.
  private func needsNames(_ axis: Picture.Axis, _ cell: Int) -> Bool {
    axis.labels.contains { shown($0).columnCount >= cell }
      && axis.labels.contains { Int($0) == nil }
  }

  /// What the columns' numbers, or unlabelled rows and columns, stand for.
  private func names(_ maps: [Picture.Cells], _ style: Style) -> [String] {
    var axes: [Picture.Axis] = []
    func add(_ axis: Picture.Axis) {
      // Queries and keys have the same tokens.
      if !axes.contains(where: { $0.labels == axis.labels }) { axes.append(axis) }
    }
    for cells in maps {
      let isLabelled = style.label > 0
      if isLabelled
        ? needsNames(cells.x, style.cell) : cells.x.labels.contains(where: { Int($0) == nil })
      {
        add(cells.x)
      }
      if !isLabelled && cells.y.labels.contains(where: { Int($0) == nil }) { add(cells.y) }
    }
    let most = 64
    return axes.flatMap { axis in
      var words = axis.labels.prefix(most).enumerated().map { "\($0) \(shown($1))" }
      if axis.labels.count > most { words.append("… \(axis.labels.count - most) more") }
      return wrapped(["\(shown(axis.title)):"] + words, indent: "  ")
    }
  }

  /// The scale from end to end with the values there.
  private func legend(_ scale: ColourScale, hasMissing: Bool) -> String {
    let steps = colours == .none ? (scale.isSigned ? 15 : 10) : (scale.isSigned ? 11 : 9)
    var bar = ""
    for step in 0..<steps {
      let share = Double(step) / Double(steps - 1)
      let value = scale.low + (scale.high - scale.low) * share
      let isZero = scale.isSigned && 2 * step == steps - 1
      if colours == .none {
        bar += isZero ? " 0 " : symbol(value, scale, width: 2)
      } else {
        bar += colours.code(scale.colour(isZero ? 0 : value), isBackground: true)
        bar += isZero ? "\u{1B}[38;5;16m 0" : "  "
      }
    }
    let low = (scale.isClipped && scale.isSigned ? "≤" : "") + compact(scale.low)
    let high =
      (scale.isClipped ? "≥" : "") + (scale.isSigned && scale.high > 0 ? "+" : "")
      + compact(scale.high)
    let unit = scale.unit.isEmpty || scale.unit == "1" ? "" : " " + shown(scale.unit)
    let missing =
      hasMissing
      ? "   " + colours.code(ColourScale.missing, isBackground: true)
        + (colours == .none ? "" : "\u{1B}[38;5;16m") + "·" + colours.reset + " not computed" : ""
    return "\(low) \(bar)\(colours.reset) \(high)\(unit)\(missing)"
  }

  // MARK: Text

  /// Words in lines of the width; the first line is not indented.
  private func wrapped(_ words: [String], indent: String) -> [String] {
    var lines: [String] = []
    var line = words.count == 1 ? indent : ""
    for word in words.count == 1
      ? words[0].split(separator: " ", omittingEmptySubsequences: false).map(String.init) : words
    {
      let gap = line.allSatisfy { $0 == " " } ? "" : words.count == 1 ? " " : "  "
      if !gap.isEmpty, line.columnCount + gap.columnCount + word.columnCount > width {
        lines.append(line)
        line = indent + word
      } else {
        line += gap + word
      }
    }
    return lines + [line]
  }

  /// The columns of text with codes of colours in it.
  private func plainWidth(_ text: String) -> Int {
    var count = 0
    var isCode = false
    for character in text {
      if isCode {
        if character == "m" { isCode = false }
      } else if character == "\u{1B}" {
        isCode = true
      } else {
        count += String(character).columnCount
      }
    }
    return count
  }

  private func trimmed(_ line: String) -> String {
    var line = line
    while line.last == " " { line.removeLast() }
    return line
  }
}
