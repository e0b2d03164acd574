public import Results

/// What the final norm's renormalisation adds to or takes from each part's direct effect (group
/// `renormalisation`).
///
/// **What it shows.** Frozen attribution divides every component by the scale that the whole stream
/// has. Without the component the stream is shorter or longer, the scale follows, and everything else
/// is read louder or softer: the true direct effect differs from the attribution by
///
///     DE(c) − DLA(c) = (r − c)·u·(1/σ(r) − 1/σ(r − c))
///
/// u the direction that the target reads. A component that makes the stream long, so that σ(r) is
/// much larger than σ(r − c), quiets all others: its gap has the sign opposite to what the others
/// say. The gap is what makes direct logit attribution inexact; without a norm it is exactly 0.
///
/// **What it does not.** Gaps do not add up to anything: each belongs to one part taken out alone.
///
/// Baroni et al. 2025, arXiv:2507.02559 (§5.1: the normalised error of frozen attribution).
public struct RenormalisationGap: Sendable {
  /// The gap of a result of ``DirectLogitAttribution``.
  public init() {}

  /// Derives the gap from an attribution; nothing is run.
  ///
  /// - Parameter attribution: a result with group `dla`.
  /// - Returns: the group `renormalisation`: `component_gap(prompt, component)`,
  ///   `head_gap(prompt, layer, head)`, both also `_relative` to the prompt's Σ |direct effect| over
  ///   its components, and `component_gap_pooled`, `head_gap_pooled` in percent of the parts' own
  ///   direct effects. NaN where the attribution is.
  /// - Precondition: the result has the group `dla` of ``DirectLogitAttribution``.
  public func derive(from attribution: ResultSet) -> ResultGroup {
    guard let dla = attribution[group: "dla"],
      let parts = Gap(dla, "contribution", "component_direct_effect"),
      let heads = Gap(dla, "head_contribution", "head_direct_effect")
    else { preconditionFailure("RenormalisationGap: the result has no attribution") }
    // Without a norm both are c·w: what they differ by is rounding.
    let isExact = attribution.provenance.facts["normalization"] == .string("none")
    let formula =
      isExact
      ? "0: without a norm the direct effect is the frozen attribution"
      : "direct effect (scale recomputed without the part) - attribution (scale frozen)"
    let prompts = dla[dimension: "prompt"]?.count ?? 0
    let totals = parts.totals(prompts)

    func variable(
      _ name: String, _ dimensions: [String], _ values: [Double], _ longName: String, units: String,
      formula: String
    ) -> ResultVariable {
      ResultVariable(
        name, dimensions, .float32(values.map { Float($0) }), longName: longName, units: units,
        sign: dimensions.isEmpty ? "not signed" : "positive = renormalisation adds to the target",
        attributes: ["formula": .string(formula), "references": .string("arXiv:2507.02559")])
    }
    var variables: [ResultVariable] = []
    for (kind, dimensions, gap) in [
      ("component", ["prompt", "component"], parts), ("head", ["prompt", "layer", "head"], heads),
    ] {
      let values = isExact ? gap.values.map { $0.isNaN ? $0 : 0 } : gap.values
      let width = values.count / max(prompts, 1)
      variables += [
        variable(
          "\(kind)_gap", dimensions, values,
          "what renormalisation adds to the direct effect of each \(kind)", units: "logit",
          formula: formula),
        variable(
          "\(kind)_gap_relative", dimensions,
          values.enumerated().map { $1 / totals[$0 / width] },
          "gap of each \(kind) for the size of all direct effects", units: "1",
          formula: "gap / sum over the prompt's components of |direct effect|"),
        variable(
          "\(kind)_gap_pooled", [], [isExact ? 0 : gap.pooled],
          "gap of the \(kind)s, pooled over prompts", units: "percent",
          formula: "100 sum|gap| / sum|direct effect|"),
      ]
    }
    return ResultGroup(
      path: "renormalisation", dimensions: dla.dimensions,
      variables: dla.variables.filter(\.isCoordinate) + variables,
      attributes: [
        "references": .string("arXiv:2507.02559"),
        "bias": .string("the component 'bias' has no part in the stream: its gap is 0"),
      ])
  }
}

/// Attributions and direct effects of one kind of part, side by side.
private struct Gap {
  let frozen: [Double]
  let direct: [Double]

  init?(_ group: ResultGroup, _ frozen: String, _ direct: String) {
    guard let frozen = group[variable: frozen]?.values.doubles,
      let direct = group[variable: direct]?.values.doubles
    else { return nil }
    (self.frozen, self.direct) = (frozen, direct)
  }

  var values: [Double] { zip(direct, frozen).map { $0 - $1 } }

  /// 100·Σ|gap|/Σ|direct effect| over the parts that are numbers; 0 where there is no effect.
  var pooled: Double {
    var (gap, effect) = (0.0, 0.0)
    for (direct, frozen) in zip(direct, frozen) where !direct.isNaN {
      gap += Swift.abs(direct - frozen)
      effect += Swift.abs(direct)
    }
    return effect > 0 ? 100 * gap / effect : 0
  }

  /// Σ|direct effect| of each prompt.
  func totals(_ prompts: Int) -> [Double] {
    let width = direct.count / max(prompts, 1)
    return (0..<prompts).map { prompt in
      direct[prompt * width..<(prompt + 1) * width].reduce(0) { $0 + Swift.abs($1) }
    }
  }
}
