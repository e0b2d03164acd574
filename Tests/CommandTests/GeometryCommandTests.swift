import Foundation
import NormLens
import TestSupport
import Testing

/// `normlens geometry` as a person meets it.
@Suite struct GeometryCommandTests {
  private static let text = "When Mary and John went to the store, John gave a drink to"

  @Test(arguments: ["mini", "mini-lnfree"])
  func tables(_ model: String) throws {
    try Snapshot.expect(
      try Command.succeed(["geometry", model, "--prompt", Self.text], in: TemporaryDirectory()),
      "geometry-\(model)", columnsMayMove: true)
  }

  /// The file that is written while the model runs holds what memory would.
  @Test func fileAndMemory() throws {
    let directory = try TemporaryDirectory()
    let arguments = [
      "geometry", "mini", "--prompt", Self.text, "--prompt", "The capital of France is", "--steps",
      "1:-1,2",
    ]
    let text = try Command.succeed(arguments + ["-o", "g.h5"], in: directory)
    #expect(text.hasSuffix("wrote g.h5\n"))
    let read = try ResultFile.read(directory.file("g.h5"))
    let model = try GPT2.load(Fixtures.bundled("mini"))
    let prompts = try [Self.text, "The capital of France is"].map { Prompt(try model.tokens($0)) }
    let direct = try LayerNormGeometry(
      batchSize: 2, steps: [NormStep(prompt: 1, position: -1), NormStep(position: 2)]
    ).run(model, prompts)
    #expect(read.title == direct.title)
    #expect(Set(read.groups.map(\.path)) == Set(direct.groups.map(\.path)))
    #expect(read.provenance.facts["seed"] == .integer(0))
    try expectSame(read, as: direct.groups)
    let json = try Command.succeed(arguments + ["--json"], in: directory)
    let object = try #require(
      JSONSerialization.jsonObject(with: Data(json.utf8)) as? [String: Any])
    #expect(object["ln_geometry"] != nil && object["ln_steps"] != nil)
    #expect(try Command.succeed(arguments + ["-o", "q.h5", "--quiet"], in: directory).isEmpty)
    let shown = try Command.succeed(["show", "g.h5"], in: directory)
    #expect(shown.contains("ln_geometry"))
  }

  @Test func mistakes() throws {
    let directory = try TemporaryDirectory()
    func fail(
      _ arguments: [String], _ status: Int32, usage: Bool = false, saying: String...
    ) throws {
      try Command.fail(
        ["geometry"] + arguments, status, saying: saying, usage: usage, in: directory)
    }
    let prompt = ["mini", "--tokens", "1,2,3"]
    try fail(["mini"], 64, saying: "no prompt")
    try fail(prompt + ["--steps", "1"], 64, usage: true, saying: "--steps", "-o")
    try fail(prompt + ["--steps", "a", "-o", "g.h5"], 64, saying: "'a'", "PROMPT:POSITION")
    try fail(prompt + ["--steps", "1:2:3", "-o", "g.h5"], 64, saying: "'1:2:3'")
    try fail(
      prompt + ["--steps", "3", "-o", "g.h5"], 64, saying: "'steps 3' matches nothing", "position 3"
    )
    try fail(prompt + ["--steps", "4:0", "-o", "g.h5"], 64, saying: "no prompt 4")
    try fail(prompt + ["-o", "nowhere/g.h5"], 73, saying: "no directory")
    try fail(["nosuch.h5", "--tokens", "1"], 66, saying: "nosuch.h5")
    try fail(["mini", "--tokens", "1,99999999"], 65, saying: "99999999")
    try fail(
      prompt + ["--process", "fold_ln,center_writing_weights,isometric"], 65,
      saying: "isometric", "ones direction")
  }
}
