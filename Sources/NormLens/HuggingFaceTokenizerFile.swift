import HDF5Store
import HookedGPT2

/// A `tokenizer.json` of a byte-level byte-pair tokenizer, read as a stream.
///
/// Every field that changes ids has GPT-2's value, or the file is refused by the field's name. What
/// does not change the ids of one text alone is passed over: a post-processor that only adds special
/// tokens (BOS is the model's own affair), truncation and padding, which `transformers` switches off
/// unless a call asks for them.
struct HuggingFaceTokenizerFile {
  let path: String
  /// The tokens without the added ones, unless the file lists those here, too.
  private(set) var vocabulary = VocabularyEntries()
  /// The merges as lines of a `merges.txt`.
  private(set) var merges: [UInt8] = []
  /// The tokens that are found in a text before it is cut.
  private(set) var added: [HuggingFaceAddedTokens.Token] = []
  private var found: Set<String> = []

  /// Reads a file.
  ///
  /// - Throws: `ModelSourceError` or `HDF5Error` naming the file, the place or the field.
  init(path: String) throws {
    self.path = path
    try HuggingFaceTokenizer.scan(path, text: 1 << 16) {
      (scanner: inout JSONScanner) throws(JSONError) in
      try scanner.object { (scanner: inout JSONScanner, key: String) throws(JSONError) in
        found.insert(key)
        try field(key, &scanner)
      }
    }
    for key in ["model", "pre_tokenizer", "decoder"] where !found.contains(key) {
      throw ModelSourceError.field(path: path, field: key, expected: "one", found: "missing")
    }
    for key in ["vocab", "merges"] where !found.contains("model." + key) {
      throw ModelSourceError.field(
        path: path, field: "model.\(key)", expected: "one", found: "missing")
    }
  }

  private mutating func field(_ key: String, _ scanner: inout JSONScanner) throws(JSONError) {
    switch key {
    case "version": _ = try scanner.string()
    case "truncation", "padding", "post_processor": try scanner.skipSmall()
    case "normalizer":
      try scanner.expect([.null], "a normalizer of null: another changes the text")
    case "added_tokens":
      try scanner.array { (scanner: inout JSONScanner) throws(JSONError) in
        added.append(try HuggingFaceAddedTokens.Token(&scanner, id: nil))
        try HuggingFaceAddedTokens.checkCount(added.count, scanner)
      }
    case "pre_tokenizer", "decoder":
      let isDecoder = key == "decoder"
      var types = 0
      var prefixes = 0
      try scanner.object { (scanner: inout JSONScanner, field: String) throws(JSONError) in
        switch field {
        case "type":
          types += 1
          try scanner.expect([.string("ByteLevel")], "a \(key) of type 'ByteLevel'")
        case "add_prefix_space":
          prefixes += 1
          if isDecoder { return try scanner.skipSmall() }
          try scanner.expect([.bool(false)], "'add_prefix_space' of false")
        case "use_regex":
          if isDecoder { return try scanner.skipSmall() }
          try scanner.expect([.bool(true)], "'use_regex' of true")
        case "trim_offsets": try scanner.skipSmall()
        default:
          throw scanner.fault(
            expected: "a \(key) of type 'ByteLevel' alone", found: "its field '\(field)'")
        }
      }
      // The library has no default for these.
      guard types == 1, isDecoder || prefixes == 1 else {
        throw scanner.fault(
          expected: "'type' and 'add_prefix_space' in the \(key) before this", found: "one missing")
      }
    case "model":
      try scanner.object { (scanner: inout JSONScanner, field: String) throws(JSONError) in
        found.insert("model." + field)
        try modelField(field, &scanner)
      }
    default: throw scanner.fault(expected: "no further field", found: "'\(key)'")
    }
  }

  private mutating func modelField(
    _ key: String, _ scanner: inout JSONScanner
  ) throws(JSONError) {
    switch key {
    case "type": try scanner.expect([.string("BPE")], "a model of type 'BPE'")
    case "dropout":
      try scanner.expect([.null, .integer(0), .double(0)], "'dropout' of null or 0")
    case "continuing_subword_prefix", "end_of_word_suffix":
      try scanner.expect([.null, .string("")], "'\(key)' of null or nothing")
    case "byte_fallback", "ignore_merges":
      try scanner.expect([.bool(false), .null], "'\(key)' of false")
    // No text has unknown parts: every byte is a token.
    case "unk_token", "fuse_unk": try scanner.skipSmall()
    case "vocab": try scanner.vocabulary(into: &vocabulary)
    case "merges": try readMerges(&scanner)
    default: throw scanner.fault(expected: "no further field of the model", found: "'\(key)'")
    }
  }

  /// Reads merges of the form `"a b"`, and `["a", "b"]` as newer files have them.
  private mutating func readMerges(_ scanner: inout JSONScanner) throws(JSONError) {
    var count = 0
    try scanner.array { (scanner: inout JSONScanner) throws(JSONError) in
      count += 1
      guard count <= TokenizerTables.mergeLimit else {
        throw scanner.fault(
          expected: "at most \(TokenizerTables.mergeLimit) merges", found: "another")
      }
      var pieces: [String] = []
      if scanner.isAtText {
        let line = try scanner.string()
        if line.hasPrefix("#version") { return }
        pieces = line.split(separator: " ", omittingEmptySubsequences: false).map(String.init)
      } else {
        try scanner.array { (scanner: inout JSONScanner) throws(JSONError) in
          guard pieces.count < 2 else {
            throw scanner.fault(expected: "two pieces of merge \(count)", found: "a third")
          }
          pieces.append(try scanner.string())
        }
      }
      let areWords = pieces.allSatisfy { piece in
        !piece.isEmpty && piece.utf8.allSatisfy { $0 > UInt8(ascii: " ") }
      }
      guard pieces.count == 2, areWords, !pieces[0].hasPrefix("#version") else {
        throw scanner.fault(
          expected: "two pieces without spaces as merge \(count)",
          found: pieces.isEmpty ? "none" : "'\(pieces.joined(separator: " ").prefix(60))'")
      }
      merges += pieces[0].utf8
      merges.append(UInt8(ascii: " "))
      merges += pieces[1].utf8
      merges.append(UInt8(ascii: "\n"))
    }
  }

  /// A vocabulary as a `vocab.json`, byte for byte as the reference library writes it.
  ///
  /// - Throws: `TokenizerError` where the ids are not each of `0..<count` once.
  static func vocabularyText(_ vocabulary: VocabularyEntries) throws(TokenizerError) -> [UInt8] {
    var text: [UInt8] = [UInt8(ascii: "{")]
    text.reserveCapacity(vocabulary.textCount + 12 * vocabulary.count)
    for (id, place) in try vocabulary.placesByID().enumerated() {
      if id > 0 { text.append(UInt8(ascii: ",")) }
      text.append(UInt8(ascii: "\""))
      for byte in vocabulary.text(at: Int(place)) {
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"): text += [UInt8(ascii: "\\"), byte]
        case 0x08: text += "\\b".utf8
        case 0x09: text += "\\t".utf8
        case 0x0A: text += "\\n".utf8
        case 0x0C: text += "\\f".utf8
        case 0x0D: text += "\\r".utf8
        case ..<0x20: text += ((byte < 0x10 ? "\\u000" : "\\u00") + String(byte, radix: 16)).utf8
        default: text.append(byte)
        }
      }
      text += "\":\(id)".utf8
    }
    text.append(UInt8(ascii: "}"))
    return text
  }
}

extension JSONScanner {
  /// Reads a value that must be one of a few.
  mutating func expect(_ values: [JSONValue], _ expected: String) throws(JSONError) {
    if isAtTree { throw fault(expected: expected, found: "an object or an array") }
    let start = self
    let value = try value()
    if values.contains(value) { return }
    let found: String =
      switch value {
      case .string(let text): "'\(text.prefix(60))'"
      case .bool(let flag): "\(flag)"
      case .number(let number): "\(number.integer.map(String.init) ?? "\(number.double)")"
      default: value.kindName
      }
    throw start.fault(expected: expected, found: found)
  }

  /// Reads any value of at most 65,536 parts and forgets it.
  mutating func skipSmall() throws(JSONError) {
    var left = 1 << 16
    try skip(&left)
  }

  private mutating func skip(_ left: inout Int) throws(JSONError) {
    left -= 1
    guard left > 0 else { throw fault(expected: "at most 65536 values", found: "more") }
    if isAtText {
      _ = try string()
    } else if !isAtTree {
      _ = try value()
    } else if isAtArray {
      try array { (scanner: inout JSONScanner) throws(JSONError) in try scanner.skip(&left) }
    } else {
      try object { (scanner: inout JSONScanner, _) throws(JSONError) in try scanner.skip(&left) }
    }
  }

  /// Whether text comes next.
  var isAtText: Bool { mutating get { upcoming == UInt8(ascii: "\"") } }

  private var isAtArray: Bool { mutating get { upcoming == UInt8(ascii: "[") } }

  private var isAtTree: Bool { mutating get { isAtArray || upcoming == UInt8(ascii: "{") } }
}
