import NormLens
import TestSupport
import Testing

/// The measures of agreement against numbers of scipy and by hand, and the group made of them.
@Suite struct PatchAgreementTests {
  private let exact = [0.9, 0.4, -0.35, 0.4, 0, 0.02, -0.004, 0.65, 0.65, -1.2, 0.3, 0.009]
  private let estimates = [0.7, 0.1, -0.5, 0.2, 0, -0.02, 0.008, 0.9, 0.65, -0.3, 0, 0.03]

  /// `scipy.stats.pearsonr`, `spearmanr` with ties on both sides, `numpy.abs(…).sum()`; the others
  /// counted.
  @Test func numbers() {
    let agreement = Agreement(estimates, exact)
    #expect(abs(agreement.pearson - 0.8131457448241033) < 1e-14)
    #expect(abs(agreement.spearman - 0.8787359792202546) < 1e-14)
    #expect(abs(agreement.absoluteError - 2.373) < 1e-14)
    // Nine effects above 0.012; the signs of 0.02 and 0.3 are missed, the latter by an exact 0.
    #expect(agreement.signFlips == 2.0 / 9)
    // −0.004 is not among the ten largest effects, 0.008 among those of the estimates.
    #expect(agreement.topOverlap == 0.9)
    #expect(agreement.cells == 12 && agreement.undefined.isEmpty)
  }

  @Test func ranks() {
    #expect(Agreement.ranks(exact) == [12, 8.5, 2, 8.5, 4, 6, 3, 10.5, 10.5, 1, 7, 5])
    #expect(Agreement.ranks([]) == [])
    #expect(Agreement.ranks([5, 5, 5]) == [2, 2, 2])
  }

  @Test func perfectAndOpposite() {
    let same = Agreement(exact, exact)
    #expect(abs(same.pearson - 1) < 1e-15 && abs(same.spearman - 1) < 1e-15)
    #expect(same.signFlips == 0 && same.topOverlap == 1 && same.absoluteError == 0)
    let opposite = Agreement(exact.map { -3 * $0 }, exact)
    #expect(abs(opposite.pearson + 1) < 1e-15 && abs(opposite.spearman + 1) < 1e-15)
    #expect(opposite.signFlips == 1 && opposite.topOverlap == 1)
    // Scale and offset do not count for correlations.
    let line = Agreement(exact.map { 0.25 * $0 + 7 }, exact)
    #expect(abs(line.pearson - 1) < 1e-14 && abs(line.spearman - 1) < 1e-15)
  }

  /// What is absent from either side is left out, as if it had not been there.
  @Test func absentCells() {
    let some = Agreement(estimates + [.nan, 1, .infinity], exact + [1, .nan, 1])
    let all = Agreement(estimates, exact)
    #expect(some.cells == 12)
    #expect(some.pearson == all.pearson && some.spearman == all.spearman)
    #expect(some.topOverlap == all.topOverlap && some.absoluteError == all.absoluteError)
  }

  @Test func constantsAndFewCells() {
    // Three times 0.1 has a mean that is not 0.1.
    let constant = Agreement([0.1, 0.1, 0.1], [1, 2, 4])
    #expect(constant.pearson.isNaN && constant.spearman.isNaN)
    #expect(constant.undefined == ["all estimates are 0.1, which correlates with nothing"])
    #expect(constant.topOverlap == 1 && constant.signFlips == 0)
    let zero = Agreement([1, 2], [0, 0])
    #expect(zero.pearson.isNaN && zero.signFlips.isNaN && zero.absoluteError == 3)
    #expect(zero.undefined.count == 2)
    let one = Agreement([1], [2])
    #expect(one.pearson.isNaN && one.topOverlap == 1 && one.absoluteError == 1)
    #expect(one.undefined == ["one cell has no correlation"])
    let none = Agreement([.nan], [1])
    #expect(none.cells == 0 && none.absoluteError.isNaN && none.topOverlap.isNaN)
    #expect(none.undefined == ["no cell has both numbers"])
    // Signs of numbers whose product is below the smallest number.
    #expect(Agreement.signFlips([1e-200, -1e-200], [1e-200, 1e-200]) == 0.5)
  }

  /// Zeros are not among the largest: all maps would share the first of them.
  @Test func topOfMapsOfZeros() {
    let exact = [0, 0, 0.5, 0, -0.25, 0, 0, 0, 0, 0, 0, 0, 0.125, 0]
    let none = Agreement(exact.map { _ in 0 }, exact)
    #expect(none.topOverlap == 0 && none.signFlips == 1)
    var other = exact.map { _ in 0.0 }
    (other[2], other[7]) = (1, 0.5)
    // Held against the three largest: one is found, the zeros before it are not.
    #expect(Agreement(other, exact).topOverlap == 1.0 / 3)
    other = exact.map { $0 == 0 ? 0.001 : $0 }
    #expect(Agreement(other, exact).topOverlap == 1)
    #expect(Agreement(other, exact.map { _ in 0 }).topOverlap.isNaN)
  }

  // MARK: the group

  private func sweep(_ group: String, _ sites: [(name: String, effects: [[Float]])]) -> ResultGroup
  {
    let prompts = sites[0].effects.count
    let variables = sites.flatMap { site in
      let count = site.effects[0].count
      let mean = (0..<count).map { cell in
        site.effects.reduce(Float(0)) { $0 + $1[cell] } / Float(prompts)
      }
      return [
        ResultVariable(
          site.name, ["prompt", "layer"], .float32(site.effects.flatMap(\.self)), longName: "e",
          units: "logit"),
        ResultVariable(
          "\(site.name)_normalized", ["layer"], .float32(mean), longName: "n", units: "1"),
      ]
    }
    return ResultGroup(
      path: "patch/\(group)",
      dimensions: [
        Dimension("prompt", count: prompts), Dimension("layer", count: sites[0].effects[0].count),
      ], variables: variables)
  }

  private let truth: [(name: String, effects: [[Float]])] = [
    ("resid_pre", [[1, 0.5, -0.25], [0, 1, 2]]), ("head_z", [[3, 3, 3], [1, 2, .nan]]),
  ]

  @Test func everyMethodSiteAndPrompt() throws {
    let good: [(name: String, effects: [[Float]])] = [
      ("resid_pre", [[2, 1, -0.5], [2, 1, 0]]), ("head_z", [[1, 2, 3], [0, 1, 2]]),
    ]
    let result = ResultSet(
      title: "t",
      groups: [
        sweep("activation", truth), sweep("attribution", good), sweep("relevance", truth),
      ])
    let group = try PatchAgreement.group(of: result)
    #expect(group.path == "patch/agreement")
    #expect(group[dimension: "method"]?.coordinates == .labels(["attribution", "relevance"]))
    #expect(group[dimension: "site"]?.coordinates == .labels(["resid_pre", "head_z"]))
    let byPrompt = try group.doubles("pearson_by_prompt")
    #expect(group[variable: "pearson_by_prompt"]?.dimensions == ["prompt", "method", "site"])
    #expect(byPrompt.count == 8)
    #expect(abs(byPrompt[0] - 1) < 1e-15 && byPrompt[1].isNaN)
    #expect(abs(byPrompt[4] + 1) < 1e-15 && abs(byPrompt[5] - 1) < 1e-15)
    #expect(try group.doubles("abs_error_by_prompt") == [1.75, 3, 0, 0, 4, 2, 0, 0])
    #expect(group[variable: "abs_error_by_prompt"]?.units == "logit")
    #expect(group[variable: "cells"]?.values == .integers([3, 2, 3, 2]))
    let errors = try group.doubles("abs_error")
    let expected = (0..<3).reduce(0.0) { sum, cell in
      let found = (good[0].effects[0][cell] + good[0].effects[1][cell]) / 2
      let exact = (truth[0].effects[0][cell] + truth[0].effects[1][cell]) / 2
      return sum + Double(abs(found - exact))
    }
    #expect(abs(errors[0] - expected) < 1e-12 && errors[2] == 0)
    #expect(
      group.attributes["scatter"]?.description.contains("patch/<method>/<site>_normalized")
        == true)
  }

  @Test func nothingToCompare() throws {
    func message(_ groups: [ResultGroup]) -> String {
      do {
        _ = try PatchAgreement.group(of: ResultSet(title: "t", groups: groups))
        return ""
      } catch {
        return "\(error)"
      }
    }
    let exact = sweep("activation", truth)
    #expect(message([sweep("attribution", truth)]).contains("has no patch/activation"))
    #expect(message([exact]).contains("has no estimates"))
    var unfinished = exact
    unfinished.variables.removeAll { $0.name.hasSuffix("_normalized") }
    #expect(
      message([unfinished, sweep("attribution", truth)]).contains("unfinished sweep"))
    #expect(
      message([exact, sweep("attribution", [truth[0]])])
        .contains("patch/attribution has no 'head_z_normalized'"))
    var moved = sweep("attribution", truth)
    moved.dimensions[1] = Dimension("layer", .integers([1, 2, 5]))
    #expect(message([exact, moved]).contains("has other axes"))
  }
}
