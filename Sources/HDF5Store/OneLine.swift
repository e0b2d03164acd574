/// Text from files, made fit for a message of one line.
package enum OneLine {
  /// The most characters of a name that a message repeats.
  private static let limit = 120

  /// The text with control characters and line ends as escapes.
  package static func escaped(_ text: String) -> String {
    guard text.unicodeScalars.contains(where: isControl) else { return text }
    var result = ""
    for scalar in text.unicodeScalars {
      if isControl(scalar) {
        result += "\\u{" + String(scalar.value, radix: 16) + "}"
      } else {
        result.unicodeScalars.append(scalar)
      }
    }
    return result
  }

  /// A name in quotation marks, cut where it is long.
  static func quoted(_ name: String) -> String {
    let scalars = name.unicodeScalars
    guard scalars.count > limit else { return "'" + escaped(name) + "'" }
    let cut = String(String.UnicodeScalarView(scalars.prefix(limit)))
    return "'" + escaped(cut) + "…' (\(name.utf8.count) bytes)"
  }

  private static func isControl(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar.value {
    case 0..<0x20, 0x7f..<0xa0, 0x2028, 0x2029: true
    // Marks that turn the direction of what follows.
    case 0x202a...0x202e, 0x2066...0x2069: true
    default: false
    }
  }
}
