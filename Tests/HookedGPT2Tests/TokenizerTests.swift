import Foundation
import Testing

@testable import HookedGPT2

@Suite struct TokenizerTests {
  // MARK: Golden ids (Tests/make_tokenizer_golden.py)

  @Test func miniEncodesAsTheReference() throws {
    try expectGoldenIDs(try Fixture.mini(), "mini")
  }

  @Test func miniDecodesAsTheReference() throws {
    try expectGoldenTexts(try Fixture.mini(), "mini")
  }

  @Test(
    .enabled(
      if: Fixture.gpt2Folder != nil,
      "needs GPT-2's vocab.json and merges.txt: set NORMLENS_GPT2_TOKENIZER to their folder"))
  func gpt2EncodesAndDecodesAsTheReference() throws {
    let tokenizer = try Fixture.load(try #require(Fixture.gpt2Folder))
    #expect(tokenizer.count == 50257)
    #expect(tokenizer.special == ["<|endoftext|>": 50256])
    #expect(try tokenizer.singleToken(" Mary") == 5335)
    #expect(
      tokenizer.encode("Hello <|endoftext|> world's  x") == [
        15496, 220, 50256, 995, 338, 220, 2124,
      ])
    try expectGoldenIDs(tokenizer, "gpt2")
    try expectGoldenTexts(tokenizer, "gpt2")
  }

  private func expectGoldenIDs(_ tokenizer: Tokenizer, _ name: String) throws {
    let cases = try Fixture.lines("\(name)-encode.tsv")
    #expect(cases.count == 420)
    for (text, ids) in cases {
      let bytes = Fixture.bytes(hexadecimal: text)
      let repaired = String(decoding: bytes, as: UTF8.self)
      let expected = Fixture.integers(ids)
      #expect(tokenizer.encode(utf8: bytes) == expected, "\(repaired.debugDescription)")
      #expect(tokenizer.encode(repaired) == expected, "\(repaired.debugDescription)")
      #expect(try tokenizer.bytes(of: expected) == Array(repaired.utf8))
      #expect(try tokenizer.decode(expected).unicodeScalars.elementsEqual(repaired.unicodeScalars))
    }
  }

  private func expectGoldenTexts(_ tokenizer: Tokenizer, _ name: String) throws {
    let cases = try Fixture.lines("\(name)-decode.tsv")
    #expect(cases.count == 105)
    for (ids, text) in cases {
      let decoded = try tokenizer.decode(Fixture.integers(ids))
      #expect(Array(decoded.utf8) == Fixture.bytes(hexadecimal: text), "ids \(ids)")
    }
  }

  // MARK: Properties

  @Test(arguments: 1...8 as ClosedRange<UInt64>)
  func anyMergesGiveWhatTheDefinitionGives(seed: UInt64) throws {
    // All texts of "a" and "b" up to length five are tokens; most ways to make one of two others are
    // merges, some of them twice, in random order, which no training would give.
    var random = SplitMix(state: seed)
    var tokens = Fixture.bytes
    var merges: [(left: Int, right: Int)] = []
    for length in 2...5 {
      for shorter in tokens
      where shorter.count == length - 1 && shorter.allSatisfy("ab".utf8.contains) {
        tokens += [shorter + [97], shorter + [98]]
      }
    }
    for token in tokens[256...] {
      for cut in 1..<token.count where Int.random(in: 0..<10, using: &random) < 7 {
        let left = tokens.firstIndex(of: Array(token[..<cut]))
        let right = tokens.firstIndex(of: Array(token[cut...]))
        merges.append((try #require(left), try #require(right)))
      }
    }
    merges += merges.prefix(20)
    merges.shuffle(using: &random)
    let tokenizer = try Tokenizer(tokens: tokens, merges: merges, special: [:], bos: nil, eos: nil)
    for length in Array(1...70) + [100, 300] {
      let word = (0..<length).map { _ in "ab".utf8.randomElement(using: &random) ?? 0 }
      #expect(
        tokenizer.encode(utf8: word) == mergedByDefinition(word, tokens: tokens, merges: merges))
    }
  }

  /// Byte-pair merging in its plainest form: the lowest rank, the leftmost place, one at a time.
  private func mergedByDefinition(
    _ word: [UInt8], tokens: [[UInt8]], merges: [(left: Int, right: Int)]
  ) -> [Int] {
    var ids = word.map(Int.init)
    while true {
      var best: (rank: Int, place: Int)?
      for place in ids.indices.dropLast() {
        let rank = merges.lastIndex { $0.left == ids[place] && $0.right == ids[place + 1] }
        if let rank, rank < best?.rank ?? .max { best = (rank, place) }
      }
      guard let best else { return ids }
      let joined = tokens[ids[best.place]] + tokens[ids[best.place + 1]]
      ids[best.place] = tokens.firstIndex(of: joined) ?? -1
      ids.remove(at: best.place + 1)
    }
  }

  @Test func everyTextComesBack() throws {
    let tokenizer = try Fixture.mini()
    var random = SplitMix(state: 5)
    for _ in 0..<500 {
      var text = ""
      for _ in 0..<Int.random(in: 0..<40, using: &random) {
        let code = UInt32.random(
          in: 0..<(Bool.random(using: &random) ? 0x180 : 0x11_0000), using: &random)
        if let scalar = Unicode.Scalar(code) { text.unicodeScalars.append(scalar) }
      }
      let decoded = try tokenizer.decode(tokenizer.encode(text))
      #expect(decoded.unicodeScalars.elementsEqual(text.unicodeScalars))
    }
  }

  @Test func rememberedWordsAreTheWordsAlone() throws {
    // More different words than a text remembers, most of them several times.
    let tokenizer = try Fixture.mini()
    var random = SplitMix(state: 6)
    let letters = Array("etaoinshrdlucmfw")
    let words = (0..<60_000).map { _ in
      var number = Int.random(in: 0..<30_000, using: &random)
      var word = number.isMultiple(of: 2) ? " " : " lengthen"
      while number > 0 {
        word.append(letters[number % 16])
        number /= 16
      }
      return word + "x"
    }
    #expect(tokenizer.encode(words.joined()) == words.flatMap { tokenizer.encode($0) })
  }

  @Test func aLongWordIsNotQuadratic() throws {
    let tokenizer = try Fixture.mini()
    var random = SplitMix(state: 7)
    let letters = Array("etaoinshrdlu".utf8)
    let word = (0..<500_000).map { _ in letters.randomElement(using: &random) ?? 0 }
    var ids: [Int] = []
    let time = ContinuousClock().measure { ids = tokenizer.encode(utf8: word) }
    #expect(try tokenizer.bytes(of: ids) == word)
    // 0.1 s, and 2 s in a debug build; 95 s if all pairs were searched for each merge.
    #expect(time < .seconds(20))
  }

  @Test func threadsShareATokenizer() async throws {
    let tokenizer = try Fixture.mini()
    let text = "When Mary and John went to the store, John gave a drink to"
    let expected = tokenizer.encode(text)
    await withTaskGroup(of: Bool.self) { group in
      for _ in 0..<8 {
        group.addTask { (0..<200).allSatisfy { _ in tokenizer.encode(text) == expected } }
      }
      for await same in group { #expect(same) }
    }
  }

  @Test func asciiClassesAreTheTables() {
    for byte in UInt8(0)..<128 {
      #expect(PreTokenizer.asciiClass(byte) == PreTokenizer.tableClass(UInt32(byte)), "\(byte)")
    }
    #expect(PreTokenizer.tableClass(0x10_FFFF) == .other)
    #expect(PreTokenizer.tableClass(0x3000) == .space)
    #expect(PreTokenizer.tableClass(0x4E00) == .letter)
    #expect(PreTokenizer.tableClass(0x0664) == .number)
  }

  // MARK: Special tokens

  @Test func specialTokensAreTheLeftmostAndLongest() throws {
    let tokens = Fixture.bytes + ["<a>", "<a><b>", "b><"].map { Array($0.utf8) }
    let tokenizer = try Tokenizer(
      tokens: tokens, merges: [], special: ["<a>": 256, "<a><b>": 257, "b><": 258], bos: 256,
      eos: nil)
    #expect(tokenizer.encode("<a><b><a>") == [257, 256])
    #expect(tokenizer.encode("<a><b") == [256, 60, 98])
    #expect(tokenizer.encode("x<b><a>") == [120, 60, 258, 97, 62])
    #expect(try tokenizer.decode([257, 120, 258]) == "<a><b>xb><")
    #expect(tokenizer.bos == 256)
    #expect(tokenizer.eos == nil)
  }

  // MARK: Questions about single tokens

  @Test func piecesKeepTheirLeadingSpace() throws {
    let tokenizer = try Fixture.mini()
    let ids = tokenizer.encode(" the <|endoftext|>")
    #expect(try ids.map { try tokenizer.piece($0) } == [" the", " ", "<|endoftext|>"])
    #expect(try tokenizer.encode("🫠").map { try tokenizer.piece($0) }.contains("\u{FFFD}"))
    #expect(throws: TokenizerError.unknownID(id: 2048, count: 2048)) { try tokenizer.piece(2048) }
    #expect(throws: TokenizerError.unknownID(id: -1, count: 2048)) {
      try tokenizer.decode([3, -1])
    }
    #expect(throws: TokenizerError.unknownID(id: .max, count: 2048)) {
      try tokenizer.bytes(of: [.max])
    }
  }

  @Test func aSingleTokenIsSuggested() throws {
    let tokenizer = try Tokenizer(
      tokens: Fixture.bytes + [" M", " Ma", "ry", " Mary", "to"].map { Array($0.utf8) },
      merges: [(32, 77), (256, 97), (114, 121), (257, 258), (116, 111)], special: [:], bos: nil,
      eos: nil)
    #expect(try tokenizer.singleToken(" Mary") == 259)
    #expect(
      description { try tokenizer.singleToken("Mary") }
        == #""Mary" is 3 tokens ("M", "a", "ry"), not one; " Mary" is one token"#)
    #expect(
      description { try tokenizer.singleToken(" to") }
        == #"" to" is 2 tokens (" ", "to"), not one; "to" is one token"#)
    #expect(
      description { try tokenizer.singleToken("John\n") }
        == #""John\n" is 5 tokens ("J", "o", "h", "n", "\n"), not one"#)
    #expect(description { try tokenizer.singleToken("") } == "an empty text has no token")
    #expect(description { try tokenizer.singleToken("éèéèéè") }?.hasSuffix(", …), not one") == true)
  }

  // MARK: Tables

  @Test func tablesOfAllFormsAreTheSame() throws {
    let tables = try Fixture.miniTables()
    #expect(tables.count == 2048)
    #expect(tables.mergePairs.count == 2 * 1791)
    let mini = try Fixture.mini()
    let flat = try Tokenizer(
      tokenBytes: tables.tokenBytes, tokenOffsets: tables.tokenOffsets,
      mergePairs: tables.mergePairs, special: tables.special, bos: 0, eos: 0)
    let nested = try Tokenizer(
      tokens: (0..<tables.count).map { try mini.bytes(of: [$0]) },
      merges: (0..<tables.mergePairs.count / 2).map {
        (Int(tables.mergePairs[2 * $0]), Int(tables.mergePairs[2 * $0 + 1]))
      }, special: tables.special, bos: 0, eos: 0)
    #expect(nested.tables == tables)
    let text = "The keys to the cabinet aren't <|endoftext|>here."
    #expect(flat.encode(text) == mini.encode(text))
    #expect(nested.encode(text) == mini.encode(text))
  }

  @Test func mergesFilesMayHaveWindowsLinesAndNoVersion() throws {
    let file = try Fixture.merges("mini")
    let text = String(decoding: file, as: UTF8.self)
    let windows = text.replacingOccurrences(of: "\n", with: "\r\n") + "\r\n\r\n"
    let bare = text.drop { $0 != "\n" }.dropFirst()
    let expected = try Fixture.miniTables()
    let vocabulary = try Fixture.vocabulary("mini")
    for other in [windows, String(bare), String(text.dropLast())] {
      #expect(try TokenizerTables(vocabulary: vocabulary, merges: Array(other.utf8)) == expected)
    }
  }

  @Test func furtherSpecialTokensMayBeAdded() throws {
    let tables = try TokenizerTables(
      vocabulary: try Fixture.vocabulary("mini"), merges: try Fixture.merges("mini"),
      special: ["[é pad]": 2048])
    let tokenizer = try Tokenizer(tables: tables, bos: 0, eos: 0)
    #expect(tokenizer.special == ["<|endoftext|>": 0, "[é pad]": 2048])
    #expect(tokenizer.encode("[é pad]<|endoftext|>") == [2048, 0])
    #expect(try tokenizer.decode([2048]) == "[é pad]")
  }

  @Test(arguments: [
    (
      ["▁the": 256], "",
      #"vocabulary: "▁the" (id 256) holds "▁", which stands for no byte in GPT-2's byte-level "#
        + "alphabet; is this another kind of tokenizer?"
    ),
    (["": 256], "", "vocabulary: the token of id 256 is empty"),
    (["xy": 256], "x", #"merges: line 2 is "x", not two pieces with one space between them"#),
    (
      ["xy": 256], "x y z",
      #"merges: line 2 is "x y z", not two pieces with one space between them"#
    ),
    (["xy": 256], "x  y", #"merges: line 2 is "x  y", not two pieces with one space between them"#),
    (
      ["xy": 256], "x y\n\nx y",
      #"merges: line 3 is "", not two pieces with one space between them"#
    ),
    (
      ["xy": 256], "x y\nx yz",
      #"merges: line 3 has the piece "yz", which is not in the vocabulary"#
    ),
    (["xy": 256], "▁ y", #"merges: line 2 has the piece "▁", which is not in the vocabulary"#),
    (
      ["xy": 256], "xy Ġ", #"merges: line 2 joins "xy" and "Ġ", and "xyĠ" is not in the vocabulary"#
    ),
  ])
  func brokenFilesAreNamed(added: [String: Int], merges: String, message: String) {
    let vocabulary = Fixture.printableBytes + added.map { ($0.key, $0.value) }
    let file = Array("#version: 0.2\n\(merges)\n".utf8)
    #expect(
      description { try TokenizerTables(vocabulary: vocabulary, merges: file) } == message)
  }

  @Test func aMergesFileMayBeIllFormed() {
    let file: [UInt8] = [0x78, 0x20, 0xC4, 0x0A]
    #expect(throws: TokenizerError.unknownMergePiece(place: "line 1", piece: "\u{FFFD}")) {
      try TokenizerTables(vocabulary: Fixture.printableBytes, merges: file)
    }
  }

  @Test func brokenIDsAreNamed() throws {
    var vocabulary = Fixture.printableBytes
    vocabulary[7].1 = 256
    #expect(
      description { try TokenizerTables(vocabulary: vocabulary, merges: []) }
        == "vocabulary: \"ć\" has id 256, but 256 tokens need the ids 0 to 255")
    vocabulary[7].1 = 9
    #expect(throws: TokenizerError.duplicateID(id: 9, first: "ć", second: "ĉ")) {
      try TokenizerTables(vocabulary: vocabulary, merges: [])
    }
    vocabulary[7].1 = 7
    #expect(
      description {
        try TokenizerTables(vocabulary: vocabulary, merges: [], special: ["A": 66])
      } == #"special token "A" has id 66, which is "B" in the vocabulary"#)
    // A special token may be a byte's token, as in the reference library.
    let special = try Tokenizer(
      tables: TokenizerTables(vocabulary: vocabulary, merges: [], special: ["A": 65]),
      bos: nil, eos: nil)
    #expect(special.encode("xA") == [120, 65])
    vocabulary[65] = ("BB", 65)
    #expect(throws: TokenizerError.missingByte(65)) {
      _ = try Tokenizer(
        tables: TokenizerTables(vocabulary: vocabulary, merges: []), bos: nil, eos: nil)
    }
  }

  @Test func brokenTablesAreNamed() throws {
    let good = try TokenizerTables(tokens: Fixture.bytes, merges: [])
    func make(_ bos: Int? = nil, _ change: (inout TokenizerTables) -> Void) -> String? {
      var tables = good
      change(&tables)
      return description { try Tokenizer(tables: tables, bos: bos, eos: nil) }
    }
    #expect(make { _ in } == nil)
    #expect(
      make(256) { _ in }
        == "the beginning-of-text token has id 256, but the tokenizer has 256 tokens")
    #expect(
      make { $0.tokenBytes.removeLast() }
        == "tokenizer tables: the token offsets do not run from 0 to 255 bytes")
    #expect(
      make { $0.tokenOffsets = [] }
        == "tokenizer tables: the token offsets do not run from 0 to 256 bytes")
    #expect(
      make { $0.tokenOffsets[4] = 999 }
        == "tokenizer tables: the token offsets decrease behind id 4")
    #expect(
      make { $0.tokenOffsets[4] = -9 }
        == "tokenizer tables: the token offsets decrease behind id 3")
    #expect(make { $0.tokenOffsets[4] = 3 } == "vocabulary: the token of id 3 is empty")
    #expect(
      make { $0.tokenBytes[66] = 65 }
        == #"vocabulary: ids 65 and 66 are the same token "A""#)
    #expect(
      make { $0.mergePairs = [1] }
        == "tokenizer tables: the merge pairs are an odd number of ids, 1")
    #expect(
      make { $0.mergePairs = [1, 256] }
        == #"merges: rank 0 has the piece "id 256", which is not in the vocabulary"#)
    #expect(
      make { $0.mergePairs = [-1, 2] }
        == #"merges: rank 0 has the piece "id -1", which is not in the vocabulary"#)
    #expect(
      make { $0.mergePairs = [65, 66] }
        == #"merges: rank 0 joins "A" and "B", and "AB" is not in the vocabulary"#)
    #expect(
      make { $0.special = ["<x>": 300] }
        == #"special token "<x>" has id 300, which is not in the vocabulary"#)
    #expect(
      description { try TokenizerTables(tokens: Fixture.bytes, merges: [(1 << 40, 1)]) }
        == "tokenizer tables: 1099511627776 is beyond 32 bits")
  }

  /// The description of the error that `body` throws, if it throws one.
  private func description<T>(_ body: () throws -> T) -> String? {
    do {
      _ = try body()
      return nil
    } catch {
      return "\(error)"
    }
  }
}

/// What the tests read from Tests/Fixtures/tokenizer.
private enum Fixture {
  static let root = URL(filePath: #filePath).deletingLastPathComponent()
    .deletingLastPathComponent().deletingLastPathComponent()
  static let folder = root.appending(path: "Tests/Fixtures/tokenizer")

  /// The folder of GPT-2's tokenizer files, if there is one.
  static let gpt2Folder: URL? = {
    let named = ProcessInfo.processInfo.environment["NORMLENS_GPT2_TOKENIZER"]
    let folder =
      named.map { URL(filePath: $0) } ?? root.appending(path: "../shared/gpt2-tokenizer")
    let exists = FileManager.default.fileExists(atPath: folder.appending(path: "vocab.json").path)
    return exists ? folder : nil
  }()

  static func vocabulary(_ folder: URL) throws -> [(String, Int)] {
    let json = try JSONSerialization.jsonObject(
      with: Data(contentsOf: folder.appending(path: "vocab.json")))
    return try #require(json as? [String: Int]).map { ($0.key, $0.value) }
  }

  static func vocabulary(_ name: String) throws -> [(String, Int)] {
    try vocabulary(folder.appending(path: name))
  }

  static func merges(_ name: String) throws -> [UInt8] {
    Array(try Data(contentsOf: folder.appending(path: name).appending(path: "merges.txt")))
  }

  static func miniTables() throws -> TokenizerTables {
    try TokenizerTables(vocabulary: try vocabulary("mini"), merges: try merges("mini"))
  }

  static func mini() throws -> Tokenizer {
    try Tokenizer(tables: try miniTables(), bos: 0, eos: 0)
  }

  static func load(_ folder: URL) throws -> Tokenizer {
    let tables = try TokenizerTables(
      vocabulary: try vocabulary(folder),
      merges: Array(try Data(contentsOf: folder.appending(path: "merges.txt"))))
    let end = tables.special[TokenizerTables.endOfText]
    return try Tokenizer(tables: tables, bos: end, eos: end)
  }

  /// The two columns of each line of a file.
  static func lines(_ file: String) throws -> [(Substring, Substring)] {
    let text = try String(contentsOf: folder.appending(path: file), encoding: .utf8)
    return try text.split(separator: "\n").map { line in
      let tab = try #require(line.firstIndex(of: "\t"))
      return (line[..<tab], line[line.index(after: tab)...])
    }
  }

  static func bytes(hexadecimal text: Substring) -> [UInt8] {
    let digits = text.compactMap(\.hexDigitValue)
    return stride(from: 0, to: digits.count - 1, by: 2).map {
      UInt8(digits[$0] << 4 | digits[$0 + 1])
    }
  }

  static func integers(_ text: Substring) -> [Int] {
    text.split(separator: " ").compactMap { Int($0) }
  }

  /// A vocabulary of the single bytes: each is its own id.
  static let bytes = (0..<256).map { [UInt8($0)] }

  /// The printable form of each byte and its value as its id.
  static let printableBytes: [(String, Int)] = {
    var entries: [(String, Int)] = []
    for code in UInt32(0)..<0x144 {
      if let byte = PrintableBytes.byte(code), let scalar = Unicode.Scalar(code) {
        entries.append((String(Character(scalar)), Int(byte)))
      }
    }
    return entries.sorted { $0.1 < $1.1 }
  }()
}

/// A small random generator with a seed.
private struct SplitMix: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var mixed = (state ^ state >> 30) &* 0xBF58_476D_1CE4_E5B9
    mixed = (mixed ^ mixed >> 27) &* 0x94D0_49BB_1331_11EB
    return mixed ^ mixed >> 31
  }
}
