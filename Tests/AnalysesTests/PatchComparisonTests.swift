import NormLens
import Testing

/// An exact sweep and estimates put into one result.
@Suite struct PatchComparisonTests {
  /// A result with the group `patch` and one of each method.
  private func result(_ methods: [String: [Float]], warnings: [String]) -> ResultSet {
    let axes = [Dimension("prompt", count: 1), Dimension("layer", count: 4)]
    let metric = ResultVariable(
      "clean_metric", ["prompt"], .float64([1]), longName: "metric", units: "logit")
    var patch = ResultGroup(path: "patch", dimensions: axes, variables: [metric])
    if !warnings.isEmpty { patch.attributes["warnings"] = .strings(warnings) }
    let groups = methods.sorted { $0.key < $1.key }.map { name, values in
      ResultGroup(
        path: "patch/" + name, dimensions: axes,
        variables: [
          ResultVariable(
            "x", ["prompt", "layer"], .float32(values), longName: "x", units: "logit"),
          ResultVariable("x_normalized", ["layer"], .float32(values), longName: "x", units: "1"),
        ])
    }
    return ResultSet(title: "t", groups: [patch] + groups)
  }

  @Test func oneResultOfTwo() throws {
    let exact = result(["activation": [1, 2, 3, 4]], warnings: ["gap", "exact"])
    let estimates = result(
      ["attribution": [2, 4, 6, 8], "relevance": [4, 3, 2, 1]], warnings: ["gap", "estimate"])
    let both = try exact.compared(with: estimates)
    #expect(
      both.groups.map(\.path) == [
        "patch", "patch/activation", "patch/attribution", "patch/relevance", "patch/agreement",
      ])
    #expect(
      both[group: "patch"]?.attributes["warnings"] == .strings(["gap", "exact", "estimate"]))
    #expect(both[group: "patch/activation"] == exact[group: "patch/activation"])
    #expect(both[group: "patch/relevance"] == estimates[group: "patch/relevance"])
    #expect(both[group: "patch/agreement", variable: "abs_error"]?.values.doubles == [10, 8])
    let table = try #require(both[group: "patch/agreement"].flatMap(agreementTable))
    #expect(
      table.split(separator: "\n").dropFirst(2).map { $0.split(separator: " ").map(String.init) }
        == [
          ["x", "attribution", "1.000", "1.000", "1.00", "0.00", "10.000"],
          ["x", "relevance", "-1.000", "-1.000", "1.00", "0.00", "8.000"],
        ])
  }

  @Test func nothingIsWarnedOfWhereNothingIsWrong() throws {
    let both = try result(["activation": [1, 2, 3, 4]], warnings: [])
      .compared(with: result(["attribution": [1, 2, 3, 4]], warnings: []))
    #expect(both[group: "patch"]?.attributes["warnings"] == nil)
  }

  @Test func thereMustBeSomethingToCompare() throws {
    let (exact, estimates) = (
      result(["activation": [1, 2, 3, 4]], warnings: []),
      result(["attribution": [1, 2, 3, 4]], warnings: [])
    )
    #expect(throws: AnalysisError.self) { try exact.compared(with: exact) }
    #expect(throws: AnalysisError.self) { try estimates.compared(with: estimates) }
    #expect(agreementTable(try #require(exact[group: "patch"])) == nil)
  }
}
