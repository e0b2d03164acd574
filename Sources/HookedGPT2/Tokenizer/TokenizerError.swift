/// What can be wrong with a tokenizer's tables, or with what a tokenizer is asked for.
///
/// `description` is one readable line.
public enum TokenizerError: Error, Equatable, Sendable, CustomStringConvertible {
  /// Two tokens of the vocabulary have one id.
  case duplicateID(id: Int, first: String, second: String)
  /// The ids of the vocabulary are not `0..<count`: this token's id lies outside, so one is missing.
  case idsNotContiguous(token: String, id: Int, count: Int)
  /// Two ids stand for the same bytes.
  case duplicateToken(token: String, first: Int, second: Int)
  /// A token holds no bytes.
  case emptyToken(id: Int)
  /// A token holds a character that GPT-2's printable alphabet of bytes does not have: the
  /// vocabulary is of another kind of tokenizer.
  case notByteLevel(token: String, id: Int, character: String)
  /// No token stands for this single byte, so that some texts could not be encoded.
  case missingByte(UInt8)
  /// A line of `merges.txt` is not two pieces with one space between them.
  case malformedMerge(line: Int, text: String)
  /// A merge has a piece that is not in the vocabulary; `place` is its line or its rank.
  case unknownMergePiece(place: String, piece: String)
  /// A merge makes a token that is not in the vocabulary; `place` is its line or its rank.
  case unknownMergeResult(place: String, left: String, right: String)
  /// There are more merges than are taken.
  case tooManyMerges(limit: Int)
  /// A special token's id does not stand for the special token's text.
  case misplacedSpecialToken(token: String, id: Int, found: String?)
  /// The beginning- or end-of-text id is not an id of the vocabulary.
  case unknownSpecialID(role: String, id: Int, count: Int)
  /// Stored tables contradict themselves.
  case inconsistentTables(String)
  /// An id to decode is not in the vocabulary.
  case unknownID(id: Int, count: Int)
  /// A text that should be one token is none or several; `suggestion` is a similar text that is one.
  case notOneToken(text: String, pieces: [String], suggestion: String?)

  /// One readable line.
  public var description: String {
    switch self {
    case .duplicateID(let id, let first, let second):
      return "vocabulary: \(quoted(first)) and \(quoted(second)) both have id \(id)"
    case .idsNotContiguous(let token, let id, let count):
      return "vocabulary: \(quoted(token)) has id \(id), but \(count) tokens need the ids "
        + "0 to \(count - 1)"
    case .duplicateToken(let token, let first, let second):
      return "vocabulary: ids \(first) and \(second) are the same token \(quoted(token))"
    case .emptyToken(let id):
      return "vocabulary: the token of id \(id) is empty"
    case .notByteLevel(let token, let id, let character):
      return "vocabulary: \(quoted(token)) (id \(id)) holds \(quoted(character)), which stands for "
        + "no byte in GPT-2's byte-level alphabet; is this another kind of tokenizer?"
    case .missingByte(let byte):
      return "vocabulary: no token stands for byte 0x\(hexadecimal(byte)), so some texts could not "
        + "be encoded"
    case .malformedMerge(let line, let text):
      return "merges: line \(line) is \(quoted(text)), not two pieces with one space between them"
    case .unknownMergePiece(let place, let piece):
      return "merges: \(place) has the piece \(quoted(piece)), which is not in the vocabulary"
    case .unknownMergeResult(let place, let left, let right):
      return "merges: \(place) joins \(quoted(left)) and \(quoted(right)), and "
        + "\(quoted(left + right)) is not in the vocabulary"
    case .tooManyMerges(let limit):
      return "merges: there are more than \(limit), the most that are taken"
    case .misplacedSpecialToken(let token, let id, let found):
      return "special token \(quoted(token)) has id \(id), which "
        + (found.map { "is \(quoted($0)) in the vocabulary" } ?? "is not in the vocabulary")
    case .unknownSpecialID(let role, let id, let count):
      return "the \(role) token has id \(id), but the tokenizer has \(count) tokens"
    case .inconsistentTables(let reason):
      return "tokenizer tables: \(reason)"
    case .unknownID(let id, let count):
      return "token id \(id) is not one of the tokenizer's 0 to \(count - 1)"
    case .notOneToken(let text, let pieces, let suggestion):
      if pieces.isEmpty { return "an empty text has no token" }
      let shown =
        pieces.prefix(8).map(quoted).joined(separator: ", ")
        + (pieces.count > 8 ? ", …" : "")
      return "\(quoted(text)) is \(pieces.count) tokens (\(shown)), not one"
        + (suggestion.map { "; \(quoted($0)) is one token" } ?? "")
    }
  }
}

/// `text` in quotation marks with control characters escaped, cut to a readable length.
private func quoted(_ text: String) -> String {
  text.count <= 60 ? text.debugDescription : String(text.prefix(60)).debugDescription + "…"
}

/// The two hexadecimal digits of `byte`.
private func hexadecimal(_ byte: UInt8) -> String {
  (byte < 16 ? "0" : "") + String(byte, radix: 16, uppercase: true)
}
