/// What is wrong with a JSON text, and where.
public enum JSONError: Error, Equatable, Sendable {
  /// A place in a text.
  public struct Position: Equatable, Sendable, CustomStringConvertible {
    /// Bytes before it.
    public let offset: Int
    /// Its line, counted from 1.
    public let line: Int

    /// A place in a text.
    public init(offset: Int, line: Int) {
      self.offset = offset
      self.line = line
    }

    /// The place as people write it.
    public var description: String { "line \(line), byte \(offset)" }
  }

  /// Something else stands where the grammar, or the caller, expects `expected`.
  case unexpected(at: Position, expected: String, found: String)
  /// A key occurs twice in one object.
  case duplicateKey(at: Position, key: String)
  /// Arrays and objects are nested deeper than `limit`.
  case tooDeep(at: Position, limit: Int)
  /// There are more than `limit` of something, values say.
  case tooMany(at: Position, what: String, limit: Int)
  /// The text is longer than `limit` bytes.
  case tooLong(bytes: Int, limit: Int)
}

extension JSONError: CustomStringConvertible {
  /// The error on one line.
  public var description: String {
    switch self {
    case .unexpected(let position, let expected, let found):
      "JSON \(position): expected \(expected), found \(found)"
    case .duplicateKey(let position, let key):
      "JSON \(position): expected each key once, found \(OneLine.quoted(key)) again"
    case .tooDeep(let position, let limit):
      "JSON \(position): expected at most \(limit) levels of nesting, found more"
    case .tooMany(let position, let what, let limit):
      "JSON \(position): expected at most \(limit) \(what), found more"
    case .tooLong(let bytes, let limit):
      "JSON: expected at most \(limit) bytes, found \(bytes)"
    }
  }
}
