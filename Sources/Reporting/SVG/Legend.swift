/// What stands below the panels: the colour bar with its ends, the grey of cells that were not
/// computed, the names of series.
struct Legend {
  private let scale: ColourScale?
  private let hasMissing: Bool
  private let styles: SeriesStyles
  private let style: SVGStyle

  /// The legend of a view.
  init(_ view: Picture.View, styles: SeriesStyles, style: SVGStyle) {
    var (hasCells, hasMissing) = (false, false)
    for case .cells(let cells) in view.panels.map(\.drawing) where !cells.values.isEmpty {
      hasCells = true
      hasMissing = hasMissing || cells.values.contains(where: \.isNaN)
    }
    scale = hasCells ? view.scale : nil
    (self.hasMissing, self.styles, self.style) = (hasMissing, styles, style)
  }

  private static let barHeight = 10.0
  private var barWidth: Double { Swift.min(220, style.inner * 0.5) }
  private var scaleHeight: Double {
    scale == nil ? 0 : 6 + Self.barHeight + SVGStyle.lead(style.tick) + 2
  }

  /// The height of everything.
  var height: Double {
    scaleHeight + Double(rows.count) * SVGStyle.lead(style.tick) + (rows.isEmpty ? 0 : 6)
  }

  /// Draws it, the upper left corner at (0, 0).
  func draw(into svg: inout SVGWriter) {
    if let scale { draw(scale, into: &svg) }
    for (number, row) in rows.enumerated() {
      let y = scaleHeight + 4 + Double(number) * SVGStyle.lead(style.tick) + style.tick
      for entry in row { draw(entry, y: y, into: &svg) }
    }
  }

  // MARK: the scale

  private func draw(_ scale: ColourScale, into svg: inout SVGWriter) {
    let name = scale.isSigned ? "signed-scale" : "unsigned-scale"
    svg.open("linearGradient", ["id": name])
    for (number, colour) in scale.stops.enumerated() {
      let share = Double(number) / Double(scale.stops.count - 1)
      svg.element("stop", ["offset": SVGWriter.number(share), "stop-color": colour.hex])
    }
    svg.close("linearGradient")
    svg.element(
      "rect",
      [
        "x": "0", "y": "6", "width": SVGWriter.number(barWidth),
        "height": SVGWriter.number(Self.barHeight), "fill": "url(#\(name))",
        "stroke": SVGStyle.axis, "stroke-width": "0.5",
      ])
    let y = 6 + Self.barHeight + style.tick + 2
    let ends = Self.ends(scale)
    svg.line(ends.low, x: 0, y: y, size: style.tick)
    if scale.isSigned {
      svg.line("0", x: barWidth / 2, y: y, size: style.tick, anchor: .middle)
    }
    svg.line(ends.high, x: barWidth, y: y, size: style.tick, anchor: .end)
    let unit = scale.unit == "1" ? "" : scale.unit
    let x = barWidth + 8
    let text = TextFit.cut(
      unit, to: style.inner - x - (hasMissing ? 100 : 0), style.tick)
    svg.line(
      text, x: x, y: 6 + Self.barHeight - 1, size: style.tick, title: text == unit ? nil : unit)
    if hasMissing {
      drawMissing(x: x + (text.isEmpty ? 4 : TextFit.width(text, style.tick) + 14), into: &svg)
    }
  }

  /// What the ends of a colour bar say.
  static func ends(_ scale: ColourScale) -> (low: String, high: String) {
    let high = signedText(compact(scale.high))
    let low = signedText(compact(scale.low))
    let isClippedBelow = scale.isClipped && scale.isSigned
    return (
      (isClippedBelow ? "≤ " : "") + low,
      (scale.isClipped ? "≥ " : "") + (scale.isSigned && scale.high > 0 ? "+" : "") + high
    )
  }

  private func drawMissing(x: Double, into svg: inout SVGWriter) {
    svg.element(
      "rect",
      [
        "x": SVGWriter.number(x), "y": "6", "width": "14",
        "height": SVGWriter.number(Self.barHeight), "fill": ColourScale.missing.hex,
      ])
    svg.line("not computed", x: x + 19, y: 6 + Self.barHeight - 1, size: style.tick)
  }

  // MARK: the series

  /// A name and where it stands in its row; without a number for words about intervals.
  private struct Entry {
    let number: Int?
    let text: String
    let x: Double
  }

  /// The names in rows that are as wide as the picture.
  private var rows: [[Entry]] {
    guard styles.needsLegend else { return [] }
    let names = styles.labels.enumerated().filter { !$1.isEmpty }.map {
      (number: Int?.some($0), text: $1)
    }
    let meanings = styles.intervals.map {
      (number: Int?.none, text: (styles.sample == .swatch ? "whiskers: " : "shaded: ") + $0)
    }
    var (rows, x) = ([[Entry]](), Double.infinity)
    for item in names + meanings {
      let text = TextFit.cut(item.text, to: style.inner - 30, style.tick)
      let width = (item.number == nil ? 0 : 28) + TextFit.width(text, style.tick) + 16
      if x + width - 16 > style.inner {
        rows.append([])
        x = 0
      }
      rows[rows.count - 1].append(Entry(number: item.number, text: text, x: x))
      x += width
    }
    return rows
  }

  private func draw(_ entry: Entry, y: Double, into svg: inout SVGWriter) {
    guard let number = entry.number else {
      svg.line(entry.text, x: entry.x, y: y, size: style.tick, ink: SVGStyle.faint)
      return
    }
    let look = SeriesStyle(number: number)
    let middle = y - style.tick * 0.36
    switch styles.sample {
    case .swatch:
      svg.element(
        "rect",
        [
          "x": SVGWriter.number(entry.x + 8), "y": SVGWriter.number(y - 9), "width": "14",
          "height": "10", "fill": look.colour,
        ])
    case .line:
      svg.rule(
        (entry.x, middle), (entry.x + 22, middle), ink: look.colour, width: 1.75, dash: look.dash)
      drawMarker(look, entry.x + 11, middle, into: &svg)
    case .marker: drawMarker(look, entry.x + 14, middle, into: &svg)
    }
    svg.line(entry.text, x: entry.x + 27, y: y, size: style.tick)
  }

  private func drawMarker(
    _ look: SeriesStyle, _ x: Double, _ y: Double, into svg: inout SVGWriter
  ) {
    svg.element("path", ["d": look.marker(x: x, y: y, radius: 3), "fill": look.colour])
  }
}
