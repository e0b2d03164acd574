/// The panels of a view in rows that are as wide as the picture.
struct PanelGrid {
  /// A panel laid out, and where it stands.
  private struct Place {
    let title: String
    let whole: String
    let figure: any PanelFigure
    let x, y, titleHeight, width: Double
  }

  private let places: [Place]
  private let style: SVGStyle
  /// The size of panels' titles.
  private let titleSize: Double
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
      titleSize = 9
      (places, height) = Self.thumbnails(panels, maps, cellStyle, columns: columns, style)
      note =
        "in each: \(maps[0].y.title) from top to bottom, \(maps[0].x.title) from left to right"
    } else {
      titleSize = style.label
      (places, height) = Self.rows(Self.banded(panels, cellStyle, style), cellStyle, styles, style)
      note = ""
    }
  }

  /// Draws all panels, the upper left corner at (0, 0).
  func draw(into svg: inout SVGWriter) {
    for place in places {
      svg.open(
        "g", ["transform": "translate(\(SVGWriter.number(place.x)) \(SVGWriter.number(place.y)))"])
      svg.line(
        place.title, x: 0, y: titleSize, size: titleSize, isBold: true,
        title: place.title == place.whole ? nil : place.whole)
      if place.titleHeight > 0 {
        svg.open("g", ["transform": "translate(0 \(SVGWriter.number(place.titleHeight)))"])
        place.figure.draw(into: &svg)
        svg.close("g")
      } else {
        place.figure.draw(into: &svg)
      }
      svg.close("g")
    }
    svg.line(note, x: 0, y: height - 5, size: style.tick, ink: SVGStyle.faint)
  }

  /// What stands above a panel: its title, and its model where the title does not say it.
  private static func title(_ panel: Picture.Panel) -> String {
    guard let model = panel.model, !panel.title.contains(model) else { return panel.title }
    return panel.title.isEmpty ? model : "\(panel.title) · \(model)"
  }

  private static func place(
    _ panel: Picture.Panel, _ figure: any PanelFigure, x: Double, y: Double, width: Double,
    size: Double
  ) -> Place {
    let whole = title(panel)
    // Bold text is wider than the widths say.
    let short = TextFit.cut(whole, to: width / 1.12, size)
    return Place(
      title: short, whole: whole, figure: figure, x: x, y: y,
      titleHeight: whole.isEmpty ? 0 : SVGStyle.lead(size) + 2, width: width)
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
    let widths = panels.map { $0.drawing.widths(style) }
    let least = Swift.min(style.inner, widths.map(\.least).max() ?? style.inner)
    let fitting = Swift.max(1, Int((style.inner + style.gap) / (least + style.gap)))
    let rowCount = (panels.count + fitting - 1) / fitting
    let columns = Swift.max(1, (panels.count + Swift.max(1, rowCount) - 1) / Swift.max(1, rowCount))
    let share = (style.inner - Double(columns - 1) * style.gap) / Double(columns)
    let most = Swift.max(least, widths.map(\.most).max() ?? share)
    let width = Swift.min(share, Swift.max(most, columns == 1 ? share : 90))
    var (places, y) = ([Place](), 0.0)
    for start in stride(from: 0, to: panels.count, by: columns) {
      var tallest = 0.0
      for index in start..<Swift.min(panels.count, start + columns) {
        let panel = panels[index]
        let figure = panel.drawing.figure(
          style, width: width, cellStyle: cellStyle, styles: styles, panel: panel)
        let place = place(
          panel, figure, x: Double(index - start) * (width + style.gap), y: y, width: width,
          size: style.label)
        tallest = Swift.max(tallest, figure.height + place.titleHeight)
        places.append(place)
      }
      y += tallest + 8
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
        let figure = CellsFigure(
          maps[index], cellStyle, style: style, width: side, isThumbnail: true)
        let place = place(
          panels[index], figure, x: Double(index - start) * (side + gap), y: y, width: side,
          size: 9)
        tallest = Swift.max(tallest, figure.height + place.titleHeight)
        places.append(place)
      }
      y += tallest + 6
    }
    return (places, y + SVGStyle.lead(style.tick) + 2)
  }
}
