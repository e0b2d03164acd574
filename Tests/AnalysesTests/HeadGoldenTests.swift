import NormLens
import TestSupport
import Testing

/// The attention heads against numpy in float64: every variable of every group.
@Suite struct HeadGoldenTests {
  private static let models = [
    "tiny-ln", "tiny-lnfree", "tiny-ln-rmsnorm", "tiny-gelu-erf-rmsnorm", "mini",
  ]
  private static let groups = ["heads", "heads/summary", "heads/weights", "heads/composition"]

  /// Compares a group; what does not exist is NaN in both.
  private func compare(
    _ result: ResultSet, _ path: String, _ golden: GeometryGolden, as goldenPath: String? = nil,
    _ title: String
  ) throws {
    let comparison = Comparison("\(title) \(goldenPath ?? path)", relative: 2e-5)
    for variable in try golden.variables(of: goldenPath ?? path) {
      let expected = try golden.golden.array("\(goldenPath ?? path)/\(variable)").values
      let found = try result.doubles(path, variable)
      #expect(
        haveSameGaps(found, expected),
        "\(title) \(path)/\(variable): NaN in different places")
      comparison.check(
        variable, found.map { $0.isNaN ? 0 : $0 }, expected.map { $0.isNaN ? 0 : $0 })
    }
    comparison.report("variables")
  }

  @Test(arguments: models)
  func everyVariable(_ name: String) throws {
    let golden = try GeometryGolden(name, of: "heads")
    let (model, prompts) = (try golden.model(), try golden.prompts())
    let result = try HeadMeasures(batchSize: 3, composition: true).run(model, prompts)
    for path in Self.groups { try compare(result, path, golden, name) }
    for (ending, bos, current) in [
      ("bos", true, false), ("current", false, true), ("both", true, true),
    ] {
      let patterns = HeadPatterns.Settings(excludeBOS: bos, excludeCurrentToken: current)
      let result = try HeadMeasures(patterns: patterns).run(model, prompts)
      try compare(result, "heads", golden, as: "heads_\(ending)", name)
    }
    let repeated = try #require(prompts.last)
    let patterns = HeadPatterns.Settings(repeated: repeated.tokens.count / 2)
    let offsets = try HeadMeasures(patterns: patterns).run(model, [repeated])
    try compare(offsets, "heads", golden, as: "heads_repeated", name)
  }

  /// The variables that the results have and the golden files do not are named here.
  @Test func nothingIsUnchecked() throws {
    let golden = try GeometryGolden("tiny-ln", of: "heads")
    let result = try HeadMeasures(composition: true).run(golden.model(), golden.prompts())
    #expect(Set(result.groups.map(\.path)) == Set(Self.groups))
    for group in result.groups {
      let known = Set(try golden.variables(of: group.path))
      let unchecked = group.variables.map(\.name).filter { !known.contains($0) }
      let counts = [
        "previous_token_prompts", "duplicate_token_prompts", "induction_prompts", "prompts",
      ]
      #expect(unchecked == (group.path == "heads/summary" ? counts : []), "\(group.path)")
    }
    // One prompt is a single token; in two no token stands twice.
    #expect(try result.doubles("heads/summary", "previous_token_prompts") == [6])
    #expect(try result.doubles("heads/summary", "duplicate_token_prompts") == [4])
    #expect(try result.doubles("heads/summary", "induction_prompts") == [4])
    #expect(try result.doubles("heads/summary", "prompts") == [7])
  }
}
