import Foundation
import NormLens
import TestSupport
import Testing

/// `normlens patch`: what it prints, what it refuses, and what is left of it when it is killed.
@Suite struct PatchTests {
  static let clean = OutputTests.ioi
  static let corrupted = "When Mary and John went to the store, Mary gave a drink to"
  static let question = ["--answer", " Mary", "--wrong", " John"]
  static let pair = ["--clean", clean, "--corrupted", corrupted] + question
  static let short = [
    "--clean", "So Alice is a really great friend, isn't", "--corrupted",
    "So David is a really great friend, isn't", "--answer", " she", "--wrong", " he",
  ]

  static let snapshots: [(String, [String])] = [
    ("help-patch", ["patch", "--help"]),
    ("patch", ["patch", "mini"] + pair),
    ("patch-lnfree", ["patch", "mini-lnfree", "--sites", "heads", "--noising"] + pair),
    (
      "patch-two-ends",
      ["patch", "mini", "--sites", "resid_pre,head_z_by_pos", "--align", "end"] + pair + short
    ),
    (
      "patch-kl-zero",
      [
        "patch", "mini", "--sites", "head_z,mlp_out", "--metric", "kl", "--replace", "zero",
        "--top", "2",
      ] + pair
    ),
    (
      "patch-window",
      [
        "patch", "mini", "--sites", "mlp_out", "--window", "2", "--positions", "10,-1", "--top",
        "1",
      ] + pair
    ),
    (
      "patch-noise",
      [
        "patch", "mini", "--sites", "resid_pre", "--noise", "3", "--noise-positions", "2,4,10",
        "--seed", "7", "--top", "3", "--clean", clean,
      ] + question
    ),
    (
      "patch-json",
      ["patch", "mini", "--sites", "head_z", "--layers", "2-3", "--json"] + pair
    ),
  ]

  @Test(arguments: snapshots.map(\.0))
  func output(_ name: String) throws {
    let arguments = try #require(Self.snapshots.first { $0.0 == name }).1
    var text = try Command.succeed(arguments, in: TemporaryDirectory())
    if arguments.contains("--json") {
      for line in text.split(separator: "\n") {
        _ = try JSONSerialization.jsonObject(with: Data(line.utf8))
      }
      // The hour and the machine.
      text.replace(#/"(created|threads|blas)": ("[^"]*"|[0-9]+)/#) { "\"\($0.1)\": …" }
    }
    try Snapshot.expect(text, name)
  }

  /// What is printed is what is written.
  @Test func theFileHoldsTheSweep() throws {
    let directory = try TemporaryDirectory()
    try Command.succeed(
      ["patch", "mini", "--sites", "blocks,head_z", "-o", "p.h5", "--quiet"] + Self.pair,
      in: directory)
    #expect(try directory.contents() == ["p.h5"])
    let written = try ResultFile.read(directory.file("p.h5"))
    let model = try GPT2.load(Fixtures.bundled("mini"))
    let tokenizer = try model.tokenizer
    let computed = try ActivationPatching(of: PatchSite.blocks + [.headZ]).run(
      model,
      [
        PromptPair(
          clean: try model.tokens(Self.clean), corrupted: try model.tokens(Self.corrupted),
          answer: try tokenizer.singleToken(" Mary"), wrong: try tokenizer.singleToken(" John"))
      ])
    for site in ["resid_pre", "attn_out", "mlp_out", "head_z"] {
      let (a, b) = (
        try written.doubles("patch/activation", site),
        try computed.doubles("patch/activation", site)
      )
      let scale = b.reduce(0) { max($0, abs($1)) }
      #expect(
        a.count == b.count && zip(a, b).allSatisfy { abs($0 - $1) <= 3e-4 * scale }, "\(site)")
      #expect(try written.group("patch/activation")[variable: site]?.units == "logit")
    }
    #expect(try written.group("patch").attributes["direction"] == .string("denoising"))
    #expect(try written.group("patch").attributes["metric"] == .string("logit-difference"))
    #expect(written.provenance.facts["complete"] == nil)
  }

  // MARK: what is wrong

  private static func patch(_ options: String..., on pairs: [String] = pair) -> [String] {
    ["patch", "mini"] + options + pairs
  }

  static let errors: [ErrorTests.Case] = [
    .init(patch("--sites", "resid_pr"), 64, "'resid_pr'", "did you mean 'resid_pre'?"),
    .init(patch("--sites", "head_z,heds"), 64, "'heds'", "'heads'"),
    .init(patch("--sites", ","), 64, "sites"),
    .init(patch("--metric", "logitdiference"), 64, "'logitdiference'", "'logit-difference'?"),
    .init(patch("--window", "5"), 64, "window", "4 layers"),
    .init(patch("--window", "0"), 64, "window"),
    .init(patch("--layers", "4"), 64, "4"),
    .init(patch("--layers", "-5"), 64, "-5"),
    .init(patch("--layers", "-1", "--window", "2"), 64, "window of 2 layers"),
    .init(patch(on: []), 64, "--clean", "--prompts"),
    .init(patch("--clean", clean, on: question), 64, "--corrupted"),
    .init(patch("--positions", "15"), 65, "15"),
    .init(patch("--positions", "S2"), 65, "S2"),
    // Lengths.
    .init(patch("--clean", clean, "--corrupted", "Mary and John", on: question), 65, "tokens"),
    .init(patch("--sites", "head_z,resid_pre", on: pair + short), 65, "--align end"),
    .init(patch("--align", "label"), 65, "--align label"),
    // Answers.
    .init(
      patch("--clean", clean, "--corrupted", corrupted, on: ["--answer", " Mary"]), 65,
      "logit-difference", "wrong"),
    .init(
      patch("--clean", clean, "--corrupted", corrupted, "--metric", "loss", on: []), 65, "loss",
      "answer"),
    .init(
      patch(
        "--clean", clean, "--corrupted", corrupted, "--answer", "Mary", "--wrong", " John", on: []),
      65, "\" Mary\""),
    // Replacements.
    .init(patch("--sites", "head_pattern", "--replace", "mean"), 65, "pattern"),
    .init(patch("--reference", "r.json"), 64, "--replace", usage: true),
    .init(patch("--noise", "0"), 64, "--noise", usage: true),
    .init(patch("--noise", "3"), 64, "--corrupted", usage: true),
    // Files.
    .init(patch("--resume"), 64, "--resume", "-o", usage: true),
    .init(patch("--resume", "-o", "no.h5"), 66, "no.h5.partial"),
    .init(patch("-o", "no/dir/p.h5"), 73, "no/dir"),
  ]

  @Test(arguments: errors) func refuses(_ item: ErrorTests.Case) throws {
    let directory = try TemporaryDirectory()
    for output in [[], ["-o", "p.h5"]] where output.isEmpty || !item.arguments.contains("-o") {
      try Command.fail(
        item.arguments + (item.arguments.contains("--resume") ? [] : output), item.status,
        saying: item.parts, usage: item.usage, in: directory)
    }
  }

  /// Warnings go to standard error and into the file, and the numbers are given all the same.
  @Test(arguments: ["identical", "gap", "wrong", "nothing"])
  func warns(_ what: String) throws {
    let (arguments, texts): ([String], [String]) =
      switch what {
      case "identical":
        (
          Self.patch("--clean", Self.clean, "--corrupted", Self.clean, on: Self.question),
          ["prompt are identical", "differs by 0"]
        )
      case "gap":
        (
          Self.patch(
            "--clean", Self.clean, "--corrupted",
            Self.clean.replacing("the store", with: "a store"),
            on: Self.question),
          ["normalized effects mean little"]
        )
      case "wrong":
        (
          Self.patch(
            "--clean", Self.clean, "--corrupted", Self.corrupted, "--answer", " John",
            on: ["--wrong", " Mary"]),
          ["the model gets the prompt wrong"]
        )
      default:
        (
          Self.patch("--sites", "resid_pre,head_z", "--positions", "3"),
          ["no cell of resid_pre changed anything", "head_z: patched at all positions"]
        )
      }
    let directory = try TemporaryDirectory()
    let outcome = try Command.run(arguments + ["-o", "p.h5"], in: directory)
    #expect(outcome.status == 0, "\(outcome.errors)")
    let lines = outcome.errors.split(separator: "\n")
    #expect(lines.allSatisfy { $0.hasPrefix("normlens: warning: ") }, "\(outcome.errors)")
    for text in texts {
      #expect(lines.contains { $0.contains(text) }, "lacks '\(text)': \(outcome.errors)")
    }
    let result = try ResultFile.read(directory.file("p.h5"))
    guard case .strings(let kept)? = try result.group("patch").attributes["warnings"] else {
      Issue.record("no warnings in the file")
      return
    }
    #expect(kept.map { "normlens: warning: " + $0 } == lines.map(String.init))
    let quiet = try Command.run(arguments + ["--quiet"], in: directory)
    #expect(quiet.errors.isEmpty && quiet.output.isEmpty)
  }

  // MARK: killed sweeps

  /// Seconds of work in many batches.
  static let long =
    [
      "patch", "mini", "--sites", "mlp_post,resid_pre", "--max-memory", "60MB", "--quiet",
      "--clean", clean, "--corrupted", clean.replacing("When Mary", with: "When Anna"), "--answer",
      " Mary", "--wrong", " Anna",
    ]

  /// Starts the long sweep into `p.h5`, waits until something of it is kept, and sends a signal;
  /// returns what the process left with, negative for a signal.
  func interrupt(
    _ signal: Int32, in directory: TemporaryDirectory, resume: Bool = false, options: [String] = []
  ) throws -> Int32 {
    let process = Process()
    process.executableURL = try Command.binary.get()
    process.arguments = Self.long + options + ["-o", "p.h5"] + (resume ? ["--resume"] : [])
    process.currentDirectoryURL = URL(fileURLWithPath: directory.path)
    process.environment = ProcessInfo.processInfo.environment.merging(
      ["NORMLENS_DATA": Fixtures.data]) { $1 }
    process.standardOutput = FileHandle.nullDevice
    process.standardError = FileHandle.nullDevice
    process.standardInput = FileHandle.nullDevice
    func stamp() -> Date? {
      (try? FileManager.default.attributesOfItem(atPath: directory.file("p.h5.partial")))?[
        .modificationDate] as? Date
    }
    let before = stamp()
    // A thread of a test may have signals blocked, and a process inherits that.
    var (all, own) = (sigset_t(), sigset_t())
    sigfillset(&all)
    pthread_sigmask(SIG_UNBLOCK, &all, &own)
    try process.run()
    pthread_sigmask(SIG_SETMASK, &own, nil)
    let deadline = Date.now + 120
    while process.isRunning, stamp() == before, Date.now < deadline { usleep(2000) }
    kill(process.processIdentifier, signal)
    process.waitUntilExit()
    return process.terminationReason == .exit
      ? process.terminationStatus : -process.terminationStatus
  }

  /// Every number of a result, to the bit, by group and variable.
  private func bits(_ path: String) throws -> [String: [UInt64]] {
    var found: [String: [UInt64]] = [:]
    for group in try ResultFile.read(path).groups {
      for variable in group.variables {
        found["\(group.path)/\(variable.name)"] = variable.values.doubles?.map(\.bitPattern)
      }
    }
    return found
  }

  @Test func killedAndResumed() throws {
    let directory = try TemporaryDirectory()
    try Command.succeed(Self.long + ["-o", "whole.h5"], in: directory)

    // SIGKILL: no result, a partial one that can be read; twice.
    for resume in [false, true] {
      #expect(try interrupt(SIGKILL, in: directory, resume: resume) == -SIGKILL)
      let left = try directory.contents().filter { !$0.hasSuffix(".tmp") }
      #expect(left == ["p.h5.partial", "whole.h5"])
      let partial = try ResultFile.read(directory.file("p.h5.partial"))
      #expect(partial.provenance.facts["complete"] == .integer(0))
      let done = try partial.doubles("patch/activation", "mlp_post").filter { !$0.isNaN }.count
      let all = try partial.doubles("patch/activation", "mlp_post").count
      print("killed with \(done) of \(all) neurons done")
      #expect(done < all)
    }
    // SIGINT: the status of an interrupted command, and no temporary file of its own.
    let before = try directory.contents()
    #expect(try interrupt(SIGINT, in: directory, resume: true) == 130)
    #expect(try directory.contents() == before)

    // What is there is not overwritten by mistake, nor taken up by another sweep.
    try Command.fail(
      Self.long + ["-o", "p.h5"], 73, saying: ["p.h5.partial", "--resume"], in: directory)
    for (change, setting) in [
      (["--metric", "logit"], "metric"), (["--noising"], "direction"),
      (["--window", "2"], "window"),
      (["--layers", "0"], "layers"), (["--positions", "3"], "positions"),
      (["--replace", "zero", "--denoising"], "replacement"), (["--threads", "3"], "threads"),
    ] {
      try Command.fail(
        Self.long + ["-o", "p.h5", "--resume"] + change, 65, saying: [setting, "--resume"],
        in: directory)
    }
    try Command.fail(
      Self.long.map { $0 == "60MB" ? "70MB" : $0 == " Anna" ? " John" : $0 }
        + ["-o", "p.h5", "--resume"], 65, saying: ["prompts"], in: directory)
    // A damaged file is refused and left where it is.
    let kept = try Data(contentsOf: URL(fileURLWithPath: directory.file("p.h5.partial")))
    for damage in [kept.prefix(kept.count / 2), Data("not HDF5".utf8), Data()] {
      try Data(damage).write(to: URL(fileURLWithPath: directory.file("p.h5.partial")))
      try Command.fail(
        Self.long + ["-o", "p.h5", "--resume"], 65, saying: ["p.h5.partial"], in: directory)
    }
    try kept.write(to: URL(fileURLWithPath: directory.file("p.h5.partial")))

    // Resumed to its end: the same numbers, to the bit, and nothing else is left.
    try Command.succeed(Self.long + ["-o", "p.h5", "--resume"], in: directory)
    #expect(try directory.contents().filter { !$0.hasSuffix(".tmp") } == ["p.h5", "whole.h5"])
    let (whole, resumed) = (
      try bits(directory.file("whole.h5")), try bits(directory.file("p.h5"))
    )
    #expect(whole.keys.sorted() == resumed.keys.sorted())
    for (name, values) in whole { #expect(values == resumed[name], "\(name)") }
  }

  /// A result is not a partial sweep.
  @Test func aResultIsNotResumed() throws {
    let directory = try TemporaryDirectory()
    let arguments = ["patch", "mini", "--sites", "head_z", "-o", "p.h5", "--quiet"] + Self.pair
    try Command.succeed(arguments, in: directory)
    try Command.fail(arguments + ["--resume"], 66, saying: ["p.h5"], in: directory)
    try directory.copy(directory.file("p.h5"), as: "p.h5.partial")
    try Command.fail(arguments + ["--resume"], 65, saying: ["unfinished sweep"], in: directory)
  }
}
