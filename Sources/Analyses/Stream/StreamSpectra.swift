import HookedGPT2
import RealModule
import Results
import Tensors

/// In how many directions the tokens of a prompt differ, and how its path through the stream bends (group
/// `stream/spectra`, means over prompts in `stream/spectra/summary`).
///
/// With Z the T tokens of a prompt less their mean, each row of unit length, and λ the eigenvalues of ZZᵀ
/// over their sum: the prompt entropy is −Σ λ ln λ, at most min(ln T, ln d), its exponential the effective
/// rank (Skean et al. 2025, "Layer by Layer", arXiv:2502.02013). The curvature is the mean angle between
/// two steps from token to token (Hosseini and Fedorenko 2023, arXiv:2311.04930).
///
/// The published repositories depart from these definitions: negative entries of ZZᵀ are set to 0, so that
/// it is no longer positive semidefinite, and the curvature is the mean angle between neighbouring unit
/// tokens. With `referenceConventions` both are given as well, their arc cosines held to [−1, 1].
struct StreamSpectra: Collector {
  private let config: GPT2Config
  private let references: Bool
  private var table: SummarizedTable
  private let group = "stream/spectra"

  init(_ model: GPT2, _ axes: PromptAxes, referenceConventions: Bool) {
    config = model.config
    references = referenceConventions
    let streams = Dimension("stream", .labels(model.config.streamLabels))
    var variables: [ResultVariable] = []
    for isReference in referenceConventions ? [false, true] : [false] {
      variables += Self.variables(isReference)
    }
    table = SummarizedTable(
      PromptTable(
        ResultGroup(
          path: group, dimensions: [axes.prompt, streams], variables: [],
          attributes: ["tokens": .string("all of the prompt, position 0 among them")]),
        variables: variables))
  }

  private static func variables(_ isReference: Bool) -> [ResultVariable] {
    let ending = isReference ? "_reference" : ""
    let gram = isReference ? "Gram matrix with negative entries set to 0" : "Gram matrix"
    let layer = "arXiv:2502.02013"
    let convention = isReference ? ", as the published repository computes it" : ""
    return [
      (
        "prompt_entropy", "entropy of the prompt's tokens, position 0 among them", "nat",
        "-sum l ln l, l = eigenvalues of the \(gram) of centred unit tokens over their sum", layer
      ),
      (
        "prompt_entropy_normalized", "prompt entropy over its maximum", "1",
        "prompt_entropy/min(ln T, ln d)", layer
      ),
      (
        "effective_rank", "effective rank of the prompt's tokens", "1", "exp(prompt_entropy)", layer
      ),
      (
        "curvature", "mean angle between two steps from token to token", "radian",
        isReference
          ? "mean acos(z_k.z_(k+1)), z = centred unit tokens"
          : "mean acos(cos(v_k, v_(k+1))), v_k = x_(k+1) - x_k; T >= 3",
        "arXiv:2311.04930"
      ),
    ].map { name, longName, units, formula, reference in
      ResultVariable(
        name + ending, ["prompt", "stream"], .float32([]), longName: longName + convention,
        units: units,
        attributes: ["formula": .string(formula), "references": .string(reference)])
    }
  }

  var hooks: [HookFilter] { config.streamHooks.map { HookFilter($0) } }

  var tables: [PromptTable] { [table.table] }

  mutating func collect(_ batch: CollectedBatch, into sink: any PromptSink) throws {
    for prompt in 0..<batch.count {
      let streams = try config.streamHooks.map { try batch.cache.tensor($0, prompt: prompt) }
      let rows = parallelMap(streams.count) { streams[$0].centredUnitRows() }
      for isReference in references ? [false, true] : [false] {
        let ending = isReference ? "_reference" : ""
        let bends =
          isReference
          ? parallelMap(rows.count) { rows[$0].meanNeighbourAngle() }
          : parallelMap(streams.count) { streams[$0].meanTurnOfSteps() }
        let most = min(log(batch.length(prompt)), log(config.dModel))
        let entropies = try entropies(rows, clipped: isReference, batch.firstPrompt + prompt)
        for (name, values) in [
          ("prompt_entropy", entropies),
          ("prompt_entropy_normalized", entropies.map { most > 0 ? $0 / most : .nan }),
          ("effective_rank", entropies.map { Double.exp($0) }), ("curvature", bends),
        ] {
          try table.take(name + ending, prompt: batch.firstPrompt + prompt, values, into: sink)
        }
      }
    }
  }

  private func log(_ count: Int) -> Double { Double.log(Double(count)) }

  /// The entropy of each stream's tokens; NaN where all are equal.
  private func entropies(_ rows: [Tensor], clipped: Bool, _ prompt: Int) throws -> [Double] {
    try Self.spectra(rows, clipped: clipped).enumerated().map { place, spectrum in
      guard let spectrum else {
        throw AnalysisError.nonFinite(
          analysis: "stream",
          what: "the Gram matrix of prompt \(prompt) at \(config.streamLabels[place])")
      }
      return Self.entropy(spectrum)
    }
  }

  /// The eigenvalues of the smaller of Z·Zᵀ and Zᵀ·Z for each of some Z of one shape, negative entries set to
  /// 0 if `clipped`; nil where an entry is not finite.
  static func spectra(_ rows: [Tensor], clipped: Bool) -> [[Double]?] {
    guard let (tokens, width) = rows.first.map({ ($0.shape[0], $0.rowCount) }) else { return [] }
    return symmetricEigenvalues(count: rows.count, order: min(tokens, width)) { place in
      let z = tokens <= width ? rows[place] : rows[place].transposed()
      let gram = matmulTransposed(z, MatrixView(z))
      let scalars = gram.scalars
      return clipped ? scalars.map { Double(max($0, 0)) } : scalars.map(Double.init)
    }
  }

  /// −Σ p ln p of the positive eigenvalues over their sum; NaN where there is none.
  static func entropy(_ spectrum: [Double]) -> Double {
    let values = spectrum.filter { $0 > 0 }
    let sum = values.reduce(0, +)
    if !(sum > 0) { return .nan }
    // Of a single direction rounding leaves an entropy on either side of 0.
    return max(
      0,
      -values.reduce(0) { total, value in
        let share = value / sum
        return total + share * Double.log(share)
      })
  }

  func findings() -> [ResultGroup] { [table.summary] }
}
