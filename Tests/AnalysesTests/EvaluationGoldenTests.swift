import NormLens
import TestSupport
import Testing

/// Evaluations against torch in float64: every variable of every group.
@Suite struct EvaluationGoldenTests {
  private static func evaluation(_ golden: EvaluationGolden) throws -> Evaluation {
    let hasNorms = try golden.golden.contains("evaluate/freeze")
    return Evaluation(
      batchSize: 3, skippedTokens: try golden.skipped(), against: try golden.against(),
      freezing: hasNorms ? NormFreezing() : nil)
  }

  @Test(arguments: EvaluationGolden.models)
  func everyVariable(_ name: String) throws {
    let golden = try EvaluationGolden(name)
    let result = try Self.evaluation(golden).run(golden.model(), golden.prompts())
    let paths = ["", "/calibration", "/position", "/worst", "/freeze"].map { "evaluate\($0)" }
    for path in paths {
      try compare(name, golden, path, result, at: path)
    }
    guard try golden.golden.contains("evaluate/rest") else { return }
    var rest = try Self.evaluation(golden)
    (rest.freezing, rest.against) = (NormFreezing(positions: .rest), nil)
    let again = try rest.run(golden.model(), golden.prompts())
    try compare(name, golden, "evaluate/freeze", again, at: "evaluate/rest")
  }

  private func compare(
    _ name: String, _ golden: EvaluationGolden, _ path: String, _ result: ResultSet,
    at place: String
  ) throws {
    for variable in try golden.variables(of: place) {
      let expected = try golden.golden.array("\(place)/\(variable)").values
      let found = try result.doubles(path, variable)
      // What does not exist is NaN in both.
      #expect(
        haveSameGaps(found, expected),
        "\(name) \(path)/\(variable): NaN in different places")
      let (tolerance, scale) = Self.limits(variable, in: path)
      let comparison = Comparison("\(name) \(place)/\(variable)", relative: tolerance)
      comparison.check(
        "values", found.map { $0.isNaN ? 0 : $0 }, expected.map { $0.isNaN ? 0 : $0 },
        scale: scale)
      comparison.report("array")
    }
  }

  /// What a variable may differ by, and what the difference is held against: nil for the variable's own
  /// largest value.
  private static func limits(_ variable: String, in path: String) -> (Double, Double?) {
    // Differences of losses of a few nats, in nats.
    let isDifference =
      variable.hasPrefix("delta_loss") || variable.hasSuffix("delta")
      || variable.hasSuffix("predicted")
    return isDifference ? (2e-5, 1) : (1e-5, nil)
  }

  /// The variables that the results have and the golden files do not are named here.
  @Test func nothingIsUnchecked() throws {
    let golden = try EvaluationGolden("tiny-ln")
    let result = try Self.evaluation(golden).run(golden.model(), golden.prompts())
    for group in result.groups where group.path != "evaluate/changes" {
      let known = Set(try golden.variables(of: group.path))
      let unchecked = group.variables.filter { !$0.isCoordinate && !known.contains($0.name) }
      // Intervals are drawn.
      #expect(unchecked.map(\.name).filter { !$0.contains("_ci_") } == [], "\(group.path)")
      for variable in group.variables where !variable.isCoordinate {
        let facts = ["long_name", "units", "formula", "references"]
        #expect(facts.allSatisfy { variable.attributes[$0] != nil }, "\(variable.name)")
      }
    }
  }
}
