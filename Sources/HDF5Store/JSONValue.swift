public import OrderedCollections

/// A parsed JSON value. Objects keep the order of their members.
public enum JSONValue: Sendable, Equatable {
  /// `null`.
  case null
  /// `true` or `false`.
  case bool(Bool)
  /// A number.
  case number(JSONNumber)
  /// Text.
  case string(String)
  /// Values in order.
  case array([JSONValue])
  /// Members in order; each key occurs once.
  case object(OrderedDictionary<String, JSONValue>)

  /// The member `key`, or nil if this is no object or has no such member.
  public subscript(key: String) -> JSONValue? {
    if case .object(let members) = self { members[key] } else { nil }
  }

  /// The names of an object's members, in order; nil if this is no object.
  public var keys: [String]? {
    if case .object(let members) = self { Array(members.keys) } else { nil }
  }

  /// The text, if this is text.
  public var string: String? {
    if case .string(let text) = self { text } else { nil }
  }

  /// The truth value, if this is one.
  public var bool: Bool? {
    if case .bool(let value) = self { value } else { nil }
  }

  /// The number, if this is one.
  public var double: Double? {
    if case .number(let number) = self { number.double } else { nil }
  }

  /// The whole number, if this is a number that is one exactly.
  public var integer: Int? {
    if case .number(let number) = self { number.integer } else { nil }
  }

  /// The elements, if this is an array.
  public var array: [JSONValue]? {
    if case .array(let elements) = self { elements } else { nil }
  }

  /// What kind of value this is, for messages.
  public var kindName: String {
    switch self {
    case .null: "null"
    case .bool: "true or false"
    case .number: "a number"
    case .string: "text"
    case .array: "an array"
    case .object: "an object"
    }
  }
}

/// A JSON number: as a `Double`, and exactly where it is a whole number that fits.
public struct JSONNumber: Sendable, Equatable {
  /// The nearest `Double`.
  public let double: Double
  /// The number itself where it is whole: written without fraction and exponent and within 64 bits,
  /// or written otherwise and at most 2^53 (`1e3`, `2.0`).
  public let integer: Int?
  /// Whether it is written with a fraction or an exponent: `1.0` is whole, but not so written.
  public let isFractional: Bool

  /// A number.
  public init(double: Double, integer: Int?, isFractional: Bool = false) {
    self.double = double
    self.integer = integer
    self.isFractional = isFractional
  }
}
