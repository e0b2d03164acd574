import HookedGPT2
import Results
import Tensors

/// How the stream's variance grows with depth, and what each write has of the last stream (group
/// `stream/growth`).
///
/// The last stream x_L is the sum of the embedding and all writes Δ, so that with P = I − ûûᵀ the shares
///
///     E⟨PΔ, Px_L⟩ / E‖Px_L‖²
///
/// sum to exactly 1; a write against the stream has a negative share. Variance growth: Sun et al. 2025,
/// arXiv:2502.05795. Block influence 1 − cos(x_in, x_out): Men et al. 2024 ("ShortGPT"),
/// arXiv:2403.03853.
struct StreamGrowth {
  private let config: GPT2Config
  /// Sums over the tokens of a class, `[class, stream]`.
  private var variance: [[Double]]
  private var square: [[Double]]
  /// Of ⟨Px_s, Px_L⟩.
  private var product: [[Double]]
  /// The tokens of each class.
  private var count = [0, 0]
  /// Of the cosines of each block, over the tokens that have one.
  private var cosine: [Double]
  private var cosineCount: [Int]

  init(_ config: GPT2Config) {
    self.config = config
    let zeros = [Double](repeating: 0, count: config.streamLabels.count)
    (variance, square, product) = ([zeros, zeros], [zeros, zeros], [zeros, zeros])
    cosine = Array(repeating: 0, count: config.nLayers)
    cosineCount = Array(repeating: 0, count: config.nLayers)
  }

  /// Adds one prompt's tokens at a stream; `centredProduct` is that with the last stream.
  mutating func add(_ steps: [StreamStep], to stream: Int) {
    for (position, step) in steps.enumerated() {
      let kind = position == 0 ? 0 : 1
      variance[kind][stream] += step.variance
      square[kind][stream] += step.square
      product[kind][stream] += step.centredProduct
    }
    if stream == 0 {
      count[0] += min(steps.count, 1)
      count[1] += max(steps.count - 1, 0)
    }
  }

  /// Adds one prompt's tokens on their way through a block.
  mutating func addBlock(_ steps: [StreamStep], layer: Int) {
    for step in steps {
      let value = step.cosine
      if value.isNaN { continue }
      cosine[layer] += value
      cosineCount[layer] += 1
    }
  }

  /// The group.
  ///
  /// - Parameter medians: of the variance, `[class, stream]`.
  func group(medians: [Float]) -> ResultGroup {
    let streams = config.streamLabels.count
    func means(_ sums: [[Double]], over divisor: Double = 1) -> [Double] {
      (0..<2).flatMap { kind in
        sums[kind].map { count[kind] == 0 ? .nan : $0 / (Double(count[kind]) * divisor) }
      }
    }
    let variances = means(variance)
    let growth = (0..<2).flatMap { kind in
      (0..<streams).map { stream -> Double in
        if stream == 0 { return .nan }
        let before = variances[kind * streams + stream - 1]
        return before > 0 ? variances[kind * streams + stream] / before : .nan
      }
    }
    let shares = (0..<2).flatMap { kind in
      (0..<streams).map { stream -> Double in
        let whole = product[kind][streams - 1]
        if !(whole > 0) { return .nan }
        return (product[kind][stream] - (stream == 0 ? 0 : product[kind][stream - 1])) / whole
      }
    }
    let influence = (0..<config.nLayers).map {
      cosineCount[$0] == 0 ? .nan : 1 - cosine[$0] / Double(cosineCount[$0])
    }
    let depth = "arXiv:2502.05795"
    func variable(
      _ name: String, _ axes: [String], _ values: [Double], _ longName: String, _ formula: String,
      _ reference: String = "arXiv:2502.05795", sign: String = "not signed"
    ) -> ResultVariable {
      ResultVariable(
        name, axes, .float64(values), longName: longName, units: "1", sign: sign,
        attributes: ["formula": .string(formula), "references": .string(reference)])
    }
    let byStream = ["position_class", "stream"]
    return ResultGroup(
      path: "stream/growth",
      dimensions: [
        ClassQuantiles.classAxis, Dimension("stream", .labels(config.streamLabels)),
        Dimension("component", .labels(Self.components(config))),
        Dimension("layer", count: config.nLayers),
      ],
      variables: [
        variable(
          "variance_mean", byStream, variances, "mean variance of the stream's coordinates",
          "E mean((x - mean(x))^2)", depth),
        variable(
          "variance_median", byStream, medians.map(Double.init),
          "median variance of the stream's coordinates", "median of mean((x - mean(x))^2)", depth),
        variable(
          "mean_square", byStream, means(square, over: Double(config.dModel)),
          "mean square of the stream's coordinates", "E |x|^2/d", depth),
        variable(
          "growth", byStream, growth, "mean variance over that of the stream before",
          "E v(s)/E v(s - 1)", depth),
        variable(
          "final_share", ["position_class", "component"], shares,
          "share of the last stream's variance that a component writes; they sum to 1",
          "E[(P D).(P x_L)]/E|P x_L|^2, P = I - 11^T/d", depth,
          sign: "negative = the write is against the last stream"),
        variable(
          "block_influence", ["layer"], influence,
          "block influence, mean over all tokens, position 0 among them",
          "1 - mean cos(resid_pre, resid_post)", "arXiv:2403.03853"),
      ],
      attributes: ["position_class": .string("first = position 0; rest = all others")])
  }

  /// The parts of the last stream in order: `embed` (with positions), `0_attn_out`, `0_mlp_out`, ….
  private static func components(_ config: GPT2Config) -> [String] {
    ["embed"] + (0..<config.nLayers).flatMap { ["\($0)_attn_out", "\($0)_mlp_out"] }
  }
}
