import Foundation
import Results

/// A number with a fixed count of decimals, as `printf` writes it.
public func fixed(_ value: Double, _ decimals: Int, signed: Bool = false) -> String {
  String(format: signed ? "%+.\(decimals)f" : "%.\(decimals)f", value)
}

/// The same where the number exists, and a dash where it does not.
func fixedOrDash(_ value: Double, _ decimals: Int, signed: Bool = false) -> String {
  value.isNaN ? "–" : fixed(value, decimals, signed: signed)
}

/// A number for a table: a few significant digits, short where it is whole.
public func compact(_ value: Double) -> String {
  if value.isNaN { return "–" }
  if value == value.rounded() && Swift.abs(value) < 1e6 { return String(format: "%.0f", value) }
  return String(format: Swift.abs(value) >= 1000 ? "%.5g" : "%.4g", value)
}

/// Three significant digits where a person can read them.
func significant(_ value: Double) -> String {
  if value.isNaN { return "–" }
  let magnitude = Swift.abs(value)
  return fixed(
    value,
    magnitude >= 100 ? 0 : magnitude >= 10 ? 1 : magnitude >= 1 ? 2 : magnitude >= 0.1 ? 3 : 4)
}

/// A share as percent with two decimals.
public func percent(_ share: Double) -> String { fixed(100 * share, 2) + "%" }

/// A byte count for people.
public func bytes(_ count: Int) -> String {
  let units = ["B", "kB", "MB", "GB", "TB"]
  var (value, unit) = (Double(count), 0)
  while value >= 1000 && unit < units.count - 1 {
    value /= 1000
    unit += 1
  }
  return unit == 0 ? "\(count) B" : "\(fixed(value, value < 10 ? 2 : 1)) \(units[unit])"
}

/// Token text on one line, between bars, with white space other than the blank spelled out.
public func shown(_ piece: String) -> String {
  var text = ""
  for scalar in piece.unicodeScalars {
    switch scalar {
    case "\n": text += "\\n"
    case "\t": text += "\\t"
    case "\r": text += "\\r"
    case _ where scalar.value < 32 || (127..<160).contains(scalar.value):
      text += "\\x" + String(format: "%02x", scalar.value)
    default: text.unicodeScalars.append(scalar)
    }
  }
  return text
}

extension String {
  /// The columns that the text fills in a terminal, counting wide characters twice.
  var columnCount: Int {
    unicodeScalars.reduce(0) { total, scalar in
      switch scalar.value {
      case 0x300...0x36F, 0x200B...0x200F, 0xFE00...0xFE0F: total
      case 0x1100...0x115F, 0x2E80...0xA4CF, 0xAC00...0xD7A3, 0xF900...0xFAFF, 0xFE30...0xFE6F,
        0xFF00...0xFF60, 0xFFE0...0xFFE6, 0x1F300...0x1F64F, 0x1F900...0x1F9FF, 0x20000...0x3FFFD:
        total + 2
      default: total + 1
      }
    }
  }

  /// The text in at most `width` columns; what is cut off is told by an ellipsis.
  func fitted(_ width: Int) -> String {
    guard columnCount > width else { return self }
    var text = ""
    for character in self {
      let next = text + String(character)
      if next.columnCount > width - 1 { break }
      text = next
    }
    return width > 0 ? text + "…" : ""
  }

  /// The text in a field of `width` columns.
  func padded(_ width: Int, right: Bool) -> String {
    let fill = String(repeating: " ", count: Swift.max(0, width - columnCount))
    return right ? fill + self : self + fill
  }
}

extension ResultGroup {
  /// The numbers of a variable; nil where there is none of the name.
  func numbers(_ name: String) -> [Double]? { self[variable: name]?.values.doubles }
}
