/// The tables of a byte-level byte-pair tokenizer, flat as a model file stores them.
public struct TokenizerTables: Equatable, Sendable {
  /// The raw bytes of all tokens, one after the other in the order of their ids.
  public var tokenBytes: [UInt8]
  /// Where each token's bytes start in `tokenBytes`, and behind the last token the number of bytes:
  /// one more than there are tokens.
  public var tokenOffsets: [Int32]
  /// The merges in the order of their ranks: the id of the left token, then of the right one.
  public var mergePairs: [Int32]
  /// The special tokens: texts that are found before anything is cut or merged, with their ids.
  public var special: [String: Int]

  /// The number of tokens.
  public var count: Int { max(tokenOffsets.count - 1, 0) }

  /// Tables that are at hand already; a ``Tokenizer`` made from them checks them.
  public init(
    tokenBytes: [UInt8], tokenOffsets: [Int32], mergePairs: [Int32], special: [String: Int] = [:]
  ) {
    self.tokenBytes = tokenBytes
    self.tokenOffsets = tokenOffsets
    self.mergePairs = mergePairs
    self.special = special
  }

  /// Tables from the raw bytes of each token and from merges as pairs of ids.
  ///
  /// - Parameters:
  ///   - tokens: the raw bytes of each id, not their printable form.
  ///   - merges: the pairs of ids to merge, the lowest rank first.
  ///   - special: the special tokens and their ids.
  /// - Throws: ``TokenizerError/inconsistentTables(_:)`` if a merge's id or a size is no 32-bit integer.
  public init(
    tokens: [[UInt8]], merges: [(left: Int, right: Int)], special: [String: Int] = [:]
  ) throws(TokenizerError) {
    var bytes: [UInt8] = []
    var offsets: [Int32] = [0]
    for token in tokens {
      bytes += token
      offsets.append(try narrow(bytes.count))
    }
    var pairs: [Int32] = []
    pairs.reserveCapacity(2 * merges.count)
    for merge in merges {
      pairs.append(try narrow(merge.left))
      pairs.append(try narrow(merge.right))
    }
    self.init(
      tokenBytes: bytes, tokenOffsets: offsets, mergePairs: pairs, special: special)
  }

  /// Tables from the files of a Hugging Face GPT-2 tokenizer.
  ///
  /// In these files every byte of a token is written as a printable character (a space as `Ġ`); the
  /// special tokens are plain text. `<|endoftext|>` is special wherever the vocabulary has it.
  ///
  /// - Parameters:
  ///   - vocabulary: the entries of `vocab.json`, in any order: every token and its id.
  ///   - merges: the bytes of `merges.txt`: a `#version` line, which may be missing, then a line with
  ///     two pieces and one space between them for each merge, the lowest rank first.
  ///   - special: further special tokens with their ids, whether the vocabulary has them or not.
  /// - Throws: ``TokenizerError`` naming the token or the line: ids that are not `0..<count`, a token
  ///   that is not byte-level, a merge whose pieces or result are not in the vocabulary.
  public init(
    vocabulary: VocabularyEntries, merges: [UInt8], special: [String: Int] = [:]
  ) throws(TokenizerError) {
    var (special, entries) = (special, vocabulary)
    let there = entries.ids(of: special.keys + [Self.endOfText])
    if special[Self.endOfText] == nil { special[Self.endOfText] = there[Self.endOfText] }
    for (token, id) in special.sorted(by: { $0.value < $1.value }) {
      guard let other = there[token] else {
        entries.append(token, id: id)
        continue
      }
      guard other == id else {
        throw .misplacedSpecialToken(token: token, id: id, found: vocabulary.token(of: id))
      }
    }
    let specialIDs = Set(special.values)
    let places = try entries.placesByID()

    var bytes: [UInt8] = []
    bytes.reserveCapacity(entries.textCount)
    var offsets: [Int32] = [0]
    offsets.reserveCapacity(places.count + 1)
    for (id, place) in places.enumerated() {
      let text = entries.text(at: Int(place))
      if specialIDs.contains(id) {
        bytes += text
      } else if !PrintableBytes.append(text, to: &bytes) {
        let token = String(decoding: text, as: UTF8.self)
        let stranger = token.unicodeScalars.first { PrintableBytes.byte($0.value) == nil }
        throw .notByteLevel(
          token: token, id: id, character: stranger.map { String(Character($0)) } ?? "\u{FFFD}")
      }
      offsets.append(try narrow(bytes.count))
    }
    self.init(
      tokenBytes: bytes, tokenOffsets: offsets, mergePairs: [], special: special)
    mergePairs = try pairs(in: merges)
  }

  /// ``init(vocabulary:merges:special:)`` of entries that are at hand as text.
  public init(
    vocabulary: [(String, Int)], merges: [UInt8], special: [String: Int] = [:]
  ) throws(TokenizerError) {
    var entries = VocabularyEntries()
    for (token, id) in vocabulary { entries.append(token, id: id) }
    try self.init(vocabulary: entries, merges: merges, special: special)
  }

  /// The token that ends a text, and in GPT-2 also begins it.
  public static let endOfText = "<|endoftext|>"

  /// The most merges that are taken.
  public static let mergeLimit = 1 << 20

  /// The merges of a `merges.txt` as pairs of ids.
  ///
  /// - Throws: ``TokenizerError`` naming the line.
  public func pairs(in file: [UInt8]) throws(TokenizerError) -> [Int32] {
    let index = try VocabularyIndex(self)
    var pairs: [Int32] = []
    let (newline, carriageReturn) = (UInt8(ascii: "\n"), UInt8(ascii: "\r"))
    let end = 1 + (file.lastIndex { $0 != newline && $0 != carriageReturn } ?? -1)
    var (start, number) = (0, 0)
    var (left, right): ([UInt8], [UInt8]) = ([], [])
    while start < end {
      var line = start..<(file[start..<end].firstIndex(of: newline) ?? end)
      start = line.upperBound + 1
      number += 1
      // As the reference tokenizer does, wherever such a line stands.
      if file[line].starts(with: "#version".utf8) { continue }
      guard pairs.count < 2 * Self.mergeLimit else { throw .tooManyMerges(limit: Self.mergeLimit) }
      if let last = file[line].last, last == carriageReturn {
        line = line.lowerBound..<line.upperBound - 1
      }
      let place = "line \(number)"
      let text = { (range: Range<Int>) in String(decoding: file[range], as: UTF8.self) }
      guard let space = file[line].firstIndex(of: UInt8(ascii: " ")),
        line.lowerBound < space, space + 1 < line.upperBound,
        !file[(space + 1)..<line.upperBound].contains(UInt8(ascii: " "))
      else { throw .malformedMerge(line: number, text: text(line)) }
      let pieces = (line.lowerBound..<space, space + 1..<line.upperBound)
      left.removeAll(keepingCapacity: true)
      right.removeAll(keepingCapacity: true)
      guard PrintableBytes.append(file[pieces.0], to: &left), let first = index.id(of: left) else {
        throw .unknownMergePiece(place: place, piece: text(pieces.0))
      }
      guard PrintableBytes.append(file[pieces.1], to: &right), let second = index.id(of: right)
      else { throw .unknownMergePiece(place: place, piece: text(pieces.1)) }
      guard index.id(joining: first, second) != nil else {
        throw .unknownMergeResult(place: place, left: text(pieces.0), right: text(pieces.1))
      }
      pairs.append(Int32(truncatingIfNeeded: first))
      pairs.append(Int32(truncatingIfNeeded: second))
    }
    return pairs
  }

  /// The ids of the tokens of two bytes and more that no merge makes and that are not special: no
  /// text is ever cut into them.
  ///
  /// - Throws: ``TokenizerError`` if the tables contradict themselves.
  public func tokensWithoutMerge() throws(TokenizerError) -> [Int] {
    let index = try VocabularyIndex(self)
    var isMade = [Bool](repeating: false, count: count)
    for id in special.values where isMade.indices.contains(id) { isMade[id] = true }
    for pair in stride(from: 0, to: mergePairs.count - 1, by: 2) {
      let (left, right) = (Int(mergePairs[pair]), Int(mergePairs[pair + 1]))
      guard isMade.indices.contains(left), isMade.indices.contains(right) else { continue }
      let result = index.id(
        joining: UInt32(truncatingIfNeeded: left), UInt32(truncatingIfNeeded: right))
      if let result { isMade[Int(result)] = true }
    }
    return isMade.indices.filter { !isMade[$0] && tokenOffsets[$0 + 1] - tokenOffsets[$0] > 1 }
  }
}

/// `value` as the tables store it.
private func narrow(_ value: Int) throws(TokenizerError) -> Int32 {
  guard let narrow = Int32(exactly: value) else {
    throw .inconsistentTables("\(value) is beyond 32 bits")
  }
  return narrow
}

/// GPT-2's printable alphabet: the character that stands for each byte in `vocab.json`.
///
/// The bytes 33–126, 161–172 and 174–255 are the characters of the same number; the other 68 are, in
/// ascending order, the characters from U+0100 on.
enum PrintableBytes {
  /// The byte for each scalar below U+0144, or -1.
  private static let table: [Int16] = {
    var table = [Int16](repeating: -1, count: 0x144)
    var next = 0x100
    for byte in 0..<256 {
      switch byte {
      case 33...126, 161...172, 174...255:
        table[byte] = Int16(byte)
      default:
        table[next] = Int16(byte)
        next += 1
      }
    }
    return table
  }()

  /// The byte that a character stands for, if any.
  static func byte(_ scalar: UInt32) -> UInt8? {
    guard scalar < 0x144 else { return nil }
    return UInt8(exactly: table[Int(scalar)])
  }

  /// Appends the bytes that a piece of UTF-8 text stands for; false if the text is ill-formed or one
  /// of its characters stands for no byte.
  static func append(_ piece: ArraySlice<UInt8>, to bytes: inout [UInt8]) -> Bool {
    var lead: UInt32?
    for unit in piece {
      let scalar: UInt32
      if let high = lead {
        guard unit & 0xC0 == 0x80 else { return false }
        scalar = high << 6 | UInt32(unit & 0x3F)
        lead = nil
      } else if unit < 0x80 {
        scalar = UInt32(unit)
      } else {
        // All the characters are below U+0144: two bytes of UTF-8.
        guard 0xC2...0xC5 ~= unit else { return false }
        lead = UInt32(unit & 0x1F)
        continue
      }
      guard let byte = byte(scalar) else { return false }
      bytes.append(byte)
    }
    return lead == nil
  }

  /// Whether every byte is the character that stands for it: printable ASCII.
  static func areTheirCharacters(_ bytes: ArraySlice<UInt8>) -> Bool {
    bytes.allSatisfy { 33...126 ~= $0 }
  }
}

/// Finds the id of a token by its bytes.
///
/// A special token is found too where a vocabulary writes its bytes as they are and no other token
/// has them: it can be a byte's token, a merge's piece or its result.
struct VocabularyIndex {
  private let bytes: [UInt8]
  private let offsets: [Int32]
  /// Ids by the hash of their bytes, open addressing with linear probing; `vacant` where none is.
  private var slots: [UInt32]
  private static let vacant = UInt32.max
  /// Another one each time, so that no vocabulary can be made to collide.
  private let seed = Int.random(in: Int.min...Int.max)

  /// Indexes the tokens of `tables` after checking the offsets.
  init(_ tables: TokenizerTables) throws(TokenizerError) {
    bytes = tables.tokenBytes
    offsets = tables.tokenOffsets
    guard let first = offsets.first, let last = offsets.last, first == 0, last == bytes.count else {
      throw .inconsistentTables("the token offsets do not run from 0 to \(bytes.count) bytes")
    }
    for id in 0..<offsets.count - 1 {
      guard offsets[id] <= offsets[id + 1] else {
        throw .inconsistentTables("the token offsets decrease behind id \(id)")
      }
      guard offsets[id] < offsets[id + 1] else { throw .emptyToken(id: id) }
    }
    let special = Set(tables.special.values)
    var capacity = 16
    while capacity < 2 * offsets.count { capacity *= 2 }
    slots = [UInt32](repeating: Self.vacant, count: capacity)
    for id in 0..<offsets.count - 1 where !special.contains(id) {
      if let other = insert(id) {
        throw .duplicateToken(
          token: String(decoding: bytes[range(UInt32(truncatingIfNeeded: id))], as: UTF8.self),
          first: Int(other), second: id)
      }
    }
    for id in special where offsets.indices.dropLast().contains(id) {
      let token = bytes[range(UInt32(truncatingIfNeeded: id))]
      if PrintableBytes.areTheirCharacters(token) { _ = insert(id) }
    }
  }

  /// Adds a token; if one with the same bytes is there already, that stays and is returned.
  private mutating func insert(_ id: Int) -> UInt32? {
    let token = range(UInt32(truncatingIfNeeded: id))
    var slot = hash(seed, bytes, token) & (slots.count - 1)
    while slots[slot] != Self.vacant {
      let other = range(slots[slot])
      if token.count == other.count && equal(bytes, token, bytes, other.lowerBound) {
        return slots[slot]
      }
      slot = (slot + 1) & (slots.count - 1)
    }
    slots[slot] = UInt32(truncatingIfNeeded: id)
    return nil
  }

  /// The id of the token with these bytes.
  func id(of token: [UInt8]) -> UInt32? {
    find(token, token.indices, token, 0..<0)
  }

  /// The id of the token whose bytes are those of two others, one behind the other.
  func id(joining left: UInt32, _ right: UInt32) -> UInt32? {
    find(bytes, range(left), bytes, range(right))
  }

  private func range(_ id: UInt32) -> Range<Int> {
    Int(offsets[Int(id)])..<Int(offsets[Int(id) + 1])
  }

  private func find(
    _ left: [UInt8], _ leftRange: Range<Int>, _ right: [UInt8], _ rightRange: Range<Int>
  ) -> UInt32? {
    let code = hash(hash(seed, left, leftRange), right, rightRange)
    var slot = code & (slots.count - 1)
    while slots[slot] != Self.vacant {
      let candidate = range(slots[slot])
      if candidate.count == leftRange.count + rightRange.count
        && equal(left, leftRange, bytes, candidate.lowerBound)
        && equal(right, rightRange, bytes, candidate.lowerBound + leftRange.count)
      {
        return slots[slot]
      }
      slot = (slot + 1) & (slots.count - 1)
    }
    return nil
  }

}

/// Continues a hash over some bytes; hashing two parts in turn is hashing them joined.
private func hash(_ start: Int, _ bytes: [UInt8], _ range: Range<Int>) -> Int {
  var code = UInt64(truncatingIfNeeded: start)
  for index in range {
    code = (code ^ UInt64(bytes[index])) &* 0x9E37_79B9_7F4A_7C15
    code ^= code >> 29
  }
  return Int(truncatingIfNeeded: code)
}

/// Whether two stretches of bytes are the same.
private func equal(
  _ left: [UInt8], _ range: Range<Int>, _ right: [UInt8], _ start: Int
) -> Bool {
  for offset in 0..<range.count where left[range.lowerBound + offset] != right[start + offset] {
    return false
  }
  return true
}
