/// Points in the plane or in strips, with the line y = x where it is asked for.
struct PointsFigure: PanelFigure {
  private let points: Picture.Points
  private let frame: PlotFrame
  private let labels: [String]
  private let styles: SeriesStyles
  private let style: SVGStyle
  private let missing: Int

  /// From this many points on there is one path of dots for each kind, without words on hover.
  private static let dotLimit = 2000

  /// Points laid out for a width.
  init(
    _ points: Picture.Points, style: SVGStyle, width: Double, styles: SeriesStyles,
    panel: Picture.Panel, span: SharedSpan
  ) {
    (self.points, self.styles, self.style) = (points, styles, style)
    labels = points.clouds.map { SeriesStyles.label($0.name, $0.model, in: panel) }
    missing = points.clouds.reduce(0) { count, cloud in
      count + zip(cloud.x, cloud.y).filter { !($0.isFinite && $1.isFinite) }.count
    }
    frame = Self.frame(points, span, style, width)
  }

  private static func frame(
    _ points: Picture.Points, _ span: SharedSpan, _ style: SVGStyle, _ width: Double
  ) -> PlotFrame {
    let (across, up) = (span.across, span.up)
    let titles = (points.x, points.y)
    if let strips = points.strips {
      return PlotFrame(
        x: .places(strips), y: ValueAxis(covering: up, count: 5), titles: titles, style: style,
        width: width)
    }
    let ticks = Int(Swift.min(width, 360) / 60)
    if points.hasIdentityLine {
      let both = ValueAxis(covering: across + up, count: ticks)
      return PlotFrame(
        x: .values(both), y: both, titles: titles, style: style, width: width, proportion: 1)
    }
    let (x, y) = (
      ValueAxis(covering: across, count: ticks), ValueAxis(covering: up, count: 5)
    )
    return PlotFrame(x: .values(x), y: y, titles: titles, style: style, width: width)
  }

  var height: Double { frame.height + (missing > 0 ? SVGStyle.lead(style.tick) : 0) }

  func draw(into svg: inout SVGWriter) {
    frame.drawAxes(into: &svg)
    frame.drawEdges(into: &svg)
    if points.hasIdentityLine {
      svg.rule(
        (frame.left, frame.top + frame.plotHeight), (frame.left + frame.plotWidth, frame.top),
        ink: SVGStyle.axis, dash: "5 4")
    }
    let count = points.clouds.reduce(0) { $0 + $1.x.count }
    for (number, cloud) in points.clouds.enumerated() {
      if count > Self.dotLimit {
        drawDots(cloud, styles[labels[number]], into: &svg)
      } else {
        drawMarkers(cloud, labels[number], into: &svg)
      }
    }
    if missing > 0 {
      svg.line(
        "\(missing) \(missing == 1 ? "point" : "points") without a finite value not drawn",
        x: frame.left, y: frame.height + style.tick - 2, size: style.tick, ink: SVGStyle.faint)
    }
  }

  private func place(_ cloud: Picture.Points.Cloud, _ index: Int) -> (x: Double, y: Double)? {
    guard let x = frame.horizontal(cloud.x[index]), let y = frame.vertical(cloud.y[index]) else {
      return nil
    }
    return (x, y)
  }

  private func drawMarkers(
    _ cloud: Picture.Points.Cloud, _ label: String, into svg: inout SVGWriter
  ) {
    let radius = cloud.x.count > 200 ? 2 : 3.0
    svg.open(
      "g",
      [
        "fill": styles[label].colour, "fill-opacity": "0.7", "stroke": SVGStyle.paper,
        "stroke-width": "0.4",
      ])
    for index in cloud.x.indices {
      guard let at = place(cloud, index) else { continue }
      let name = [label, cloud.labels.isEmpty ? "" : cloud.labels[index]]
        .filter { !$0.isEmpty }.joined(separator: ", ")
      let values = [cloud.x[index], cloud.y[index]].map { signedText(compact($0)) }
      let numbers = points.strips == nil ? "(\(values[0]), \(values[1]))" : values[1]
      svg.element(
        "path", ["d": styles[label].marker(x: at.x, y: at.y, radius: radius)],
        title: name.isEmpty ? numbers : "\(name): \(numbers)")
    }
    svg.close("g")
  }

  /// Points of no length with round ends: a dot each, in a few bytes.
  private func drawDots(
    _ cloud: Picture.Points.Cloud, _ look: SeriesStyle, into svg: inout SVGWriter
  ) {
    var path = ""
    for index in cloud.x.indices {
      guard let at = place(cloud, index) else { continue }
      let tenths = [at.x, at.y].map { SVGWriter.number(($0 * 10).rounded() / 10) }
      path += "M\(tenths[0]) \(tenths[1])h0"
    }
    if path.isEmpty { return }
    svg.element(
      "path",
      [
        "d": path, "fill": "none", "stroke": look.colour, "stroke-width": "2.2",
        "stroke-linecap": "round", "stroke-opacity": "0.5",
      ])
  }
}
