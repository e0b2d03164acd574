import OrderedCollections

extension JSONValue {
  /// The value as JSON text on one line.
  public var text: String {
    switch self {
    case .null: "null"
    case .bool(let value): value ? "true" : "false"
    case .number(let number): JSONValue.text(number)
    case .string(let text): JSONValue.quoted(text)
    case .array(let values): "[" + values.map(\.text).joined(separator: ", ") + "]"
    case .object(let members):
      "{"
        + members.map { "\(JSONValue.quoted($0.key)): \($0.value.text)" }
        .joined(separator: ", ") + "}"
    }
  }

  /// The value as JSON text with a line for each member and element, two spaces a level deeper.
  public var indentedText: String { indentedText(margin: "") }

  private func indentedText(margin: String) -> String {
    let deeper = margin + "  "
    func lines(_ open: String, _ items: [String], _ close: String) -> String {
      "\(open)\n\(deeper)" + items.joined(separator: ",\n\(deeper)") + "\n\(margin)\(close)"
    }
    switch self {
    case .array(let values) where !values.isEmpty:
      return lines("[", values.map { $0.indentedText(margin: deeper) }, "]")
    case .object(let members) where !members.isEmpty:
      return lines(
        "{",
        members.map { "\(JSONValue.quoted($0.key)): \($0.value.indentedText(margin: deeper))" }, "}"
      )
    default: return text
    }
  }

  /// A whole number.
  public static func integer(_ value: Int) -> JSONValue {
    .number(JSONNumber(double: Double(value), integer: value))
  }

  /// A number, written with a fraction or an exponent.
  ///
  /// - Precondition: it is finite.
  public static func double(_ value: Double) -> JSONValue {
    precondition(value.isFinite, "JSON has no \(value)")
    let whole = value.magnitude <= 0x1p53 ? Int(exactly: value) : nil
    return .number(JSONNumber(double: value, integer: whole, isFractional: true))
  }

  private static func text(_ number: JSONNumber) -> String {
    if !number.isFractional, let integer = number.integer { return "\(integer)" }
    return "\(number.double)"
  }

  /// A text between quotation marks.
  public static func quoted(_ text: String) -> String {
    var result = "\""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\"": result += "\\\""
      case "\\": result += "\\\\"
      case "\n": result += "\\n"
      case "\t": result += "\\t"
      case "\r": result += "\\r"
      case _ where scalar.value < 0x20:
        result += "\\u00" + (scalar.value < 0x10 ? "0" : "") + String(scalar.value, radix: 16)
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result + "\""
  }
}
