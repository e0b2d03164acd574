/// How wide text is, and how it is cut or wrapped to a width.
///
/// Nobody knows which font a reader has; the widths are those of DejaVu Sans, the widest of the common
/// sans-serif fonts, so that text that fits by them fits everywhere.
package enum TextFit {
  /// Widths of U+0020 to U+007E in hundredths of the font size.
  private static let widths: [UInt8] = [
    32, 40, 46, 84, 64, 95, 78, 27, 39, 39, 50, 84, 32, 36, 32, 34, 64, 64, 64, 64, 64, 64, 64, 64,
    64, 64, 34, 34, 84, 84, 84, 53, 100, 68, 69, 70, 77, 63, 58, 77, 75, 29, 29, 66, 56, 86, 75, 79,
    60, 79, 69, 63, 61, 73, 68, 99, 69, 61, 69, 39, 34, 39, 84, 50, 50, 61, 63, 55, 63, 62, 35, 63,
    63, 28, 28, 58, 28, 97, 63, 61, 63, 63, 41, 52, 39, 63, 59, 82, 59, 59, 52, 64, 34, 64, 84,
  ]

  /// The width of a text in pixels.
  package static func width(_ text: String, _ size: Double) -> Double {
    text.unicodeScalars.reduce(0) { $0 + hundredths($1) } * size / 100
  }

  private static func hundredths(_ scalar: Unicode.Scalar) -> Double {
    switch scalar.value {
    case 0x20..<0x7F: Double(widths[Int(scalar.value) - 0x20])
    case 0xB7: 32
    case 0x300...0x36F, 0x200B...0x200F, 0xFE00...0xFE0F: 0
    case 0..<0x2E80: scalar == "…" ? 100 : scalar == "−" ? 84 : 75
    default: 115
    }
  }

  /// The beginning of a text that is no wider than a number of pixels, with an ellipsis where
  /// something is missing; empty where not even that fits.
  package static func cut(_ text: String, to limit: Double, _ size: Double) -> String {
    // A character may hold any number of marks that have no width.
    let isLong = text.unicodeScalars.count > 400
    if !isLong && width(text, size) <= limit { return text }
    let room = limit - size
    if room < 0 { return "" }
    var (kept, used, scalars) = ("", 0.0, 0)
    for character in text {
      used += width(String(character), size)
      scalars += character.unicodeScalars.count
      if used > room || scalars > 200 { break }
      kept.append(character)
    }
    return kept + "…"
  }

  /// The same by the number of characters, the ellipsis counted.
  package static func cut(_ text: String, characters limit: Int) -> String {
    if text.unicodeScalars.count <= limit { return text }
    let short = text.count <= limit ? text : text.prefix(limit - 1) + "…"
    let scalars = short.unicodeScalars
    return scalars.count <= 4 * limit
      ? String(short) : String(String.UnicodeScalarView(scalars.prefix(limit - 1))) + "…"
  }

  /// Lines no wider than a number of pixels, broken at blanks where there are any; the last that is
  /// allowed ends with an ellipsis where something is missing.
  package static func wrapped(
    _ text: String, to limit: Double, _ size: Double, lines most: Int
  ) -> [String] {
    var lines: [String] = []
    var rest = text.split(separator: " ", omittingEmptySubsequences: true)[...]
    while !rest.isEmpty && lines.count < most {
      if lines.count == most - 1 {
        lines.append(cut(rest.joined(separator: " "), to: limit, size))
        break
      }
      var line = String(rest.removeFirst())
      while let next = rest.first, width(line + " " + next, size) <= limit {
        line += " " + next
        rest.removeFirst()
      }
      if width(line, size) > limit {
        let head = cut(line, to: limit, size)
        let kept = head.dropLast()
        // A word as wide as the line goes on in the next.
        let left = kept.isEmpty ? "" : line.dropFirst(kept.count)
        if !left.isEmpty { rest.insert(left, at: rest.startIndex) }
        line = kept.isEmpty ? head : String(kept)
      }
      lines.append(line)
    }
    return lines
  }
}
