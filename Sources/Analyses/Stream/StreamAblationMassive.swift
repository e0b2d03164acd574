import HookedGPT2
import Results
import Tensors

/// Finds the massive activations of prompts: single coordinates with |x| > 100 and |x| ≥ 1000 × the
/// median |x| of all tokens' coordinates before the same block.
///
/// Of each prompt's stream the ten largest are looked at; published models have one to four.
///
/// Sun et al. 2024, arXiv:2402.17762.
struct MassiveSearch {
  private let config: GPT2Config
  private let named: [StreamAblation.Coordinate]
  /// For each block the magnitudes of the streams before it.
  private var magnitudes: [MagnitudeCounts]
  /// For each block and prompt the largest activations, or those that were named.
  private var candidates: [[[Activation]]]

  private static let ranks = 10

  struct Activation: Sendable {
    var position: Int
    var dimension: Int
    var value: Double
  }

  /// A search that has seen no prompts.
  init(_ config: GPT2Config, named: [StreamAblation.Coordinate]) {
    self.config = config
    self.named = named
    magnitudes = (0..<config.nLayers).map { _ in MagnitudeCounts() }
    candidates = Array(repeating: [], count: config.nLayers)
  }

  /// Takes the streams of the next prompts, for each block in order.
  mutating func add(_ streams: [[Tensor]]) {
    let width = config.dModel
    for layer in 0..<config.nLayers {
      for stream in streams[layer] {
        let indices =
          named.isEmpty
          ? stream.topMagnitudes(Self.ranks)
          : named.filter { $0.position < stream.shape[0] }.map {
            $0.position * width + $0.dimension
          }
        candidates[layer].append(
          indices.map { index in
            Activation(
              position: index / width, dimension: index % width, value: Double(stream.span[index]))
          })
        if named.isEmpty { magnitudes[layer].add(stream) }
      }
    }
  }

  /// What was found, or named, before the block at which it is to be changed.
  struct Found {
    /// The block; nil where nothing is to be changed.
    let layer: Int?
    /// The activations of each prompt.
    let activations: [[Activation]]
    /// What was found, in words.
    let description: String
    /// Of each coordinate the mean at position 0, and that at the others.
    private let means: [Int: [Double]]

    init(layer: Int?, activations: [[Activation]] = [], description: String) {
      self.layer = layer
      self.activations = activations
      self.description = description
      var sums: [Int: [(sum: Double, count: Int)]] = [:]
      for activation in activations.joined() {
        let kind = activation.position == 0 ? 0 : 1
        sums[activation.dimension, default: [(0, 0), (0, 0)]][kind].sum += activation.value
        sums[activation.dimension, default: [(0, 0), (0, 0)]][kind].count += 1
      }
      means = sums.mapValues { classes in
        classes.map { $0.count == 0 ? .nan : $0.sum / Double($0.count) }
      }
    }

    /// The coordinates' indices, in order.
    var dimensions: [Int] { means.keys.sorted() }

    /// The mean of a coordinate's massive activations over prompts: at position 0, or at the others.
    func mean(_ dimension: Int, isFirst: Bool) -> Double {
      means[dimension]?[isFirst ? 0 : 1] ?? .nan
    }

    /// A prompt's stream with its massive activations set to 0 or to their means.
    func replacing(in stream: Tensor, prompt: Int, means: Bool) -> Tensor {
      var changed = stream
      let width = stream.rowCount
      var span = changed.mutableSpan
      for activation in activations[prompt] {
        span[activation.position * width + activation.dimension] =
          means
          ? Float(mean(activation.dimension, isFirst: activation.position == 0)) : 0
      }
      return changed
    }

    /// `massive_mean(position_class, massive_dim)` and how many activations each is of.
    var variables: [ResultVariable] {
      let dimensions = dimensions
      let classes = [true, false]
      return [
        ResultVariable(
          "massive_mean", ["position_class", "massive_dim"],
          .float64(classes.flatMap { kind in dimensions.map { mean($0, isFirst: kind) } }),
          longName: "mean of the massive activations in a coordinate", units: "1",
          sign: "as in the stream",
          attributes: [
            "formula": .string("mean over prompts, before block massive_layer"),
            "references": .string("arXiv:2402.17762"),
          ]),
        ResultVariable(
          "massive_count", ["position_class", "massive_dim"],
          .integers(
            classes.flatMap { kind in
              dimensions.map { dimension in
                activations.joined().count {
                  $0.dimension == dimension && ($0.position == 0) == kind
                }
              }
            }), longName: "massive activations in a coordinate, over all prompts", units: "1"),
      ]
    }
  }

  /// The massive activations before the first block that has any, or before a given one.
  func result(at given: Int?) -> Found {
    if !named.isEmpty {
      let layer = given ?? min(1, config.nLayers - 1)
      let none = candidates[layer].allSatisfy(\.isEmpty)
      return Found(
        layer: none ? nil : layer, activations: candidates[layer],
        description: "the coordinates that were named, before block \(layer)")
    }
    var largest = 0.0
    for layer in given.map({ $0..<$0 + 1 }) ?? 0..<config.nLayers {
      let limit = StreamMassive.limit(median: magnitudes[layer].median)
      let massive = candidates[layer].map { prompt in
        prompt.filter { abs($0.value) > 100 && abs($0.value) >= limit }
      }
      largest = candidates[layer].joined().reduce(largest) { max($0, abs($1.value)) }
      if massive.contains(where: { !$0.isEmpty }) {
        return Found(
          layer: layer, activations: massive,
          description: "|x| > 100 and |x| >= 1000 median |x|, before block \(layer)")
      }
    }
    return Found(
      layer: nil,
      description: "none: no |x| > 100 with |x| >= 1000 median |x| before any block"
        + (given.map { " of those asked for (\($0))" } ?? "")
        + "; the largest |x| is \((10 * largest).rounded() / 10)")
  }
}
