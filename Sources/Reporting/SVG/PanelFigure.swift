/// A panel's drawing, laid out for a width: it knows how tall it is before it is drawn.
protocol PanelFigure {
  /// The height of everything that it draws.
  var height: Double { get }
  /// Draws it, the upper left corner at (0, 0).
  func draw(into svg: inout SVGWriter)
}

extension Picture.Drawing {
  /// The least width at which it can be read, and the width beyond which it does not grow.
  func widths(_ style: SVGStyle) -> (least: Double, most: Double) {
    switch self {
    case .cells(let cells):
      let left = CellsFigure.left(cells, style)
      let columns = Double(cells.x.labels.count)
      let least = style.tick * (cells.texts == nil ? 1.2 : 4)
      return (left + columns * least, left + columns * CellsFigure.widest(cells) + 4)
    case .bars(let bars):
      let groups = Double(bars.x.labels.count)
      return (Swift.max(style.inner * 0.3, groups * style.tick * 1.2 + 40), .infinity)
    case .curves, .points: return (Swift.max(195, style.inner * 0.3), .infinity)
    case .table, .note: return (style.inner, .infinity)
    }
  }

  /// The drawing laid out for a width, its axes over the span that it shares with its neighbours.
  func figure(
    _ style: SVGStyle, width: Double, cellStyle: CellStyle, styles: SeriesStyles,
    panel: Picture.Panel, span: SharedSpan
  ) -> any PanelFigure {
    switch self {
    case .cells(let cells) where !cells.values.isEmpty:
      return CellsFigure(cells, cellStyle, style: style, width: width)
    case .bars(let bars) where !bars.x.labels.isEmpty && !bars.series.isEmpty:
      return BarsFigure(bars, style: style, width: width, styles: styles, panel: panel, span: span)
    case .curves(let curves) where !curves.x.labels.isEmpty && !curves.series.isEmpty:
      return CurvesFigure(
        curves, style: style, width: width, styles: styles, panel: panel, span: span)
    case .points(let points) where points.clouds.contains { !$0.x.isEmpty }:
      return PointsFigure(
        points, style: style, width: width, styles: styles, panel: panel, span: span)
    case .table(let table): return TableFigure(table, style: style, width: width)
    case .note(let text): return NoteFigure(text, style: style, width: width)
    case .cells, .bars, .curves, .points:
      return NoteFigure("no value: the axes are empty", style: style, width: width)
    }
  }
}

/// A sentence in a frame.
struct NoteFigure: PanelFigure {
  private let lines: [String]
  private let style: SVGStyle
  private let width: Double

  /// A sentence, wrapped to the width.
  init(_ text: String, style: SVGStyle, width: Double) {
    lines = TextFit.wrapped(text, to: width - 24, style.label, lines: 8)
    (self.style, self.width) = (style, width)
  }

  var height: Double { Double(lines.count) * SVGStyle.lead(style.label) + 22 }

  func draw(into svg: inout SVGWriter) {
    svg.element(
      "rect",
      [
        "x": "0.5", "y": "2.5", "width": SVGWriter.number(width - 1),
        "height": SVGWriter.number(height - 5), "fill": "none", "stroke": SVGStyle.axis,
        "stroke-dasharray": "4 3",
      ])
    for (number, line) in lines.enumerated() {
      svg.line(
        line, x: 12, y: 12 + style.label + Double(number) * SVGStyle.lead(style.label) - 1,
        size: style.label, ink: SVGStyle.faint)
    }
  }
}
