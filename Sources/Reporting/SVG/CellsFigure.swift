/// What the heat maps of all panels have in common.
struct CellStyle {
  /// The scale that they share.
  let scale: ColourScale
  /// Whether there are so many cells that those of a colour become one path, without words on hover.
  let isMany: Bool

  private static let cellLimit = 2000

  /// The style of the heat maps among panels.
  init(_ scale: ColourScale?, _ panels: [Picture.Panel]) {
    let counts = panels.map { panel in
      if case .cells(let cells) = panel.drawing { cells.values.count } else { 0 }
    }
    self.scale = scale ?? ColourScale(low: 0, high: 1, isSigned: false, unit: "")
    isMany = counts.reduce(0, +) > Self.cellLimit
  }
}

/// A heat map: the first row on top, a cell a value, text in the cells where there is any.
struct CellsFigure: PanelFigure {
  private let cells: Picture.Cells
  private let look: CellStyle
  private let style: SVGStyle
  private let width: Double
  private let isThumbnail: Bool
  private let left: Double
  /// A cell's width and height.
  private let cell: (width: Double, height: Double)

  /// How many colours such paths have: a step is too small to be seen.
  private static let shades = 200.0

  /// A heat map laid out for a width.
  ///
  /// - Parameter isThumbnail: whether there is no room for labels at the axes.
  init(
    _ cells: Picture.Cells, _ look: CellStyle, style: SVGStyle, width: Double,
    isThumbnail: Bool = false
  ) {
    (self.cells, self.look, self.style, self.width) = (cells, look, style, width)
    self.isThumbnail = isThumbnail
    left = isThumbnail ? 0 : Self.left(cells, style)
    let (columns, rows) = (Double(cells.x.labels.count), Double(cells.y.labels.count))
    let room = Swift.max(20, width - left - (isThumbnail ? 0 : 4))
    let most = isThumbnail ? room : Self.widest(cells)
    let tallest = 480 / rows
    if Self.isSquare(cells) {
      let side = Swift.min(room / columns, most, Swift.max(tallest, room / columns / 4))
      cell = (Self.rounded(side), Self.rounded(side))
    } else {
      let wide = Swift.min(room / columns, most)
      let high = cells.texts == nil ? Swift.max(12, wide, 88 / rows) : style.tick + 8
      let limit = cells.texts == nil ? tallest : .infinity
      cell = (Self.rounded(wide), Self.rounded(Swift.min(22, high, limit)))
    }
  }

  /// A size without digits that make files long; a thousand cells are still in their places.
  private static func rounded(_ size: Double) -> Double {
    Swift.max(1, (size * 10_000).rounded(.down)) / 10_000
  }

  /// Whether rows and columns are the same places, as in an attention pattern.
  private static func isSquare(_ cells: Picture.Cells) -> Bool {
    cells.texts == nil && cells.x.labels.count > 1 && cells.x.labels == cells.y.labels
  }

  /// The width beyond which cells do not grow.
  static func widest(_ cells: Picture.Cells) -> Double {
    cells.texts == nil ? (isSquare(cells) ? 26 : 44) : 84
  }

  /// The width of the rows' labels.
  static func left(_ cells: Picture.Cells, _ style: SVGStyle) -> Double {
    let widest = cells.y.labels.map { TextFit.width(rowText($0), style.tick) }.max() ?? 0
    return widest + 8
  }

  private static func rowText(_ label: String) -> String { TextFit.cut(label, characters: 14) }

  private var top: Double { isThumbnail ? 0 : SVGStyle.lead(style.tick) + 3 }
  private var plotWidth: Double { cell.width * Double(cells.x.labels.count) }
  private var plotHeight: Double { cell.height * Double(cells.y.labels.count) }

  private var columnLabels: AxisLabels {
    AxisLabels(
      cells.x.labels, spacing: cell.width, size: style.tick,
      room: (left + cell.width / 2, cell.width / 2 + width - left - plotWidth))
  }

  var height: Double {
    isThumbnail
      ? plotHeight
      : top + plotHeight + 3 + columnLabels.height + SVGStyle.lead(style.tick) + 4
  }

  func draw(into svg: inout SVGWriter) {
    if look.isMany { drawShades(into: &svg) } else { drawCells(into: &svg) }
    svg.element(
      "rect",
      [
        "x": SVGWriter.number(left), "y": SVGWriter.number(top),
        "width": SVGWriter.number(plotWidth), "height": SVGWriter.number(plotHeight),
        "fill": "none", "stroke": SVGStyle.axis, "stroke-width": "0.75",
      ])
    if !isThumbnail { drawLabels(into: &svg) }
  }

  private func drawLabels(into svg: inout SVGWriter) {
    let rowTitle = TextFit.cut(cells.y.title, to: width, style.tick)
    svg.line(rowTitle, x: 0, y: style.tick, size: style.tick, ink: SVGStyle.faint)
    let step = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000].first {
      cell.height * Double($0) >= style.tick * 1.1
    }
    for row in stride(from: 0, to: cells.y.labels.count, by: step ?? cells.y.labels.count) {
      let (label, text) = (cells.y.labels[row], Self.rowText(cells.y.labels[row]))
      svg.line(
        text, x: left - 5,
        y: top + (Double(row) + 0.5) * cell.height + style.tick * 0.36, size: style.tick,
        anchor: .end, title: text == label ? nil : label)
    }
    let below = top + plotHeight + 3
    let columns = columnLabels
    columns.draw(x: left + cell.width / 2, y: below, into: &svg)
    let title = TextFit.cut(cells.x.title, to: width - left, style.tick)
    let half = TextFit.width(title, style.tick) / 2
    svg.line(
      title, x: Swift.min(width - half, Swift.max(left + half, left + plotWidth / 2)),
      y: below + columns.height + style.tick, size: style.tick, anchor: .middle,
      ink: SVGStyle.faint)
  }

  // MARK: few cells

  private func drawCells(into svg: inout SVGWriter) {
    let columns = cells.x.labels.count
    svg.open("g", ["stroke": SVGStyle.paper, "stroke-width": cell.width > 8 ? "0.5" : "0"])
    for (index, value) in cells.values.enumerated() {
      let (row, column) = index.quotientAndRemainder(dividingBy: columns)
      svg.element(
        "rect",
        [
          "x": SVGWriter.number(left + Double(column) * cell.width),
          "y": SVGWriter.number(top + Double(row) * cell.height),
          "width": SVGWriter.number(cell.width), "height": SVGWriter.number(cell.height),
          "fill": look.scale.colour(value).hex,
        ], title: description(row, column))
    }
    svg.close("g")
    guard let texts = cells.texts else { return }
    for (index, text) in texts.enumerated() {
      let (row, column) = index.quotientAndRemainder(dividingBy: columns)
      drawText(text, row, column, on: look.scale.colour(cells.values[index]), into: &svg)
    }
  }

  /// `layer 3, position ·Mary: +0.412 logit`.
  private func description(_ row: Int, _ column: Int) -> String {
    let index = row * cells.x.labels.count + column
    let value = valueText(cells.values[index], isSigned: look.scale.isSigned, unit: look.scale.unit)
    let text = cells.texts.map { ", \($0[index])" } ?? ""
    return "\(cells.y.title) \(cells.y.labels[row]), \(cells.x.title) \(cells.x.labels[column])"
      + "\(text): \(value)"
  }

  private func drawText(
    _ text: String, _ row: Int, _ column: Int, on colour: ColourScale.Colour,
    into svg: inout SVGWriter
  ) {
    // A little smaller rather than cut.
    let (room, small) = (cell.width - 4, Swift.max(8, style.tick - 1.5))
    let size = TextFit.width(text, style.tick) <= room ? style.tick : small
    svg.line(
      TextFit.cut(text, to: room, size), x: left + (Double(column) + 0.5) * cell.width,
      y: top + (Double(row) + 0.5) * cell.height + size * 0.36, size: size, anchor: .middle,
      ink: colour.isDark ? "#FFFFFF" : "#000000", title: description(row, column))
  }

  // MARK: many cells

  /// All cells of a colour as one path of horizontal strokes, one for each run of equal neighbours,
  /// in units of cells.
  private func drawShades(into svg: inout SVGWriter) {
    svg.open(
      "g",
      [
        "transform":
          "translate(\(SVGWriter.number(left)) \(SVGWriter.number(top))) scale(\(cell.width) \(cell.height))",
        "fill": "none", "stroke-width": "1", "shape-rendering": "crispEdges",
      ])
    for (shade, path) in shadePaths().sorted(by: { $0.key < $1.key }) {
      let (low, high) = (look.scale.low, look.scale.high)
      let value = low + (high - low) * Double(shade) / Self.shades
      let colour = shade < 0 ? ColourScale.missing : look.scale.colour(value)
      svg.element("path", ["stroke": colour.hex, "d": path.text])
    }
    svg.close("g")
  }

  /// A path that grows, and where its pen is.
  private struct Strokes {
    var text = ""
    var pen = (x: 0, y: 0)

    /// A stroke over `length` cells of a row.
    mutating func add(_ x: Int, _ y: Int, _ length: Int) {
      // The first place is in the middle of the first row; later ones are relative.
      text += text.isEmpty ? "M\(x) \(y).5" : "m\(x - pen.x) \(y - pen.y)"
      text += "h\(length)"
      pen = (x + length, y)
    }
  }

  /// The cells by their shade; −1 for those that were not computed.
  private func shadePaths() -> [Int: Strokes] {
    let columns = cells.x.labels.count
    var paths: [Int: Strokes] = [:]
    func shade(_ index: Int) -> Int {
      let value = cells.values[index]
      return value.isNaN ? -1 : Int((look.scale.fraction(value) * Self.shades).rounded())
    }
    for row in cells.y.labels.indices {
      var start = 0
      var current = shade(row * columns)
      for column in 1..<columns + 1 {
        let next = column < columns ? shade(row * columns + column) : nil
        if next == current { continue }
        paths[current, default: Strokes()].add(start, row, column - start)
        (start, current) = (column, next ?? current)
      }
    }
    return paths
  }
}

extension Picture.Cells {
  /// The map in bands of so many columns that the text in the cells can be read; itself where there is
  /// no text or room for all.
  func bands(_ style: SVGStyle, isMany: Bool) -> [Picture.Cells] {
    guard let texts, !isMany else { return [Picture.Cells(x: x, y: y, values: values)] }
    let columns = x.labels.count
    let room = style.inner - CellsFigure.left(self, style) - 4
    let most = Swift.max(1, Int(room / (style.tick * 4)))
    if columns <= most { return [self] }
    let count = (columns + most - 1) / most
    let size = (columns + count - 1) / count
    return stride(from: 0, to: columns, by: size).map { start in
      let range = start..<Swift.min(columns, start + size)
      func part<Element>(_ all: [Element]) -> [Element] {
        y.labels.indices.flatMap { row in
          all[range.lowerBound + row * columns..<range.upperBound + row * columns]
        }
      }
      return Picture.Cells(
        x: Picture.Axis(x.title, Array(x.labels[range])), y: y, values: part(values),
        texts: part(texts))
    }
  }
}
