import Foundation
import NormLens
import TestSupport
import Testing

/// `normlens heads` as a person meets it.
@Suite struct HeadsCommandTests {
  private static let text = "When Mary and John went to the store, John gave a drink to"

  @Test(arguments: ["mini", "mini-lnfree"])
  func tables(_ model: String) throws {
    try Snapshot.expect(
      try Command.succeed(
        ["heads", model, "--prompt", Self.text, "--prompt", "a b c", "--composition"],
        in: TemporaryDirectory()), "heads-\(model)", columnsMayMove: true)
  }

  /// The file that is written while the model runs holds what memory would.
  @Test func fileAndMemory() throws {
    let directory = try TemporaryDirectory()
    let arguments = [
      "heads", "mini", "--repeated", "3", "--repeated-length", "12", "--seed", "4", "--exclude-bos",
      "--exclude-current-token", "--sink-threshold", "0.5", "--composition",
    ]
    let text = try Command.succeed(arguments + ["-o", "h.h5"], in: directory)
    #expect(text.contains("induction by offset") && text.hasSuffix("wrote h.h5\n"))
    let read = try ResultFile.read(directory.file("h.h5"))
    let model = try GPT2.load(Fixtures.bundled("mini"))
    let direct = try HeadMeasures(
      patterns: HeadPatterns.Settings(
        excludeBOS: true, excludeCurrentToken: true, sinkThreshold: 0.5, repeated: 12),
      composition: true
    ).run(model, RepeatedTokens(count: 3, length: 12, seed: 4).prompts(model))
    #expect(read.title == direct.title)
    #expect(Set(read.groups.map(\.path)) == Set(direct.groups.map(\.path)))
    #expect(read.provenance.facts["seed"] == .integer(4))
    for group in direct.groups {
      for variable in group.variables where variable.values.doubles != nil {
        let found = try read.doubles(group.path, variable.name)
        let expected = try group.doubles(variable.name)
        #expect(
          areSame(found, expected),
          "\(group.path)/\(variable.name)")
        let attributes = try #require(try read.group(group.path)[variable: variable.name])
          .attributes
        #expect(
          ["units", "long_name"].allSatisfy { attributes[$0] != nil },
          "\(group.path)/\(variable.name)")
      }
    }
    let json = try Command.succeed(arguments + ["--json"], in: directory)
    let object = try #require(
      JSONSerialization.jsonObject(with: Data(json.utf8)) as? [String: Any])
    #expect(object["heads"] != nil && object["heads/composition"] != nil)
    #expect(try Command.succeed(arguments + ["-o", "q.h5", "--quiet"], in: directory).isEmpty)
    #expect(try Command.succeed(["show", "h.h5"], in: directory).contains("heads/weights"))
  }

  /// A model of token ids; prompts of one token, and without any token twice.
  @Test func withoutTokenizer() throws {
    let directory = try TemporaryDirectory()
    let config = try GPT2Config(nLayers: 1, dModel: 8, nHeads: 2, nCtx: 16, dVocab: 20)
    try ModelFile.write(
      Checkpoint.random(config, name: "bare", seed: 1), to: directory.file("m.h5"))
    let text = try Command.succeed(
      ["heads", "m.h5", "--tokens", "3", "--tokens", "1,2,3"], in: directory)
    #expect(text.contains("induction: 2 of 2 prompts have no score"))
    #expect(text.contains("previous token: 1 of 2 prompts have no score"))
    let one = try Command.succeed(["heads", "m.h5", "--tokens", "3"], in: directory)
    #expect(one.contains("prompts of one token"))
    try Command.succeed(
      ["heads", "m.h5", "--repeated", "2", "--repeated-length", "8"], in: directory)
    try Command.fail(
      ["heads", "m.h5", "--repeated", "2", "--repeated-length", "9"], 65, saying: ["18", "16"],
      usage: false, in: directory)
  }

  @Test func mistakes() throws {
    let directory = try TemporaryDirectory()
    func fail(
      _ arguments: [String], _ status: Int32, usage: Bool = false, saying: String...
    ) throws {
      try Command.fail(
        ["heads"] + arguments, status, saying: saying, usage: usage, in: directory)
    }
    let prompt = ["mini", "--tokens", "1,2,3"]
    try fail(["mini"], 64, saying: "no prompt")
    try fail(prompt + ["--repeated", "2"], 64, usage: true, saying: "--repeated", "leave out")
    try fail(prompt + ["--repeated-length", "2"], 64, usage: true, saying: "--repeated-length")
    try fail(["mini", "--repeated", "0"], 64, usage: true, saying: "--repeated 0")
    try fail(
      ["mini", "--repeated", "1", "--repeated-length", "0"], 64, usage: true,
      saying: "--repeated-length 0")
    try fail(prompt + ["--sink-threshold", "1"], 64, usage: true, saying: "--sink-threshold")
    try fail(prompt + ["--sink-threshold", "nan"], 64, usage: true, saying: "--sink-threshold")
    try fail(["mini", "--repeated", "1", "--repeated-length", "5000"], 65, saying: "10001")
    try fail(prompt + ["-o", "nowhere/h.h5"], 73, saying: "no directory")
    try fail(
      prompt + ["--process", "fold_ln,center_writing_weights,crmsnorm", "--composition"], 65,
      saying: "crmsnorm", "composition")
  }
}
