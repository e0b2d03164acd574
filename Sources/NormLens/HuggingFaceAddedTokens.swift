import HDF5Store
import HookedGPT2

/// The tokens that are found in a text before it is cut, special or not, from all the files of a
/// directory that name some.
struct HuggingFaceAddedTokens {
  /// The most added tokens.
  static let limit = 1 << 16

  /// One of them, as `tokenizer.json` or `added_tokens_decoder` writes it.
  struct Token {
    var text = ""
    var id: Int?
    /// Whether it is looked for behind the others, in the normalized text.
    var isNormalized = false

    init(text: String, id: Int?) {
      self.text = text
      self.id = id
    }

    /// Reads an object with `content` and flags.
    ///
    /// - Parameter id: its id where that is no field of the object.
    init(_ scanner: inout JSONScanner, id: Int?) throws(JSONError) {
      self.id = id
      var text: String?
      try scanner.object { (scanner: inout JSONScanner, key: String) throws(JSONError) in
        switch key {
        case "content": text = try scanner.string()
        case "id" where id == nil: self.id = try scanner.integer()
        case "normalized": isNormalized = try scanner.bool()
        case "lstrip", "rstrip", "single_word":
          try scanner.expect([.bool(false)], "'\(key)' of false in an added token")
        case "special", "__type": try scanner.skipSmall()
        default:
          throw scanner.fault(expected: "no further field of an added token", found: "'\(key)'")
        }
      }
      guard let text else {
        throw scanner.fault(expected: "'content' in the added token before this", found: "none")
      }
      self.text = text
    }
  }

  /// The tokens and their ids.
  private(set) var ids: [String: Int] = [:]
  private var normalized: [Bool: [[UInt8]]] = [:]
  /// Tokens that are named without their ids: the text, the file and the field.
  private var named: [(text: String, path: String, field: String)] = []

  /// Adds tokens of a file.
  ///
  /// - Throws: `ModelSourceError.field` where they contradict each other or those added before.
  mutating func add(_ tokens: [Token], path: String) throws(ModelSourceError) {
    for token in tokens {
      // The library passes over empty ones.
      guard !token.text.isEmpty else { continue }
      guard let id = token.id else {
        named.append((token.text, path, "added token"))
        continue
      }
      if let known = ids.index(forKey: token.text) {
        let (there, other) = ids[known]
        guard other == id, there.unicodeScalars.elementsEqual(token.text.unicodeScalars) else {
          throw .field(
            path: path, field: "added token \(token.text.prefix(60))", expected: "id \(other)",
            found: "\(id)")
        }
        continue
      }
      ids[token.text] = id
      normalized[token.isNormalized, default: []].append(Array(token.text.utf8))
    }
    try checkOrder(path)
  }

  static func checkCount(_ count: Int, _ scanner: JSONScanner) throws(JSONError) {
    guard count <= limit else {
      throw scanner.fault(expected: "at most \(limit) added tokens", found: "another")
    }
  }

  /// The library looks for tokens of `normalized` false first, then for the others in what is left.
  /// Here they are looked for together, which is the same unless two of them can overlap.
  private func checkOrder(_ path: String) throws(ModelSourceError) {
    let (first, second) = (normalized[false] ?? [], normalized[true] ?? [])
    let work = first.reduce(0) { $0 + $1.count } * second.reduce(0) { $0 + $1.count }
    guard work <= 1 << 26 else {
      throw .field(
        path: path, field: "added_tokens", expected: "all with the same 'normalized'",
        found: "\(first.count) with false and \(second.count) with true")
    }
    for a in first {
      for b in second where Self.overlap(a, b) {
        let (a, b) = (String(decoding: a, as: UTF8.self), String(decoding: b, as: UTF8.self))
        throw .field(
          path: path, field: "added_tokens",
          expected: "the same 'normalized' for tokens that can overlap",
          found: "false for '\(a.prefix(60))' and true for '\(b.prefix(60))'")
      }
    }
  }

  /// Whether two texts can share characters of a third.
  private static func overlap(_ a: [UInt8], _ b: [UInt8]) -> Bool {
    // b moved along a, from its end at a's first byte to its start at a's last.
    for shift in (1 - b.count)..<a.count {
      let range = Swift.max(shift, 0)..<Swift.min(shift + b.count, a.count)
      if range.allSatisfy({ a[$0] == b[$0 - shift] }) { return true }
    }
    return false
  }

  // MARK: Files

  /// Reads `added_tokens.json`: an object of texts and ids.
  mutating func readAddedTokens(_ path: String) throws {
    var tokens: [Token] = []
    try scan(path) { (scanner: inout JSONScanner) throws(JSONError) in
      try scanner.object { (scanner: inout JSONScanner, text: String) throws(JSONError) in
        tokens.append(Token(text: text, id: try scanner.integer()))
        try Self.checkCount(tokens.count, scanner)
      }
    }
    try add(tokens, path: path)
  }

  /// The class of tokenizer that `tokenizer_config.json` names.
  private var className: String?

  /// Reads `tokenizer_config.json` or `special_tokens_map.json`: fields that name tokens.
  mutating func readConfiguration(_ path: String) throws {
    var tokens: [Token] = []
    var fields = 0
    try scan(path) { (scanner: inout JSONScanner) throws(JSONError) in
      try scanner.object { (scanner: inout JSONScanner, key: String) throws(JSONError) in
        fields += 1
        guard fields <= 4096 else {
          throw scanner.fault(expected: "at most 4096 fields", found: "another")
        }
        switch key {
        case "add_prefix_space":
          try scanner.expect([.bool(false), .null], "'add_prefix_space' of false")
        case "tokenizer_class":
          if scanner.isAtText { className = try scanner.string() } else { try scanner.skipSmall() }
        case "added_tokens_decoder":
          try scanner.object { (scanner: inout JSONScanner, id: String) throws(JSONError) in
            guard let id = Int(id) else {
              throw scanner.fault(expected: "an id as key", found: "'\(id.prefix(60))'")
            }
            tokens.append(try Token(&scanner, id: id))
            try Self.checkCount(tokens.count, scanner)
          }
        case "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token",
          "mask_token", "additional_special_tokens", "extra_special_tokens":
          try readNames(&scanner, path, key)
        default: try scanner.skipSmall()
        }
      }
    }
    try add(tokens, path: path)
  }

  /// Reads a token's text, an object with its `content`, null, or several of these.
  private mutating func readNames(
    _ scanner: inout JSONScanner, _ path: String, _ field: String
  ) throws(JSONError) {
    try Self.checkCount(named.count + 1, scanner)
    switch scanner.upcoming {
    case UInt8(ascii: "\""): named.append((try scanner.string(), path, field))
    case UInt8(ascii: "["):
      try scanner.array { (scanner: inout JSONScanner) throws(JSONError) in
        try readNames(&scanner, path, field)
      }
    case UInt8(ascii: "{"):
      if field == "extra_special_tokens" {
        try scanner.object { (scanner: inout JSONScanner, _) throws(JSONError) in
          try readNames(&scanner, path, field)
        }
      } else {
        named.append((try Token(&scanner, id: nil).text, path, field))
      }
    default: try scanner.expect([.null], "text or null as '\(field)'")
    }
  }

  private func scan(
    _ path: String, _ body: (inout JSONScanner) throws(JSONError) -> Void
  ) throws {
    // A chat template is the longest text of a configuration.
    try HuggingFaceTokenizer.scan(path, text: 1 << 20, body)
  }

  // MARK: Checks

  /// Without `tokenizer.json`, the class says what is made of `vocab.json` and `merges.txt`.
  func checkClass(_ path: String) throws(ModelSourceError) {
    let known = [
      "GPT2Tokenizer", "GPT2TokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend",
    ]
    guard let className, !known.contains(className) else { return }
    throw .field(
      path: path, field: "tokenizer_class", expected: "'GPT2Tokenizer'",
      found: "'\(className.prefix(60))'")
  }

  /// Finds the ids of the tokens that are named without one, and compares those that are known.
  ///
  /// - Throws: `ModelSourceError.field` for a token that the vocabulary has with another id, where the
  ///   library takes that one, and for one that is nowhere: the library would append it, and ids would
  ///   depend on the order of fields.
  mutating func findNamed(
    in vocabulary: VocabularyEntries, path: String
  ) throws(ModelSourceError) {
    let there = vocabulary.ids(of: named.map(\.text) + ids.keys)
    for (text, id) in ids.sorted(by: { $0.value < $1.value }) {
      guard let other = there[text], other != id else { continue }
      throw .field(
        path: path, field: "added token \(text.prefix(60))",
        expected: "id \(other), as the vocabulary has", found: "\(id)")
    }
    for (text, source, field) in named where !text.isEmpty {
      if let known = ids.index(forKey: text) {
        // Swift takes texts for equal that differ in their form of é; the library does not.
        guard ids[known].key.unicodeScalars.elementsEqual(text.unicodeScalars) else {
          throw .field(
            path: source, field: field, expected: "one form of an added token",
            found: "another form of '\(text.prefix(60))'")
        }
        continue
      }
      guard let id = there[text] else {
        throw .field(
          path: source, field: field, expected: "a token of \(path) or an added one",
          found: "'\(text.prefix(60))'")
      }
      ids[text] = id
    }
  }
}
