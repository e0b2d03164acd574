import Foundation
import NormLens
import TestSupport
import Testing

/// `normlens stream` as a person meets it.
@Suite struct StreamCommandTests {
  private static let text = "When Mary and John went to the store, John gave a drink to"

  @Test(arguments: ["mini", "mini-lnfree"])
  func tables(_ model: String) throws {
    try Snapshot.expect(
      try Command.succeed(["stream", model, "--prompt", Self.text], in: TemporaryDirectory()),
      "stream-\(model)", columnsMayMove: true)
  }

  /// The file that is written while the model runs holds what memory would.
  @Test func fileAndMemory() throws {
    let directory = try TemporaryDirectory()
    let arguments = [
      "stream", "mini", "--prompt", Self.text, "--prompt", "The capital of France is",
      "--reference-conventions",
    ]
    let text = try Command.succeed(arguments + ["-o", "s.h5"], in: directory)
    #expect(text.hasSuffix("wrote s.h5\n"))
    let read = try ResultFile.read(directory.file("s.h5"))
    let model = try GPT2.load(Fixtures.bundled("mini"))
    let prompts = try [Self.text, "The capital of France is"].map { Prompt(try model.tokens($0)) }
    let direct = try StreamMeasures(batchSize: 2, referenceConventions: true).run(model, prompts)
    #expect(read.title == direct.title)
    #expect(Set(read.groups.map(\.path)) == Set(direct.groups.map(\.path)))
    try expectSame(read, as: direct.groups)
    let json = try Command.succeed(arguments + ["--json"], in: directory)
    let object = try #require(
      JSONSerialization.jsonObject(with: Data(json.utf8)) as? [String: Any])
    #expect(object["stream"] != nil && object["stream/linearity"] != nil)
    #expect(try Command.succeed(arguments + ["-o", "q.h5", "--quiet"], in: directory).isEmpty)
    #expect(try Command.succeed(["show", "s.h5"], in: directory).contains("stream/spectra"))
  }

  /// `--heads` gives what `heads` gives.
  @Test func heads() throws {
    let directory = try TemporaryDirectory()
    let prompts = ["mini", "--prompt", Self.text, "--prompt", "The capital of France is"]
    let both = try Command.succeed(["stream"] + prompts + ["--heads", "-o", "s.h5"], in: directory)
    #expect(both.contains("single activations of all tokens") && both.contains("sink rate"))
    try Command.succeed(["heads"] + prompts + ["-o", "h.h5"], in: directory)
    let read = try ResultFile.read(directory.file("s.h5"))
    let alone = try ResultFile.read(directory.file("h.h5"))
    #expect(alone.groups.map(\.path).contains("heads/weights"))
    try expectSame(read, as: alone.groups)
  }

  @Test func ablations() throws {
    let directory = try TemporaryDirectory()
    let text = try Command.succeed(
      [
        "stream", "mini", "--prompt", Self.text, "--prompt", "The capital of France is",
        "--ablations", "--lambdas", "0,0.5,1", "--massive", "0:3,2:7", "--massive-layer", "2",
        "-o", "s.h5",
      ], in: directory)
    for part in ["best by loss", "best by angle", "lambda", "massive activations before block 2"] {
      #expect(text.contains(part), "\(part)")
    }
    let group = try ResultFile.read(directory.file("s.h5")).group("stream/ablation")
    #expect(group[dimension: "lambda"]?.coordinates == .labels(["0.0", "0.5", "1.0"]))
    #expect(try group.doubles("lambda_value") == [0, 0.5, 1])
    #expect(group.attributes["prompts"]?.description.hasPrefix("2 of 2") == true)
    let without = try Command.succeed(["stream", "mini", "--prompt", Self.text], in: directory)
    #expect(!without.contains("best by loss"))
  }

  @Test func mistakes() throws {
    let directory = try TemporaryDirectory()
    func fail(_ arguments: [String], _ status: Int32, saying: String...) throws {
      try Command.fail(
        ["stream"] + arguments, status, saying: saying, usage: false, in: directory)
    }
    let prompt = ["mini", "--tokens", "1,2,3"]
    try fail(["mini"], 64, saying: "no prompt")
    try fail(prompt + ["-o", "nowhere/s.h5"], 73, saying: "no directory")
    try fail(["nosuch.h5", "--tokens", "1"], 66, saying: "nosuch.h5")
    try fail(["mini", "--tokens", "1,99999999"], 65, saying: "99999999")
    try fail(["mini", "--tokens", "5", "--ablations"], 65, saying: "no loss", "two tokens")
    try fail(
      prompt + ["--process", "fold_ln,center_writing_weights,isometric"], 65,
      saying: "isometric", "ones direction")
    #expect(try !FileManager.default.contentsOfDirectory(atPath: directory.path).contains("s.h5"))
  }

  @Test func ablationMistakes() throws {
    let directory = try TemporaryDirectory()
    func fail(
      _ arguments: [String], _ status: Int32, usage: Bool = false, saying: String...
    ) throws {
      try Command.fail(arguments, status, saying: saying, usage: usage, in: directory)
    }
    let stream = ["stream", "mini", "--tokens", "1,2,3"]
    try fail(stream + ["--lambdas", "0.5"], 64, usage: true, saying: "--ablations")
    try fail(stream + ["--massive-layer", "1"], 64, usage: true, saying: "--ablations")
    let ablations = stream + ["--ablations"]
    try fail(ablations + ["--lambdas", "0,a"], 64, saying: "'a'")
    try fail(ablations + ["--lambdas", "inf"], 64, saying: "'inf'")
    try fail(ablations + ["--massive", "0"], 64, saying: "'0'", "POSITION:COORDINATE")
    try fail(ablations + ["--massive", "0:3,0:3"], 64, saying: "massive 0:3", "named before")
    try fail(ablations + ["--massive", "9:0"], 64, saying: "massive 9:0", "3 tokens")
    try fail(ablations + ["--massive", "0:192"], 64, saying: "massive 0:192", "0 to 191")
    try fail(ablations + ["--massive-layer", "4"], 64, saying: "massive layer 4")
    try fail(
      ablations + ["--ablation-prompts", "0"], 64, usage: true, saying: "--ablation-prompts")
  }
}
