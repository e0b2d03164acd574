import NormLens
import TestSupport
import Testing

/// `--context`: long texts in windows.
@Suite struct WindowTests {
  private static let long = String(repeating: "The cat sat on the mat. ", count: 60)

  @Test func longTextsAreCutWhereAskedFor() throws {
    let directory = try TemporaryDirectory()
    try directory.write(Self.long, as: "long.txt")
    try directory.write("A short one.", as: "short.txt")
    let model = try GPT2.load(Fixtures.bundled("mini"))
    let windows = try model.windows(of: Self.long, length: 50)
    let outcome = try Command.run(
      [
        "geometry", "mini", "--text", "short.txt", "--text", "long.txt", "--context", "50", "-o",
        "g.h5",
      ], in: directory)
    #expect(outcome.status == 0)
    #expect(
      outcome.errors
        == "normlens: 1 text cut into \(windows.windows.count) windows of at most 50 tokens\n")
    let read = try ResultFile.read(directory.file("g.h5"))
    #expect(read.provenance.facts["context"] == .integer(50))
    #expect(read.provenance.facts["context_windows"] == .integer(windows.windows.count))
    #expect(read.provenance.facts["context_dropped_tokens"] == .integer(0))
    #expect(try read.group("ln_geometry")[dimension: "prompt"]?.count == windows.windows.count + 1)
    let quiet = try Command.run(
      ["geometry", "mini", "--text", "long.txt", "--context", "50", "-o", "q.h5", "--quiet"],
      in: directory)
    #expect(quiet.errors.isEmpty && quiet.output.isEmpty && quiet.status == 0)
  }

  @Test func whatIsLeftOverIsSaid() throws {
    let outcome = try Command.run(
      ["tokenize", "mini", "--tokens", "1,2,3,4,5", "--context", "4", "--json"],
      in: TemporaryDirectory())
    #expect(
      outcome.errors
        == "normlens: 1 text cut into 1 window of at most 4 tokens; 1 token left over, alone in a "
        + "window\n")
    #expect(outcome.output.split(separator: "\n").count == 1)
  }

  @Test func promptsWithAnswersStayWhole() throws {
    let directory = try TemporaryDirectory()
    try directory.write(
      """
      {"name": "two", "prompts": [
        {"clean": "The cat sat on the mat and the dog", "answer": " and"},
        {"clean": "The cat sat on the mat and the dog"}]}
      """, as: "two.json")
    let outcome = try Command.run(
      ["tokenize", "mini", "--prompts", "two.json", "--context", "6", "--json"], in: directory)
    #expect(outcome.status == 0)
    #expect(outcome.errors.contains("1 text cut"))
    #expect(outcome.errors.contains("1 prompt with answers longer than --context 6: not cut"))
    let lens = try Command.run(
      [
        "lens", "mini", "--prompt", "The cat sat on the mat and the dog", "--answer", " and",
        "--context", "6",
      ], in: directory)
    #expect(lens.status == 0)
    #expect(
      lens.errors == "normlens: 1 prompt with answers longer than --context 6: not cut\n")
  }

  @Test func mistakes() throws {
    let directory = try TemporaryDirectory()
    try directory.write(Self.long, as: "long.txt")
    try Command.fail(
      ["geometry", "mini", "--text", "long.txt"], 65, saying: ["n_ctx = 128", "--context 128"],
      in: directory)
    try Command.fail(
      ["geometry", "mini", "--text", "long.txt", "--context", "129"], 65,
      saying: ["--context 129", "n_ctx = 128"], in: directory)
    try Command.fail(
      ["geometry", "mini", "--text", "long.txt", "--context", "1"], 64, saying: ["--context 1"],
      usage: true, in: directory)
    // The question stands at the text's end: no advice to cut it.
    let answered = try Command.run(
      ["lens", "mini", "--prompt", Self.long, "--answer", " and"], in: directory)
    #expect(answered.status == 65 && !answered.errors.contains("--context"))
  }
}
