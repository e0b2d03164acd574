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
  public var description: String { "\(place): expected \(expected), found \(found)" }

  /// Where it is: the line and the bytes before.
  public var place: String {
    switch self {
    case .unexpected(let position, _, _), .duplicateKey(let position, _),
      .tooDeep(let position, _), .tooMany(let position, _, _):
      "JSON \(position)"
    case .tooLong: "JSON"
    }
  }

  /// What should stand there.
  public var expected: String {
    switch self {
    case .unexpected(_, let expected, _): expected
    case .duplicateKey: "each key once"
    case .tooDeep(_, let limit): "at most \(limit) levels of nesting"
    case .tooMany(_, let what, let limit): "at most \(limit) \(what)"
    case .tooLong(_, let limit): "at most \(limit) bytes"
    }
  }

  /// What stands there.
  public var found: String {
    switch self {
    case .unexpected(_, _, let found): found
    case .duplicateKey(_, let key): "\(OneLine.quoted(key)) again"
    case .tooDeep, .tooMany: "more"
    case .tooLong(let bytes, _): "\(bytes)"
    }
  }
}
