/// The frame of bars, curves and points: a vertical axis of numbers, a horizontal one of numbers or
/// places, lines at the ticks, titles.
struct PlotFrame {
  /// What lies along the horizontal axis.
  enum Horizontal {
    case places([String])
    case values(ValueAxis)
  }

  /// The vertical axis.
  let y: ValueAxis
  /// The horizontal axis.
  let x: Horizontal
  /// Where the plot's left edge is, and how wide and tall the plot is.
  let left, plotWidth, plotHeight: Double
  private let titles: (x: String, y: String)
  private let style: SVGStyle
  private let width: Double

  /// A frame in a width.
  ///
  /// - Parameter proportion: how tall the plot is for its width; by default flat, and limited.
  init(
    x: Horizontal, y: ValueAxis, titles: (x: String, y: String), style: SVGStyle, width: Double,
    proportion: Double? = nil
  ) {
    (self.x, self.y, self.titles, self.style, self.width) = (x, y, titles, style, width)
    left = Self.left(y, style)
    let room = Swift.max(40, width - left - 10)
    if let proportion {
      plotWidth = Swift.min(room, 360, 360 / proportion)
      plotHeight = Swift.max(12, plotWidth * proportion)
    } else {
      plotWidth = room
      plotHeight = Swift.min(250, Swift.max(140, room * 0.5))
    }
  }

  /// The width of what the vertical axis' ticks say.
  static func left(_ y: ValueAxis, _ style: SVGStyle) -> Double {
    (y.ticks.map { TextFit.width(y.text($0), style.tick) }.max() ?? 0) + 8
  }

  /// The distance from one place to the next.
  var spacing: Double {
    switch x {
    case .places(let labels): plotWidth / Double(Swift.max(1, labels.count))
    case .values: plotWidth
    }
  }

  /// Where the plot's upper edge is: below the vertical axis' title.
  var top: Double { titles.y.isEmpty ? 6 : SVGStyle.lead(style.tick) + 6 }

  var height: Double {
    top + plotHeight + 4 + labelHeight + (titles.x.isEmpty ? 0 : SVGStyle.lead(style.tick)) + 4
  }

  private var labels: AxisLabels? {
    guard case .places(let labels) = x else { return nil }
    return AxisLabels(
      labels, spacing: spacing, size: style.tick,
      room: (left + spacing / 2, spacing / 2 + width - left - plotWidth))
  }

  private var labelHeight: Double { labels?.height ?? SVGStyle.lead(style.tick) }

  /// Where the middle of a place is.
  func horizontal(place: Int) -> Double { left + (Double(place) + 0.5) * spacing }

  /// Where a number lies along x; nil where it has no place.
  func horizontal(_ value: Double) -> Double? {
    switch x {
    case .places:
      value.isFinite ? left + (Swift.min(1e6, Swift.max(-1, value)) + 0.5) * spacing : nil
    case .values(let axis): axis.place(value).map { left + $0 * plotWidth }
    }
  }

  /// Where a number lies along y; nil where it has no place.
  func vertical(_ value: Double) -> Double? {
    y.place(value).map { top + plotHeight * (1 - $0) }
  }

  /// Draws what lies behind the data.
  func drawAxes(into svg: inout SVGWriter) {
    for tick in y.ticks {
      guard let at = vertical(tick) else { continue }
      svg.rule((left, at), (left + plotWidth, at), ink: SVGStyle.grid)
      svg.line(
        y.text(tick), x: left - 5, y: at + style.tick * 0.36, size: style.tick, anchor: .end)
    }
    let bottom = top + plotHeight
    switch x {
    case .places: labels?.draw(x: horizontal(place: 0), y: bottom + 4, into: &svg)
    case .values(let axis): drawTicks(axis, into: &svg)
    }
    drawTitle(titles.y, x: 0, y: style.tick, room: width, anchor: .start, into: &svg)
    drawTitle(
      titles.x, x: left + plotWidth / 2, y: bottom + 4 + labelHeight + style.tick,
      room: plotWidth, anchor: .middle, into: &svg)
  }

  /// Draws the plot's edges and the line at zero, above the grid and the data's areas.
  func drawEdges(into svg: inout SVGWriter) {
    let bottom = top + plotHeight
    svg.rule((left, top), (left, bottom), ink: SVGStyle.axis)
    let zero = y.isLogarithmic || y.low > 0 || y.high < 0 ? bottom : vertical(0) ?? bottom
    svg.rule((left, zero), (left + plotWidth, zero), ink: SVGStyle.axis)
    if zero < bottom - 0.5 {
      svg.rule((left, bottom), (left + plotWidth, bottom), ink: SVGStyle.grid)
    }
  }

  /// Ticks along x, of which those are written that do not touch the one before.
  private func drawTicks(_ axis: ValueAxis, into svg: inout SVGWriter) {
    let bottom = top + plotHeight
    var end = -Double.infinity
    for tick in axis.ticks {
      guard let at = horizontal(tick) else { continue }
      svg.rule((at, top), (at, bottom), ink: SVGStyle.grid)
      let text = axis.text(tick)
      let half = TextFit.width(text, style.tick) / 2
      guard at - half > end + 4, at + half <= width else { continue }
      end = at + half
      svg.line(
        text, x: at, y: bottom + 4 + style.tick, size: style.tick, anchor: .middle)
    }
  }

  private func drawTitle(
    _ title: String, x: Double, y: Double, room: Double, anchor: SVGWriter.Anchor,
    into svg: inout SVGWriter
  ) {
    let short = TextFit.cut(title, to: room, style.tick)
    svg.line(
      short, x: x, y: y, size: style.tick, anchor: anchor, ink: SVGStyle.faint,
      title: short == title ? nil : title)
  }
}
