import Foundation
import NormLens
import TestSupport
import Testing

/// `normlens evaluate` as a person meets it.
@Suite struct EvaluateCommandTests {
  private static let text = "When Mary and John went to the store, John gave a drink to"
  private static let two = [
    "--prompt", text, "--prompt", "The capital of France is the city of Paris.",
  ]

  @Test func tables() throws {
    try Snapshot.expect(
      try Command.succeed(["evaluate", "mini"] + Self.two, in: TemporaryDirectory()),
      "evaluate-mini", columnsMayMove: true)
    try Snapshot.expect(
      try Command.succeed(
        ["evaluate", "mini", "--prompt", Self.text, "--against", "mini-lnfree", "--freeze-ln"],
        in: TemporaryDirectory()),
      "evaluate-against-freeze", columnsMayMove: true)
  }

  /// The file that is written while the model runs holds what memory would.
  @Test func fileAndMemory() throws {
    let directory = try TemporaryDirectory()
    let arguments =
      ["evaluate", "mini"] + Self.two
      + ["--against", "mini-vanilla", "--freeze-ln", "--skip-token", "12", "--skip-token", "262"]
    let text = try Command.succeed(arguments + ["-o", "e.h5"], in: directory)
    #expect(text.hasSuffix("wrote e.h5\n"))
    let read = try ResultFile.read(directory.file("e.h5"))
    let model = try GPT2.load(Fixtures.bundled("mini"))
    let prompts = try [Self.text, "The capital of France is the city of Paris."].map {
      Prompt(try model.tokens($0))
    }
    let direct = try Evaluation(
      batchSize: 2, skippedTokens: [12, 262],
      against: try GPT2.load(Fixtures.bundled("mini-vanilla")), freezing: NormFreezing()
    ).run(model, prompts)
    #expect(read.title == direct.title)
    #expect(Set(read.groups.map(\.path)) == Set(direct.groups.map(\.path)))
    for group in direct.groups {
      #expect(
        Set(try read.group(group.path).variables.map(\.name)) == Set(group.variables.map(\.name)))
    }
    try expectSame(read, as: direct.groups)
    #expect(try read.group("evaluate").attributes["against_model"] == .string("mini-vanilla"))
    let json = try Command.succeed(arguments + ["--json"], in: directory)
    let object = try #require(
      JSONSerialization.jsonObject(with: Data(json.utf8)) as? [String: Any])
    let evaluate = try #require(object["evaluate"] as? [String: Any])
    let variables = try #require(evaluate["variables"] as? [String: Any])
    #expect(["loss", "loss_mean", "jsd", "jsd_mean"].allSatisfy { variables[$0] != nil })
    #expect(try Command.succeed(arguments + ["-o", "q.h5", "--quiet"], in: directory).isEmpty)
    #expect(try Command.succeed(["show", "e.h5"], in: directory).contains("loss_mean"))
  }

  /// A long text is cut at n_ctx without being asked, and says so.
  @Test func longText() throws {
    let directory = try TemporaryDirectory()
    try directory.write(String(repeating: "The cat sat on the mat. ", count: 60), as: "long.txt")
    let outcome = try Command.run(
      ["evaluate", "mini", "--text", "long.txt", "-o", "e.h5"], in: directory)
    #expect(outcome.status == 0)
    #expect(outcome.errors.contains("1 text cut into 5 windows of at most 128 tokens"))
    let read = try ResultFile.read(directory.file("e.h5"))
    #expect(read.provenance.facts["context"] == .integer(128))
    #expect(try read.group("evaluate")[dimension: "prompt"]?.count == 5)
  }

  @Test func withoutTokenizer() throws {
    let directory = try TemporaryDirectory()
    let tiny = Fixtures.checkpoint("tiny-ln")
    let text = try Command.succeed(["evaluate", tiny, "--tokens", "1,2,3,4,5,6"], in: directory)
    #expect(text.contains("tokens      5"))
    try Command.fail(["evaluate", tiny, "--prompt", "a"], 65, saying: ["--tokens"], in: directory)
  }

  @Test func mistakes() throws {
    let directory = try TemporaryDirectory()
    func fail(
      _ arguments: [String], _ status: Int32, usage: Bool = false, saying: String...
    ) throws {
      try Command.fail(
        ["evaluate"] + arguments, status, saying: saying, usage: usage, in: directory)
    }
    let prompt = ["mini", "--tokens", "1,2,3"]
    try fail(["mini"], 64, saying: "no prompt")
    try fail(["mini", "--tokens", "1"], 65, saying: "no token to predict")
    try fail(prompt + ["--bins", "0"], 64, usage: true, saying: "--bins 0")
    try fail(prompt + ["--freeze-prompts", "3"], 64, usage: true, saying: "--freeze-ln")
    try fail(
      prompt + ["--freeze-ln", "--freeze-prompts", "0"], 64, usage: true, saying: "--freeze-prompts"
    )
    try fail(
      prompt + ["--freeze-ln", "--freeze-positions", "some"], 64, usage: true, saying: "some")
    try fail(prompt + ["--skip-token", "99999999"], 65, saying: "99999999")
    try fail(
      ["mini-lnfree", "--tokens", "1,2,3", "--freeze-ln"], 65,
      saying: "mini-lnfree has no LayerNorm to freeze")
    try fail(prompt + ["--against", "nosuch.h5"], 66, saying: "nosuch.h5")
    try fail(
      prompt + ["--against", Fixtures.checkpoint("tiny-ln")], 65, saying: "vocabulary")
    try fail(prompt + ["-o", "nowhere/e.h5"], 73, saying: "no directory")
  }
}
