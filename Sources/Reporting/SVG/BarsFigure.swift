/// Bars from zero: a group at each place, in it a bar for each series, with whiskers.
struct BarsFigure: PanelFigure {
  private let bars: Picture.Bars
  private let frame: PlotFrame
  private let labels: [String]
  private let styles: SeriesStyles

  /// Bars laid out for a width.
  init(
    _ bars: Picture.Bars, style: SVGStyle, width: Double, styles: SeriesStyles,
    panel: Picture.Panel, span: SharedSpan
  ) {
    (self.bars, self.styles) = (bars, styles)
    labels = bars.series.map { SeriesStyles.label($0.name, $0.model, in: panel) }
    frame = PlotFrame(
      x: .places(bars.x.labels), y: ValueAxis(covering: span.up, count: 5, hasZero: true),
      titles: (bars.x.title, bars.y), style: style, width: width)
  }

  var height: Double { frame.height }

  func draw(into svg: inout SVGWriter) {
    frame.drawAxes(into: &svg)
    for (number, series) in bars.series.enumerated() {
      svg.open("g", ["fill": styles[labels[number]].colour])
      for place in bars.x.labels.indices where place < series.values.count {
        draw(series, number, place, into: &svg)
      }
      svg.close("g")
    }
    frame.drawEdges(into: &svg)
    for (number, series) in bars.series.enumerated() {
      drawWhiskers(series, number, into: &svg)
    }
  }

  /// The left edge and the width of a bar.
  private func span(_ number: Int, _ place: Int) -> (x: Double, width: Double) {
    let group = frame.spacing * (frame.spacing > 6 ? 0.78 : 1)
    let width = Swift.min(36, group / Double(bars.series.count))
    let first = frame.horizontal(place: place) - width * Double(bars.series.count) / 2
    return (first + width * Double(number), width)
  }

  private func draw(
    _ series: Picture.Series, _ number: Int, _ place: Int, into svg: inout SVGWriter
  ) {
    guard let end = frame.vertical(series.values[place]), let zero = frame.vertical(0) else {
      return
    }
    let (x, width) = span(number, place)
    let name = labels[number].isEmpty ? "" : "\(labels[number]), "
    let value = valueText(series.values[place], isSigned: true, unit: "")
    svg.element(
      "rect",
      [
        "x": SVGWriter.number(x), "y": SVGWriter.number(Swift.min(end, zero)),
        "width": SVGWriter.number(width), "height": SVGWriter.number(Swift.abs(end - zero)),
      ], title: "\(name)\(bars.x.labels[place]): \(value)")
  }

  private func drawWhiskers(_ series: Picture.Series, _ number: Int, into svg: inout SVGWriter) {
    guard let interval = series.interval else { return }
    var path = ""
    for place in bars.x.labels.indices
    where place < interval.low.count && place < interval.high.count {
      guard let low = frame.vertical(interval.low[place]),
        let high = frame.vertical(interval.high[place])
      else { continue }
      let (x, width) = span(number, place)
      let (middle, cap) = (x + width / 2, Swift.min(3, width / 3))
      let n = SVGWriter.number
      path += "M\(n(middle)) \(n(low))V\(n(high))"
      for end in [low, high] { path += "M\(n(middle - cap)) \(n(end))h\(n(2 * cap))" }
    }
    if path.isEmpty { return }
    svg.element("path", ["d": path, "fill": "none", "stroke": SVGStyle.ink])
  }
}
