import NormLens
import TestSupport
import Testing

/// The residual stream's measures against numpy in float64: every variable of every group.
@Suite struct StreamGoldenTests {
  private static let groups = [
    "stream", "stream/summary", "stream/growth", "stream/linearity", "stream/distance",
    "stream/massive", "stream/spectra", "stream/spectra/summary",
  ]

  @Test(arguments: GeometryGolden.models)
  func everyVariable(_ name: String) throws {
    let golden = try GeometryGolden(name, of: "stream")
    let result = try StreamMeasures(batchSize: 3, referenceConventions: true)
      .run(golden.model(), golden.prompts())
    for path in Self.groups {
      for variable in try golden.variables(of: path) {
        try Self.compare(result, path, variable, golden, path, name)
      }
    }
  }

  /// Fewer tokens than dimensions.
  @Test(arguments: GeometryGolden.models)
  func fewTokens(_ name: String) throws {
    let golden = try GeometryGolden(name, of: "stream")
    let few = try golden.golden.integers("few_prompts")[0]
    let result = try StreamMeasures().run(
      golden.model(), Array(golden.prompts().prefix(few)))
    for variable in try golden.variables(of: "few/linearity") {
      try Self.compare(result, "stream/linearity", variable, golden, "few/linearity", name)
    }
    let linearity = try result.group("stream/linearity")
    #expect(try linearity.doubles("linearity").allSatisfy { abs($0 - 1) < 1e-6 })
    guard case .string(let warning)? = linearity.attributes["warning"] else {
      Issue.record("no warning of \(few) tokens")
      return
    }
    #expect(warning.contains("perfectly"))
  }

  private static func compare(
    _ result: ResultSet, _ path: String, _ variable: String, _ golden: GeometryGolden,
    _ expectedPath: String, _ name: String
  ) throws {
    let expected = try golden.golden.array("\(expectedPath)/\(variable)").values
    let found = try result.doubles(path, variable)
    // What does not exist is NaN in both.
    #expect(
      haveSameGaps(found, expected),
      "\(name) \(path)/\(variable): NaN in different places")
    let (tolerance, scale) = limits(variable)
    let comparison = Comparison("\(name) \(expectedPath)/\(variable)", relative: tolerance)
    comparison.check(
      variable, found.map { $0.isNaN ? 0 : $0 }, expected.map { $0.isNaN ? 0 : $0 }, scale: scale)
    comparison.report("array")
  }

  /// What a variable may differ by, and what the difference is held against: nil for the variable's
  /// own largest value.
  private static func limits(_ variable: String) -> (Double, Double?) {
    switch variable {
    // Degrees, as they are.
    case "turn_angle": (1e-3, 1)
    // Known to a bin of a thousandth.
    case "median_activation", "ratio": (1.1e-3, nil)
    case "massive", "count", "rank", "top_activation_prompt", "top_activation_pos",
      "top_activation_dim":
      (0, 1)
    default: (1e-4, nil)
    }
  }

  /// The variables that the results have and the golden files do not are coordinates.
  @Test func nothingIsUnchecked() throws {
    let golden = try GeometryGolden("tiny-ln", of: "stream")
    let result = try StreamMeasures(referenceConventions: true)
      .run(golden.model(), golden.prompts())
    #expect(Set(result.groups.map(\.path)) == Set(Self.groups))
    for group in result.groups {
      let known = Set(try golden.variables(of: group.path))
      let unchecked = group.variables.filter { !$0.isCoordinate && !known.contains($0.name) }
      #expect(unchecked.isEmpty, "\(group.path): \(unchecked.map(\.name))")
      for variable in group.variables where !variable.isCoordinate && variable.name != "count" {
        for attribute in ["units", "long_name"] {
          #expect(variable.attributes[attribute] != nil, "\(group.path)/\(variable.name)")
        }
      }
    }
  }
}
