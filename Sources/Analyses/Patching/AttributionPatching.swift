public import HookedGPT2
public import Results

/// Attribution patching: the effects of a sweep of activation patching, estimated for all cells at once
/// by two forward passes and a backward one.
///
///     estimate(cell) = Σ (a_source − a_base) ⊙ ∂metric/∂a, taken at the base run
///
/// over the elements that the cell would overwrite. The base run is the one that would be patched: the
/// corrupted one when denoising, the clean one when noising. Effects are in the metric's units and on
/// the axes of the sweep, so that they compare cell by cell with `ActivationPatching`.
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

  /// Estimates of a sweep.
  public init(of sweep: ActivationPatching, by methods: [Method] = [.attribution]) {
    self.sweep = sweep
    self.methods = methods
  }

  /// Runs the pairs and estimates.
  ///
  /// - Returns: groups `patch` and one for each method (`patch/attribution`, …), as
  ///   `ActivationPatching.run` returns `patch` and `patch/activation`.
  public func run(
    _ model: GPT2, _ pairs: [PromptPair],
    progress: (_ prompts: (done: Int, total: Int)) throws -> Void = { _ in }
  ) throws -> ResultSet {
    preconditionFailure("AttributionPatching.run is not written yet")
  }
}
