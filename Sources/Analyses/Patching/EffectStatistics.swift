import HookedGPT2
import Tensors

/// Means of effects over prompts, with their uncertainty.
///
/// With effects e_i and gaps g_i = clean − corrupted metric of the prompts i:
///
///     normalized = Σ e_i / Σ g_i                      the ratio of means
///     stderr     = sd(e) / √n / |mean g|              the gap held fixed
///     ci         = the 2.5th and 97.5th percentile of Σ e_j / Σ g_j over 1,000 samples of n prompts
///                  drawn with replacement (percentile bootstrap); samples whose gaps add up to 0
///                  have no ratio and are left out
///
/// A cell that some prompt lacks has none of them.
struct EffectStatistics {
  let normalized: [Float]
  /// Empty for a single prompt.
  var stderr: [Float] = []
  var low: [Float] = []
  var high: [Float] = []

  static let samples = 1000

  /// - Parameters:
  ///   - effects: shape `[prompt, cell]`.
  ///   - gaps: of each prompt.
  ///   - weights: how often each sample drew each prompt, `samples(_:seed:)`.
  init(_ effects: [Float], gaps: [Double], weights: Tensor) {
    let count = gaps.count
    let cells = effects.count / count
    let gap = gaps.reduce(0, +)
    var sums = [Double](repeating: 0, count: cells)
    for prompt in 0..<count {
      for cell in 0..<cells { sums[cell] += Double(effects[prompt * cells + cell]) }
    }
    // No effect is 0, and not -0 over a negative gap.
    normalized = sums.map { gap == 0 ? .nan : $0 == 0 ? 0 : Float($0 / gap) }
    if count == 1 { return }

    var squares = [Double](repeating: 0, count: cells)
    for prompt in 0..<count {
      for cell in 0..<cells {
        let deviation = Double(effects[prompt * cells + cell]) - sums[cell] / Double(count)
        squares[cell] += deviation * deviation
      }
    }
    let scale = (Double(count) / Double(count - 1)).squareRoot() / Swift.abs(gap)
    stderr = squares.map { gap == 0 ? .nan : Float($0.squareRoot() * scale) }

    let sampleGaps = (0..<Self.samples).map { sample in
      (0..<count).reduce(0.0) { $0 + Double(weights[sample, $1]) * gaps[$1] }
    }
    low = Array(repeating: .nan, count: cells)
    high = low
    // A NaN among the ratios would also spoil their order.
    let usable = sampleGaps.indices.filter { sampleGaps[$0] != 0 }
    if usable.isEmpty { return }
    // So many cells at once that the samples of each fit into some megabytes.
    for start in stride(from: 0, to: cells, by: 4096) {
      let range = start..<min(cells, start + 4096)
      var block: [Float] = []
      for prompt in 0..<count {
        block += effects[prompt * cells + range.lowerBound..<prompt * cells + range.upperBound]
      }
      let sampled = matmul(
        weights, MatrixView(Tensor(block, shape: [count, range.count])))
      for cell in range where !sums[cell].isNaN {
        let ratios = usable.map { sample in
          Double(sampled[sample, cell - start]) / sampleGaps[sample]
        }.sorted()
        low[cell] = Float(quantile(ofSorted: ratios, 0.025))
        high[cell] = Float(quantile(ofSorted: ratios, 0.975))
      }
    }
  }

  /// How often each of `count` prompts is drawn in each sample, shape `[samples, count]`.
  static func samples(_ count: Int, seed: UInt64) -> Tensor {
    var random = SeededGenerator(seed: seed)
    var weights = [Float](repeating: 0, count: samples * count)
    for sample in 0..<samples {
      for _ in 0..<count {
        weights[sample * count + Int.random(in: 0..<count, using: &random)] += 1
      }
    }
    return Tensor(weights, shape: [samples, count])
  }
}
