import Foundation
import NormLens
import TestSupport
import Testing

/// `normlens neurons` as a person meets it.
@Suite struct NeuronsCommandTests {
  private static let text = "When Mary and John went to the store, John gave a drink to"

  @Test(arguments: ["mini", "mini-lnfree"])
  func tables(_ model: String) throws {
    try Snapshot.expect(
      try Command.succeed(["neurons", model, "--prompt", Self.text], in: TemporaryDirectory()),
      "neurons-\(model)", columnsMayMove: true)
  }

  @Test func weightsAlone() throws {
    let directory = try TemporaryDirectory()
    let text = try Command.succeed(
      ["neurons", "mini", "--layer", "1", "-o", "w.h5"], in: directory)
    #expect(text.contains("L1N") && text.contains("logit variance") && !text.contains("mediated"))
    let group = try ResultFile.read(directory.file("w.h5")).group("neurons")
    #expect(group.attributes["layer"] == .integer(1))
    #expect(group[variable: "loss_effect_total"] == nil)
    let none = try Command.succeed(
      ["neurons", "mini", "--ablate", "none", "--prompt", Self.text], in: directory)
    #expect(none.contains("L3N") && !none.contains("mediated"))
  }

  @Test func fileAndList() throws {
    let directory = try TemporaryDirectory()
    let arguments = [
      "neurons", "mini", "--prompt", Self.text, "--ablate", "5,700", "--skip-first", "3",
      "--null-space", "4",
    ]
    let text = try Command.succeed(arguments + ["-o", "n.h5"], in: directory)
    #expect(text.contains("L3N5 ") && text.contains("L3N700 ") && text.hasSuffix("wrote n.h5\n"))
    let model = try GPT2.load(Fixtures.bundled("mini"))
    let direct = try EntropyNeurons(
      batchSize: 1, nullSpace: 4, ablated: .neurons([5, 700]), skipFirst: 3
    ).run(model, [Prompt(try model.tokens(Self.text))]).group("neurons")
    let read = try ResultFile.read(directory.file("n.h5")).group("neurons")
    for variable in direct.variables {
      let (found, expected) = (
        try read.doubles(variable.name), try direct.doubles(variable.name)
      )
      #expect(
        areSame(found, expected), "\(variable.name)")
      for attribute in ["long_name", "units"] { #expect(variable.attributes[attribute] != nil) }
    }
    let json = try Command.succeed(arguments + ["--json"], in: directory)
    #expect(try JSONSerialization.jsonObject(with: Data(json.utf8)) is [String: Any])
    #expect(try Command.succeed(["show", "n.h5"], in: directory).contains("neurons"))
  }

  @Test func mistakes() throws {
    let directory = try TemporaryDirectory()
    func fail(
      _ arguments: [String], _ status: Int32, usage: Bool = false, saying: String...
    ) throws {
      try Command.fail(arguments, status, saying: saying, usage: usage, in: directory)
    }
    let neurons = ["neurons", "mini", "--tokens", "1,2,3"]
    try fail(neurons + ["--ablate", "5,x"], 64, saying: "'x'")
    try fail(neurons + ["--ablate", "99999"], 64, saying: "99999", "0 to 767")
    try fail(neurons + ["--ablate", "5,5"], 64, saying: "neuron 5")
    try fail(neurons + ["--ablate", "5", "--layer", "0"], 65, saying: "layer 0", "layer 3")
    try fail(neurons + ["--layer", "4"], 64, saying: "4")
    try fail(neurons + ["--null-space", "0"], 65, saying: "null space of 0")
    try fail(neurons + ["--skip-first", "-1"], 64, usage: true, saying: "--skip-first")
    try fail(["neurons", "mini", "--ablate", "all"], 64, saying: "no prompt")
    try fail(
      ["neurons", "mini", "--tokens", "5"], 65, saying: "no prediction", "more than 1 token")
    try fail(neurons + ["--skip-first", "2"], 65, saying: "more than 3 tokens", "at most 3")
    try fail(["neurons", "mini", "-o", "nowhere/n.h5"], 73, saying: "no directory")
    try fail(["neurons", "nosuch.h5"], 66, saying: "nosuch.h5")
  }
}
