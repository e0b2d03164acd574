/// A picture as an SVG file: for a paper's column, with text that can be selected.
///
/// From top to bottom: the title; the facts in small grey lines; the panels; the colour bar and the
/// names of series. The same picture gives the same bytes.
public struct SVGPicture: Sendable {
  /// The file's width in pixels; a column of a paper is about 340, a page 700.
  public var width: Double

  /// Drawing with a width.
  ///
  /// - Precondition: the width is at least 200 and at most 4000.
  public init(width: Double = 700) {
    precondition(width >= 200 && width <= 4000, "SVGPicture: width \(width), expected 200...4000")
    self.width = width
  }

  /// One view of a picture as a whole SVG document.
  ///
  /// - Precondition: the picture has a view of this number.
  public func text(_ picture: Picture, view number: Int = 0) -> String {
    precondition(
      picture.views.indices.contains(number),
      "SVGPicture: view \(number) of \(picture.views.count) in '\(picture.name)'")
    let (view, style) = (picture.views[number], SVGStyle(width: width))
    let styles = SeriesStyles(view.panels)
    let grid = PanelGrid(view, picture.layout, styles: styles, style: style)
    let legend = Legend(view, styles: styles, style: style)
    let facts = Self.facts(picture, view)
    let header = Header(title: picture.title, facts: facts, style: style)
    let height = (style.margin * 2 + header.height + grid.height + legend.height).rounded(.up)

    var svg = SVGWriter()
    let size = (SVGWriter.number(width), SVGWriter.number(height))
    svg.open(
      "svg",
      [
        "xmlns": "http://www.w3.org/2000/svg", "width": size.0, "height": size.1,
        "viewBox": "0 0 \(size.0) \(size.1)", "role": "img", "font-family": SVGStyle.fonts,
        "fill": SVGStyle.ink,
      ])
    svg.element("title", content: picture.title)
    svg.element("desc", content: facts.joined(separator: "; "))
    svg.element("rect", ["width": size.0, "height": size.1, "fill": SVGStyle.paper])
    var y = style.margin
    for (height, draw) in [
      (header.height, header.draw), (grid.height, grid.draw), (legend.height, legend.draw),
    ] {
      svg.open(
        "g", ["transform": "translate(\(SVGWriter.number(style.margin)) \(SVGWriter.number(y)))"])
      draw(&svg)
      svg.close("g")
      y += height
    }
    svg.close("svg")
    return svg.text
  }

  /// What is written below the title: the picture's facts, and which of its views this is.
  private static func facts(_ picture: Picture, _ view: Picture.View) -> [String] {
    if let prompt = view.prompt { return picture.facts + ["\(view.choice): \(prompt)"] }
    return picture.views.count > 1 ? picture.facts + [view.choice] : picture.facts
  }
}

/// The title and the facts of a picture.
private struct Header {
  private let title: [String]
  private let facts: [String]
  private let style: SVGStyle

  init(title: String, facts: [String], style: SVGStyle) {
    self.style = style
    // Bold text is wider than the widths say.
    self.title = TextFit.wrapped(title, to: style.inner / 1.12, style.title, lines: 3)
    self.facts = facts.flatMap {
      TextFit.wrapped($0, to: style.inner, style.tick, lines: 4)
    }
  }

  var height: Double {
    Double(title.count) * SVGStyle.lead(style.title)
      + Double(facts.count) * SVGStyle.lead(style.tick) + 12
  }

  func draw(into svg: inout SVGWriter) {
    var y = style.title
    for line in title {
      svg.line(line, x: 0, y: y, size: style.title, isBold: true)
      y += SVGStyle.lead(style.title)
    }
    y += style.tick - style.title + 2
    for line in facts {
      svg.line(line, x: 0, y: y, size: style.tick, ink: SVGStyle.faint)
      y += SVGStyle.lead(style.tick)
    }
  }
}
