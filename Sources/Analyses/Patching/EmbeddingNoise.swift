import HookedGPT2
import RealModule
import Tensors

/// Gaussian noise on token embeddings, a corruption that needs no second prompt.
///
/// The corrupted run is the clean prompt with noise of `deviations` standard deviations of all entries
/// of `W_E` added to the embeddings of some tokens: causal tracing, with 3 deviations on the subject's
/// tokens in Meng et al. 2022, arXiv:2202.05262. Zhang & Nanda 2024, arXiv:2309.16042, advise to prefer
/// a second prompt: noise takes the model off its distribution.
public struct EmbeddingNoise: Sendable, Equatable {
  /// The noise's standard deviation, in standard deviations of the embeddings' entries.
  public var deviations: Double
  /// The tokens that are disturbed, whatever positions the sweep patches.
  public var positions: PatchPositions
  /// Where the noise comes from: the same seed gives the same noise.
  public var seed: UInt64

  /// Noise on some positions, on all by default.
  public init(deviations: Double = 3, positions: PatchPositions = .all, seed: UInt64 = 0) {
    self.deviations = deviations
    self.positions = positions
    self.seed = seed
  }

  /// The standard deviation of the entries of `W_E`.
  static func embeddingDeviation(_ model: GPT2) -> Double {
    let embedding = model.weights.W_E
    let (rows, width) = (embedding.shape[0], embedding.shape[1])
    var (sum, squares) = (0.0, 0.0)
    let values = embedding.span
    for i in values.indices {
      sum += Double(values[i])
      squares += Double(values[i]) * Double(values[i])
    }
    let count = Double(rows * width)
    return (squares / count - (sum / count) * (sum / count)).squareRoot()
  }

  /// What disturbs the embeddings of prompt `index` of a batch, at these positions; `number` is the
  /// prompt's place in the whole set, which chooses its noise.
  func intervention(
    _ model: GPT2, index: Int, number: Int, positions: [Int], unit: Double
  ) -> Intervention {
    var random = SeededGenerator(seed: seed &+ 0x1000_0001 &* UInt64(number + 1))
    let width = model.config.dModel
    var values: [Float] = []
    while values.count < positions.count * width {
      // Box and Muller: two independent normal numbers of two uniform ones.
      let radius = (-2 * Double.log(1 - Double.random(in: 0..<1, using: &random))).squareRoot()
      let angle = 2 * Double.pi * Double.random(in: 0..<1, using: &random)
      values.append(Float(deviations * unit * radius * Double.cos(angle)))
      values.append(Float(deviations * unit * radius * Double.sin(angle)))
    }
    values.removeLast(values.count - positions.count * width)
    return .add(
      .embed.at(.at(positions)), Tensor(values, shape: [positions.count, width]), prompt: index)
  }
}
