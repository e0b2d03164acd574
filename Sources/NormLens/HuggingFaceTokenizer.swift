import HDF5Store
import HookedGPT2

/// Reads the tokenizer of a checkpoint directory: `tokenizer.json`, or `vocab.json` and `merges.txt`,
/// and the files beside them that add tokens.
///
/// Where both forms are there, `tokenizer.json` is read, as the reference library does, and the other
/// files must say the same. What would change ids and is not honoured is refused by name.
enum HuggingFaceTokenizer {
  /// The most bytes of a file that are read.
  static let sizeLimit = 64 << 20
  /// The most tokens of a vocabulary.
  static let tokenLimit = 1 << 19
  /// The most bytes of all its tokens, as they are written.
  static let textLimit = 16 << 20
  /// The most elements and members that a file may have: they are read one by one, into tables with
  /// limits of their own.
  static let valueLimit = 16 << 20

  /// What is read of a directory.
  static let fileNames = [
    "tokenizer.json", "vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json",
    "tokenizer_config.json",
  ]

  /// A vocabulary and its merges, as either form of the files has them.
  private struct Source {
    /// The file of the tokens.
    var path: String
    var vocabulary: VocabularyEntries
    /// The file of the merges.
    var mergesPath: String
    /// The merges as lines.
    var merges: [UInt8]
  }

  /// The tokenizer of a directory; nil where it has none.
  ///
  /// - Parameter special: gets the tokens that are found in a text before it is cut.
  static func read(
    _ directory: String, _ special: inout Checkpoint.SpecialTokens
  ) throws -> TokenizerPayload? {
    func path(_ name: String) -> String? {
      let path = "\(directory)/\(name)"
      return PathKind(path) == .missing ? nil : path
    }
    let (whole, vocab, merges) = (path("tokenizer.json"), path("vocab.json"), path("merges.txt"))
    guard let first = whole ?? vocab ?? merges else { return nil }

    var added = HuggingFaceAddedTokens()
    let source: Source
    // The files as they are published; without them, as the reference library would write them.
    var (vocabBytes, mergesBytes): ([UInt8]?, [UInt8]?)
    if let whole {
      let file = try HuggingFaceTokenizerFile(path: whole)
      source = Source(
        path: whole, vocabulary: file.vocabulary, mergesPath: whole, merges: file.merges)
      try added.add(file.added, path: whole)
      if let vocab { vocabBytes = try readBytes(vocab) }
      if let merges { mergesBytes = try readBytes(merges) }
    } else {
      guard let vocab, let merges else {
        throw ModelSourceError.noCheckpoint(
          directory: directory, expected: "vocab.json and merges.txt, found only \(first)")
      }
      let (tokens, lines) = (try readBytes(vocab), try readBytes(merges))
      (vocabBytes, mergesBytes) = (tokens, lines)
      source = Source(
        path: vocab, vocabulary: try vocabulary(tokens, vocab), mergesPath: merges, merges: lines)
    }
    if let path = path("added_tokens.json") { try added.readAddedTokens(path) }
    if let path = path("special_tokens_map.json") { try added.readConfiguration(path) }
    if let path = path("tokenizer_config.json") {
      try added.readConfiguration(path)
      if whole == nil { try added.checkClass(path) }
    }
    try added.findNamed(in: source.vocabulary, path: source.path)

    let tables = try tables(source, added.ids)
    if whole != nil {
      if let vocab, let vocabBytes {
        try compare(source, added, with: try vocabulary(vocabBytes, vocab), vocab)
      }
      if let merges, let mergesBytes { try compare(tables, mergesBytes, merges, source) }
    }
    try checkMerges(tables, special, path: source.mergesPath)
    do {
      _ = try Tokenizer(tables: tables, bos: nil, eos: nil)
    } catch {
      throw problem(error, source.path, source.mergesPath)
    }
    special.added = addedIDs(tables, special)
    return TokenizerPayload(
      vocabJSON: try vocabBytes ?? HuggingFaceTokenizerFile.vocabularyText(source.vocabulary),
      mergesText: mergesBytes ?? Array("#version: 0.2\n".utf8) + source.merges,
      tokenBytes: tables.tokenBytes, tokenOffsets: tables.tokenOffsets.map { Int($0) },
      mergePairs: tables.mergePairs)
  }

  /// The ids of the special tokens that the ids of BOS and EOS alone do not make special.
  private static func addedIDs(
    _ tables: TokenizerTables, _ special: Checkpoint.SpecialTokens
  ) -> [Int] {
    var without = tables
    without.special = [:]
    let cutAnyway = Set((try? without.tokensWithoutMerge()).map(Set.init) ?? [])
    return tables.special.values.filter { id in
      !([special.bos, special.eos].contains(id) && cutAnyway.contains(id))
    }.sorted()
  }

  // MARK: Files

  /// The bytes of a file within the limit.
  static func readBytes(_ path: String) throws(ModelSourceError) -> [UInt8] {
    do {
      return try FileBytes.read(path, limit: sizeLimit)
    } catch .tooLarge(_, _, let found, _) {
      throw .weights(path: path, problem: "expected at most \(sizeLimit) bytes, found \(found)")
    } catch .unreadable(_, let reason) {
      throw .unreadable(path: path, reason: reason)
    } catch {
      throw .unreadable(path)
    }
  }

  /// Reads a JSON file with a scanner.
  ///
  /// - Parameter text: the most bytes of one string.
  static func scan(
    _ path: String, text: Int, _ body: (inout JSONScanner) throws(JSONError) -> Void
  ) throws(ModelSourceError) {
    let bytes = try readBytes(path)
    do throws(JSONError) {
      try JSONScanner.scan(bytes.span, limit: sizeLimit, values: valueLimit) {
        (scanner: inout JSONScanner) throws(JSONError) in
        scanner.stringLimit = text
        try body(&scanner)
      }
    } catch {
      throw .weights(path: path, problem: "\(error)")
    }
  }

  /// The entries of a `vocab.json`.
  private static func vocabulary(
    _ bytes: [UInt8], _ path: String
  ) throws(ModelSourceError) -> VocabularyEntries {
    var vocabulary = VocabularyEntries()
    do {
      try JSONScanner.scan(bytes.span, limit: sizeLimit, values: valueLimit) {
        (scanner: inout JSONScanner) throws(JSONError) in
        try scanner.vocabulary(into: &vocabulary)
      }
    } catch {
      throw .weights(path: path, problem: "expected an object of tokens and their ids; \(error)")
    }
    return vocabulary
  }

  private static func tables(
    _ source: Source, _ special: [String: Int]
  ) throws(ModelSourceError) -> TokenizerTables {
    do {
      return try TokenizerTables(
        vocabulary: source.vocabulary, merges: source.merges, special: special)
    } catch {
      throw problem(error, source.path, source.mergesPath)
    }
  }

  /// A tokenizer's error with the file that it is in.
  private static func problem(
    _ error: TokenizerError, _ path: String, _ mergesPath: String
  ) -> ModelSourceError {
    // The merges of a tokenizer.json are counted, not lines.
    func place(_ line: String) -> String {
      path == mergesPath && line.hasPrefix("line ") ? "merge " + line.dropFirst(5) : line
    }
    switch error {
    case .unknownMergePiece(let line, let piece):
      let error = TokenizerError.unknownMergePiece(place: place(line), piece: piece)
      return .weights(path: mergesPath, problem: "\(error)")
    case .unknownMergeResult(let line, let left, let right):
      let error = TokenizerError.unknownMergeResult(place: place(line), left: left, right: right)
      return .weights(path: mergesPath, problem: "\(error)")
    case .malformedMerge, .tooManyMerges:
      return .weights(path: mergesPath, problem: "\(error)")
    default:
      return .weights(path: path, problem: "\(error)")
    }
  }

  // MARK: Agreement

  /// Compares the tokens of `tokenizer.json` with those of `vocab.json`; added tokens may be missing
  /// in either.
  private static func compare(
    _ source: Source, _ added: HuggingFaceAddedTokens, with other: VocabularyEntries,
    _ path: String
  ) throws(ModelSourceError) {
    func byID(_ entries: VocabularyEntries, _ path: String) throws(ModelSourceError) -> [Int32] {
      do {
        return try entries.placesByID()
      } catch {
        throw .weights(path: path, problem: "\(error)")
      }
    }
    let (ours, theirs) = (try byID(source.vocabulary, source.path), try byID(other, path))
    let addedIDs = Set(added.ids.values)
    for id in 0..<Swift.max(ours.count, theirs.count) {
      let mine = id < ours.count ? source.vocabulary.text(at: Int(ours[id])) : nil
      let its = id < theirs.count ? other.text(at: Int(theirs[id])) : nil
      if mine == its || (mine == nil || its == nil) && addedIDs.contains(id) { continue }
      func shown(_ text: ArraySlice<UInt8>?) -> String {
        text.map { "'\(String(decoding: $0.prefix(60), as: UTF8.self))'" } ?? "none"
      }
      throw .field(
        path: path, field: "the token of id \(id)",
        expected: "\(shown(mine)), as tokenizer.json has",
        found: shown(its))
    }
  }

  /// Compares the merges of `tokenizer.json` with those of `merges.txt`.
  private static func compare(
    _ tables: TokenizerTables, _ merges: [UInt8], _ path: String, _ source: Source
  ) throws(ModelSourceError) {
    let pairs: [Int32]
    do {
      pairs = try tables.pairs(in: merges)
    } catch {
      throw problem(error, source.path, path)
    }
    let mine = tables.mergePairs
    guard mine != pairs else { return }
    func shown(_ pairs: [Int32], _ rank: Int) -> String {
      guard 2 * rank + 1 < pairs.count else { return "none" }
      let texts = [pairs[2 * rank], pairs[2 * rank + 1]].map { id in
        let range = Int(tables.tokenOffsets[Int(id)])..<Int(tables.tokenOffsets[Int(id) + 1])
        return String(decoding: tables.tokenBytes[range].prefix(60), as: UTF8.self).debugDescription
      }
      return texts.joined(separator: " and ")
    }
    let rank = zip(mine, pairs).enumerated().first { $1.0 != $1.1 }?.offset
    let first = (rank ?? Swift.min(mine.count, pairs.count)) / 2
    throw .field(
      path: path, field: "merge \(first + 1)",
      expected: "\(shown(mine, first)), as tokenizer.json has", found: shown(pairs, first))
  }

  /// Every token but a byte's and special ones is what some merge makes. Without its merge no text is
  /// ever cut into it: a merges.txt that is empty or cut would turn texts into bytes in silence.
  private static func checkMerges(
    _ tables: TokenizerTables, _ special: Checkpoint.SpecialTokens, path: String
  ) throws(ModelSourceError) {
    func bytes(_ id: Int) -> ArraySlice<UInt8> {
      tables.tokenBytes[Int(tables.tokenOffsets[id])..<Int(tables.tokenOffsets[id + 1])]
    }
    let unmade: [Int]
    do {
      unmade = try tables.tokensWithoutMerge()
    } catch {
      throw .weights(path: path, problem: "\(error)")
    }
    let lost = unmade.filter { id in
      if id == special.bos || id == special.eos { return false }
      // <pad>, [UNK] and the like are special whether or not a configuration says so.
      let ends = (bytes(id).first, bytes(id).last)
      return ends != (UInt8(ascii: "<"), UInt8(ascii: ">"))
        && ends != (UInt8(ascii: "["), UInt8(ascii: "]"))
    }
    guard let first = lost.first else { return }
    throw .weights(
      path: path,
      problem: "no merge makes \(lost.count) of the tokens of the vocabulary, the first "
        + "'\(String(decoding: bytes(first), as: UTF8.self))' (id \(first)); the file is cut or "
        + "belongs to another vocabulary")
  }
}

extension JSONScanner {
  /// Reads an object of tokens and ids, within the limits of a vocabulary.
  ///
  /// A token that occurs twice is found when ids and bytes are compared.
  mutating func vocabulary(into entries: inout VocabularyEntries) throws(JSONError) {
    stringLimit = 1 << 16
    try object(distinct: false) { (scanner: inout JSONScanner, token: String) throws(JSONError) in
      guard entries.count < HuggingFaceTokenizer.tokenLimit else {
        throw scanner.fault(
          expected: "at most \(HuggingFaceTokenizer.tokenLimit) tokens", found: "another")
      }
      guard entries.textCount + token.utf8.count <= HuggingFaceTokenizer.textLimit else {
        throw scanner.fault(
          expected: "tokens of at most \(HuggingFaceTokenizer.textLimit) bytes together",
          found: "more")
      }
      entries.append(token, id: try scanner.integer())
    }
  }
}
