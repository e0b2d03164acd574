import NormLens
import TestSupport
import Testing

/// LayerNorm geometry against numpy in float64: every variable of every group.
@Suite struct GeometryGoldenTests {
  /// float32 streams and weights; differences are relative to a variable's largest value.
  private static let tolerance = 1e-4

  private static let groups = [
    "ln_geometry", "ln_geometry/summary", "ln_geometry/corpus", "ln_geometry/writes",
    "ln_geometry/shape", "ln_steps", "renormalisation",
  ]

  @Test(arguments: GeometryGolden.models)
  func everyVariable(_ name: String) throws {
    let golden = try GeometryGolden(name)
    let result = try LayerNormGeometry(batchSize: 3, steps: try golden.steps())
      .run(golden.model(), golden.prompts())
    for path in Self.groups {
      for variable in try golden.variables(of: path) {
        let expected = try golden.golden.array("\(path)/\(variable)").values
        let found = try result.doubles(path, variable)
        // What does not exist is NaN in both.
        #expect(
          haveSameGaps(found, expected),
          "\(name) \(path)/\(variable): NaN in different places")
        let (tolerance, scale) = Self.limits(variable, in: path)
        let comparison = Comparison("\(name) \(path)/\(variable)", relative: tolerance)
        comparison.check(
          variable.hasPrefix("angle") ? "degrees" : "values", found.map { $0.isNaN ? 0 : $0 },
          expected.map { $0.isNaN ? 0 : $0 }, scale: scale)
        comparison.report("array")
      }
    }
  }

  /// What a variable may differ by, and what the difference is held against: nil for the variable's
  /// own largest value.
  private static func limits(_ variable: String, in path: String) -> (Double, Double?) {
    // Degrees, as they are.
    if variable.hasPrefix("angle") { return (1e-3, 1) }
    // A share: that along the ones vector is 0 after LayerNorm, and rounding of 1 before.
    if variable.hasPrefix("ones_") { return (1e-5, 1) }
    if path.hasSuffix("shape") {
      // Points are pooled into cells of x, so that curves are fitted to first order within a cell; a
      // parameter moves by the root of what the loss does.
      return variable.hasSuffix("r2")
        ? (tolerance, 1) : variable == "erf_s" ? (1e-3, 1) : (5e-3, nil)
    }
    return (tolerance, nil)
  }

  /// The variables that the results have and the golden files do not are named here.
  @Test func nothingIsUnchecked() throws {
    let golden = try GeometryGolden("tiny-ln")
    let result = try LayerNormGeometry(steps: try golden.steps())
      .run(golden.model(), golden.prompts())
    for group in result.groups {
      let known = Set(try golden.variables(of: group.path))
      let unchecked = group.variables.filter { !$0.isCoordinate && !known.contains($0.name) }
      #expect(
        unchecked.map(\.name) == Self.unchecked[group.path, default: []], "\(group.path)")
    }
  }

  private static let unchecked = [
    // Sums of the gaps, which are.
    "renormalisation": ["component_gap_pooled", "head_gap_pooled"]
  ]
}
