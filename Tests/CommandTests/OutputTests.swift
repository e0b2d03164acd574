import Foundation
import NormLens
import TestSupport
import Testing

/// What the commands print, whole.
@Suite struct OutputTests {
  static let ioi = "When Mary and John went to the store, John gave a drink to"

  @Test(arguments: [
    "inspect", "convert", "init", "run", "tokenize", "cache", "lens", "dla", "geometry",
    "stream", "heads", "neurons", "paths", "show", "evaluate", "plot", "report",
  ])
  func help(_ command: String) throws {
    let directory = try TemporaryDirectory()
    let text = try Command.succeed([command, "--help"], in: directory)
    try Snapshot.expect(text, "help-\(command)")
    #expect(try Command.succeed(["help", command], in: directory) == text)
  }

  @Test func rootHelp() throws {
    let text = try Command.succeed(["--help"], in: TemporaryDirectory())
    // `demo` and `bench` are described where they are tested.
    var isSkipping = false
    let lines = text.split(separator: "\n", omittingEmptySubsequences: false).filter { line in
      if ["  demo ", "  bench "].contains(where: line.hasPrefix) {
        isSkipping = true
      } else if !line.hasPrefix("    ") {
        isSkipping = false
      }
      return !isSkipping
    }
    try Snapshot.expect(lines.joined(separator: "\n"), "help")
  }

  @Test func version() throws {
    #expect(
      try Command.succeed(["--version"], in: TemporaryDirectory()) == normLensVersion + "\n")
  }

  /// Snapshots by name.
  static let snapshots: [(String, [String])] = [
    ("run", ["run", "mini", ioi]),
    ("run-top", ["run", "mini-lnfree", "The capital of France is", "--top", "3"]),
    ("run-two", ["run", "mini", "The capital of France is", ioi, "--top", "2"]),
    ("run-answer", ["run", "mini", ioi, "--answer", "Mary"]),
    ("run-answer-lnfree", ["run", "mini-lnfree", ioi, "--answer", "Mary", "--top", "5"]),
    ("run-answer-tokens", ["run", "mini", ioi, "--answer", "Mary. John", "--top", "3"]),
    ("run-answers", ["run", "mini", ioi, "--answer", "Mary", "--answer", "John", "--top", "4"]),
    (
      "run-quotes",
      ["run", "mini", "So Alice is a really great friend, isn't", "--answer", "she", "--top", "2"]
    ),
    ("run-json", ["run", "mini", ioi, "--answer", "Mary", "--top", "2", "--json"]),
    ("run-next-json", ["run", "mini", "The capital of France is", "--top", "2", "--json"]),
    (
      "run-zero",
      [
        "run", "mini", ioi, "--answer", "Mary", "--top", "3", "--zero", "L2H1", "--zero",
        "3_mlp_out",
      ]
    ),
    (
      "run-edit-frozen",
      ["run", "mini", ioi, "--answer", "Mary", "--top", "3", "--edit", "L3H0*2", "--freeze-ln"]
    ),
    ("run-mean", ["run", "mini", ioi, "--answer", "Mary", "--top", "3", "--mean", "L3N5@-1"]),
    ("run-generate", ["run", "mini", "The capital of France is", "--generate", "8"]),
    ("run-generate-json", ["run", "mini", "The capital of", "--generate", "4", "--json"]),
    ("run-no-bos", ["run", "mini", "The capital of France is", "--no-bos", "--top", "2"]),
    ("run-tokens", ["run", "mini", "--tokens", "0,5,7", "--top", "2"]),
    (
      "tokenize",
      ["tokenize", "mini", "Mary\tisn't here.\nNo \u{2013} \u{201C}caf\u{E9}\u{201D} 12"]
    ),
    ("tokenize-json", ["tokenize", "mini", "Mary isn't \"here\"\n", "a b", "--json"]),
    ("inspect-mini", ["inspect", "mini"]),
    ("inspect-json", ["inspect", "mini-vanilla", "--json"]),
    ("inspect-mini-lnfree", ["inspect", "mini-lnfree"]),
    ("inspect-mini-lnfree-tensors", ["inspect", "mini-lnfree", "--tensors"]),
    ("dla", ["dla", "mini", "--prompt", ioi, "--answer", " Mary", "--wrong", " John"]),
    (
      "dla-lnfree",
      ["dla", "mini-lnfree", "--prompt", ioi, "--answer", " Mary", "--wrong", " John"]
    ),
    (
      "dla-two",
      [
        "dla", "mini", "--prompt", ioi, "--prompt", "Mary and John went to", "--answer", " the",
        "--top", "3",
      ]
    ),
    (
      "dla-position",
      ["dla", "mini", "--prompt", ioi, "--answer", " gave", "--position", "-5", "--top", "2"]
    ),
    ("lens", ["lens", "mini", "--prompt", ioi, "--answer", " Mary"]),
    ("lens-frozen", ["lens", "mini", "--prompt", ioi, "--answer", " Mary", "--frozen"]),
    ("lens-lnfree", ["lens", "mini-lnfree", "--prompt", "The capital of France is"]),
  ]

  @Test(arguments: snapshots.map(\.0))
  func output(_ name: String) throws {
    let arguments = try #require(Self.snapshots.first { $0.0 == name }).1
    let text = try Command.succeed(arguments, in: TemporaryDirectory())
    if arguments.contains("--json") {
      for line in text.split(separator: "\n") {
        _ = try JSONSerialization.jsonObject(with: Data(line.utf8))
      }
    }
    try Snapshot.expect(text, name)
  }

  @Test func frozenLensOfAModelWithoutLayerNormIsTheSame() throws {
    let directory = try TemporaryDirectory()
    let arguments = ["lens", "mini-lnfree", "--prompt", Self.ioi, "--answer", " Mary"]
    #expect(
      Snapshot.difference(
        try Command.succeed(arguments, in: directory),
        try Command.succeed(arguments + ["--frozen"], in: directory)) == nil)
  }

  @Test func quietPrintsNothing() throws {
    let directory = try TemporaryDirectory()
    for arguments in [
      ["dla", "mini", "--prompt", "Mary and", "--answer", " John", "--quiet"],
      ["lens", "mini", "--prompt", "Mary and", "--quiet"],
      ["cache", "mini", "--prompt", "Mary and", "--hooks", "embed", "-o", "c.h5", "--quiet"],
      ["init", "--config", "1x1x8", "--vocabulary", "30", "-o", "i.h5", "--quiet"],
      ["convert", "mini", "-o", "m.h5", "--quiet"],
      ["run", "mini", "Mary and", "--logits", "-o", "l.h5", "--quiet"],
    ] {
      #expect(try Command.succeed(arguments, in: directory).isEmpty, "\(arguments)")
    }
    #expect(try directory.contents() == ["c.h5", "i.h5", "l.h5", "m.h5"])
  }

  @Test func threadsDoNotMatter() throws {
    let directory = try TemporaryDirectory()
    let arguments = ["dla", "mini", "--prompt", Self.ioi, "--answer", " Mary"]
    #expect(
      Snapshot.difference(
        try Command.succeed(arguments + ["--threads", "1"], in: directory),
        try Command.succeed(arguments + ["--threads", "4"], in: directory)) == nil)
  }

  @Test func seedsDecideChance() throws {
    let directory = try TemporaryDirectory()
    func generate(_ more: [String]) throws -> String {
      try Command.succeed(["run", "mini", "The", "--generate", "20"] + more, in: directory)
    }
    let hot = ["--temperature", "1.5", "--top-k", "50", "--seed"]
    #expect(try generate(hot + ["3"]) == generate(hot + ["3"]))
    #expect(try generate(hot + ["3"]) != generate(hot + ["4"]))
    #expect(
      try generate(["--temperature", "1", "--top-k", "1", "--seed", "8"]) == generate([]))
  }

  /// TransformerLens' own docstring example, to the byte.
  @Test func testPromptFormat() {
    let top: [(Double, Double, String)] = [
      (14.51, 0.0459, " ground"), (14.41, 0.0418, " tree"), (14.24, 0.0351, " road"),
      (14.22, 0.0345, " car"), (13.92, 0.0255, " river"), (13.79, 0.0225, " street"),
      (13.77, 0.0221, " k"), (13.75, 0.0216, " hill"), (13.64, 0.0192, " swing"),
      (13.46, 0.0161, " park"),
    ]
    let lines = top.enumerated().map {
      PromptTest.Line(rank: $0, logit: $1.0, probability: $1.1, token: $1.2)
    }
    let prompt = ["<|endoftext|>", "Why", " did", " the", " elephant", " cross", " the"]
    let one = PromptTest(
      prompt: prompt, answers: [[" road"]],
      steps: [.init(answers: [lines[2]], top: lines)])
    #expect(
      one.text(bold: false) == """
        Tokenized prompt: ['<|endoftext|>', 'Why', ' did', ' the', ' elephant', ' cross', ' the']
        Tokenized answer: [' road']
        Performance on answer token:
        Rank: 2        Logit: 14.24 Prob:  3.51% Token: | road|
        Top 0th token. Logit: 14.51 Prob:  4.59% Token: | ground|
        Top 1th token. Logit: 14.41 Prob:  4.18% Token: | tree|
        Top 2th token. Logit: 14.24 Prob:  3.51% Token: | road|
        Top 3th token. Logit: 14.22 Prob:  3.45% Token: | car|
        Top 4th token. Logit: 13.92 Prob:  2.55% Token: | river|
        Top 5th token. Logit: 13.79 Prob:  2.25% Token: | street|
        Top 6th token. Logit: 13.77 Prob:  2.21% Token: | k|
        Top 7th token. Logit: 13.75 Prob:  2.16% Token: | hill|
        Top 8th token. Logit: 13.64 Prob:  1.92% Token: | swing|
        Top 9th token. Logit: 13.46 Prob:  1.61% Token: | park|
        Ranks of the answer tokens: [(' road', 2)]
        """)

    // An answer of several tokens repeats the block for each.
    let (a, b) = (
      PromptTest.Line(rank: 42, logit: 9, probability: 0.0004, token: " a"),
      PromptTest.Line(rank: 21, logit: -1.5, probability: 1, token: " b")
    )
    let several = PromptTest(
      prompt: ["x"], answers: [[" a", " b"]],
      steps: [
        .init(answers: [a], top: [lines[0]]), .init(answers: [b], top: [lines[1]]),
      ])
    #expect(
      several.text(bold: false) == """
        Tokenized prompt: ['x']
        Tokenized answer: [' a', ' b']
        Performance on answer token:
        Rank: 42       Logit:  9.00 Prob:  0.04% Token: | a|
        Top 0th token. Logit: 14.51 Prob:  4.59% Token: | ground|
        Performance on answer token:
        Rank: 21       Logit: -1.50 Prob: 100.00% Token: | b|
        Top 0th token. Logit: 14.41 Prob:  4.18% Token: | tree|
        Ranks of the answer tokens: [(' a', 42), (' b', 21)]
        """)

    // Several answers share one table.
    let list = PromptTest(
      prompt: ["x"], answers: [[" a"], [" b"]], steps: [.init(answers: [a, b], top: [lines[0]])])
    #expect(
      list.text(bold: false) == """
        Tokenized prompt: ['x']
        Tokenized answers: [[' a'], [' b']]
        Performance on answer tokens:
        Rank: 42       Logit:  9.00 Prob:  0.04% Token: | a|
        Rank: 21       Logit: -1.50 Prob: 100.00% Token: | b|
        Top 0th token. Logit: 14.51 Prob:  4.59% Token: | ground|
        Ranks of the answer tokens: [[(' a', 42), (' b', 21)]]
        """)
    #expect(one.text(bold: true).contains("\u{1B}[1mPerformance on answer token:\u{1B}[0m"))
  }
}
