import Foundation
import HDF5Store
import HookedGPT2

/// Reads the tokenizer of a checkpoint directory: `vocab.json` and `merges.txt`.
enum HuggingFaceTokenizer {
  /// The tokenizer of `vocab.json` and `merges.txt`; nil where the directory has neither.
  static func read(
    _ directory: String, _ special: Checkpoint.SpecialTokens
  ) throws -> TokenizerPayload? {
    let (vocabPath, mergesPath) = ("\(directory)/vocab.json", "\(directory)/merges.txt")
    let found = [vocabPath, mergesPath].filter { FileManager.default.fileExists(atPath: $0) }
    if found.isEmpty { return nil }
    if found.count == 1 {
      throw ModelSourceError.noCheckpoint(
        directory: directory, expected: "vocab.json and merges.txt, found only \(found[0])")
    }
    let (vocab, merges) = (try readBytes(vocabPath), try readBytes(mergesPath))
    var vocabulary: [(String, Int)] = []
    do {
      try JSONScanner.forEachMember(of: vocab.span) { key, id in
        var bytes: [UInt8] = []
        bytes.reserveCapacity(key.count)
        for i in 0..<key.count { bytes.append(key[i]) }
        vocabulary.append((String(decoding: bytes, as: UTF8.self), id))
      }
    } catch {
      throw ModelSourceError.field(
        path: vocabPath, field: "vocabulary", expected: "an object of tokens and ids",
        found: "\(error)")
    }
    let tables = try TokenizerTables(vocabulary: vocabulary, merges: merges)
    try checkMerges(tables, special, path: mergesPath)
    return TokenizerPayload(
      vocabJSON: vocab, mergesText: merges, tokenBytes: tables.tokenBytes,
      tokenOffsets: tables.tokenOffsets.map { Int($0) }, mergePairs: tables.mergePairs)
  }

  /// Every token but a byte's and special ones is what some merge makes. Without its merge no text is
  /// ever cut into it: a merges.txt that is empty or cut would turn texts into bytes in silence.
  private static func checkMerges(
    _ tables: TokenizerTables, _ special: Checkpoint.SpecialTokens, path: String
  ) throws(ModelSourceError) {
    func bytes(_ id: Int) -> ArraySlice<UInt8> {
      tables.tokenBytes[Int(tables.tokenOffsets[id])..<Int(tables.tokenOffsets[id + 1])]
    }
    let pairs = tables.mergePairs
    let made = Set(
      stride(from: 0, to: pairs.count, by: 2)
        .map { bytes(Int(pairs[$0])) + bytes(Int(pairs[$0 + 1])) })
    let unmerged = Set(tables.special.values).union([special.bos, special.eos].compactMap { $0 })
    let lost = (0..<tables.count).filter { id in
      let token = bytes(id)
      // <pad>, [UNK] and the like are special whether or not a configuration says so.
      let ends = (token.first, token.last)
      let isMark =
        ends == (UInt8(ascii: "<"), UInt8(ascii: ">"))
        || ends == (UInt8(ascii: "["), UInt8(ascii: "]"))
      return token.count > 1 && !isMark && !unmerged.contains(id) && !made.contains(token)
    }
    guard let first = lost.first else { return }
    throw .weights(
      path: path,
      problem: "no merge makes \(lost.count) of the tokens in vocab.json, the first "
        + "'\(String(decoding: bytes(first), as: UTF8.self))' (id \(first)); the file is cut or "
        + "belongs to another vocab.json")
  }

  static func readBytes(_ path: String) throws(ModelSourceError) -> [UInt8] {
    do {
      return [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
    } catch {
      throw .unreadable(path)
    }
  }
}
