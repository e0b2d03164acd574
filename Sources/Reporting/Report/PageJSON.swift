import Foundation

/// JSON that may stand inside a page's script element, whatever its strings hold.
indirect enum PageJSON {
  case null
  case bool(Bool)
  case integer(Int)
  /// Infinite numbers and NaN, which JSON lacks, become null.
  case number(Double)
  case string(String)
  case array([PageJSON])
  /// Fields in their order.
  case object([(String, PageJSON)])
  /// Text that is JSON already.
  case text(String)

  static func strings(_ values: [String]) -> PageJSON { .array(values.map(PageJSON.string)) }

  static func optional(_ value: String?) -> PageJSON { value.map(PageJSON.string) ?? .null }

  /// Numbers as base64 of little-endian float32 where that loses nothing, else of float64: `{"f4":
  /// "…"}` or `{"f8": "…"}`. NaN is kept.
  static func numbers(_ values: [Double]) -> PageJSON {
    let isSingle = values.allSatisfy { $0.isNaN || Double(Float($0)) == $0 }
    let width = isSingle ? 4 : 8
    var bytes = Data(capacity: width * values.count)
    for value in values {
      let bits = isSingle ? UInt64(Float(value).bitPattern) : value.bitPattern
      for byte in 0..<width { bytes.append(UInt8(truncatingIfNeeded: bits >> (8 * UInt64(byte)))) }
    }
    return .object([(isSingle ? "f4" : "f8", .text("\"" + bytes.base64EncodedString() + "\""))])
  }

  /// The JSON. No `<` occurs in it, so no string can end the element or begin a comment.
  var serialized: String {
    var text = ""
    write(to: &text)
    return text
  }

  private func write(to text: inout String) {
    switch self {
    case .null: text += "null"
    case .bool(let value): text += value ? "true" : "false"
    case .integer(let value): text += String(value)
    case .number(let value): text += value.isFinite ? "\(value)" : "null"
    case .string(let value): PageJSON.quote(value, to: &text)
    case .text(let value): text += value
    case .array(let values):
      text += "["
      for (place, value) in values.enumerated() {
        if place > 0 { text += "," }
        value.write(to: &text)
      }
      text += "]"
    case .object(let fields):
      text += "{"
      for (place, field) in fields.enumerated() {
        if place > 0 { text += "," }
        PageJSON.quote(field.0, to: &text)
        text += ":"
        field.1.write(to: &text)
      }
      text += "}"
    }
  }

  private static func quote(_ value: String, to text: inout String) {
    text += "\""
    for scalar in value.unicodeScalars {
      switch scalar {
      case "\"": text += "\\\""
      case "\\": text += "\\\\"
      case "\n": text += "\\n"
      case "<", "\u{2028}", "\u{2029}",
        _ where scalar.value < 32 || scalar.value == 127:
        text += String(format: "\\u%04x", Int(scalar.value))
      default: text.unicodeScalars.append(scalar)
      }
    }
    text += "\""
  }
}
