import Foundation

/// The text of an SVG document, element by element.
///
/// Coordinates have at most two decimals, every text is escaped, and nothing depends on when or where
/// the document is written: the same picture gives the same bytes.
struct SVGWriter {
  /// The document so far.
  private(set) var text = ""

  /// Where a text stands relative to its point.
  enum Anchor: String {
    case start, middle, end
  }

  /// Opens an element that ``close(_:)`` ends.
  mutating func open(_ name: String, _ attributes: KeyValuePairs<String, String> = [:]) {
    text += "<\(name)"
    write(attributes)
    text += ">\n"
  }

  /// Ends an element.
  mutating func close(_ name: String) { text += "</\(name)>\n" }

  /// A whole element, with what is said of it on hover.
  mutating func element(
    _ name: String, _ attributes: KeyValuePairs<String, String>, title: String? = nil
  ) {
    text += "<\(name)"
    write(attributes)
    guard let title else {
      text += "/>\n"
      return
    }
    text += "><title>\(Self.escaped(title))</title></\(name)>\n"
  }

  /// An element that holds nothing but text.
  mutating func element(_ name: String, content: String) {
    text += "<\(name)>\(Self.escaped(content))</\(name)>\n"
  }

  /// A line of text.
  ///
  /// - Parameters:
  ///   - turn: degrees, clockwise, about the point.
  ///   - title: the whole text where `content` is cut.
  mutating func line(
    _ content: String, x: Double, y: Double, size: Double, anchor: Anchor = .start,
    ink: String = SVGStyle.ink, isBold: Bool = false, turn: Double = 0, title: String? = nil
  ) {
    guard !content.isEmpty else { return }
    text += "<text"
    let (left, top) = (Self.number(x), Self.number(y))
    if turn == 0 {
      write(["x": left, "y": top])
    } else {
      write(["transform": "translate(\(left) \(top)) rotate(\(Self.number(turn)))"])
    }
    write(["font-size": Self.number(size)])
    if anchor != .start { write(["text-anchor": anchor.rawValue]) }
    if isBold { write(["font-weight": "bold"]) }
    if ink != SVGStyle.ink { write(["fill": ink]) }
    let whole = title.map { "<title>\(Self.escaped($0))</title>" } ?? ""
    text += ">\(whole)\(Self.escaped(content))</text>\n"
  }

  /// A straight line.
  mutating func rule(
    _ from: (x: Double, y: Double), _ to: (x: Double, y: Double), ink: String,
    width: Double = 1, dash: String = ""
  ) {
    text += "<line"
    write([
      "x1": Self.number(from.x), "y1": Self.number(from.y), "x2": Self.number(to.x),
      "y2": Self.number(to.y), "stroke": ink,
    ])
    if width != 1 { write(["stroke-width": Self.number(width)]) }
    if !dash.isEmpty { write(["stroke-dasharray": dash]) }
    text += "/>\n"
  }

  private mutating func write(_ attributes: KeyValuePairs<String, String>) {
    for (name, value) in attributes { text += " \(name)=\"\(Self.escaped(value))\"" }
  }

  /// A coordinate with at most two decimals.
  ///
  /// - Precondition: it is finite, and less than 10⁹ in size.
  static func number(_ value: Double) -> String {
    precondition(
      value.isFinite && Swift.abs(value) < 1e9, "SVGWriter: \(value) is no coordinate")
    let hundredths = Int((value * 100).rounded())
    let (whole, part) = Swift.abs(hundredths).quotientAndRemainder(dividingBy: 100)
    let sign = hundredths < 0 ? "-" : ""
    if part == 0 { return "\(sign)\(whole)" }
    return part % 10 == 0
      ? "\(sign)\(whole).\(part / 10)" : "\(sign)\(whole).\(part < 10 ? "0" : "")\(part)"
  }

  /// Text as XML has it. Control characters, which XML cannot hold, become the pictures that Unicode
  /// has of them; marks that turn the direction of what follows, and what is no character, are
  /// replaced.
  static func escaped(_ text: String) -> String {
    let isPlain = text.utf8.allSatisfy {
      $0 >= 0x20 && $0 < 0x7F && !"&<>\"".utf8.contains($0)
    }
    if isPlain { return text }
    var result = String.UnicodeScalarView()
    for scalar in text.unicodeScalars {
      switch scalar.value {
      case 0x26: result.append(contentsOf: "&amp;".unicodeScalars)
      case 0x3C: result.append(contentsOf: "&lt;".unicodeScalars)
      case 0x3E: result.append(contentsOf: "&gt;".unicodeScalars)
      case 0x22: result.append(contentsOf: "&quot;".unicodeScalars)
      case 0..<0x20: result.append(Unicode.Scalar(0x2400 + scalar.value) ?? "\u{FFFD}")
      case 0x7F: result.append("\u{2421}")
      case 0x80..<0xA0, 0x2028, 0x2029, 0x202A...0x202E, 0x2066...0x2069, 0xFFFE, 0xFFFF,
        _ where scalar.properties.isNoncharacterCodePoint:
        result.append("\u{FFFD}")
      default: result.append(scalar)
      }
    }
    return String(result)
  }
}
