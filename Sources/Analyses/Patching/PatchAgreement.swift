public import Results

/// How far estimates of patching effects are from the exact ones.
///
/// Each method is held against activation patching, site by site, over the cells of the normalised maps
/// that both have; and for each prompt over its effects, since a mean over prompts evens errors out.
///
/// | variable | meaning |
/// |---|---|
/// | `pearson` | correlation of the values: whether the map looks alike, up to its scale |
/// | `spearman` | correlation of the ranks, average ranks for ties: whether the order is right |
/// | `sign_flips` | share of the cells above 1 % of the largest effect whose sign differs; 0 has none |
/// | `top10_overlap` | share of the ten largest cells by magnitude that are among its ten largest; of all that are not 0, where there are fewer |
/// | `abs_error` | Σ \|estimate − exact\| |
///
/// The table of Rezaei Jafari et al. 2025, arXiv:2508.21258, is `pearson`; the sum of errors is the
/// measure of Baroni et al. 2025, arXiv:2507.02559. A large effect in few cells makes `pearson` large
/// whatever the rest does; read it beside `spearman`.
public enum PatchAgreement {
  /// Group `patch/agreement` of a result that has `patch/activation` and groups of estimates.
  ///
  /// - Returns: the variables above as `(method, site)`, `cells` that were compared, and
  ///   `<variable>_by_prompt (prompt, method, site)`, with `abs_error_by_prompt` in the metric's units.
  ///   What is not defined is NaN; the attribute `undefined` says why.
  /// - Throws: `AnalysisError.agreement` where there is nothing to compare, or two sweeps that differ.
  public static func group(of result: ResultSet) throws(AnalysisError) -> ResultGroup {
    guard let exact = result[group: exactPath] else {
      throw .agreement(
        problem: "the result has no \(exactPath) to compare with; run the method activation, too")
    }
    let sites = exact.variables.map(\.name).filter {
      exact[variable: $0 + suffix] != nil
    }
    guard let prompts = exact[dimension: "prompt"], let first = sites.first else {
      throw .agreement(
        problem: "\(exactPath) has no normalized effects; an unfinished sweep cannot be compared")
    }
    let estimates = result.groups.filter { group in
      group.path.hasPrefix("patch/") && group.path != exactPath && group.path != path
        && sites.contains { group[variable: $0] != nil }
    }
    if estimates.isEmpty {
      throw .agreement(
        problem: "the result has no estimates beside \(exactPath); run attribution, "
          + "integrated-gradients or relevance, too")
    }
    var total = Table()
    var byPrompt = Array(repeating: Table(), count: prompts.count)
    var undefined: [String] = []
    for estimate in estimates {
      for site in sites {
        let (found, expected) = try values(site + suffix, estimate, exact)
        let agreement = Agreement(found, expected)
        total.rows.append(agreement)
        undefined += agreement.undefined.map { "\(name(estimate)), \(site): \($0)" }
        let effects = try values(site, estimate, exact)
        let count = effects.expected.count / prompts.count
        for prompt in 0..<prompts.count {
          let slab = prompt * count..<(prompt + 1) * count
          byPrompt[prompt].rows.append(
            Agreement(Array(effects.found[slab]), Array(effects.expected[slab])))
        }
      }
    }
    let units = exact[variable: first]?.units ?? "1"
    let axes = ["method", "site"]
    var variables = total.variables("", axes, errorUnits: "1")
    variables.append(
      ResultVariable(
        "cells", axes, .integers(total.rows.map(\.cells)), longName: "cells that were compared",
        units: "1"))
    variables += Table(rows: byPrompt.flatMap(\.rows)).variables(
      "_by_prompt", ["prompt"] + axes, errorUnits: units)
    var group = ResultGroup(
      path: path,
      dimensions: [
        prompts, Dimension("method", .labels(estimates.map { name($0) })),
        Dimension("site", .labels(sites)),
      ], variables: variables,
      attributes: [
        "compared_with": .string(exactPath),
        "scatter": .string(
          "\(exactPath)/<site>\(suffix) against patch/<method>/<site>\(suffix); by prompt the same "
            + "without \(suffix)"),
        "references": .string("arXiv:2508.21258; arXiv:2507.02559"),
      ])
    if !undefined.isEmpty { group.attributes["undefined"] = .strings(undefined) }
    return group
  }

  private static let path = "patch/agreement"
  private static let exactPath = PatchResult.path(PatchResult.exact)
  private static let suffix = "_normalized"

  private static func name(_ group: ResultGroup) -> String {
    String(group.path.dropFirst("patch/".count))
  }

  /// A variable of two sweeps.
  private static func values(
    _ variable: String, _ estimate: ResultGroup, _ exact: ResultGroup
  ) throws(AnalysisError) -> (found: [Double], expected: [Double]) {
    guard let expected = exact[variable: variable], let values = expected.values.doubles else {
      throw .agreement(problem: "\(exact.path) has no '\(variable)'")
    }
    guard let other = estimate[variable: variable], let found = other.values.doubles else {
      throw .agreement(
        problem:
          "\(estimate.path) has no '\(variable)', which \(exact.path) has; estimate the same "
          + "sites")
    }
    let axes = expected.dimensions.map { exact[dimension: $0] }
    guard axes == other.dimensions.map({ estimate[dimension: $0] }), found.count == values.count
    else {
      throw .agreement(
        problem: "'\(variable)' has other axes in \(estimate.path) than in \(exact.path); compare "
          + "sweeps of the same prompts, layers and positions")
    }
    return (found, values)
  }

  /// The columns of the result.
  private struct Table {
    var rows: [Agreement] = []

    func variables(
      _ suffix: String, _ axes: [String], errorUnits: String
    ) -> [ResultVariable] {
      func variable(
        _ name: String, _ column: KeyPath<Agreement, Double>, _ longName: String, _ sign: String,
        units: String = "1"
      ) -> ResultVariable {
        ResultVariable(
          name + suffix, axes, .float64(rows.map { $0[keyPath: column] }), longName: longName,
          units: units, sign: sign)
      }
      return [
        variable(
          "pearson", \.pearson, "correlation of estimated and exact effects", "1 = the same map"),
        variable(
          "spearman", \.spearman, "correlation of the ranks of estimated and exact effects",
          "1 = the same order"),
        variable(
          "sign_flips", \.signFlips,
          "share of the cells above 1 % of the largest exact effect whose estimate has another sign",
          "0 = no sign is wrong"),
        variable(
          "top10_overlap", \.topOverlap,
          "share of the ten largest exact effects, or of all that are not 0, that are among as many "
            + "of the largest estimates",
          "1 = the same cells"),
        variable(
          "abs_error", \.absoluteError, "sum of |estimated - exact effect|", "0 = exact",
          units: errorUnits),
      ]
    }
  }
}

/// How far some estimates are from what they estimate.
package struct Agreement {
  /// How many pairs of numbers are finite, and were compared.
  package let cells: Int
  package let pearson: Double
  package let spearman: Double
  package let signFlips: Double
  package let topOverlap: Double
  package let absoluteError: Double
  /// Why some are not numbers.
  package private(set) var undefined: [String] = []

  /// Compares numbers one by one; those that are not finite in both are left out.
  ///
  /// - Precondition: as many of both.
  package init(_ estimates: [Double], _ exact: [Double]) {
    precondition(estimates.count == exact.count, "Agreement: \(estimates.count), \(exact.count)")
    let both = zip(estimates, exact).filter { $0.isFinite && $1.isFinite }
    let (x, y) = (both.map(\.0), both.map(\.1))
    cells = both.count
    pearson = Self.pearson(x, y)
    spearman = Self.pearson(Self.ranks(x), Self.ranks(y))
    signFlips = Self.signFlips(x, y)
    topOverlap = Self.topOverlap(x, y, 10)
    absoluteError = cells == 0 ? .nan : zip(x, y).reduce(0) { $0 + Swift.abs($1.0 - $1.1) }
    if cells == 0 {
      undefined = ["no cell has both numbers"]
      return
    }
    for (name, values) in [("estimates", x), ("exact effects", y)]
    where Self.isConstant(values) {
      undefined.append(
        cells == 1
          ? "one cell has no correlation"
          : "all \(name) are \(values[0]), which correlates with nothing")
      if cells == 1 { break }
    }
    if signFlips.isNaN { undefined.append("no exact effect is other than 0") }
  }

  /// Pearson's correlation; NaN where either side is constant.
  package static func pearson(_ x: [Double], _ y: [Double]) -> Double {
    let count = Double(x.count)
    // What is constant must not seem to vary by the rounding of its mean.
    if isConstant(x) || isConstant(y) { return .nan }
    let (mx, my) = (x.reduce(0, +) / count, y.reduce(0, +) / count)
    var (xx, yy, xy) = (0.0, 0.0, 0.0)
    for (a, b) in zip(x, y) {
      xx += (a - mx) * (a - mx)
      yy += (b - my) * (b - my)
      xy += (a - mx) * (b - my)
    }
    let r = xy / (xx.squareRoot() * yy.squareRoot())
    return Swift.min(1, Swift.max(-1, r))
  }

  private static func isConstant(_ values: [Double]) -> Bool {
    values.allSatisfy { $0 == values[0] }
  }

  /// The ranks from 1 on; equals share the mean of theirs.
  package static func ranks(_ values: [Double]) -> [Double] {
    let order = values.indices.sorted { values[$0] < values[$1] }
    var ranks = Array(repeating: 0.0, count: values.count)
    var start = 0
    while start < order.count {
      var end = start + 1
      while end < order.count, values[order[end]] == values[order[start]] { end += 1 }
      for place in start..<end { ranks[order[place]] = Double(start + 1 + end) / 2 }
      start = end
    }
    return ranks
  }

  /// The share of the cells above 1 % of the largest exact effect whose estimate has not its sign; NaN
  /// where all exact effects are 0.
  package static func signFlips(_ estimates: [Double], _ exact: [Double]) -> Double {
    let largest = exact.reduce(0) { Swift.max($0, Swift.abs($1)) }
    let counted = zip(estimates, exact).filter { largest > 0 && Swift.abs($1) > 0.01 * largest }
    // The product of two small numbers may be 0.
    let wrong = counted.filter { !(($0 > 0 && $1 > 0) || ($0 < 0 && $1 < 0)) }
    return counted.isEmpty ? .nan : Double(wrong.count) / Double(counted.count)
  }

  /// The share of the `count` largest exact effects that are among as many of the largest estimates, the
  /// first of equals; NaN where all exact effects are 0.
  ///
  /// Zeros are nobody's largest: of two maps that are mostly 0 the same ones would come first, and count
  /// as agreement. Where fewer than `count` exact effects are not 0, they are held against as many.
  package static func topOverlap(
    _ estimates: [Double], _ exact: [Double], _ count: Int
  ) -> Double {
    func top(_ values: [Double], _ count: Int) -> Set<Int> {
      Set(
        values.indices.filter { values[$0] != 0 }
          .sorted { (Swift.abs(values[$1]), $0) < (Swift.abs(values[$0]), $1) }.prefix(count))
    }
    let largest = top(exact, count)
    return largest.isEmpty
      ? .nan
      : Double(top(estimates, largest.count).intersection(largest).count) / Double(largest.count)
  }
}
