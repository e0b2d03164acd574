public import HookedGPT2
import OrderedCollections
public import Results

/// Attribution patching: the effects of a sweep of activation patching, estimated for all cells at once
/// by two forward passes and a backward one.
///
/// **What it shows.** The same as `ActivationPatching`, which activations carry what distinguishes two
/// prompts, to first order: how the metric would change if it were linear in each activation.
///
///     estimate(cell) = Σ (a_source − a_base) ⊙ ∂metric/∂a, taken at the base run
///
/// over the elements that the cell would overwrite. The base run is the one that would be patched: the
/// corrupted one when denoising, the clean one when noising. Effects are in the metric's units and on
/// the axes of the sweep, so that they compare cell by cell with `ActivationPatching`; `PatchAgreement`
/// says how far they are from it. What is bit for bit the same in both runs contributes exactly 0.
///
/// **When to use it.** Where an exact sweep costs too much (large models, neurons, single weights of
/// patterns, thousands of prompts), or to find what is worth patching. A model is not linear, and each
/// method pays for it elsewhere:
///
/// - `attribution` (AtP) takes the derivative. It is near for attention outputs and late layers, and poor
///   where the metric is saturated between the two runs: the residual stream, the first MLP, which
///   GPT-2 uses as a second embedding, queries and keys of heads whose attention is nearly all on one
///   token.
/// - `relevance` (RelP) replaces the derivatives of norms and activations by coefficients that pass on
///   what went through (`BackwardRules`), at the same cost. It mostly repairs the stream and the MLPs. Its
///   ledger (`ledger`) says whether what it passed on adds up.
/// - `integratedGradients` takes the mean derivative along the straight line from the base run's
///   embeddings to the source run's, `e(α) = e_base + α·(e_source − e_base)`, at the midpoints
///   `α = (k − ½)/n` of n steps: EAP-IG's *inputs* variant, with the midpoint rule. It sees past
///   saturation at n times the cost.
///
/// Estimates of a metric without slope at the base run are 0 whatever the truth is, as of `kl` when
/// noising: a warning says so. A window of several layers has no estimate: their gradients count the
/// paths through both twice.
///
/// **What it costs.** Two forward passes for a pair, shared by all methods and packed for many pairs, and
/// for each method a backward pass of about 4/3 of one, which all sites share; integrated gradients
/// n of both.
///
/// ```swift
/// let sweep = ActivationPatching(of: PatchSite.blocks)
/// let result = try AttributionPatching(of: sweep, by: [.attribution, .relevance(.relp)])
///   .run(model, pairs)
/// ```
///
/// AtP: Nanda 2023, neelnanda.io/attribution-patching; on edges: Syed et al. 2023, arXiv:2310.10348; its
/// failures: Kramár et al. 2024 (AtP*), arXiv:2403.00745. RelP: Rezaei Jafari et al. 2025,
/// arXiv:2508.21258. Integrated gradients: Sundararajan et al. 2017, arXiv:1703.01365; EAP-IG: Hanna et
/// al. 2024, arXiv:2403.17806.
public struct AttributionPatching: Sendable {
  /// How ∂metric/∂a is found.
  public enum Method: Sendable, Hashable {
    /// The derivative at the base run: AtP.
    case attribution
    /// The mean derivative at `steps` runs between the base run's embeddings and the source run's,
    /// at the midpoints of equal steps.
    case integratedGradients(steps: Int)
    /// The coefficients of a backward pass by rules at the base run: RelP.
    case relevance(BackwardRules)

    /// The method's name on the command line: `attribution`, `integrated-gradients`, `relevance`.
    public var name: String {
      switch self {
      case .attribution: "attribution"
      case .integratedGradients: "integrated-gradients"
      case .relevance: "relevance"
      }
    }

    /// The name of its group under `patch`: the same with underscores.
    public var group: String { name.replacing("-", with: "_") }
  }

  /// The sweep whose effects are estimated.
  public var sweep: ActivationPatching
  /// The methods, each with a group of results.
  public var methods: [Method]
  /// Whether relevance keeps books of what it passes on: `conservation_stream`, `_bias`, `_start`,
  /// `_error`, `_tolerance` in its group. The backward pass then goes over all positions and layers,
  /// not only over those whose cells are asked for. Without any rule relevance is the derivative, and
  /// there are no books.
  public var ledger = true

  /// Estimates of a sweep.
  public init(of sweep: ActivationPatching, by methods: [Method] = [.attribution]) {
    self.sweep = sweep
    self.methods = methods
  }

  /// Runs the pairs and estimates.
  ///
  /// - Parameters:
  ///   - model: any model.
  ///   - pairs: prompt pairs; clean and corrupted have one length each.
  ///   - progress: told after each group of prompts.
  /// - Returns: groups `patch` and one for each method (`patch/attribution`,
  ///   `patch/integrated_gradients`, `patch/relevance`), as `ActivationPatching.run` returns `patch` and
  ///   `patch/activation`. Attributes of a method's group say its `rules`, `steps` and `quadrature`.
  /// - Throws: what `ActivationPatching.run` throws; `AnalysisError.noEstimate` for a window of several
  ///   layers and for integrated gradients towards something that is not a run; `.noGradient` for a
  ///   metric without one, `.gradientCount` for one of a wrong size; `.nonFinite`; `ModelError.nothingMatches` for no methods or one twice.
  /// - Complexity: the memory is that of the results and of one group of prompts, which takes at most
  ///   half of `sweep.bytes` (but holds one prompt in any case).
  public func run(
    _ model: GPT2, _ pairs: [PromptPair],
    progress: (_ prompts: (done: Int, total: Int)) throws -> Void = { _ in }
  ) throws -> ResultSet {
    try check()
    let setup = try PatchSetup(sweep, model, pairs)
    let means = try setup.referenceMeans()
    var metrics = PairMetrics(count: pairs.count)
    var estimates = methods.map { Estimates($0, setup, keepsLedger: keepsLedger($0)) }
    for group in setup.groups(bytes: sweep.bytes / 4) {
      let runs = try setup.runs(of: group)
      try metrics.set(runs, prompts: group)
      for index in estimates.indices {
        try estimates[index].add(runs, means, group)
      }
      try progress((group.upperBound, pairs.count))
    }
    return result(setup, metrics, estimates)
  }

  private func keepsLedger(_ method: Method) -> Bool {
    if case .relevance(let rules) = method { ledger && rules != .gradient } else { false }
  }

  private func check() throws {
    if methods.isEmpty {
      throw ModelError.nothingMatches(filter: "methods", reason: "no methods are chosen")
    }
    if let name = methods.map(\.name).firstDuplicate {
      throw ModelError.nothingMatches(filter: name, reason: "the method is chosen twice")
    }
    guard sweep.metric.hasGradient else {
      throw AnalysisError.noGradient(metric: sweep.metric.name)
    }
    for method in methods {
      // One of no layers is refused with the sweep.
      if sweep.window > 1 {
        throw AnalysisError.noEstimate(
          method: method.name,
          problem:
            "a window of \(sweep.window) layers has no estimate, since gradients of adjacent "
            + "layers count the paths through both twice; take window 1 or exact patching")
      }
      guard case .integratedGradients(let steps) = method else { continue }
      if steps < 1 {
        throw ModelError.nothingMatches(
          filter: "steps \(steps)", reason: "integrated gradients need 1 step or more")
      }
      if sweep.replacement != .otherRun {
        throw AnalysisError.noEstimate(
          method: method.name,
          problem:
            "the line it follows goes from one run's embeddings to the other's, and a mean or "
            + "zero is no run; take the other run's values, or another method")
      }
    }
  }

  private func result(
    _ setup: PatchSetup, _ metrics: PairMetrics, _ estimates: [Estimates]
  ) -> ResultSet {
    let result = PatchResult(setup, metrics)
    var warnings = PatchWarnings(setup, metrics, estimates: estimates).texts
    let groups = estimates.map { estimate in
      var group = result.effects(estimate.method.description, estimate.values)
      for (name, value) in estimate.method.attributes { group.attributes[name] = value }
      if case .relevance(let rules) = estimate.method {
        let warning = estimate.ledger?.add(to: &group, rules, units: sweep.metric.units)
        if let warning { warnings.append(warning) }
      }
      return group
    }
    var patch = result.patch
    if !warnings.isEmpty { patch.attributes["warnings"] = .strings(warnings) }
    return result.set([patch] + groups)
  }
}

extension AttributionPatching.Method {
  /// What results say of it.
  fileprivate var description: PatchResult.Method {
    switch self {
    case .attribution:
      .init(
        group: group, words: "estimated ",
        formula: "sum (new - base)*d metric/d activation at the base run",
        references: "arXiv:2310.10348; arXiv:2403.00745")
    case .integratedGradients:
      .init(
        group: group, words: "estimated ",
        formula: "sum (new - base)*mean of d metric/d activation between the two runs' embeddings",
        references: "arXiv:1703.01365; arXiv:2403.17806")
    case .relevance:
      .init(
        group: group, words: "estimated ",
        formula: "sum (new - base)*coefficient of the metric's relevance at the base run",
        references: "arXiv:2508.21258; arXiv:2202.07304; arXiv:2402.05602")
    }
  }

  /// What its group says besides.
  fileprivate var attributes: OrderedDictionary<String, AttributeValue> {
    switch self {
    case .attribution: [:]
    case .integratedGradients(let steps):
      [
        "steps": .integer(steps), "quadrature": .string("midpoint"),
        "path": .string("embeddings, from the patched run's to the other run's"),
      ]
    case .relevance(let rules):
      ["rules": .string(rules.names.isEmpty ? "none" : rules.names.joined(separator: ","))]
    }
  }
}
