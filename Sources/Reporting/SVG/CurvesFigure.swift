/// Curves with their intervals as shaded bands; where a value is missing there is a gap.
struct CurvesFigure: PanelFigure {
  private let curves: Picture.Curves
  private let frame: PlotFrame
  private let labels: [String]
  private let styles: SeriesStyles
  private let style: SVGStyle

  /// Curves of more places than this have no markers, except at places that stand alone.
  private static let markerLimit = 24

  /// Curves laid out for a width.
  init(
    _ curves: Picture.Curves, style: SVGStyle, width: Double, styles: SeriesStyles,
    panel: Picture.Panel, span: SharedSpan
  ) {
    let finite = span.up.filter(\.isFinite)
    let (least, most) = (finite.min() ?? 0, finite.max() ?? 0)
    // Zero is shown where it is near.
    let hasZero = least > 0 ? least < most * 0.4 : most < 0 && most > least * 0.4
    let y = ValueAxis(
      covering: span.up, count: 5, hasZero: hasZero && !curves.isLogarithmic,
      isLogarithmic: curves.isLogarithmic)
    let room = width - PlotFrame.left(y, style)
    let x =
      curves.positions.map {
        PlotFrame.Horizontal.values(ValueAxis(covering: $0, count: Int(room / 55)))
      } ?? .places(curves.x.labels)
    (self.curves, self.styles, self.style) = (curves, styles, style)
    labels = curves.series.map { SeriesStyles.label($0.name, $0.model, in: panel) }
    let height = curves.y + (curves.isLogarithmic ? " (logarithmic)" : "")
    frame = PlotFrame(x: x, y: y, titles: (curves.x.title, height), style: style, width: width)
  }

  var height: Double { frame.height }

  func draw(into svg: inout SVGWriter) {
    frame.drawAxes(into: &svg)
    for (number, series) in curves.series.enumerated() {
      drawBand(series, styles[labels[number]], into: &svg)
    }
    frame.drawEdges(into: &svg)
    for (number, series) in curves.series.enumerated() {
      draw(series, labels[number], into: &svg)
    }
  }

  /// Where the value of a place lies; nil where it has none.
  private func point(_ values: [Double], _ place: Int) -> (x: Double, y: Double)? {
    guard place < values.count, let y = frame.vertical(values[place]) else { return nil }
    guard let positions = curves.positions else { return (frame.horizontal(place: place), y) }
    guard place < positions.count else { return nil }
    return frame.horizontal(positions[place]).map { ($0, y) }
  }

  /// The places that follow each other without a gap.
  private func runs(_ hasValue: (Int) -> Bool) -> [[Int]] {
    var runs: [[Int]] = [[]]
    for place in curves.x.labels.indices {
      if hasValue(place) {
        runs[runs.count - 1].append(place)
      } else if runs.last?.isEmpty == false {
        runs.append([])
      }
    }
    return runs.filter { !$0.isEmpty }
  }

  private func drawBand(
    _ series: Picture.Series, _ look: SeriesStyle, into svg: inout SVGWriter
  ) {
    guard let interval = series.interval else { return }
    for run in runs({ point(interval.low, $0) != nil && point(interval.high, $0) != nil }) {
      let upper = run.compactMap { point(interval.high, $0) }
      let lower = run.compactMap { point(interval.low, $0) }
      if run.count == 1 {
        svg.rule(lower[0], upper[0], ink: look.colour, width: 1.5)
      } else {
        svg.element(
          "path",
          [
            "d": Self.line(upper + lower.reversed()) + "z", "fill": look.colour,
            "fill-opacity": "0.18",
          ])
      }
    }
  }

  private func draw(_ series: Picture.Series, _ label: String, into svg: inout SVGWriter) {
    let look = styles[label]
    let runs = runs { point(series.values, $0) != nil }
    svg.open("g", ["fill": "none", "stroke": look.colour, "stroke-width": "1.75"])
    for run in runs where run.count > 1 {
      let path = Self.line(run.compactMap { point(series.values, $0) })
      if look.dash.isEmpty {
        svg.element("path", ["d": path], title: label.isEmpty ? nil : label)
      } else {
        svg.element(
          "path", ["d": path, "stroke-dasharray": look.dash], title: label.isEmpty ? nil : label)
      }
    }
    svg.close("g")
    svg.open("g", ["fill": look.colour])
    for run in runs where run.count == 1 || curves.x.labels.count <= Self.markerLimit {
      for place in run { drawMarker(series, label, place, into: &svg) }
    }
    svg.close("g")
  }

  private func drawMarker(
    _ series: Picture.Series, _ label: String, _ place: Int, into svg: inout SVGWriter
  ) {
    guard let at = point(series.values, place) else { return }
    let name = label.isEmpty ? "" : "\(label), "
    let value = valueText(series.values[place], isSigned: false, unit: "")
    let where_ = "\(curves.x.title) \(curves.x.labels[place])"
    svg.element(
      "path", ["d": styles[label].marker(x: at.x, y: at.y, radius: 2.5)],
      title: "\(name)\(where_): \(value)")
  }

  private static func line(_ points: [(x: Double, y: Double)]) -> String {
    var path = ""
    for (index, point) in points.enumerated() {
      path +=
        "\(index == 0 ? "M" : "L")\(SVGWriter.number(point.x)) \(SVGWriter.number(point.y))"
    }
    return path
  }
}
