import HookedGPT2
import Results
import Tensors

/// Single coordinates of the stream that dwarf all others (group `stream/massive`).
///
/// An activation is massive if |x| > 100 and |x| ≥ 1000 × the median |x| of its stream (Sun et al. 2024,
/// "Massive Activations in Large Language Models", arXiv:2402.17762). They sit at few positions, position 0
/// above all, and always in the same few coordinates.
///
/// Prompts that begin with the same token have the same stream there: what is at the same position and
/// coordinate in several prompts is one activation, that of the prompt where it is largest.
struct StreamMassive: Collector {
  private static let ranks = 3

  /// The magnitude from which an activation among others of this median is massive, if it is above 100.
  static func limit(median: Double) -> Double { max(100, 1000 * median) }

  private let config: GPT2Config
  /// Of each stream the magnitudes.
  private var magnitudes: [MagnitudeCounts]
  /// Of each stream the largest, largest first.
  private var top: [[Activation]]

  private struct Activation: Sendable {
    var value: Double
    var prompt: Int
    var position: Int
    var coordinate: Int
  }

  init(_ model: GPT2) {
    config = model.config
    let streams = config.streamLabels.count
    magnitudes = (0..<streams).map { _ in MagnitudeCounts() }
    top = Array(repeating: [], count: streams)
  }

  /// The bytes that the counts take.
  static func byteCount(_ config: GPT2Config) -> Int { (1 << 20) * (2 * config.nLayers + 1) }

  var hooks: [HookFilter] { config.streamHooks.map { HookFilter($0) } }

  mutating func collect(_ batch: CollectedBatch, into sink: any PromptSink) throws {
    let (names, width) = (config.streamHooks, config.dModel)
    for prompt in 0..<batch.count {
      let streams = try names.map { try batch.cache.tensor($0, prompt: prompt) }
      MagnitudeCounts.add(streams, to: &magnitudes)
      let largest = parallelMap(streams.count) { streams[$0].topMagnitudes(Self.ranks) }
      for (place, indices) in largest.enumerated() {
        let stream = streams[place]
        for index in indices {
          keep(
            Activation(
              value: Double(stream.span[index].magnitude),
              prompt: batch.firstPrompt + prompt, position: index / width,
              coordinate: index % width), place)
        }
      }
    }
  }

  private mutating func keep(_ activation: Activation, _ place: Int) {
    let same = top[place].firstIndex {
      $0.position == activation.position && $0.coordinate == activation.coordinate
    }
    if let same {
      if top[place][same].value >= activation.value { return }
      top[place].remove(at: same)
    }
    let rank = top[place].firstIndex { $0.value < activation.value } ?? top[place].count
    top[place].insert(activation, at: rank)
    if top[place].count > Self.ranks { top[place].removeLast() }
  }

  func findings() -> [ResultGroup] {
    let medians = magnitudes.map(\.median)
    let places = medians.indices
    let massive = places.map { place -> Int in
      magnitudes[place].count(above: Self.limit(median: medians[place]))
    }
    let ratios = places.map { place -> Double in
      guard let largest = top[place].first, medians[place] > 0 else { return .nan }
      return largest.value / medians[place]
    }
    func ranked<Value>(_ missing: Value, _ value: (Activation) -> Value) -> [Value] {
      top.flatMap { kept in
        (0..<Self.ranks).map { $0 < kept.count ? value(kept[$0]) : missing }
      }
    }
    let reference = "arXiv:2402.17762"
    func variable(
      _ name: String, _ axes: [String], _ values: ResultVariable.Values, _ longName: String,
      _ formula: String
    ) -> ResultVariable {
      ResultVariable(
        name, axes, values, longName: longName, units: "1",
        attributes: ["formula": .string(formula), "references": .string(reference)])
    }
    let byRank = ["stream", "rank"]
    let median = "median of |x| over all coordinates of all tokens, position 0 among them"
    return [
      ResultGroup(
        path: "stream/massive",
        dimensions: [
          Dimension("stream", .labels(config.streamLabels)), Dimension("rank", count: Self.ranks),
        ],
        variables: [
          variable(
            "top_activation", byRank, .float64(ranked(.nan, \.value)),
            "largest magnitudes of single activations", "|x_i|, different (position, coordinate)"),
          variable(
            "top_activation_prompt", byRank, .integers(ranked(-1, \.prompt)),
            "prompt of the activation, -1 for none", "the first prompt where it is largest"),
          variable(
            "top_activation_pos", byRank, .integers(ranked(-1, \.position)),
            "position of the activation, -1 for none", "position"),
          variable(
            "top_activation_dim", byRank, .integers(ranked(-1, \.coordinate)),
            "coordinate of the activation, -1 for none", "i"),
          variable(
            "median_activation", ["stream"], .float64(medians),
            "median magnitude of single activations",
            "\(median); from counts in bins a thousandth of a power of two wide"),
          variable(
            "ratio", ["stream"], .float64(ratios), "largest magnitude over the median",
            "top_activation/median_activation; NaN where the median is 0"),
          variable(
            "massive", ["stream"], .integers(massive), "massive activations of all tokens",
            "|x| > 100 and |x| >= 1000*median_activation, each to a thousandth"),
        ],
        attributes: [
          "top_activation": .string(
            "what is at the same position and coordinate of several prompts counts once")
        ])
    ]
  }
}
