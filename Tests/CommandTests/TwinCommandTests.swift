import Foundation
import NormLens
import TestSupport
import Testing

/// Several `--model` as a person meets them.
@Suite struct TwinCommandTests {
  private static let text = "When Mary and John went to the store, John gave a drink to"

  /// The file that is written while the models run holds what the library gives; JSON holds it, too.
  @Test func fileAndMemory() throws {
    let directory = try TemporaryDirectory()
    let arguments = [
      "geometry", "mini", "--model", "mini-lnfree", "--prompt", Self.text, "--prompt", "hat ring",
    ]
    let text = try Command.succeed(arguments + ["-o", "g.h5"], in: directory)
    #expect(text.hasPrefix("mini\n====\n") && text.contains("\nmini-lnfree\n===========\n"))
    #expect(text.contains("every measure that differs"))
    let read = try ResultFile.read(directory.file("g.h5"))
    let models = try ["mini", "mini-lnfree"].map { try GPT2.load(Fixtures.bundled($0)) }
    let prompts = try [Self.text, "hat ring"].map { Prompt(try models[0].tokens($0)) }
    let direct = try LayerNormGeometry(batchSize: 2).run(models, prompts)
    #expect(read.title == "LayerNorm geometry of mini, beside mini-lnfree")
    #expect(Set(read.groups.map(\.path)) == Set(direct.groups.map(\.path)))
    #expect(read.provenance.facts["model_name"] == .strings(["mini", "mini-lnfree"]))
    #expect(read.provenance.facts["normalization"] == .strings(["layernorm", "none"]))
    #expect(
      read.provenance.facts["weight_processing"] == .strings(["none", "fold_affine_norms"]))
    try expectSame(read, as: direct.groups)
    let json = try Command.succeed(arguments + ["--json"], in: directory)
    let object = try #require(
      JSONSerialization.jsonObject(with: Data(json.utf8)) as? [String: Any])
    #expect(object["ln_geometry/summary/difference"] != nil)
  }

  /// One model alone, however it is named.
  @Test func oneModel() throws {
    let directory = try TemporaryDirectory()
    let arguments = ["--prompt", Self.text, "--answer", " Mary"]
    let plain = try Command.succeed(["dla", "mini"] + arguments, in: directory)
    #expect(try Command.succeed(["dla", "--model", "mini"] + arguments, in: directory) == plain)
    #expect(!plain.contains("every measure"))
  }

  /// Analyses that give whole results.
  @Test func wholeResults() throws {
    let directory = try TemporaryDirectory()
    let ioi = "\(Fixtures.data)/prompts/ioi.json"
    let models = ["mini-vanilla", "--model", "mini-lnfree"]
    for (name, options, group, axes) in [
      (
        "dla", ["--answer", " Mary", "--prompt", Self.text], "dla",
        ["prompt", "model", "component"]
      ),
      ("lens", ["--prompt", "hat ring"], "logit_lens", ["prompt", "model", "stream", "pos"]),
      (
        "patch", ["--prompts", ioi, "--method", "attribution", "--sites", "attn_out"],
        "patch/attribution", ["prompt", "model", "layer", "pos"]
      ),
      (
        "paths", ["--prompts", ioi, "--senders", "heads", "--receivers", "final"], "path",
        ["prompt", "model", "sender", "receiver"]
      ),
    ] {
      try Command.succeed([name] + models + options + ["-o", "\(name).h5"], in: directory)
      let read = try ResultFile.read(directory.file("\(name).h5"))
      let found = try read.group(group)
      #expect(found.variables.contains { $0.dimensions == axes }, "\(name)")
      let beside = try read.group("\(group)/difference")
      #expect(beside[dimension: "pair"]?.coordinates == .labels(["mini-lnfree − mini-vanilla"]))
    }
  }

  @Test func mistakes() throws {
    let directory = try TemporaryDirectory()
    func fail(
      _ arguments: [String], _ status: Int32, usage: Bool = false, saying: String...
    ) throws {
      try Command.fail(arguments, status, saying: saying, usage: usage, in: directory)
    }
    let prompt = ["--prompt", "hat ring"]
    try fail(["geometry"] + prompt, 64, usage: true, saying: "Missing expected argument '<model>'")
    try fail(["geometry", "mini", "--model", "nowhere"] + prompt, 66, saying: "nowhere")
    try fail(
      ["geometry", "mini", "--model", Fixtures.checkpoint("tiny-ln"), "--tokens", "1,2"], 65,
      saying: "several models: 'mini' and 'tiny-ln' have", "run them one by one")
    try fail(
      ["geometry", "mini", "--model", Fixtures.checkpoint("tiny-ln")] + prompt, 65,
      saying: "model 'tiny-ln'")
    let pairs = ["--prompts", "\(Fixtures.data)/prompts/ioi.json", "-o", "p.h5"]
    try fail(
      ["patch", "mini", "--model", "mini-lnfree", "--resume"] + pairs, 64,
      saying: "--resume", "run them one by one")
    try fail(
      ["dla", "mini", "--model", "mini-lnfree", "--prompt", "hat", "--answer", " ring", "-o"]
        + [Fixtures.bundled("mini-lnfree")], 64, saying: "would replace the input")
    // A model that puts no BOS token in front of text reads other tokens.
    var checkpoint = try Checkpoint.open(Fixtures.bundled("mini"))
    checkpoint.prependBOS = false
    checkpoint.identity.name = "bare"
    try ModelFile.write(checkpoint, to: directory.file("bare.h5"))
    try fail(
      ["geometry", "mini", "--model", "bare.h5"] + prompt, 65, saying: "BOS", "--no-bos")
    try Command.succeed(
      ["geometry", "mini", "--model", "bare.h5", "--no-bos", "--quiet"] + prompt, in: directory)
    // One that reads n_ctx of other length refuses by name.
    try fail(
      ["geometry", "mini", "--model", "mini-lnfree", "--tokens"]
        + [Array(repeating: "1", count: 129).joined(separator: ",")], 65, saying: "model 'mini'")
  }
}
