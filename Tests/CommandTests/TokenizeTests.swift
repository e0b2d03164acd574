import Foundation
import NormLens
import TestSupport
import Testing

/// `tokenize --lines`, and models with more ids than tokens.
@Suite struct TokenizeTests {
  @Test func manyTextsAtOnce() throws {
    let directory = try TemporaryDirectory()
    let texts = ["the theory", "", " \t", "é"]
    try directory.write(texts.joined(separator: "\n") + "\n", as: "lines")
    try directory.write(texts.joined(separator: "\0"), as: "nulls")
    let single = try texts.map { text in
      text.isEmpty
        ? #"{"ids": [], "tokens": []}"# + "\n"
        : try Command.succeed(["tokenize", "mini", "--no-bos", "--json", text], in: directory)
    }.joined()
    let options = ["tokenize", "mini", "--no-bos", "--json", "--lines"]
    #expect(try Command.succeed(options + ["lines"], in: directory) == single)
    #expect(try Command.succeed(options + ["nulls", "--null"], in: directory) == single)
    let table = try Command.succeed(["tokenize", "mini", "--lines", "lines"], in: directory)
    #expect(table.split(separator: "<|endoftext|>").count == 5)
  }

  @Test func illFormedLines() throws {
    let directory = try TemporaryDirectory()
    let bytes: [UInt8] = [0x61, 0x0A, 0x62, 0xFF, 0x0A]
    try Data(bytes).write(to: URL(fileURLWithPath: directory.file("lines")))
    try Command.fail(
      ["tokenize", "mini", "--lines", "lines"], 65, saying: ["lines: not UTF-8 at byte 3"],
      in: directory)
    let options = ["tokenize", "mini", "--no-bos", "--json"]
    #expect(
      try Command.succeed(options + ["--lines", "lines", "--errors", "replace"], in: directory)
        == (try Command.succeed(options + ["a"], in: directory))
        + (try Command.succeed(options + ["b\u{FFFD}"], in: directory)))
    try Command.fail(
      ["tokenize", "mini", "a", "--null"], 64, saying: ["--lines"], usage: true,
      in: directory)
    try Command.fail(
      ["tokenize", "mini", "--lines", "lines", "--errors", "ignore"], 64, saying: ["strict"],
      usage: true, in: directory)
    try Command.fail(["tokenize", "mini", "--lines", "no"], 66, saying: ["no"], in: directory)
  }

  @Test func paddedVocabulary() throws {
    let directory = try TemporaryDirectory()
    let tokenizer = "\(Fixtures.repository)/Tests/Fixtures/tokenizer/mini"
    try Command.succeed(
      [
        "init", "--config", "1x1x8", "--positions", "16", "--vocabulary", "2112", "--tokenizer",
        tokenizer, "-o", "padded.h5",
      ], in: directory)
    let shown = try Command.succeed(
      ["tokenize", "padded.h5", "--tokens", "2047,2048,2111"], in: directory)
    #expect(shown.contains("|<unused 2048>|") && shown.contains("|<unused 2111>|"))
    // Every id is among the next tokens, and whatever comes is generated, looked at and stored.
    let all = try Command.succeed(
      ["run", "padded.h5", "the", "--top", "2112"], in: directory)
    #expect(all.contains("<unused 2048>") && all.contains("<unused 2111>"))
    for arguments in [
      ["run", "padded.h5", "--tokens", "0,2100", "--generate", "4"],
      ["inspect", "padded.h5"],
      ["cache", "padded.h5", "--tokens", "0,2100", "--hooks", "embed", "-o", "cache.h5"],
    ] { try Command.succeed(arguments, in: directory) }
    let lens = try Command.succeed(
      ["lens", "padded.h5", "--tokens", "0,2100", "-o", "lens.h5"], in: directory)
    #expect(lens.contains("<unused 2100>"))
    try Command.fail(
      ["tokenize", "padded.h5", "--tokens", "2112"], 65, saying: ["2112", "0 to 2111"],
      in: directory)
  }
}
