import Foundation
import HDF5Store
import TestSupport
import Testing

@testable import NormLens

/// The tokenizer files of a Hugging Face directory: both forms, added tokens, what is refused, and
/// files that are damaged.
@Suite struct TokenizerFileTests {
  // MARK: tokenizer.json

  @Test func bothFormsAreOneTokenizer() throws {
    let (published, _) = try read(["vocab.json": Mini.vocab, "merges.txt": Mini.merges])
    for listed in [true, false] {
      let (payload, special) = try read(["tokenizer.json": Mini.json(pairs: listed)])
      #expect(payload.tokenBytes == published.tokenBytes)
      #expect(payload.tokenOffsets == published.tokenOffsets)
      #expect(payload.mergePairs == published.mergePairs)
      // As the library writes the two files.
      #expect(payload.vocabJSON == Array(Mini.vocab.utf8))
      #expect(payload.mergesText == Array(Mini.merges.utf8))
      #expect(special.added == [])
    }
    let (both, _) = try read([
      "vocab.json": Mini.vocab, "merges.txt": Mini.merges, "tokenizer.json": Mini.json(),
    ])
    #expect(both.tokenBytes == published.tokenBytes)
  }

  @Test func aVocabularyIsWrittenAsTheLibraryDoes() throws {
    var entries = VocabularyEntries()
    for (id, text) in ["b", "\"", "\\", "\n\t\u{8}\u{C}\r", "\u{1}\u{1F}\u{7F}", "é/"].enumerated()
    {
      entries.append(text, id: 5 - id)
    }
    let text = try HuggingFaceTokenizerFile.vocabularyText(entries)
    #expect(
      String(decoding: text, as: UTF8.self)
        == #"{"é/":0,"\u0001\u001f"# + "\u{7F}" + #"":1,"\n\t\b\f\r":2,"\\":3,"\"":4,"b":5}"#)
  }

  @Test func whatChangesNoIDIsPassedOver() throws {
    let (expected, _) = try read(["tokenizer.json": Mini.json()])
    for change in [
      #""truncation": {"max_length": 8, "direction": "Right", "strategy": "LongestFirst", "stride": 0}"#,
      #""padding": {"strategy": "BatchLongest", "pad_id": 0}"#,
      #""post_processor": {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A"}}]}"#,
      #""post_processor": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false}"#,
      #""normalizer": null"#, #""version": "1.0""#,
    ] {
      let (payload, _) = try read(["tokenizer.json": Mini.json(top: change)])
      #expect(payload.mergePairs == expected.mergePairs, "\(change)")
    }
    for change in [
      #""dropout": null"#, #""dropout": 0.0"#, #""unk_token": "zz""#, #""fuse_unk": true"#,
      #""continuing_subword_prefix": """#, #""end_of_word_suffix": null"#,
      #""byte_fallback": false"#,
      #""ignore_merges": false"#,
    ] {
      let (payload, _) = try read(["tokenizer.json": Mini.json(model: change)])
      #expect(payload.mergePairs == expected.mergePairs, "\(change)")
    }
  }

  @Test(arguments: [
    (#""normalizer": {"type": "NFC"}"#, "a normalizer of null"),
    (#""normalizer": {"type": "Sequence", "normalizers": []}"#, "a normalizer of null"),
    (#""chat": 1"#, "'chat'"),
    (#""added_tokens": [{"id": 2048, "content": "<p>", "lstrip": true}]"#, "'lstrip'"),
    (#""added_tokens": [{"id": 2048, "content": "<p>", "rstrip": true}]"#, "'rstrip'"),
    (#""added_tokens": [{"id": 2048, "content": "<p>", "single_word": true}]"#, "'single_word'"),
    (#""added_tokens": [{"id": 2048, "content": "<p>", "odd": true}]"#, "'odd'"),
    (#""added_tokens": [{"id": 2048}]"#, "'content'"),
    (#""added_tokens": [{"id": 2050, "content": "<p>"}]"#, "needs"),
    (#""added_tokens": [{"id": 2048, "content": "the"}]"#, "id 538, as the vocabulary has"),
    (
      #""added_tokens": [{"id": 2048, "content": "<p>"}, {"id": 2049, "content": "<p>"}]"#,
      "expected id 2048"
    ),
    (
      "\"added_tokens\": [{\"id\": 2048, \"content\": \"e\u{301}x\"}, "
        + "{\"id\": 2049, \"content\": \"\u{E9}x\"}]", "expected id 2048"
    ),
    (
      #""added_tokens": [{"id": 2048, "content": "<a", "normalized": true}, "#
        + #"{"id": 2049, "content": "a>", "normalized": false}]"#, "can overlap"
    ),
    (#""added_tokens": [{"id": 166, "content": "é"}]"#, "byte 0xE9"),
  ])
  func whatChangesIDsIsRefused(top: String, part: String) throws {
    try expectRefusal(
      ["tokenizer.json": Mini.json(top: top)], "tokenizer.json",
      part == "needs" ? "0 to 2048" : part)
  }

  @Test(arguments: [
    (#""dropout": 0.1"#, "'dropout' of null or 0, found 0.1"),
    (#""continuing_subword_prefix": "@@""#, "'continuing_subword_prefix'"),
    (#""end_of_word_suffix": "</w>""#, "'end_of_word_suffix'"),
    (#""byte_fallback": true"#, "'byte_fallback'"), (#""ignore_merges": true"#, "'ignore_merges'"),
    (#""odd": 1"#, "'odd'"), (#""type": "WordPiece""#, "'BPE', found 'WordPiece'"),
  ])
  func models(model: String, part: String) throws {
    try expectRefusal(["tokenizer.json": Mini.json(model: model)], "tokenizer.json", part)
  }

  @Test(arguments: [
    (#"null"#, "an object"), (#"{"type": "Digits"}"#, "'Digits'"),
    (#"{"type": "Sequence", "pretokenizers": []}"#, "'Sequence'"),
    (#"{"type": "Split", "pattern": {"Regex": "x"}}"#, "'Split'"),
    (
      #"{"type": "ByteLevel", "add_prefix_space": true}"#, "'add_prefix_space' of false, found true"
    ),
    (#"{"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}"#, "'use_regex'"),
    (#"{"type": "ByteLevel"}"#, "one missing"),
  ])
  func preTokenizers(json: String, part: String) throws {
    try expectRefusal(["tokenizer.json": Mini.json(preTokenizer: json)], "tokenizer.json", part)
  }

  @Test func missingPartsAreNamed() throws {
    try expectRefusal(["tokenizer.json": "{}"], "tokenizer.json", "'model' is missing")
    try expectRefusal(
      [
        "tokenizer.json": #"{"model": {}, "decoder": {"type": "ByteLevel"}, "pre_tokenizer": "#
          + #"{"type": "ByteLevel", "add_prefix_space": false}}"#
      ], "tokenizer.json", "'model.vocab'")
    try expectRefusal(["vocab.json": "{}", "merges.txt": ""], "vocab.json", "byte 0x00")
    try expectRefusal(["vocab.json": "{}"], "vocab.json", "merges.txt", isMissing: true)
  }

  // MARK: Added tokens

  @Test func addedTokensAreFoundBeforeATextIsCut() throws {
    let added =
      #""added_tokens": [{"id": 0, "content": "<|endoftext|>", "special": true}, "#
      + #"{"id": 538, "content": "the"}, {"id": 2048, "content": " \né", "normalized": true}]"#
    let directory = try write(["tokenizer.json": Mini.json(top: added)])
    let checkpoint = try Checkpoint.random(
      try GPT2Config(nLayers: 1, dModel: 8, nHeads: 1, nCtx: 8, dVocab: 2049), name: "added",
      seed: 0, tokenizerDirectory: directory.path)
    #expect(
      checkpoint.specialTokens == Checkpoint.SpecialTokens(bos: 0, eos: 0, added: [538, 2048]))
    let file = directory.file("added.h5")
    try ModelFile.write(checkpoint, to: file)
    let opened = try ModelFile.read(file)
    #expect(opened.specialTokens == checkpoint.specialTokens)
    for model in [try checkpoint.model(), try opened.model()] {
      let tokenizer = try model.tokenizer
      // The ids of the `tokenizers` library for these texts.
      #expect(tokenizer.encode("other the x") == [79, 538, 82, 221, 538, 221, 88])
      let text = "x \né<|endoftext|>the"
      #expect(tokenizer.encode(text) == [88, 2048, 0, 538])
      #expect(try tokenizer.decode(tokenizer.encode(text)) == text)
    }
  }

  @Test func filesThatAddTokens() throws {
    let base = ["vocab.json": Mini.vocab, "merges.txt": Mini.merges]
    func added(_ files: [String: String]) throws -> [Int] {
      try read(base.merging(files) { $1 }).1.added
    }
    #expect(try added([:]) == [])
    #expect(try added(["added_tokens.json": #"{"<q>": 2049, "<p>": 2048}"#]) == [2048, 2049])
    #expect(
      try added([
        "added_tokens.json": #"{"<p>": 2048}"#, "tokenizer.json": Mini.json(),
        "special_tokens_map.json": #"{"pad_token": {"content": "<p>", "lstrip": false}}"#,
      ]) == [2048])
    #expect(try added(["special_tokens_map.json": #"{"pad_token": "the", "x": [1, {}]}"#]) == [538])
    #expect(
      try added(["tokenizer_config.json": #"{"additional_special_tokens": ["the", "he"]}"#]).count
        == 2)
    #expect(
      try added([
        "tokenizer_config.json": #"{"add_bos_token": true, "pad_token": null, "#
          + #""tokenizer_class": "GPT2Tokenizer", "add_prefix_space": false, "#
          + #""added_tokens_decoder": {"2048": {"content": "<p>", "special": true}}}"#
      ]) == [2048])
    for (name, text, file, part) in [
      ("added_tokens.json", #"{"<p>": 2050}"#, "vocab.json", "id 2050"),
      ("added_tokens.json", #"{"<p>": "a"}"#, "added_tokens.json", "line 1"),
      ("added_tokens.json", #"{"the": 2048}"#, "vocab.json", "id 538"),
      ("tokenizer_config.json", #"{"add_prefix_space": true}"#, "", "'add_prefix_space'"),
      ("tokenizer_config.json", #"{"pad_token": "[PAD]"}"#, "", "'[PAD]'"),
      ("tokenizer_config.json", #"{"tokenizer_class": "CLIPTokenizer"}"#, "", "'CLIPTokenizer'"),
      ("tokenizer_config.json", #"{"bos_token": 7}"#, "", "'bos_token'"),
      (
        "tokenizer_config.json", #"{"added_tokens_decoder": {"x": {"content": "<p>"}}}"#, "",
        "'x'"
      ),
      (
        "tokenizer_config.json",
        #"{"added_tokens_decoder": {"2048": {"content": "<p>", "rstrip": true}}}"#, "", "'rstrip'"
      ),
    ] {
      try expectRefusal(
        base.merging([name: text]) { $1 }, file.isEmpty ? name : file, part)
    }
  }

  @Test func filesThatDisagree() throws {
    func files(_ vocab: String, _ merges: String) -> [String: String] {
      ["tokenizer.json": Mini.json(), "vocab.json": vocab, "merges.txt": merges]
    }
    let other = Mini.vocab.replacing("\"the\":", with: "\"teh\":")
    try expectRefusal(
      files(other, Mini.merges), "vocab.json", "the token of id 538' is 'teh'; expected 'the'")
    let shorter = Mini.vocab.replacing(/,"[^"]*":2047\}/, with: "}")
    try expectRefusal(files(shorter, Mini.merges), "vocab.json", "the token of id 2047' is none")
    let swapped = Mini.merges.replacing("\nh e\n", with: "\ne h\n", maxReplacements: 1)
    try expectRefusal(files(Mini.vocab, swapped), "merges.txt", #"'merge 2' is "e" and "h""#)
    try expectRefusal(files(Mini.vocab, "#version: 0.2\n"), "merges.txt", "'merge 1' is none")
  }

  // MARK: Padded vocabularies

  @Test func idsBeyondTheTokenizer() throws {
    let directory = try write(["vocab.json": Mini.vocab, "merges.txt": Mini.merges])
    func checkpoint(_ rows: Int) throws -> Checkpoint {
      try Checkpoint.random(
        try GPT2Config(nLayers: 1, dModel: 8, nHeads: 1, nCtx: 8, dVocab: rows), name: "padded",
        seed: 0, tokenizerDirectory: directory.path)
    }
    let padded = try checkpoint(2112)
    try ModelFile.write(padded, to: directory.file("padded.h5"))
    let tokenizer = try ModelFile.read(directory.file("padded.h5")).model().tokenizer
    #expect(tokenizer.count == 2048 && tokenizer.idCount == 2112)
    #expect(try tokenizer.piece(2048) == "<unused 2048>")
    #expect(try tokenizer.decode([258, 2111]) == "he<unused 2111>")
    #expect(tokenizer.encode("<unused 2048>").allSatisfy { $0 < 2048 })
    #expect(throws: TokenizerError.unknownID(id: 2112, count: 2112)) { try tokenizer.piece(2112) }
    #expect(throws: TokenizerError.unknownID(id: 2048, count: 2048)) {
      try tokenizer.bytes(of: [2048])
    }
    #expect { try checkpoint(2047) } throws: { "\($0)".contains("at most 2047") }
    var small = padded
    small.tokenizer = try read(["tokenizer.json": Mini.json()]).0
    small.config = try GPT2Config(nLayers: 1, dModel: 8, nHeads: 1, nCtx: 8, dVocab: 2000)
    let (width, table) = (8, try #require(padded.tensors["wte.weight"]))
    small.tensors["wte.weight"] = Tensor(
      Array(table.scalars.prefix(2000 * width)), shape: [2000, width])
    small.specialTokens.added = []
    try ModelFile.write(small, to: directory.file("small.h5"))
    #expect { try ModelFile.read(directory.file("small.h5")) } throws: {
      "\($0)".contains("d_vocab") && "\($0)".contains("at least 2048")
    }
  }

  // MARK: Damaged files

  @Test func limits() throws {
    let text =
      "{" + (0...(1 << 19)).map { "\"\(String($0, radix: 16))\":\($0)" }.joined(separator: ",")
    try expectRefusal(
      ["vocab.json": text + "}", "merges.txt": ""], "vocab.json", "at most 524288 tokens")
    try expectRefusal(
      ["vocab.json": "{\"" + String(repeating: "a", count: 70_000) + "\":0}", "merges.txt": ""],
      "vocab.json", "at most 65536 bytes")
    try expectRefusal(
      [
        "vocab.json": Mini.vocab,
        "merges.txt": Mini.merges + String(repeating: "h e\n", count: 1 << 20),
      ], "merges.txt", "more than 1048576")
    try expectRefusal(
      ["vocab.json": String(repeating: "[", count: 1 << 20), "merges.txt": ""], "vocab.json",
      "byte 0")
    try expectRefusal(
      ["tokenizer.json": #"{"post_processor": "# + String(repeating: "[", count: 1 << 20)],
      "tokenizer.json", "levels of nesting")
    let members = (0..<70_000).map { "\"\($0)\":1" }.joined(separator: ",")
    try expectRefusal(
      ["tokenizer.json": "{\"padding\": {\(members)}}"], "tokenizer.json", "at most 65536 values")
    try expectRefusal(
      [
        "vocab.json": Mini.vocab, "merges.txt": Mini.merges,
        "tokenizer_config.json": "{\(members)}",
      ], "tokenizer_config.json", "at most 4096 fields")
  }

  @Test(arguments: ["vocab.json", "merges.txt", "tokenizer.json", "added_tokens.json"])
  func notAFile(_ name: String) throws {
    let directory = try write(
      name == "tokenizer.json" ? [:] : ["vocab.json": Mini.vocab, "merges.txt": Mini.merges])
    let path = directory.file(name)
    try? FileManager.default.removeItem(atPath: path)
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
    var special = Checkpoint.SpecialTokens()
    #expect(throws: ModelSourceError.unreadable(path: path, reason: "is a directory")) {
      try HuggingFaceTokenizer.read(directory.path, &special)
    }
  }

  /// Bytes flipped, deleted, inserted, repeated and cut off: an error of one line that names a file,
  /// or a tokenizer whose tokens are the text.
  @Test(arguments: ["vocab.json", "merges.txt", "tokenizer.json"])
  func mutations(_ name: String) throws {
    let whole: [String: String] =
      name == "tokenizer.json"
      ? [name: Mini.json()] : ["vocab.json": Mini.vocab, "merges.txt": Mini.merges]
    let directory = try write(whole)
    let original = Array((whole[name] ?? "").utf8)
    var random = SeededGenerator(seed: 41)
    var (refused, taken) = (0, 0)
    for _ in 0..<600 {
      var bytes = original
      for _ in 0..<Int.random(in: 1...3, using: &random) where !bytes.isEmpty {
        let place = Int.random(in: 0..<bytes.count, using: &random)
        let end = min(place + Int.random(in: 1...40, using: &random), bytes.count)
        switch Int.random(in: 0..<6, using: &random) {
        case 0: bytes[place] ^= 1 << UInt8.random(in: 0..<8, using: &random)
        case 1: bytes.removeSubrange(place..<end)
        case 2: bytes.insert(UInt8.random(in: 0...255, using: &random), at: place)
        case 3: bytes.insert(contentsOf: bytes[place..<end], at: place)
        case 4:
          bytes.insert(contentsOf: Array("\"\\{}[]: ,\n0".utf8).shuffled(using: &random), at: place)
        default: bytes.removeSubrange(place...)
        }
      }
      try Data(bytes).write(to: URL(fileURLWithPath: directory.file(name)))
      var special = Checkpoint.SpecialTokens()
      do {
        let payload = try #require(try HuggingFaceTokenizer.read(directory.path, &special))
        let tables = TokenizerTables(
          tokenBytes: payload.tokenBytes, tokenOffsets: payload.tokenOffsets.map { Int32($0) },
          mergePairs: payload.mergePairs)
        let tokenizer = try Tokenizer(tables: tables, bos: nil, eos: nil)
        let text = "The keys aren't <|endoftext|> é 🫠\n\n 12"
        #expect(try tokenizer.decode(tokenizer.encode(text)) == text)
        taken += 1
      } catch let error as ModelSourceError {
        #expect("\(error)".contains(directory.path + "/"), "\(error)")
        #expect(!"\(error)".contains("\n"), "\(error)")
        refused += 1
      }
    }
    print("\(name): 600 mutations, \(refused) refused, \(taken) taken")
    #expect(refused > 200)
  }

  // MARK: Helpers

  private func write(_ files: [String: String]) throws -> TemporaryDirectory {
    let directory = try TemporaryDirectory()
    for (name, text) in files { try directory.write(text, as: name) }
    return directory
  }

  private func read(
    _ files: [String: String]
  ) throws -> (TokenizerPayload, Checkpoint.SpecialTokens) {
    let directory = try write(files)
    var special = Checkpoint.SpecialTokens(bos: 0, eos: 0)
    let payload = try HuggingFaceTokenizer.read(directory.path, &special)
    return (try #require(payload), special)
  }

  private func expectRefusal(
    _ files: [String: String], _ name: String, _ part: String, isMissing: Bool = false
  ) throws {
    do {
      _ = try read(files)
      Issue.record("\(name) was taken, expected an error with \(part)")
    } catch let error as ModelSourceError {
      let text = "\(error)"
      #expect(text.contains("/\(name)") && text.contains(part) && !text.contains("\n"), "\(text)")
      #expect(error.isMissing == isMissing)
    }
  }
}

/// The files of the bundled models' tokenizer.
private enum Mini {
  static let vocab = text("vocab.json")
  static let merges = text("merges.txt")

  private static func text(_ name: String) -> String {
    let path = "\(Fixtures.repository)/Tests/Fixtures/tokenizer/mini/\(name)"
    return (try? String(contentsOfFile: path, encoding: .utf8)) ?? ""
  }

  /// A `tokenizer.json` of the two files.
  ///
  /// - Parameters:
  ///   - top: a member of the top level, `added_tokens` by default.
  ///   - model: a member of the model, beside its vocabulary and merges.
  ///   - pairs: whether merges are pairs, as newer files have them.
  static func json(
    top: String = #""added_tokens": [{"id": 0, "content": "<|endoftext|>", "special": true}]"#,
    model: String = #""type": "BPE""#,
    preTokenizer: String = #"{"type": "ByteLevel", "add_prefix_space": false, "use_regex": true}"#,
    pairs: Bool = true
  ) -> String {
    let lines = merges.split(separator: "\n").dropFirst().map { line in
      let line = line.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"")
      return pairs ? "[\"" + line.replacing(" ", with: "\", \"") + "\"]" : "\"\(line)\""
    }
    return "{\(top), \"pre_tokenizer\": \(preTokenizer), "
      + "\"decoder\": {\"type\": \"ByteLevel\", \"add_prefix_space\": true}, \"model\": {\(model), "
      + "\"vocab\": \(vocab), \"merges\": [\(lines.joined(separator: ", "))]}}"
  }
}
