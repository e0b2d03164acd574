import Foundation
import NormLens
import TestSupport
import Testing

/// `normlens prompts`, and prompt pairs on the command line.
@Suite struct PromptsTests {
  @Test func help() throws {
    try Snapshot.expect(
      try Command.succeed(["prompts", "--help"], in: TemporaryDirectory()), "help-prompts")
  }

  /// Snapshots by name.
  static let snapshots: [(String, [String])] = [
    (
      "prompts-ioi", ["ioi", "mini", "-n", "8", "--templates", "1,14", "--corruption", "s2-random"]
    ),
    ("prompts-pronoun", ["pronoun", "mini-lnfree", "-n", "6", "--seed", "1"]),
    (
      "prompts-induction",
      [
        "induction", "mini", "-n", "5", "--length", "3", "--corruption", "ba", "--words",
        "ring,coin,book,green,warm,quiet",
      ]
    ),
    (
      "prompts-json",
      ["ioi", "mini", "-n", "4", "--groups", "--templates", "6", "--json", "--corruption", "io-s1"]
    ),
  ]

  @Test(arguments: snapshots.map(\.0))
  func output(_ name: String) throws {
    let arguments = try #require(Self.snapshots.first { $0.0 == name }).1
    try Snapshot.expect(
      try Command.succeed(["prompts"] + arguments, in: TemporaryDirectory()), name)
  }

  @Test func theFileIsTheSame() throws {
    let directory = try TemporaryDirectory()
    let arguments = ["prompts", "ioi", "mini", "-n", "12", "--seed", "9"]
    let json = try Command.succeed(arguments + ["--json"], in: directory)
    let text = try Command.succeed(arguments + ["-o", "a.json"], in: directory)
    #expect(text.hasSuffix("\nwrote a.json\n"))
    let quiet = try Command.succeed(arguments + ["-o", "b.json", "--quiet"], in: directory)
    #expect(quiet.isEmpty)
    let (a, b) = (
      try String(contentsOfFile: directory.file("a.json"), encoding: .utf8),
      try String(contentsOfFile: directory.file("b.json"), encoding: .utf8)
    )
    #expect(a == json && a == b)
    // Other commands read it.
    try Command.succeed(["dla", "mini", "--prompts", "a.json", "--quiet"], in: directory)
    try Command.succeed(
      ["patch", "mini", "--prompts", "a.json", "--sites", "head_z", "--quiet"], in: directory)
  }

  /// The bundled sets are what the commands in notebooks-data/README.md make.
  @Test func bundledSetsAreMadeAgain() throws {
    let readme = try String(contentsOfFile: "\(Fixtures.data)/README.md", encoding: .utf8)
    // Lines that end with a backslash go on.
    let lines = readme.replacing("\\\n", with: " ").split(separator: "\n")
    var files: Set<String> = []
    for line in lines where line.hasPrefix("    normlens prompts ") {
      let directory = try TemporaryDirectory()
      let words = line.split(separator: " ").dropFirst().map(String.init)
      let path = try #require(words.last)
      try Command.succeed(words.dropLast() + ["made.json", "--quiet"], in: directory)
      let name = URL(fileURLWithPath: path).lastPathComponent
      files.insert(name)
      #expect(
        FileManager.default.contents(atPath: directory.file("made.json"))
          == FileManager.default.contents(atPath: "\(Fixtures.data)/prompts/\(name)"), "\(name)")
    }
    let all = try FileManager.default.contentsOfDirectory(atPath: "\(Fixtures.data)/prompts")
    #expect(files == Set(all.filter { $0.hasSuffix(".json") }))
  }

  /// What is wrong with the arguments of `prompts`.
  static let mistakes: [ErrorTests.Case] = [
    .init(["io", "mini", "-n", "4"], 64, "'io'", "greater-than", "did you mean 'ioi'?"),
    .init(["mini", "ioi", "-n", "4"], 64, "kind of prompts 'mini'"),
    .init(["ioi", "mini"], 64, "--count", usage: true),
    .init(["ioi", "mini", "-n", "0"], 64, "-n 0", "1 to 100000", usage: true),
    .init(["ioi", "mini", "-n", "3", "-n", "4"], 64, "-n was given twice"),
    .init(["ioi", "mini", "-n", "3", "--count=4"], 64, "--count was given twice"),
    .init(["ioi", "mini", "-n", "6", "--groups"], 64, "multiple of 4", usage: true),
    .init(
      ["ioi", "mini", "-n", "4", "--groups", "--order", "abba"], 64, "both orders", usage: true),
    .init(["ioi", "mini", "-n", "4", "--order", "aba"], 64, "did you mean 'abba'?", "both"),
    .init(["ioi", "mini", "-n", "4", "--corruption", "s2_io"], 64, "did you mean 's2-io'?"),
    .init(["ioi", "mini", "-n", "4", "--templates", "1,16"], 64, "'16'", "1 to 15"),
    .init(["ioi", "mini", "-n", "4", "--templates", "1,1"], 64, "'1' again"),
    .init(["pronoun", "mini", "-n", "4", "--templates", "6"], 64, "'6'", "1 to 5"),
    .init(["pronoun", "mini", "-n", "4", "--corruption", "abc"], 64, "belongs to ioi, docstring"),
    .init(["induction", "mini", "-n", "4", "--groups"], 64, "--groups belongs to ioi"),
    .init(["ioi", "mini", "-n", "4", "--length", "4"], 64, "--length belongs to induction"),
    .init(["ioi", "mini", "-n", "4", "--words", "a"], 64, "--words belongs to induction"),
    .init(["ioi", "mini", "-n", "4", "--structure", "rc"], 64, "belongs to agreement"),
    .init(["agreement", "mini", "-n", "4", "--structure", "simple,"], 64, "an empty one"),
    .init(
      ["agreement", "mini", "-n", "4", "--structure", "nounp"], 64, "did you mean 'nounpp'?"),
    .init(["induction", "mini", "-n", "4", "--length", "2"], 64, "--length 2", usage: true),
    .init(["induction", "mini", "-n", "4", "--length", "65"], 65, "130 tokens", "n_ctx = 128"),
    .init(["induction", "mini", "-n", "4", "--words", "ring,zebra"], 65, "' zebra'"),
    .init(["pronoun", "mini", "-n", "76"], 65, "76 prompts", "75 different"),
    .init(["greater-than", "mini", "-n", "4"], 65, "greater-than", "'mini'", "'01'"),
    .init(["docstring", "mini", "-n", "4"], 65, "argument names", "' data'"),
    .init(["ioi", "none", "-n", "4"], 66, "'none'"),
    .init(["ioi", "mini", "-n", "4", "-o", "no/p.json"], 73, "no/p.json", "no directory"),
  ]

  @Test(arguments: mistakes)
  func mistake(_ item: ErrorTests.Case) throws {
    try Command.fail(
      ["prompts"] + item.arguments, item.status, saying: item.parts, usage: item.usage,
      in: TemporaryDirectory())
  }

  @Test func aModelWithoutATokenizer() throws {
    let directory = try TemporaryDirectory()
    try Command.succeed(
      ["init", "--config", "1x1x8", "--vocabulary", "40", "-o", "r.h5", "--quiet"], in: directory)
    try Command.fail(
      ["prompts", "ioi", "r.h5", "-n", "4"], 65, saying: ["has no tokenizer"], in: directory)
    let ids = ["--clean-tokens", "1,2,3", "--corrupted-tokens", "1,4,3"]
    let patch = ["patch", "r.h5", "--sites", "resid_pre"]
    try Command.succeed(
      patch + ids + ["--answer", "5", "--wrong", "6", "--quiet"], in: directory)
    for (arguments, status, parts) in [
      (["--clean", "a", "--corrupted", "b"], 65, ["no tokenizer", "--clean-tokens"]),
      (ids + ["--answer", " Mary"], 64, ["--answer ' Mary'", "a token id"]),
      (ids + ["--answer", "40"], 65, ["--answer 40", "0 to 39"]),
      (ids + ["--answer", "4", "--wrong", "4"], 64, ["the same token 4"]),
      (["--clean-tokens", "1,x", "--corrupted-tokens", "1,2"], 64, ["--clean-tokens", "'x'"]),
      (["--clean-tokens", "1,2", "--corrupted-tokens", "1,2,3"], 65, ["unequal lengths [2, 3]"]),
      (["--clean-tokens", "1,2", "--corrupted-tokens", "1,50"], 65, ["50", "0 to 39"]),
    ] as [([String], Int32, [String])] {
      try Command.fail(patch + arguments, status, saying: parts, in: directory)
    }
  }

  /// Pairs on the command line that are not in step, or of unequal lengths.
  @Test func pairs() throws {
    let directory = try TemporaryDirectory()
    try directory.write(#"{"prompts": [{"clean": "a"}]}"#, as: "p.json")
    let (a, b) = ("Mary gave John", "Mary gave Paul")
    for (arguments, status, parts) in [
      ([], 64, ["no prompts", "--corrupted"]),
      (["--clean", a], 64, ["0 --corrupted for 1 --clean"]),
      (["--clean", a, "--corrupted", b, "--corrupted", b], 64, ["2 --corrupted for 1 --clean"]),
      (
        ["--clean", a, "--corrupted", b, "--answer", " a", "--answer", " b"], 64,
        ["2 --answer for 1 --clean"]
      ),
      (["--clean", a, "--prompts", "p.json"], 64, ["--clean and --prompts"]),
      (["--prompts", "p.json", "--answer", " a"], 64, ["--answer", "has its own"]),
      (["--clean", a, "--corrupted-tokens", "1"], 64, ["--corrupted-tokens does not go with"]),
      (["--prompts", "p.json"], 65, ["p.json", "prompts[0].corrupted", "missing"]),
      (["--prompts", "no.json"], 66, ["no.json"]),
      (["--clean", a, "--corrupted", a + " to"], 65, ["'corrupted'", "' to'", "as many"]),
      (
        ["--clean", a, "--corrupted", b, "--answer", "Mary"], 65,
        ["prompts[0].answer", "\" Mary\" is one token"]
      ),
      (["--clean", "--corrupted", b], 64, ["'--corrupted' stands"]),
    ] as [([String], Int32, [String])] {
      try Command.fail(
        ["patch", "mini", "--sites", "head_z"] + arguments, status, saying: parts, in: directory)
    }
    let question = ["--clean", a, "--corrupted", b, "--answer", " to", "--wrong", " a"]
    try Command.succeed(
      ["patch", "mini", "--sites", "head_z", "--quiet"] + question + question, in: directory)
  }
}
