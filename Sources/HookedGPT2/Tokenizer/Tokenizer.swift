/// GPT-2's tokenizer: byte-level byte-pair encoding, the same ids as Hugging Face's for every text.
///
/// A text is cut at its special tokens, then into words by GPT-2's pattern, and in each word, which
/// starts as one token a byte, the pair of neighbours with the lowest rank becomes one token until no
/// pair can. Every text has tokens, and `decode(encode(text))` is `text`.
///
/// - Note: As in Hugging Face's tokenizer, a special token inside a text is that token:
///   `encode("<|endoftext|>")` is one id, not the characters `<`, `|`, `end`, …
///
/// A tokenizer is an immutable value and can be used by several threads at once.
public struct Tokenizer: Sendable {
  /// The tables that the tokenizer was made from.
  public let tables: TokenizerTables
  /// The id that begins a text, if the tokenizer has one (`bos_token_id`).
  public let bos: Int?
  /// The id that ends a text, if the tokenizer has one (`eos_token_id`).
  public let eos: Int?

  /// The token of each single byte.
  private let byteTokens: [UInt32]
  private let merges: BytePairMerges
  private let specialTokens: SpecialTokens

  /// The number of tokens; the ids are `0..<count`.
  public var count: Int { tables.count }

  /// The number of ids that a model has rows for, `count` or more: embeddings are often padded to a
  /// round number. No text has the ids from `count` on; they are shown as `<unused 50300>`.
  public let idCount: Int

  /// The special tokens and their ids.
  public var special: [String: Int] { tables.special }

  /// Makes a tokenizer from its tables.
  ///
  /// - Parameters:
  ///   - tables: the tokens, the merges and the special tokens.
  ///   - bos: the id that begins a text.
  ///   - eos: the id that ends a text.
  ///   - idCount: the number of ids of the model; that of the tokens by default.
  /// - Throws: ``TokenizerError`` if the tables contradict themselves, a byte has no token, a merge's
  ///   result is not a token, or a special id does not stand for its text.
  public init(
    tables: TokenizerTables, bos: Int?, eos: Int?, idCount: Int? = nil
  ) throws(TokenizerError) {
    self.tables = tables
    self.bos = bos
    self.eos = eos
    let count = tables.count
    self.idCount = Swift.max(idCount ?? count, count)
    let index = try VocabularyIndex(tables)
    for (role, id) in [("beginning-of-text", bos), ("end-of-text", eos)] {
      if let id, !(0..<count).contains(id) {
        throw .unknownSpecialID(role: role, id: id, count: count)
      }
    }

    var byteTokens: [UInt32] = []
    for byte in UInt8.min...UInt8.max {
      guard let id = index.id(of: [byte]) else { throw .missingByte(byte) }
      byteTokens.append(id)
    }
    self.byteTokens = byteTokens

    let pairs = tables.mergePairs
    guard pairs.count.isMultiple(of: 2) else {
      throw .inconsistentTables("the merge pairs are an odd number of ids, \(pairs.count)")
    }
    var merges = BytePairMerges()
    for rank in 0..<pairs.count / 2 {
      let (left, right) = (Int(pairs[2 * rank]), Int(pairs[2 * rank + 1]))
      for id in [left, right] where !(0..<count).contains(id) {
        throw .unknownMergePiece(place: "rank \(rank)", piece: "id \(id)")
      }
      let ids = (UInt32(truncatingIfNeeded: left), UInt32(truncatingIfNeeded: right))
      guard let result = index.id(joining: ids.0, ids.1) else {
        throw .unknownMergeResult(
          place: "rank \(rank)", left: tables.text(of: left), right: tables.text(of: right))
      }
      merges.insert(ids.0, ids.1, rank: UInt32(truncatingIfNeeded: rank), result: result)
    }
    self.merges = merges

    for (token, id) in tables.special {
      guard (0..<count).contains(id), !token.isEmpty, tables.bytes(of: id).elementsEqual(token.utf8)
      else {
        throw .misplacedSpecialToken(
          token: token, id: id, found: (0..<count).contains(id) ? tables.text(of: id) : nil)
      }
    }
    specialTokens = SpecialTokens(tables.special)
  }

  /// Makes a tokenizer from flat tables, as a model file stores them.
  ///
  /// - Parameters:
  ///   - tokenBytes: the raw bytes of all tokens in the order of their ids.
  ///   - tokenOffsets: where each token starts in `tokenBytes`, and behind the last the end.
  ///   - mergePairs: left id, right id for each merge, the lowest rank first.
  ///   - special: the special tokens and their ids.
  ///   - bos: the id that begins a text.
  ///   - eos: the id that ends a text.
  /// - Throws: ``TokenizerError`` as ``init(tables:bos:eos:)`` does.
  public init(
    tokenBytes: [UInt8], tokenOffsets: [Int32], mergePairs: [Int32], special: [String: Int],
    bos: Int?, eos: Int?
  ) throws(TokenizerError) {
    try self.init(
      tables: TokenizerTables(
        tokenBytes: tokenBytes, tokenOffsets: tokenOffsets, mergePairs: mergePairs,
        special: special),
      bos: bos, eos: eos)
  }

  /// Makes a tokenizer from the raw bytes of each id and from merges as pairs of ids.
  ///
  /// - Parameters:
  ///   - tokens: the raw bytes of each id, not their printable form.
  ///   - merges: the pairs of ids to merge, the lowest rank first.
  ///   - special: the special tokens and their ids.
  ///   - bos: the id that begins a text.
  ///   - eos: the id that ends a text.
  /// - Throws: ``TokenizerError`` as ``init(tables:bos:eos:)`` does.
  public init(
    tokens: [[UInt8]], merges: [(left: Int, right: Int)], special: [String: Int], bos: Int?,
    eos: Int?
  ) throws(TokenizerError) {
    try self.init(
      tables: TokenizerTables(tokens: tokens, merges: merges, special: special), bos: bos, eos: eos)
  }

  /// The tokens of a text; none are added at its beginning or end.
  ///
  /// - Complexity: O(*n* log *n*) in the length of the text at worst, O(*n*) for text of short words.
  public func encode(_ text: String) -> [Int] {
    encode(valid: text.utf8.span)
  }

  /// The tokens of a text in UTF-8.
  ///
  /// Each ill-formed stretch becomes U+FFFD, one for every maximal prefix of a well-formed sequence,
  /// as in Python's `bytes.decode(errors="replace")` and Rust's `String::from_utf8_lossy`.
  public func encode(utf8 bytes: [UInt8]) -> [Int] {
    encode(String(decoding: bytes, as: UTF8.self))
  }

  /// The text of some tokens; bytes that are no UTF-8, as in half a character, become U+FFFD, and an
  /// id that only pads the model's embedding `<unused 50300>`.
  ///
  /// An added token is its own text. (The `tokenizers` library would read its characters as bytes
  /// where all of them stand for one, as in `é`.)
  ///
  /// - Throws: ``TokenizerError/unknownID(id:count:)``.
  public func decode(_ ids: [Int]) throws(TokenizerError) -> String {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(4 * ids.count)
    for id in ids {
      if (count..<idCount).contains(id) {
        bytes += "<unused \(id)>".utf8
      } else {
        guard (0..<count).contains(id) else { throw .unknownID(id: id, count: idCount) }
        bytes += tables.bytes(of: id)
      }
    }
    return String(decoding: bytes, as: UTF8.self)
  }

  /// The exact bytes of some tokens.
  ///
  /// - Throws: ``TokenizerError/unknownID(id:count:)``.
  public func bytes(of ids: [Int]) throws(TokenizerError) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(4 * ids.count)
    for id in ids {
      guard (0..<count).contains(id) else { throw .unknownID(id: id, count: count) }
      bytes += tables.bytes(of: id)
    }
    return bytes
  }

  /// One token as text for display, with its leading space: TransformerLens' `to_str_tokens`.
  ///
  /// - Throws: ``TokenizerError/unknownID(id:count:)``.
  public func piece(_ id: Int) throws(TokenizerError) -> String {
    try decode([id])
  }

  /// The one token that a text is.
  ///
  /// - Throws: ``TokenizerError/notOneToken(text:pieces:suggestion:)``, which suggests the same text
  ///   with a leading space (`" Mary"`), or without one, if that is one token.
  public func singleToken(_ text: String) throws(TokenizerError) -> Int {
    let ids = encode(text)
    if ids.count == 1 { return ids[0] }
    var pieces: [String] = []
    for id in ids { pieces.append(try piece(id)) }
    let words = text.drop { $0 == " " }
    let other = text.hasPrefix(" ") ? String(words) : " " + text
    let suggestion = !words.isEmpty && encode(other).count == 1 ? other : nil
    throw .notOneToken(text: text, pieces: pieces, suggestion: suggestion)
  }

  /// The tokens of a text in valid UTF-8.
  private func encode(valid utf8: Span<UInt8>) -> [Int] {
    var output: [Int] = []
    output.reserveCapacity(utf8.count / 4 + 8)
    var word = BytePairWord()
    var recent = RecentWords(textLength: utf8.count)
    var start = 0
    while start < utf8.count {
      let special = specialTokens.next(in: utf8, from: start)
      let end = special?.range.lowerBound ?? utf8.count
      while start < end {
        let next = PreTokenizer.endOfWord(in: utf8, from: start, to: end)
        append(utf8, start..<next, to: &output, &word, &recent)
        start = next
      }
      if let special {
        output.append(special.id)
        start = special.range.upperBound
      }
    }
    return output
  }

  /// Appends the tokens of one word.
  @inline(__always)
  private func append(
    _ utf8: Span<UInt8>, _ range: Range<Int>, to output: inout [Int], _ word: inout BytePairWord,
    _ recent: inout RecentWords
  ) {
    if range.count == 1 {
      output.append(Int(byteTokens[Int(utf8[range.lowerBound])]))
      return
    }
    if range.count > RecentWords.longest {
      encodeWord(utf8, range, to: &output, &word)
      return
    }
    let key = RecentWords.Key(utf8, range)
    if let tokens = recent.tokens(of: key) {
      for place in tokens { output.append(output[place]) }
    } else {
      let start = output.count
      encodeWord(utf8, range, to: &output, &word)
      recent.remember(key, tokens: start..<output.count)
    }
  }

  /// Appends the tokens of one word by merging its bytes.
  @inline(never)
  private func encodeWord(
    _ utf8: Span<UInt8>, _ range: Range<Int>, to output: inout [Int], _ word: inout BytePairWord
  ) {
    word.tokens.removeAll(keepingCapacity: true)
    for index in range { word.tokens.append(byteTokens[Int(utf8[index])]) }
    merges.merge(&word)
    for token in word.tokens { output.append(Int(token)) }
  }
}

extension TokenizerTables {
  /// The bytes of the token `id`, which must be one of the tables'.
  func bytes(of id: Int) -> ArraySlice<UInt8> {
    tokenBytes[Int(tokenOffsets[id])..<Int(tokenOffsets[id + 1])]
  }

  /// The token `id` as text for display.
  func text(of id: Int) -> String {
    String(decoding: bytes(of: id), as: UTF8.self)
  }
}

/// Finds special tokens in a text: the leftmost, and the longest of those that start there.
private struct SpecialTokens: Sendable {
  /// The texts and ids that start with each byte, the longest text first.
  private var tokens = [[(text: [UInt8], id: Int)]](repeating: [], count: 256)
  /// Whether a special token starts with this byte.
  private var starts = [Bool](repeating: false, count: 256)
  private let isEmpty: Bool

  init(_ special: [String: Int]) {
    isEmpty = special.isEmpty
    let sorted = special.map { (text: Array($0.key.utf8), id: $0.value) }.sorted {
      ($0.text.count, $1.id) > ($1.text.count, $0.id)
    }
    for token in sorted {
      guard let first = token.text.first else { continue }
      starts[Int(first)] = true
      tokens[Int(first)].append(token)
    }
  }

  /// The first special token at or behind `start`.
  func next(in utf8: Span<UInt8>, from start: Int) -> (range: Range<Int>, id: Int)? {
    if isEmpty { return nil }
    for position in start..<utf8.count where starts[Int(utf8[position])] {
      for token in tokens[Int(utf8[position])] where token.text.count <= utf8.count - position {
        var length = 0
        while length < token.text.count && utf8[position + length] == token.text[length] {
          length += 1
        }
        if length == token.text.count { return (position..<position + length, token.id) }
      }
    }
    return nil
  }
}

/// Where in the output the tokens of recent short words are: most words of a long text are repeated.
///
/// A word replaces another that falls on its place, so that the memory is bounded.
private struct RecentWords {
  /// The longest word that is kept, in bytes.
  static let longest = 15

  /// The bytes of a word, and its length in the uppermost byte.
  struct Key {
    var low: UInt64 = 0
    var high: UInt64 = 0

    @inline(__always)
    init(_ utf8: Span<UInt8>, _ range: Range<Int>) {
      let middle = min(range.lowerBound + 8, range.upperBound)
      for index in range.lowerBound..<middle { low = low << 8 | UInt64(utf8[index]) }
      for index in middle..<range.upperBound { high = high << 8 | UInt64(utf8[index]) }
      high |= UInt64(range.count) << 56
    }
  }

  private struct Entry {
    var low: UInt64 = 0
    var high: UInt64 = 0  // 0 in a place that is vacant: no word is of length 0
    var start = 0
    var end = 0
  }

  private var entries: [Entry]
  private let shift: UInt64

  /// Room for the words of a text of `textLength` bytes, within bounds.
  init(textLength: Int) {
    var bits: UInt64 = 4
    while bits < 14 && 1 << bits < textLength / 4 { bits += 1 }
    entries = Array(repeating: Entry(), count: 1 << bits)
    shift = 64 - bits
  }

  /// The places in the output of the tokens of a word, if it is remembered.
  @inline(__always)
  func tokens(of key: Key) -> Range<Int>? {
    let entry = entries[place(key)]
    return entry.low == key.low && entry.high == key.high ? entry.start..<entry.end : nil
  }

  /// Remembers where the tokens of a word are in the output.
  @inline(__always)
  mutating func remember(_ key: Key, tokens: Range<Int>) {
    entries[place(key)] = Entry(
      low: key.low, high: key.high, start: tokens.lowerBound, end: tokens.upperBound)
  }

  @inline(__always)
  private func place(_ key: Key) -> Int {
    let mixed = (key.low ^ (key.high &* 0xD6E8_FEB8_6659_FD93)) &* 0x9E37_79B9_7F4A_7C15
    return Int(truncatingIfNeeded: mixed >> shift)
  }
}
