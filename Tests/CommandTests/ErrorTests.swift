import Foundation
import NormLens
import TestSupport
import Testing

/// Everything that can be wrong on a command line: exit status, one line, no traces.
@Suite struct ErrorTests {
  static let long = Array(repeating: "word", count: 200).joined(separator: " ")

  /// The vocabulary and merges of the bundled models.
  static let tokenizer = "\(Fixtures.repository)/Tests/Fixtures/tokenizer/mini"

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
    Case(["run", "mini", "--text", "."], 66, ".: cannot be read: it is a directory"),
    Case(["lens", "mini", "--prompts", "."], 66, "it is a directory"),
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
    Case(["run", "mini", "x", "--threads", "1025"], 64, "1 to 1024", usage: true),
    Case(["lens", "mini", "--prompt", "x", "--wrong", " a"], 64, "--wrong", usage: true),
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

  /// 64: the command line is wrong, found before it is parsed.
  static let words = [
    Case(
      ["cache", "mini", "--prompt", "x", "--hooks", "k", "--layers", "0", "--layers=1"], 64,
      "--layers was given twice"),
    Case(["lens", "mini", "--prompt", "x", "-o", "a.h5", "--output", "b.h5"], 64, "given twice"),
    Case(["dla", "mini", "--answer", " a", "--answer", " b"], 64, "--answer was given twice"),
    Case(["run", "mini", "--prompts", "a", "--prompts", "b"], 64, "--prompts was given twice"),
    Case(["lens", "mini", "--prompt", "--answer", " a"], 64, "'--answer' stands", "--prompt="),
    Case(["dla", "mini", "--prompt", "x", "--answer", "-o", "out.h5"], 64, "'-o' stands"),
    Case(["run", "mini", "--prompt", "--", "x"], 64, "'--' stands"),
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
    Case(["demo", "-o", "/dev/null/x"], 73, "/dev/null/x: cannot be created: no directory"),
  ]

  @Test(arguments: missing + wrong + usage + words + arguments + outputs)
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

  @Test func listsOfHooks() throws {
    let directory = try TemporaryDirectory()
    for hooks in ["key", "attn, post", "logits"] {
      try Command.succeed(
        [
          "cache", "mini", "--prompt", "x", "-o", "out.h5", "--hooks", hooks, "--layers", "0, 1",
          "--positions", "0, -1",
        ], in: directory)
    }
  }

  @Test func withoutDataDirectory() throws {
    let directory = try TemporaryDirectory()
    let outcome = try Command.run(
      ["run", "mini", "x"], in: directory, environment: ["NORMLENS_DATA": directory.path])
    #expect(outcome.status == 66 && outcome.errors.contains("NORMLENS_DATA"))
  }

  @Test func aModelThatMayNotBeRead() throws {
    let directory = try TemporaryDirectory()
    try FileManager.default.createDirectory(
      atPath: directory.file("closed"), withIntermediateDirectories: false)
    try directory.copy(Fixtures.bundled("mini"), as: "closed/m.h5")
    func allow(_ mode: Int) throws {
      try FileManager.default.setAttributes(
        [.posixPermissions: mode], ofItemAtPath: directory.file("closed"))
    }
    try allow(0)
    let outcome = try Command.run(["inspect", "closed/m.h5"], in: directory)
    // The superuser may read everything.
    if outcome.status != 0 {
      #expect(outcome.status == 66 && outcome.errors.contains("closed/m.h5: cannot be read"))
    }
    try allow(0o700)
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
    for name in ["head_contribution", "head_contributon", "lens/head_contribution", "dla/head_c"] {
      try Command.fail(
        ["show", "r.h5", name], 64, saying: ["did you mean 'dla/head_contribution'?"],
        in: directory)
    }
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
    try directory.write("{\"prompts\": [", as: "broken.json")
    try Command.fail(
      ["lens", "mini", "--prompts", "broken.json"], 65, saying: ["broken.json"], in: directory)
  }

  /// Prompts files that would ask another question than their author means.
  static let promptFiles: [(text: String, parts: [String])] = [
    (#"[]"#, ["top level", "an object"]),
    (#"{"prompts": []}"#, ["an empty list"]),
    (#"{"promts": []}"#, ["'promts'", "did you mean 'prompts'?"]),
    (#"{"prompts": [5]}"#, ["prompts[0]", "an object"]),
    (#"{"prompts": [{"clean": 3}]}"#, ["prompts[0].clean", "a number"]),
    (
      #"{"prompts": [{"clean": "x"}, {"clean": "x", "anwser": " a"}]}"#,
      ["prompts[1].anwser", "did you mean 'answer'?"]
    ),
    (#"{"prompts": [{"clean": "x", "answer": [" a", 5]}]}"#, ["prompts[0].answer[1]", "a number"]),
    (#"{"prompts": [{"clean": "x", "answer": [" a", " the"]}]}"#, ["prompts[0].answer", "of 2"]),
    (#"{"prompts": [{"clean": "x", "answer": []}]}"#, ["prompts[0].answer", "an empty list"]),
    (
      #"{"prompts": [{"clean": "x", "answer": " a", "wrong": " a"}]}"#,
      ["prompts[0].wrong", "' a' too"]
    ),
    (#"{"prompts": [{"clean": "x", "wrong": [5]}]}"#, ["prompts[0].wrong", "a number"]),
    (#"{"prompts": [{"clean": "x", "answer": "Mary"}]}"#, ["prompts[0].answer", "\" Mary\""]),
    (#"{"prompts": [{"clean": "x", "corrupted": 5}]}"#, ["prompts[0].corrupted", "text"]),
    (#"{"prompts": [{"clean": "x", "positions": [1]}]}"#, ["prompts[0].positions", "an array"]),
    (
      #"{"prompts": [{"clean": "Mary and", "positions": {"S1": {"pos": 1, "token": " John"}}}]}"#,
      ["prompts[0].positions.S1", "expected ' John' at position 1", "'ary' there"]
    ),
    (
      #"{"prompts": [{"clean": "Mary and", "positions": {"S1": {"pos": 9, "token": " a"}}}]}"#,
      ["prompts[0].positions.S1", "beyond the text's 3 tokens"]
    ),
    (
      #"{"prompts": [{"clean": "x", "positions": {"S1": {"posn": 9, "token": " a"}}}]}"#,
      ["prompts[0].positions.S1.posn", "did you mean 'pos'?"]
    ),
  ]

  @Test(arguments: promptFiles)
  func wrongPromptsFile(_ text: String, _ parts: [String]) throws {
    let directory = try TemporaryDirectory()
    try directory.write(text, as: "wrong.json")
    try Command.fail(
      ["lens", "mini", "--prompts", "wrong.json"], 65, saying: ["wrong.json"] + parts,
      in: directory)
  }

  @Test func answersOfAFileAreNotMixedWithOthers() throws {
    let directory = try TemporaryDirectory()
    try directory.write(
      #"{"prompts": [{"clean": "Mary and", "answer": " John"}], "source": "here"}"#, as: "p.json")
    try Command.fail(
      ["dla", "mini", "--prompts", "p.json", "--answer", " Anna", "--wrong", " Tom"], 64,
      saying: ["--answer", "answers of its own"], in: directory)
    try Command.succeed(["dla", "mini", "--prompts", "p.json"], in: directory)
  }

  @Test func textThatIsNotUTF8() throws {
    let directory = try TemporaryDirectory()
    try Data("na\u{EF}ve caf".utf8 + [0xE9]).write(
      to: URL(fileURLWithPath: directory.file("latin1.txt")))
    try Command.fail(
      ["run", "mini", "--text", "latin1.txt"], 65, saying: ["latin1.txt", "UTF-8 at byte 10"],
      in: directory)
  }

  @Test func textThatBeginsWithADash() throws {
    let directory = try TemporaryDirectory()
    for arguments in [["--prompt", "-5 degrees"], ["--prompt=--answer"], ["--", "--answer"]] {
      try Command.succeed(["tokenize", "mini"] + arguments, in: directory)
    }
    try Command.succeed(
      ["dla", "mini", "--prompt", "x", "--answer", "-", "--wrong", " a"], in: directory)
  }

  @Test func anOutputThatIsAnInput() throws {
    let directory = try TemporaryDirectory()
    try directory.copy(Fixtures.bundled("mini"), as: "m.h5")
    try FileManager.default.createSymbolicLink(
      atPath: directory.file("link.h5"), withDestinationPath: directory.file("m.h5"))
    try directory.write("Mary and", as: "p.txt")
    try directory.write(#"{"prompts": [{"clean": "x"}]}"#, as: "p.json")
    for (arguments, output) in [
      (["cache", "m.h5", "--prompt", "x", "--hooks", "k"], "m.h5"),
      (["cache", "link.h5", "--prompt", "x", "--hooks", "k"], "m.h5"),
      (["lens", "mini", "--text", "p.txt"], "./p.txt"), (["convert", "m.h5"], "link.h5"),
      (["lens", "mini", "--prompts", "p.json"], "p.json"),
      (
        ["convert", Fixtures.checkpoint("tiny-ln")], Fixtures.checkpoint("tiny-ln") + "/config.json"
      ),
    ] {
      try Command.fail(
        arguments + ["-o", output], 64, saying: ["-o \(output)", "would replace the input"],
        in: directory)
    }
  }

  // MARK: Hugging Face directories

  /// Changes of tiny-ln's configuration (n_positions 16, 53 tokens) with what refuses them.
  static let configurations: [(field: String, value: String, part: String?)] = [
    ("bos_token_id", "53", "0 to 52"), ("bos_token_id", "-1", "0 to 52"),
    ("eos_token_id", "53", "0 to 52"), ("bos_token_id", "50256", nil),
    ("bos_token_id", "null", nil),
    ("n_ctx", "99", "16, as n_positions"), ("n_ctx", "16", nil),
    ("quantization_config", "{}", "quantized"), ("quantization_config", "null", nil),
    ("layer_norm_epsilon", "1.0", "1e6"), ("layer_norm_epsilon", "0.1", nil),
  ]

  @Test(arguments: configurations)
  func configurationField(_ field: String, _ value: String, _ part: String?) throws {
    let directory = try TemporaryDirectory()
    try directory.copy(Fixtures.checkpoint("tiny-ln"), as: "d")
    let path = directory.file("d/config.json")
    let text = try String(contentsOfFile: path, encoding: .utf8)
    let members = text.split(separator: "\n").filter { !$0.contains("\"\(field)\"") }
    try directory.write(
      "{\"\(field)\": \(value)," + members.dropFirst().joined(separator: "\n"), as: "d/config.json")
    if let part {
      try Command.fail(["inspect", "d"], 65, saying: ["'\(field)'", part], in: directory)
    } else {
      try Command.succeed(["inspect", "d"], in: directory)
    }
  }

  @Test func mergesThatAreCut() throws {
    let directory = try TemporaryDirectory()
    try directory.copy(Self.tokenizer, as: "t")
    let options = ["--config", "1x1x8", "--vocabulary", "2048", "--tokenizer", "t", "--quiet"]
    try Command.succeed(["init", "-o", "whole.h5"] + options, in: directory)
    for text in ["", "#version: 0.2\n"] {
      try directory.write(text, as: "t/merges.txt")
      try Command.fail(
        ["init", "-o", "out.h5"] + options, 65, saying: ["t/merges.txt", "of the tokens"],
        in: directory)
    }
  }

  @Test func anOrdinaryTokenAsBOS() throws {
    let directory = try TemporaryDirectory()
    let config = try GPT2Config(nLayers: 1, dModel: 8, nHeads: 1, nCtx: 16, dVocab: 2048)
    var checkpoint = try Checkpoint.random(
      config, name: "odd", seed: 0, tokenizerDirectory: Self.tokenizer)
    let text = "the theory 'x"
    func ids() throws -> String {
      try ModelFile.write(checkpoint, to: directory.file("odd.h5"))
      return try Command.succeed(
        ["tokenize", "odd.h5", "--no-bos", "--json", text], in: directory)
    }
    let usual = try ids()
    // A byte's token, and one that begins longer words.
    for bos in [7, 262] {
      checkpoint.specialTokens.bos = bos
      #expect(try ids() == usual)
    }
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
    ] {
      try Command.fail(arguments, 65, saying: ["tokenizer", "--tokens"], in: directory)
    }
    try Command.fail(
      ["lens", "random.h5", "--tokens", "1,2", "--answer", " a"], 65,
      saying: ["answer ' a'", "no tokenizer"], in: directory)
    #expect(
      try Command.succeed(["run", "random.h5", "--tokens", "1,2", "--top", "1"], in: directory)
        .contains("Top 0th token."))
  }
}
