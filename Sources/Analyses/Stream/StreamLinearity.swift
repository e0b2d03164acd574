import HookedGPT2
import OrderedCollections
import Results
import Tensors

/// How nearly each block is a linear map of its input (group `stream/linearity`).
///
/// With X the streams before a block and Y those behind it, over all tokens, centred: the score is
///
///     1 − min_A ‖XA − Y‖²/‖Y‖²
///
/// (Razzhigaev et al. 2024, "Your Transformer is Secretly Linear", arXiv:2405.12250). The residual
/// connection alone makes it large: where the block adds something that has nothing to do with X and is e
/// times as long, it is 1/(1 + e²). Without the residual, Y − X in Y's place, it is the block itself that
/// is scored. Either score is r/(N − 1) for N tokens in r directions that have nothing to do with each
/// other, which the adjusted score takes away: N must be many times r.
///
/// One massive token dominates the norms, so that position 0 is left out.
struct StreamLinearity: Collector {
  private let config: GPT2Config
  /// Of each block.
  private var moments: [CrossMoments]

  init(_ model: GPT2) {
    config = model.config
    moments = (0..<config.nLayers).map { _ in CrossMoments(width: model.config.dModel) }
  }

  /// The bytes that the sums of all blocks take.
  static func byteCount(_ config: GPT2Config) -> Int {
    16 * config.dModel * config.dModel * config.nLayers
  }

  var hooks: [HookFilter] { config.blockHooks.map { HookFilter($0) } }

  mutating func collect(_ batch: CollectedBatch, into sink: any PromptSink) throws {
    let states = config.blockHooks
    var before = try batch.rows(states[0], from: 1)
    for layer in 0..<config.nLayers {
      let after = try batch.rows(states[layer + 1], from: 1)
      moments[layer].add(before, after)
      before = after
    }
  }

  func findings() throws -> [ResultGroup] {
    let fits = parallelMap(moments.count) { [moments] in moments[$0].fit() }
    let known = try fits.enumerated().map { layer, fit in
      guard let fit else {
        throw AnalysisError.nonFinite(
          analysis: "stream", what: "the covariance of the stream at block \(layer)")
      }
      return fit
    }
    func variable(
      _ name: String, _ longName: String, _ formula: String, _ value: (LinearFit) -> Double
    ) -> ResultVariable {
      ResultVariable(
        name, ["layer"], .float64(known.map(value)), longName: longName, units: "1",
        attributes: ["formula": .string(formula), "references": .string("arXiv:2405.12250")])
    }
    let adjusted = "(s - r/(N - 1))/(1 - r/(N - 1)), r = rank, N = count; NaN where N <= r + 1"
    var attributes: OrderedDictionary<String, AttributeValue> = [
      "positions": .string("all but position 0"),
      "streams": .string(
        "X = resid_pre of the block, Y = that of the next (resid_post of the last, before the final "
          + "norm), N x d, centred over tokens"),
      "rank_tolerance": .string(
        "a direction counts if it has more than 1e-10 of a coordinate's own variance"),
    ]
    let count = moments.first?.count ?? 0
    if let warning = Self.warning(count: count, width: config.dModel) {
      attributes["warning"] = .string(warning)
    }
    return [
      ResultGroup(
        path: "stream/linearity", dimensions: [Dimension("layer", count: config.nLayers)],
        variables: [
          variable(
            "linearity", "linearity of the block with its residual",
            "s = 1 - min_A |XA - Y|^2/|Y|^2", \.score),
          variable(
            "linearity_adjusted", "linearity with residual, chance taken away", adjusted
          ) { $0.adjusted($0.score) },
          variable(
            "linearity_without_residual", "linearity of what the block adds",
            "s = 1 - min_A |XA - (Y - X)|^2/|Y - X|^2", \.scoreOfWrite),
          variable(
            "linearity_without_residual_adjusted",
            "linearity of what the block adds, chance taken away", adjusted
          ) { $0.adjusted($0.scoreOfWrite) },
          ResultVariable(
            "rank", ["layer"], .integers(known.map(\.rank)),
            longName: "directions in which the block's input varies", units: "1"),
          ResultVariable(
            "count", [], .integers([count]), longName: "tokens at positions from 1 on", units: "1"),
        ], attributes: attributes)
    ]
  }

  /// What a reader must know before believing the scores; nil with enough tokens.
  private static func warning(count: Int, width: Int) -> String? {
    if count >= 10 * width { return nil }
    let perfect = 2...width + 1 ~= count ? ", and any map fits so few perfectly" : ""
    return
      "\(count) tokens in \(width) dimensions: linearity settles only from \(10 * width) tokens on"
      + "\(perfect); give more text"
  }
}
