/// The panels of a view in rows that are as wide as the picture.
struct PanelGrid {
  /// A panel laid out, and where it stands.
  private struct Place {
    let heading: Heading
    let figure: any PanelFigure
    let x, y, headingHeight: Double
  }

  private let places: [Place]
  private let style: SVGStyle
  /// What is said below all panels; empty for nothing.
  private let note: String
  /// The height of everything.
  let height: Double

  /// Panels laid out for a width.
  init(
    _ view: Picture.View, _ layout: Picture.Layout, styles: SeriesStyles, style: SVGStyle
  ) {
    self.style = style
    let panels = view.panels
    let cellStyle = CellStyle(view.scale, panels)
    if case .thumbnails(let columns) = layout, let maps = Self.maps(panels) {
      (places, height) = Self.thumbnails(panels, maps, cellStyle, columns: columns, style)
      note =
        "in each: \(maps[0].y.title) from top to bottom, \(maps[0].x.title) from left to right"
    } else {
      (places, height) = Self.rows(Self.banded(panels, cellStyle, style), cellStyle, styles, style)
      note = ""
    }
  }

  /// Draws all panels, the upper left corner at (0, 0).
  func draw(into svg: inout SVGWriter) {
    for place in places {
      svg.open(
        "g", ["transform": "translate(\(SVGWriter.number(place.x)) \(SVGWriter.number(place.y)))"])
      place.heading.draw(into: &svg)
      svg.open("g", ["transform": "translate(0 \(SVGWriter.number(place.headingHeight)))"])
      place.figure.draw(into: &svg)
      svg.close("g")
      svg.close("g")
    }
    svg.line(note, x: 0, y: height - 5, size: style.tick, ink: SVGStyle.faint)
  }

  /// What stands above a panel: its title, and its model where the title does not say it.
  private struct Heading {
    private let whole: String
    private let lines: [String]
    private let size: Double

    init(_ panel: Picture.Panel, width: Double, size: Double, lines most: Int) {
      let title = panel.title
      let model = panel.model.flatMap { title.contains($0) ? nil : $0 }
      whole = [title, model ?? ""].filter { !$0.isEmpty }.joined(separator: " · ")
      // Bold text is wider than the widths say.
      lines = TextFit.wrapped(whole, to: width / 1.12, size, lines: most)
      self.size = size
    }

    var height: Double { lines.isEmpty ? 0 : Double(lines.count) * SVGStyle.lead(size) + 2 }

    func draw(into svg: inout SVGWriter) {
      for (number, line) in lines.enumerated() {
        svg.line(
          line, x: 0, y: size + Double(number) * SVGStyle.lead(size), size: size, isBold: true,
          title: line.hasSuffix("…") ? whole : nil)
      }
    }
  }

  // MARK: rows

  /// Heat maps with text in their cells, in bands that are narrow enough to be read.
  private static func banded(
    _ panels: [Picture.Panel], _ cellStyle: CellStyle, _ style: SVGStyle
  ) -> [Picture.Panel] {
    panels.flatMap { panel -> [Picture.Panel] in
      guard case .cells(let cells) = panel.drawing, cells.texts != nil, !cells.values.isEmpty
      else { return [panel] }
      return cells.bands(style, isMany: cellStyle.isMany).enumerated().map { number, band in
        Picture.Panel(
          number == 0 ? panel.title : "", model: number == 0 ? panel.model : nil, .cells(band))
      }
    }
  }

  /// As many panels beside each other as can be read, the rows equally full.
  private static func rows(
    _ panels: [Picture.Panel], _ cellStyle: CellStyle, _ styles: SeriesStyles, _ style: SVGStyle
  ) -> ([Place], Double) {
    let drawings = panels.map(\.drawing)
    let widths = drawings.map { $0.widths(style) }
    let least = Swift.min(style.inner, widths.map(\.least).max() ?? style.inner)
    let fitting = Swift.max(1, Int((style.inner + style.gap) / (least + style.gap)))
    let rowCount = (panels.count + fitting - 1) / fitting
    let columns = Swift.max(1, (panels.count + Swift.max(1, rowCount) - 1) / Swift.max(1, rowCount))
    let share = (style.inner - Double(columns - 1) * style.gap) / Double(columns)
    let most = Swift.max(least, widths.map(\.most).max() ?? share)
    let width = Swift.min(share, Swift.max(most, columns == 1 ? share : 90))
    var (places, y) = ([Place](), 0.0)
    for start in stride(from: 0, to: panels.count, by: columns) {
      let row = panels[start..<Swift.min(panels.count, start + columns)]
      let headings = row.map { Heading($0, width: width, size: style.label, lines: 3) }
      let headingHeight = headings.map(\.height).max() ?? 0
      var tallest = 0.0
      for (column, panel) in row.enumerated() {
        let figure = panel.drawing.figure(
          style, width: width, cellStyle: cellStyle, styles: styles, panel: panel,
          span: SharedSpan(of: panel.drawing, among: drawings))
        places.append(
          Place(
            heading: headings[column], figure: figure,
            x: Double(column) * (width + style.gap), y: y, headingHeight: headingHeight))
        tallest = Swift.max(tallest, figure.height)
      }
      y += headingHeight + tallest + 8
    }
    return (places, y)
  }

  // MARK: thumbnails

  /// The heat maps of panels that are nothing else; nil where one is something else.
  private static func maps(_ panels: [Picture.Panel]) -> [Picture.Cells]? {
    let maps = panels.compactMap { panel -> Picture.Cells? in
      guard case .cells(let cells) = panel.drawing, !cells.values.isEmpty else { return nil }
      return cells
    }
    return maps.count == panels.count && !maps.isEmpty ? maps : nil
  }

  private static func thumbnails(
    _ panels: [Picture.Panel], _ maps: [Picture.Cells], _ cellStyle: CellStyle, columns: Int,
    _ style: SVGStyle
  ) -> ([Place], Double) {
    let gap = 6.0
    func width(_ columns: Int) -> Double {
      Swift.min(150, (style.inner - Double(columns - 1) * gap) / Double(columns))
    }
    // A row that would be too crowded is broken into equal parts.
    let parts = (1...Swift.max(1, columns)).first { width((columns + $0 - 1) / $0) >= 44 }
    let count = Swift.max(1, (columns + (parts ?? 1) - 1) / (parts ?? 1))
    let side = width(count)
    var (places, y) = ([Place](), 0.0)
    for start in stride(from: 0, to: panels.count, by: count) {
      var tallest = 0.0
      for index in start..<Swift.min(panels.count, start + count) {
        let heading = Heading(panels[index], width: side, size: 9, lines: 1)
        let figure = CellsFigure(
          maps[index], cellStyle, style: style, width: side, isThumbnail: true)
        places.append(
          Place(
            heading: heading, figure: figure, x: Double(index - start) * (side + gap), y: y,
            headingHeight: heading.height))
        tallest = Swift.max(tallest, heading.height + figure.height)
      }
      y += tallest + 6
    }
    return (places, y + SVGStyle.lead(style.tick) + 2)
  }
}
