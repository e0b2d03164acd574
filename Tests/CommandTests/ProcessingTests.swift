import TestSupport
import Testing

/// `--process` on the command line.
@Suite struct ProcessingTests {
  static let text = "When Mary and John went to the store, John gave a drink to"

  /// What is predicted stays the same; what was done is told.
  @Test(arguments: ["transformerlens", "fold_ln", "center_writing_weights,rmsnorm"])
  func predictionsStay(_ steps: String) throws {
    let directory = try TemporaryDirectory()
    let run = ["run", "mini", Self.text, "--answer", "Mary"]
    func probabilities(_ output: String) -> [Substring] {
      output.split(separator: "\n").compactMap { $0.firstMatch(of: /Prob: *([0-9.]+%)/)?.1 }
    }
    let plain = try Command.succeed(run, in: directory)
    let processed = try Command.succeed(run + ["--process", steps], in: directory)
    #expect(probabilities(plain).count >= 10)
    #expect(probabilities(plain) == probabilities(processed))
    let inspected = try Command.succeed(["inspect", "mini", "--process", steps], in: directory)
    #expect(inspected.contains(steps == "fold_ln" ? "fold_ln" : "center_writing_weights"))
    if steps.contains("rmsnorm") { #expect(inspected.contains("RMSNorm with epsilon")) }
  }

  @Test func theSameCommandFitsAModelWithoutNorms() throws {
    let directory = try TemporaryDirectory()
    let outcome = try Command.run(
      ["run", "mini-lnfree", Self.text, "--process", "transformerlens"], in: directory)
    #expect(outcome.status == 0)
    #expect(outcome.output.contains("| Mary|"))
    #expect(
      outcome.errors
        == "normlens: --process: skipped fold_ln: the model has no norms to fold\n")
  }

  @Test func refusals() throws {
    let directory = try TemporaryDirectory()
    func fail(_ model: String, _ steps: String, _ status: Int32, _ parts: String...) throws {
      try Command.fail(
        ["run", model, "x", "--process", steps], status, saying: parts, in: directory)
    }
    try fail("mini", "fold_lm", 64, "'fold_lm'", "fold_ln", "transformerlens")
    try fail("mini", "", 64, "''")
    try fail("mini", "fold_ln,,rmsnorm", 64, "''")
    try fail("mini", "rmsnorm", 65, "'rmsnorm'", "wte.weight", "add center_writing_weights")
    try fail("mini", "center_reading_weights", 65, "h.0.ln_1", "add fold_ln")
    try fail("mini-lnfree", "fold_ln", 65, "'fold_ln'", "no norm")
    try fail("mini-lnfree", "rmsnorm", 65, "'rmsnorm'")
  }
}
