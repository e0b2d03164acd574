import HookedGPT2
import OrderedCollections
import Results
import Tensors

/// A token whose way through the norms is wanted as vectors.
public struct NormStep: Sendable, Hashable {
  /// The prompt; nil for every prompt that has the position.
  public var prompt: Int?
  /// The position; negative numbers count from the prompt's end.
  public var position: Int

  /// A token of one prompt, or of all.
  public init(prompt: Int? = nil, position: Int) {
    self.prompt = prompt
    self.position = position
  }
}

/// The vectors of chosen tokens on their way through each norm (group `ln_steps`):
///
///     raw x → projected x − mean(x) → scaled z → gained g⊙z → shifted g⊙z + b
///
/// RMSNorm does not project: its second step is the first. Without norms nothing follows the projection:
/// divisor, gain and bias are folded into the weights.
struct NormSteps: Collector {
  static let steps = ["raw", "projected", "scaled", "gained", "shifted"]

  private let sites: [NormSite]
  private let config: GPT2Config
  /// The prompts with chosen tokens, and their positions.
  private let chosen: OrderedDictionary<Int, [Int]>
  private let positions: [Int]
  /// The place of each position among them.
  private let columns: [Int: Int]

  /// - Throws: `ModelError.nothingMatches` for a token that no prompt has.
  init(_ model: GPT2, _ axes: PromptAxes, _ tokens: [NormStep]) throws {
    sites = model.normSites
    config = model.config
    let lengths = axes.prompts.map(\.tokens.count)
    var found = [Set<Int>](repeating: [], count: lengths.count)
    for token in tokens {
      let name = (token.prompt.map { "\($0):" } ?? "") + "\(token.position)"
      if let prompt = token.prompt, !lengths.indices.contains(prompt) {
        throw ModelError.nothingMatches(
          filter: "steps \(name)",
          reason: "no prompt \(prompt), there are \(lengths.count), counted from 0")
      }
      let places = (token.prompt.map { [$0] } ?? Array(lengths.indices)).compactMap { prompt in
        let position = token.position < 0 ? token.position + lengths[prompt] : token.position
        return position >= 0 && position < lengths[prompt] ? (prompt, position) : nil
      }
      if places.isEmpty {
        let longest = token.prompt.map { lengths[$0] } ?? axes.longest
        throw ModelError.nothingMatches(
          filter: "steps \(name)", reason: "position \(token.position) of \(longest) tokens")
      }
      for (prompt, position) in places { found[prompt].insert(position) }
    }
    chosen = OrderedDictionary(
      uniqueKeysWithValues: found.enumerated().filter { !$1.isEmpty }.map { ($0, $1.sorted()) })
    positions = Set(chosen.values.joined()).sorted()
    columns = Dictionary(uniqueKeysWithValues: positions.enumerated().map { ($1, $0) })
  }

  var hooks: [HookFilter] { sites.map { HookFilter($0.input) } }

  var tables: [PromptTable] {
    let group = ResultGroup(
      path: "ln_steps",
      dimensions: [
        Dimension("prompt", .integers(Array(chosen.keys))),
        Dimension("ln", .labels(sites.map(\.label))), Dimension("step", .labels(Self.steps)),
        Dimension("pos", .integers(positions)), Dimension("d_model", count: config.dModel),
      ], variables: [],
      attributes: [
        "steps": .string(
          "raw x, projected x - mean(x) (RMSNorm: x), scaled z, gained g*z, shifted g*z + b"
            + (config.normalization == .none
              ? "; scale, gain and bias are folded into the weights" : ""))
      ])
    let vector = ResultVariable(
      "vector", ["prompt", "ln", "step", "pos", "d_model"], .float32([]),
      longName: "a token's stream on its way through each norm; NaN for tokens not chosen",
      units: "1", sign: "as in the stream",
      attributes: ["references": .string("arXiv:2305.02582")])
    return [PromptTable(group, variables: [vector])]
  }

  mutating func collect(_ batch: CollectedBatch, into sink: any PromptSink) throws {
    let d = config.dModel
    for prompt in 0..<batch.count {
      guard let row = chosen.index(forKey: batch.firstPrompt + prompt),
        let own = chosen[batch.firstPrompt + prompt]
      else { continue }
      var values = [Float](
        repeating: .nan, count: sites.count * Self.steps.count * positions.count * d)
      for (place, site) in sites.enumerated() {
        let x = try batch.cache.tensor(site.input, prompt: prompt).gatheringRows(own)
        for (step, vectors) in Self.vectors(x, site.norm).enumerated() {
          for (index, column) in own.compactMap({ columns[$0] }).enumerated() {
            let start = ((place * Self.steps.count + step) * positions.count + column) * d
            values.replaceSubrange(start..<start + d, with: vectors.row(index).scalars)
          }
        }
      }
      try sink.take("ln_steps", "vector", prompt: row, values)
    }
  }

  /// The rows of `x` after each step.
  private static func vectors(_ x: Tensor, _ norm: GPT2Weights.Norm?) -> [Tensor] {
    guard let norm else {
      let projected = x.centeringRows()
      return [x, projected, projected, projected, projected]
    }
    let parts = norm.parts(x)
    return [
      x, norm.normalization == .layerNorm ? x.centeringRows() : x, parts.normalized,
      parts.normalized.multiplyingRows(norm.gain), parts.output,
    ]
  }

  func findings() -> [ResultGroup] { [] }
}
