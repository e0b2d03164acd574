import Foundation
import NormLens
import TestSupport
import Testing

/// `normlens patch --method …`: estimates beside the exact sweep.
@Suite struct AttributionCommandTests {
  private static let pair = PatchTests.pair

  static let snapshots: [(String, [String])] = [
    (
      "patch-methods",
      ["patch", "mini", "--method", "activation,attribution,relevance"] + pair
    ),
    (
      "patch-four-methods",
      [
        "patch", "mini-vanilla", "--method",
        "relevance,activation,integrated-gradients,attribution", "--sites", "head_z,head_q",
        "--noising", "--steps", "4", "--top", "3",
      ] + pair
    ),
    (
      "patch-relevance",
      [
        "patch", "mini-lnfree", "--method", "relevance", "--rules",
        "ln,identity,attention-pattern", "--sites", "resid_pre,head_z_by_pos", "--layers", "0-1",
        "--top", "2",
      ] + pair
    ),
    (
      "patch-estimates-two-ends",
      [
        "patch", "mini", "--method", "attribution,integrated-gradients", "--sites",
        "resid_pre,head_pattern", "--align", "end", "--metric", "log-probability", "--top", "2",
      ] + pair + PatchTests.short
    ),
  ]

  @Test(arguments: snapshots.map(\.0))
  func output(_ name: String) throws {
    let arguments = try #require(Self.snapshots.first { $0.0 == name }).1
    try Snapshot.expect(try Command.succeed(arguments, in: TemporaryDirectory()), name)
  }

  /// What is written is what the library finds, each group once and in its place.
  @Test func theFileHoldsEveryMethod() throws {
    let directory = try TemporaryDirectory()
    try Command.succeed(
      [
        "patch", "mini", "--method", "relevance,integrated-gradients,activation,attribution",
        "--sites", "blocks,head_z", "--steps", "3", "-o", "p.h5", "--quiet",
      ] + Self.pair, in: directory)
    #expect(try directory.contents() == ["p.h5"])
    let written = try ResultFile.read(directory.file("p.h5"))
    #expect(
      written.groups.map(\.path) == [
        "patch", "patch/activation", "patch/attribution", "patch/integrated_gradients",
        "patch/relevance", "patch/agreement",
      ])
    let model = try GPT2.load(Fixtures.bundled("mini"))
    let tokenizer = try model.tokenizer
    let pair = PromptPair(
      clean: try model.tokens(PatchTests.clean), corrupted: try model.tokens(PatchTests.corrupted),
      answer: try tokenizer.singleToken(" Mary"), wrong: try tokenizer.singleToken(" John"))
    let sweep = ActivationPatching(of: PatchSite.blocks + [.headZ])
    let methods: [AttributionPatching.Method] = [
      .attribution, .integratedGradients(steps: 3), .relevance(.relp),
    ]
    let computed = try sweep.run(model, [pair]).compared(
      with: AttributionPatching(of: sweep, by: methods).run(model, [pair]))
    for group in computed.groups where group.path != "patch" {
      for variable in group.variables {
        guard !variable.name.hasPrefix("conservation_"), let b = variable.values.doubles else {
          continue
        }
        let a = try written.doubles(group.path, variable.name)
        let scale = b.reduce(0) { $1.isFinite ? max($0, abs($1)) : $0 }
        let worst = zip(a, b).reduce(0) { $1.1.isNaN ? $0 : max($0, abs($1.0 - $1.1)) }
        #expect(
          a.count == b.count && worst <= 3e-4 * scale + 1e-9, "\(group.path)/\(variable.name)")
      }
    }
  }

  /// One method needs no agreement, and estimates alone none either.
  @Test func agreementNeedsTheTruth() throws {
    let directory = try TemporaryDirectory()
    for (methods, groups) in [
      ("activation", ["patch", "patch/activation"]),
      ("attribution", ["patch", "patch/attribution"]),
      ("attribution,relevance", ["patch", "patch/attribution", "patch/relevance"]),
    ] {
      let text = try Command.succeed(
        ["patch", "mini", "--method", methods, "--sites", "head_z", "-o", "p.h5"] + Self.pair,
        in: directory)
      #expect(try ResultFile.read(directory.file("p.h5")).groups.map(\.path) == groups)
      #expect(!text.contains("Pearson"))
    }
  }

  /// Without rules relevance is the gradient, to the bit.
  @Test func noRulesAreTheGradient() throws {
    let directory = try TemporaryDirectory()
    try Command.succeed(
      [
        "patch", "mini", "--method", "attribution,relevance", "--rules", "none", "--sites",
        "blocks,heads,mlp_post", "-o", "p.h5", "--quiet",
      ] + Self.pair, in: directory)
    let result = try ResultFile.read(directory.file("p.h5"))
    for site in (PatchSite.blocks + PatchSite.heads + [.mlpPost]).map(\.name) {
      let (a, b) = (
        try result.doubles("patch/attribution", site), try result.doubles("patch/relevance", site)
      )
      #expect(a.map(\.bitPattern) == b.map(\.bitPattern), "\(site)")
      #expect(a.contains { $0 != 0 }, "\(site)")
    }
  }

  /// Identical prompts: every method finds exactly nothing, and that is said once.
  @Test(arguments: ["--denoising", "--noising"])
  func identicalPromptsHaveNoEffects(_ direction: String) throws {
    let directory = try TemporaryDirectory()
    let outcome = try Command.run(
      [
        "patch", "mini", direction, "--method",
        "activation,attribution,integrated-gradients,relevance", "--sites", "blocks,heads", "-o",
        "p.h5", "--clean", PatchTests.clean, "--corrupted", PatchTests.clean,
      ] + PatchTests.question, in: directory)
    #expect(outcome.status == 0, "\(outcome.errors)")
    let lines = outcome.errors.split(separator: "\n").map(String.init)
    #expect(Set(lines).count == lines.count, "\(outcome.errors)")
    #expect(lines.filter { $0.contains("prompt are identical") }.count == 1)
    let result = try ResultFile.read(directory.file("p.h5"))
    guard case .strings(let kept)? = try result.group("patch").attributes["warnings"] else {
      Issue.record("no warnings in the file")
      return
    }
    #expect(kept.map { "normlens: warning: " + $0 } == lines)
    for group in result.groups where group.path.hasPrefix("patch/") {
      for site in PatchSite.blocks + PatchSite.heads {
        let effects = group[variable: site.name]?.values.doubles ?? []
        #expect(effects.allSatisfy { $0 == 0 }, "\(group.path)/\(site.name)")
      }
    }
  }

  /// `show` lists a file of many tables, with the agreement, and prints the group that is named.
  @Test func showListsWhatIsLong() throws {
    let directory = try TemporaryDirectory()
    try Command.succeed(
      [
        "patch", "mini", "--method", "activation,attribution,relevance", "-o", "p.h5", "--quiet",
      ] + Self.pair, in: directory)
    let listing = try Command.succeed(["show", "p.h5"], in: directory)
    #expect(listing.split(separator: "\n").count < 120)
    #expect(listing.contains("Pearson") && listing.contains("[patch/relevance]"))
    #expect(listing.contains("normlens show p.h5 patch/agreement"))
    let part = try Command.succeed(["show", "p.h5", "patch/relevance"], in: directory)
    #expect(part.contains("patch/relevance/resid_pre_normalized [1]\nlayer\\pos"))
  }

  /// A killed sweep goes on where it stopped, and the estimates beside it are made again.
  @Test func killedAndResumed() throws {
    let directory = try TemporaryDirectory()
    let methods = ["--method", "activation,attribution"]
    #expect(
      try PatchTests().interrupt(SIGKILL, in: directory, options: methods) == -SIGKILL)
    try Command.fail(
      PatchTests.long + ["-o", "p.h5", "--resume", "--method", "attribution"], 64,
      saying: ["--resume", "attribution"], in: directory)
    try Command.succeed(PatchTests.long + methods + ["-o", "p.h5", "--resume"], in: directory)
    try Command.succeed(PatchTests.long + ["-o", "whole.h5"], in: directory)
    let (resumed, whole) = (
      try ResultFile.read(directory.file("p.h5")), try ResultFile.read(directory.file("whole.h5"))
    )
    for site in ["resid_pre", "mlp_post"] {
      #expect(
        try resumed.doubles("patch/activation", site) == whole.doubles("patch/activation", site))
    }
    #expect(resumed[group: "patch/agreement"] != nil && resumed.provenance.facts["complete"] == nil)
  }

  /// A dash in the table of agreement says why, once for each reason; no effect is 0, not -0.
  @Test func dashesAreExplained() throws {
    let directory = try TemporaryDirectory()
    let outcome = try Command.run(
      [
        "patch", "mini", "--method", "activation,attribution,relevance", "--clean-tokens", "0",
        "--corrupted-tokens", "5", "--answer", "1", "--wrong", "2", "--sites",
        "head_q,head_pattern", "--top", "0", "-o", "p.h5",
      ], in: directory)
    #expect(outcome.status == 0)
    #expect(
      outcome.output.contains(
        "\n– no exact effect is other than 0: attribution head_q, attribution head_pattern, "
          + "relevance head_q, relevance head_pattern\n"))
    #expect(!outcome.output.contains(" -0") && !outcome.output.contains("strongest"))
    let result = try ResultFile.read(directory.file("p.h5"))
    for method in ["activation", "attribution", "relevance"] {
      let map = try result.doubles("patch/\(method)", "head_q_normalized")
      #expect(map.allSatisfy { $0 == 0 && $0.sign == .plus })
    }
  }

  // MARK: what is wrong

  private static func patch(_ options: String..., on pairs: [String] = pair) -> [String] {
    ["patch", "mini"] + options + pairs
  }

  static let errors: [ErrorTests.Case] = [
    .init(patch("--method", "atribution"), 64, "'atribution'", "did you mean 'attribution'?"),
    .init(patch("--method", "activation,relp"), 64, "'relp'", "integrated-gradients, relevance"),
    .init(patch("--method", "integrated_gradients"), 64, "'integrated-gradients'?"),
    .init(patch("--method", ""), 64, "--method", "''"),
    .init(patch("--method", "relevance", "--rules", "ln,identiti"), 64, "'identity'?"),
    .init(patch("--method", "relevance", "--rules", "none,ln"), 64, "'none' stands alone"),
    .init(patch("--method", "attribution", "--rules", "ln"), 64, "--rules", "--method relevance"),
    .init(patch("--rules", "ln"), 64, "--rules", "--method relevance"),
    .init(patch("--method", "attribution", "--steps", "5"), 64, "--steps", "integrated-gradients"),
    .init(patch("--method", "integrated-gradients", "--steps", "0"), 64, "--steps 0", "1 to 10000"),
    .init(patch("--method", "integrated-gradients", "--steps", "-3"), 64, "--steps -3"),
    .init(patch("--method", "integrated-gradients", "--steps", "20000"), 64, "1 to 10000"),
    .init(
      patch("--method", "integrated-gradients", "--steps", "ten"), 64, "ten", usage: true),
    .init(patch("--method", "activation,attribution", "--window", "2"), 64, "--window 2"),
    .init(patch("--method", "relevance", "--resume", "-o", "p.h5"), 64, "--resume", "relevance"),
    .init(patch("--method", "relevance", "--method", "activation"), 64, "--method", "twice"),
    .init(
      patch("--method", "integrated-gradients", "--replace", "zero"), 65, "integrated-gradients",
      "zero"),
    .init(patch("--method", "attribution", "--sites", "resid_pr"), 64, "'resid_pre'?"),
    .init(patch("--method", "attribution", "--positions", "15"), 65, "15"),
    .init(
      patch("--method", "attribution", "--clean", PatchTests.clean, "--corrupted", "Mary", on: []),
      65, "tokens"),
  ]

  @Test(arguments: errors) func refuses(_ item: ErrorTests.Case) throws {
    let directory = try TemporaryDirectory()
    for output in [[], ["-o", "p.h5"]] where output.isEmpty || !item.arguments.contains("-o") {
      try Command.fail(
        item.arguments + output, item.status, saying: item.parts, usage: item.usage, in: directory)
    }
    #expect(try directory.contents().isEmpty)
  }

  /// KL has no slope at the clean run: estimates of it are 0, and that is said.
  @Test func aMetricWithoutSlopeIsSaid() throws {
    let outcome = try Command.run(
      Self.patch("--method", "attribution", "--metric", "kl", "--noising"),
      in: TemporaryDirectory())
    #expect(outcome.status == 0 && outcome.errors.contains("kl has no slope at the clean run"))
  }
}
