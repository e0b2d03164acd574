import NormLens
import TestSupport
import Testing

/// LayerNorm geometry against numpy in float64: every variable of every group.
@Suite struct GeometryGoldenTests {
  /// float32 streams and weights; differences are relative to a variable's largest value.
  private static let tolerance = 1e-4

  @Test(arguments: GeometryGolden.models)
  func everyVariable(_ name: String) throws {
    let golden = try GeometryGolden(name)
    let result = try LayerNormGeometry(batchSize: 3).run(golden.model(), golden.prompts())
    for path in [
      "ln_geometry", "ln_geometry/summary", "ln_geometry/corpus", "renormalisation",
    ] {
      let group = try result.group(path)
      for variable in try golden.variables(of: path) {
        let expected = try golden.golden.array("\(path)/\(variable)").values
        let found = try group.doubles(variable)
        // What does not exist is NaN in both.
        #expect(
          found.count == expected.count && zip(found, expected).allSatisfy { $0.isNaN == $1.isNaN },
          "\(name) \(path)/\(variable): NaN in different places")
        let isAngle = variable.hasPrefix("angle")
        let comparison = Comparison(
          "\(name) \(path)/\(variable)", relative: isAngle ? 1e-3 : Self.tolerance)
        // Angles in degrees, as they are.
        comparison.check(
          isAngle ? "degrees" : "values", found.map { $0.isNaN ? 0 : $0 },
          expected.map { $0.isNaN ? 0 : $0 },
          scale: isAngle ? 1 : nil)
        comparison.report("array")
      }
    }
  }

  /// The variables that the results have and the golden files do not are named here.
  @Test func nothingIsUnchecked() throws {
    let golden = try GeometryGolden("tiny-ln")
    let result = try LayerNormGeometry().run(golden.model(), golden.prompts())
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
