import HookedGPT2
import RealModule
import Results
import Tensors

/// How far apart the streams of two depths point (group `stream/distance`).
///
/// Of the last token of each prompt: the angle between its stream before block l and before block l + n,
/// over π. Blocks l … l + n − 1 turn the stream least where it is smallest, which makes them the candidates
/// for pruning (Gromov et al. 2024, "The Unreasonable Ineffectiveness of the Deeper Layers",
/// arXiv:2403.17887). What the next norm sees has no mean: the centred twin is the angle between
/// x − mean(x).
///
/// Prompts of a single token have no other than position 0, and do not count.
struct StreamDistance: Collector {
  private let config: GPT2Config
  /// Sums over prompts, `[layer, layer_to]` of streams and of centred streams, and how many have an angle.
  private var sums: [[Double]]
  private var counts: [[Int]]
  private var prompts = 0

  init(_ model: GPT2) {
    config = model.config
    let cells = (config.nLayers + 1) * (config.nLayers + 1)
    sums = Array(repeating: Array(repeating: 0, count: cells), count: 2)
    counts = Array(repeating: Array(repeating: 0, count: cells), count: 2)
  }

  var hooks: [HookFilter] { config.blockHooks.map { HookFilter($0) } }

  mutating func collect(_ batch: CollectedBatch, into sink: any PromptSink) throws {
    for prompt in 0..<batch.count {
      let length = batch.length(prompt)
      if length < 2 { continue }
      prompts += 1
      let rows = try config.blockHooks.map { hook in
        let stream = try batch.cache.tensor(hook, prompt: prompt)
        return stream.rows(length - 1..<length)
      }
      add(rows, 0)
      add(rows.map { $0.centeringRows() }, 1)
    }
  }

  /// Adds the distances between the states of one token, each of shape `[1, d]`.
  private mutating func add(_ rows: [Tensor], _ kind: Int) {
    let states = rows.count
    for state in 0..<states {
      for (other, step) in zip(state..., Self.steps(rows, from: state)) {
        let distance = Self.distance(step)
        if distance.isNaN { continue }
        sums[kind][state * states + other] += distance
        counts[kind][state * states + other] += 1
      }
    }
  }

  /// The way from one state to each from it on.
  private static func steps(_ rows: [Tensor], from state: Int) -> [StreamStep] {
    let others = Array(rows[state...])
    let before = Tensor.concatenating(others.map { _ in rows[state] })
    return streamSteps(Tensor.concatenating(others), from: before)
  }

  /// The angle over π; NaN without one.
  static func distance(_ step: StreamStep) -> Double { step.turnAngle / 180 }

  func findings() -> [ResultGroup] {
    let states = config.nLayers + 1
    func means(_ kind: Int) -> [Double] {
      (0..<states * states).map { cell in
        let count = counts[kind][cell]
        return count == 0 ? .nan : sums[kind][cell] / Double(count)
      }
    }
    let layers = (0..<config.nLayers).map(String.init) + ["final"]
    func variable(_ name: String, _ kind: Int, _ what: String, _ formula: String) -> ResultVariable
    {
      ResultVariable(
        name, ["layer", "layer_to"], .float64(means(kind)),
        longName: "angular distance of \(what) before two blocks, last token, mean over prompts",
        units: "1",
        attributes: [
          "formula": .string(formula), "references": .string("arXiv:2403.17887"),
        ])
    }
    return [
      ResultGroup(
        path: "stream/distance",
        dimensions: [
          Dimension("layer", .labels(layers)), Dimension("layer_to", .labels(layers)),
        ],
        variables: [
          variable("angular_distance", 0, "the streams", "acos(cos(x_l, x_m))/pi"),
          variable(
            "angular_distance_centred", 1, "the streams without their means",
            "acos(cos(P x_l, P x_m))/pi, P = I - 11^T/d"),
          ResultVariable(
            "count", [], .integers([prompts]), longName: "prompts of two tokens or more", units: "1"
          ),
        ],
        attributes: [
          "layer": .string("state before the block; final = behind the last, before the final norm")
        ])
    ]
  }
}
