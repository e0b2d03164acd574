import Foundation
import NormLens
import TestSupport
import Testing

/// Everything that can be wrong on a command line: exit status, one line, no traces.
@Suite struct ErrorTests {
  static let long = Array(repeating: "word", count: 200).joined(separator: " ")

  struct Case: CustomTestStringConvertible {
    var arguments: [String]
    var status: Int32
    var parts: [String]
    var usage = false

    init(_ arguments: [String], _ status: Int32, _ parts: String..., usage: Bool = false) {
      self.arguments = arguments
      self.status = status
      self.parts = parts
      self.usage = usage
    }

    var testDescription: String { "\(arguments.joined(separator: " ").prefix(80)) → \(status)" }
  }

  /// 66: an input is missing.
  static let missing = [
    Case(["run", "no.h5", "x"], 66, "no.h5", "mini-lnfree"),
    Case(["run", "minni", "x"], 66, "did you mean 'mini'?"),
    Case(["inspect", "no/such/dir"], 66, "no/such/dir"),
    Case(["convert", "no.h5", "-o", "out.h5"], 66, "no.h5"),
    Case(["inspect", "."], 66, "config.json"),
    Case(["show", "no.h5"], 66, "no.h5"),
    Case(["run", "mini", "--text", "no.txt"], 66, "no.txt"),
    Case(["lens", "mini", "--prompts", "no.json"], 66, "no.json"),
    Case(["init", "--config", "1x1x8", "--tokenizer", "no", "-o", "out.h5"], 66, "vocab.json"),
  ]

  /// 65: what was given is wrong.
  static let wrong = [
    Case(["run", "mini", long], 65, "401 tokens", "n_ctx = 128"),
    Case(["cache", "mini", "--prompt", long, "--hooks", "all", "-o", "out.h5"], 65, "n_ctx"),
    Case(["lens", "mini", "--prompt", "fine", "--prompt", long], 65, "prompt 1"),
    Case(["run", "mini", "--tokens", "5000"], 65, "5000", "2047"),
    Case(["run", "mini", "--tokens", "1,-1"], 65, "-1"),
    Case(["cache", "mini", "--tokens", "5000", "--hooks", "all", "-o", "out.h5"], 65, "5000"),
    Case(["dla", "mini", "--tokens", "5000", "--answer", " Mary", "-o", "out.h5"], 65, "5000"),
    Case(["run", "mini", "", "--no-bos"], 65, "no tokens"),
    Case(
      ["dla", "mini", "--prompt", "Mary and", "--answer", "Mary", "-o", "out.h5"], 65, "2 tokens",
      "\" Mary\""),
    Case(["lens", "mini", "--prompt", "x", "--answer", "Mary"], 65, "\" Mary\""),
    Case(
      ["dla", "mini", "--prompt", "x", "--answer", " Mary", "--wrong", "Karen"], 65, "\" Karen\""),
    Case(["dla", "mini", "--prompt", "x", "--answer", " Mary gave it"], 65, "tokens"),
    Case(["dla", "mini", "--prompt", "x"], 65, "no answer", "--answer"),
    Case(["run", "mini", "x", "--zero", "ln_final.hook_scale"], 65, "finite"),
    Case(
      ["dla", "mini", "--prompt", "x", "--answer", " Mary", "--zero", "scale0ln1", "-o", "out.h5"],
      65, "finite"),
  ]

  /// 64: the command line is wrong, found by the parser.
  static let usage = [
    Case(["run", "mini", "x", "--foo"], 64, "--foo", usage: true),
    Case(["run"], 64, "<model>", usage: true),
    Case(["frobnicate"], 64, "frobnicate", usage: true),
    Case(["run", "mini", "x", "--top", "0"], 64, "--top 0", usage: true),
    Case(["run", "mini", "x", "--top", "many"], 64, "many", usage: true),
    Case(["run", "mini", "x", "--threads", "0"], 64, "--threads 0", usage: true),
    Case(["run", "mini", "x", "--logits"], 64, "-o", usage: true),
    Case(["run", "mini", "x", "-o", "out.h5"], 64, "--logits", usage: true),
    Case(["run", "mini", "x", "--generate", "0"], 64, "--generate", usage: true),
    Case(["run", "mini", "x", "--freeze-ln"], 64, "--freeze-ln", usage: true),
    Case(["run", "mini", "x", "--temperature", "nan"], 64, "--temperature", usage: true),
    Case(["cache", "mini", "--prompt", "x", "--hooks", "all"], 64, "output", usage: true),
    Case(["dla", "mini", "--prompt", "x", "--wrong", " John"], 64, "--answer", usage: true),
    Case(
      ["init", "--config", "1x1x8", "--biases", "nan", "-o", "o.h5"], 64, "--biases", usage: true),
    Case(
      ["init", "--config", "1x1x8", "--biases", "1e300", "-o", "o.h5"], 64, "--biases", usage: true),
  ]

  /// 64: the command line is wrong, found once the model is known.
  static let arguments = [
    Case(["run", "mini"], 64, "no prompt", "--prompt"),
    Case(["run", "mini", "--tokens", "1,x"], 64, "'x'"),
    Case(["run", "mini", "x", "--zero", "L9H1"], 64, "0 to 3"),
    Case(["run", "mini", "x", "--zero", "L0H9"], 64, "heads 0 to 5"),
    Case(["run", "mini", "x", "--zero", "L0N768"], 64, "0 to 767"),
    Case(["run", "mini", "x", "--zero", "L0H1@2"], 64, "position 2"),
    Case(["run", "mini", "x", "--zero", "L0H1@a"], 64, "'a'"),
    Case(["run", "mini", "x", "--mean", "resid_pr2"], 64, "did you mean 'resid_pre2'?"),
    Case(["run", "mini", "x", "--edit", "L0H1"], 64, "L9H6*2"),
    Case(["run", "mini", "x", "--edit", "L0H1*x"], 64, "TARGET*FACTOR"),
    Case(["dla", "mini", "--prompt", "x", "--answer", " a", "--position", "7"], 64, "position 7"),
    // Numbers at the ends of what an Int holds, and beyond, are wrong like any others.
    Case(["run", "mini", "--tokens", "99999999999999999999"], 64, "not a token id"),
    Case(["run", "mini", "x", "--zero", "k\(Int.min)"], 64, "0 to 3"),
    Case(["run", "mini", "x", "--zero", "L0H1@\(Int.min)"], 64, "position"),
    Case(["run", "mini", "x", "--edit", "L0H1*1e39"], 64, "TARGET*FACTOR"),
  ]

  /// 64: hooks that do not exist or select nothing. Each list with its options.
  static let hooks: [(list: [String], parts: [String])] = [
    (["blocks.0.attn.hook_patern"], ["did you mean 'blocks.0.attn.hook_pattern'?"]),
    (["patern"], ["did you mean 'pattern'?"]),
    (["resid_pre,banana"], ["banana"]),
    ([""], ["hook"]),
    (["blocks.*.foo*"], ["blocks.*.foo*", "matches nothing"]),
    (["k1", "--layers", "2"], ["matches nothing"]),
    (["all", "--layers", "9"], ["layers 0 to 3"]),
    (["all", "--layers", "2-x"], ["2-x"]),
    (["all", "--positions", "2"], ["position 2 of a prompt of 2 tokens"]),
    (["all", "--positions", "1,b"], ["'b'"]),
    (["all", "--positions", "\(Int.max)"], ["position"]),
    (["all", "--layers", "0-99999999999"], ["layers 0 to 3"]),
    (["k4"], ["layers 0 to 3"]),
    (["all", "--max-memory", "much"], ["much"]),
  ]

  /// 73: an output cannot be created, which is found before anything is computed.
  static let outputs = [
    Case(
      ["dla", "mini", "--prompt", "x", "--answer", " a", "-o", "no/out.h5"], 73, "no/out.h5",
      "cannot be created"),
    Case(["lens", "mini", "--prompt", "x", "-o", "no/out.h5"], 73, "no/out.h5"),
    Case(["run", "mini", "x", "--logits", "-o", "no/out.h5"], 73, "no/out.h5"),
    Case(["cache", "mini", "--prompt", "x", "--hooks", "all", "-o", "no/out.h5"], 73, "no/out.h5"),
    Case(["init", "--config", "1x1x8", "-o", "no/out.h5"], 73, "no/out.h5"),
    Case(["convert", "mini", "-o", "no/out.h5"], 73, "no/out.h5"),
    Case(["lens", "mini", "--prompt", "x", "-o", "."], 73, "directory"),
  ]

  @Test(arguments: missing + wrong + usage + arguments + outputs)
  func refusal(_ item: Case) throws {
    try Command.fail(
      item.arguments, item.status, saying: item.parts, usage: item.usage, in: TemporaryDirectory())
  }

  @Test(arguments: hooks)
  func hooksThatSelectNothing(_ list: [String], _ parts: [String]) throws {
    try Command.fail(
      ["cache", "mini", "--prompt", "x", "-o", "out.h5", "--hooks"] + list, 64, saying: parts,
      in: TemporaryDirectory())
  }

  @Test func withoutDataDirectory() throws {
    let directory = try TemporaryDirectory()
    let outcome = try Command.run(
      ["run", "mini", "x"], in: directory, environment: ["NORMLENS_DATA": directory.path])
    #expect(outcome.status == 66 && outcome.errors.contains("NORMLENS_DATA"))
  }

  // MARK: standard streams

  @Test func outputThatCannotBeWritten() throws {
    let directory = try TemporaryDirectory()
    for arguments in [["inspect", "mini"], ["run", "mini", "x"], ["--help"]] {
      let closed = try Command.run(arguments, in: directory, redirection: ">&-")
      #expect(closed.status == 74 && closed.errors.hasPrefix("normlens: error: standard output"))
      #expect(closed.errors.split(separator: "\n").count == 1)
      if FileManager.default.fileExists(atPath: "/dev/full") {
        let full = try Command.run(arguments, in: directory, redirection: "> /dev/full")
        #expect(full.status == 74 && full.errors.contains("no space left"))
      }
    }
    // A file that is written does not get the closed stream's number.
    let quiet = try Command.run(
      ["lens", "mini", "--prompt", "x", "-o", "r.h5", "--quiet"], in: directory,
      redirection: "<&- >&- 2>&-")
    #expect(quiet.status == 0)
    try Command.succeed(["show", "r.h5"], in: directory)
  }

  @Test func errorsThatCannotBeWritten() throws {
    let directory = try TemporaryDirectory()
    for (arguments, status) in [(["inspect", "no.h5"], Int32(66)), (["--foo"], 64)] {
      #expect(try Command.run(arguments, in: directory, redirection: "2>&-").status == status)
    }
  }

  // MARK: files of the wrong kind, damaged files

  @Test func resultsAreNotModelsNorModelsResults() throws {
    let directory = try TemporaryDirectory()
    try Command.succeed(
      ["dla", "mini", "--prompt", "Mary and", "--answer", " John", "-o", "r.h5"], in: directory)
    try Command.fail(["run", "r.h5", "x"], 65, saying: ["r.h5", "result file"], in: directory)
    try Command.fail(["inspect", "r.h5"], 65, saying: ["r.h5"], in: directory)
    try Command.fail(["convert", "r.h5", "-o", "m.h5"], 65, saying: ["r.h5"], in: directory)
    try directory.copy(Fixtures.bundled("mini"), as: "model.h5")
    try Command.fail(["show", "model.h5"], 65, saying: ["model.h5", "model file"], in: directory)
    try Command.fail(
      ["show", "r.h5", "dla/head_contributon"], 64,
      saying: ["did you mean 'dla/head_contribution'?"], in: directory)
  }

  @Test func filesOfOtherKinds() throws {
    let directory = try TemporaryDirectory()
    try directory.write("not HDF5 at all", as: "text.h5")
    try directory.write("", as: "empty.h5")
    // A golden file is HDF5, but neither model nor result.
    try directory.copy("\(Fixtures.checkpoint("tiny-1x1")).h5", as: "golden.h5")
    for command in ["inspect", "show"] {
      for file in ["text.h5", "empty.h5", "golden.h5"] {
        try Command.fail([command, file], 65, saying: [file], in: directory)
      }
    }
    try directory.write("{\"prompts\": [{\"clean\": 3}]}", as: "wrong.json")
    try Command.fail(
      ["lens", "mini", "--prompts", "wrong.json"], 65, saying: ["wrong.json", "clean"],
      in: directory)
    try directory.write("{\"prompts\": [", as: "broken.json")
    try Command.fail(
      ["lens", "mini", "--prompts", "broken.json"], 65, saying: ["broken.json"], in: directory)
  }

  @Test func damagedModels() throws {
    let directory = try TemporaryDirectory()
    let path = try directory.copy(Fixtures.bundled("mini"), as: "flipped.h5")
    var bytes = try Data(contentsOf: URL(fileURLWithPath: path))
    // The weights are all but 1 % of the file: one bit in the middle is one of theirs.
    let middle = bytes.count / 2
    bytes[middle] ^= 0x10
    try bytes.write(to: URL(fileURLWithPath: path))
    for arguments in [
      ["run", "flipped.h5", "x"], ["inspect", "flipped.h5"],
      ["dla", "flipped.h5", "--prompt", "x", "--answer", " a", "-o", "out.h5"],
      ["convert", "flipped.h5", "-o", "out.h5"],
    ] {
      try Command.fail(
        arguments, 65, saying: ["flipped.h5", "/weights/", "crc32c"], in: directory)
    }
    // Asked not to look, it opens.
    try Command.succeed(["run", "flipped.h5", "x", "--no-verify"], in: directory)

    bytes[middle] ^= 0x10
    for (name, count) in [
      ("half.h5", bytes.count / 2), ("short.h5", bytes.count - 1), ("head.h5", 200),
    ] {
      try bytes.prefix(count).write(to: URL(fileURLWithPath: directory.file(name)))
      try Command.fail(["run", name, "x"], 65, saying: [name], in: directory)
      try Command.fail(["convert", name, "-o", "out.h5"], 65, saying: [name], in: directory)
    }
    try bytes.write(to: URL(fileURLWithPath: path))
    try Command.succeed(["run", "flipped.h5", "x"], in: directory)
  }

  @Test func damagedResults() throws {
    let directory = try TemporaryDirectory()
    try Command.succeed(
      ["cache", "mini", "--prompt", "Mary and", "--hooks", "resid_pre", "-o", "r.h5", "--quiet"],
      in: directory)
    let bytes = try Data(contentsOf: URL(fileURLWithPath: directory.file("r.h5")))
    // The last 20 bytes are a seal, which a file that another program has changed lacks.
    let sealed = bytes.count - 20
    for (name, count) in [("half.h5", bytes.count / 2), ("short.h5", sealed - 1)] {
      try bytes.prefix(count).write(to: URL(fileURLWithPath: directory.file(name)))
      try Command.fail(["show", name], 65, saying: [name], in: directory)
    }
    for place in [9, 100, sealed / 3, sealed / 2, sealed - 1, sealed + 10] {
      var flipped = bytes
      flipped[place] ^= 0x10
      try flipped.write(to: URL(fileURLWithPath: directory.file("flipped.h5")))
      try Command.fail(["show", "flipped.h5"], 65, saying: ["flipped.h5"], in: directory)
    }
    try bytes.prefix(sealed).write(to: URL(fileURLWithPath: directory.file("unsealed.h5")))
    try Command.succeed(["show", "unsealed.h5"], in: directory)
  }

  @Test func anOlderResultSurvivesAFailure() throws {
    let directory = try TemporaryDirectory()
    try directory.write("older", as: "out.h5")
    for arguments in [
      ["cache", "mini", "--tokens", "5000", "--hooks", "all", "-o", "out.h5"],
      ["dla", "mini", "--prompt", "x", "--answer", "Mary", "-o", "out.h5"],
      ["convert", "no.h5", "-o", "out.h5"],
    ] {
      let outcome = try Command.run(arguments, in: directory)
      #expect(outcome.status != 0)
      #expect(try directory.contents() == ["out.h5"], "\(arguments)")
      #expect(
        FileManager.default.contents(atPath: directory.file("out.h5")) == Data("older".utf8),
        "\(arguments)")
    }
    try Command.succeed(
      ["lens", "mini", "--prompt", "Mary and", "-o", "out.h5"], in: directory)
    #expect(try directory.contents() == ["out.h5"])
    _ = try ResultFile.read(directory.file("out.h5")).group("logit_lens")
  }

  @Test func aModelWithoutATokenizerAsksForIds() throws {
    let directory = try TemporaryDirectory()
    try Command.succeed(
      [
        "init", "--config", "2x2x16", "--vocabulary", "40", "--positions", "12", "-o", "random.h5",
      ], in: directory)
    for arguments in [
      ["run", "random.h5", "x"], ["tokenize", "random.h5", "x"],
      ["dla", "random.h5", "--prompt", "x", "--answer", " a", "-o", "out.h5"],
      ["lens", "random.h5", "--tokens", "1,2", "--answer", " a"],
    ] {
      try Command.fail(arguments, 65, saying: ["tokenizer", "--tokens"], in: directory)
    }
    #expect(
      try Command.succeed(["run", "random.h5", "--tokens", "1,2", "--top", "1"], in: directory)
        .contains("Top 0th token."))
  }
}
