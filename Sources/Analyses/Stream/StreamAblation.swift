public import HookedGPT2
import OrderedCollections
public import Results
import Tensors

/// Losses of models with blocks left out, run side by side, or written more weakly, and with massive
/// activations taken away (group `stream/ablation`).
///
/// **What it shows.** Whether what looks redundant is: a run of blocks that turns the stream by a small
/// angle may matter all the same, so that beside every angular distance belongs the loss without these
/// blocks. The parallel model, in which every block reads the embeddings, is the first order of the
/// expansion in block writes; the loss over λ, by which all writes are multiplied, shows how far from the
/// model that order holds.
///
/// **What it does not.** A model that was never trained without a block is not the best that can do
/// without it.
///
/// The expansion is an experiment: its terms of higher order are not small at λ = 1.
///
/// Runs resume from streams that the model's own run left: all skips together cost (L² − 1)/6 forward
/// passes and L(L + 1)/2 unembeddings a prompt, which is why only some prompts take part.
///
/// Gromov et al. 2024, arXiv:2403.17887 (skips); Lawson and Aitchison 2025, arXiv:2506.21103 (middle spans);
/// Sun et al. 2024, arXiv:2402.17762 (massive activations).
public struct StreamAblation: Sendable {
  /// One coordinate of the stream at one position.
  public struct Coordinate: Sendable, Hashable {
    /// The position.
    public var position: Int
    /// The coordinate's index.
    public var dimension: Int

    /// A coordinate.
    public init(position: Int, dimension: Int) {
      self.position = position
      self.dimension = dimension
    }
  }

  /// The most prompts that take part, evenly chosen.
  public var promptLimit: Int
  /// What all block writes are multiplied by.
  public var lambdas: [Double]
  /// The coordinates to set to zero and to their mean; if empty those that are massive.
  public var massive: [Coordinate]
  /// The block before which they are set; if nil the first one whose stream has a massive activation, or
  /// block 1 for coordinates that were named.
  public var massiveLayer: Int?

  /// The ablations with their defaults.
  public init(
    promptLimit: Int = 32, lambdas: [Double] = (0...10).map { Double($0) / 10 },
    massive: [Coordinate] = [], massiveLayer: Int? = nil
  ) {
    self.promptLimit = promptLimit
    self.lambdas = lambdas
    self.massive = massive
    self.massiveLayer = massiveLayer
  }

  /// The indices of the prompts that take part: of those with a token to predict, evenly chosen.
  public func chosen(_ prompts: [Prompt]) -> [Int] {
    let able = prompts.indices.filter { prompts[$0].tokens.count > 1 }
    let count = min(max(promptLimit, 0), able.count)
    return (0..<count).map { able[$0 * able.count / count] }
  }

  /// How often ``run(_:_:batchSize:seed:progress:)`` calls `progress`: about once for each forward pass.
  public func steps(_ model: GPT2, _ prompts: [Prompt]) -> Int {
    chosen(prompts).count * stepsPerPrompt(model.config.nLayers)
  }

  /// The forward passes of one prompt.
  private func stepsPerPrompt(_ layers: Int) -> Int {
    (0..<layers).reduce(4 + lambdas.count) { $0 + Self.skipSteps(layers, from: $1) }
  }

  /// What all skips that begin at a block cost, in forward passes; the unembeddings count as well.
  private static func skipSteps(_ layers: Int, from layer: Int) -> Int {
    let left = layers - layer
    return max(1, (left * left / 2 + 3 * left) / layers)
  }

  /// The group `stream/ablation`.
  ///
  /// - Parameters:
  ///   - model: any model.
  ///   - prompts: the prompts to choose from.
  ///   - batchSize: how many run at once.
  ///   - seed: draws the tokens of medians where there are too many.
  ///   - progress: called after each step; may throw to stop.
  /// - Throws: `ModelError.nothingMatches` for coordinates or a block that there are not, and for coordinates
  ///   that are named twice;
  ///   `AnalysisError.nonFinite`; what `progress` throws.
  public func run(
    _ model: GPT2, _ prompts: [Prompt], batchSize: Int = 8, seed: UInt64 = 0,
    progress: () throws -> Void = {}
  ) throws -> ResultGroup {
    let indices = chosen(prompts)
    try check(model.config, longest: indices.map { prompts[$0].tokens.count }.max() ?? 0)
    let layers = model.config.nLayers
    var results = AblationLosses(layers: layers, lambdas: lambdas, seed: seed)
    let batches = Self.batches(indices, prompts, batchSize)
    func advance(_ prompts: Int) throws { for _ in 0..<prompts { try progress() } }

    var search = MassiveSearch(model.config, named: massive)
    for batch in batches {
      search.add(try BlockStates(model, batch.map { prompts[$0].tokens }).before)
      try advance(batch.count)
    }
    let found = search.result(at: massiveLayer)

    var done = 0
    for batch in batches {
      let states = try BlockStates(model, batch.map { prompts[$0].tokens })
      results.begin(tokens: states.targets.count)
      try results.add(.base, states.losses(states.before[layers]))
      for layer in 0..<layers {
        for (length, streams) in try states.skipping(from: layer) {
          try results.add(.skip(layer: layer, length: length), states.losses(streams))
        }
        try advance(batch.count * Self.skipSteps(layers, from: layer))
      }
      let parallel = try states.parallel()
      for (layer, streams) in parallel.enumerated() {
        results.addErrors(layer, states.relativeErrors(streams, at: layer + 1))
      }
      if let last = parallel.last {
        try results.add(.parallel, states.losses(last))
        try results.addDivergence(states.divergence(last))
      }
      for (index, streams) in try states.scaled(by: lambdas).enumerated() {
        try results.add(.scaled(index), states.losses(streams))
      }
      if let layer = found.layer {
        for (kind, means) in [(AblationLosses.Kind.massiveZero, false), (.massiveMean, true)] {
          let changed = states.before[layer].enumerated().map { index, stream in
            found.replacing(in: stream, prompt: done + index, means: means)
          }
          try results.add(
            kind, states.losses(model.run(layers: Array(layer..<layers), on: changed)))
        }
      }
      done += batch.count
      try advance(batch.count * (3 + lambdas.count))
    }
    return group(model.config, results, found, indices, of: prompts.count)
  }

  /// Batches of prompts with some 512 tokens or fewer, but one prompt at least.
  private static func batches(_ indices: [Int], _ prompts: [Prompt], _ size: Int) -> [[Int]] {
    var batches: [[Int]] = []
    var tokens = 0
    for index in indices {
      let count = prompts[index].tokens.count
      if let last = batches.last, last.count < max(size, 1), tokens + count <= 512 {
        batches[batches.count - 1].append(index)
        tokens += count
      } else {
        batches.append([index])
        tokens = count
      }
    }
    return batches
  }

  private func check(_ config: GPT2Config, longest: Int) throws {
    if let layer = massiveLayer, !(0..<config.nLayers).contains(layer) {
      throw ModelError.nothingMatches(
        filter: "massive layer \(layer)", reason: "blocks are 0 to \(config.nLayers - 1)")
    }
    var named: Set<Coordinate> = []
    for coordinate in massive {
      let name = "massive \(coordinate.position):\(coordinate.dimension)"
      if !named.insert(coordinate).inserted {
        throw ModelError.nothingMatches(
          filter: name, reason: "it was named before; each is set once")
      }
      if !(0..<config.dModel).contains(coordinate.dimension) {
        throw ModelError.nothingMatches(
          filter: name, reason: "the stream has coordinates 0 to \(config.dModel - 1)")
      }
      if !(0..<longest).contains(coordinate.position) {
        throw ModelError.nothingMatches(
          filter: name, reason: "the longest of the chosen prompts has \(longest) tokens")
      }
    }
  }

  private func group(
    _ config: GPT2Config, _ results: AblationLosses, _ found: MassiveSearch.Found,
    _ indices: [Int], of count: Int
  ) -> ResultGroup {
    var dimensions = [
      Dimension("layer", count: config.nLayers),
      Dimension("length", .integers(Array(1...config.nLayers))),
      Dimension("lambda", .labels(lambdas.map { String($0) })),
      Dimension("position_class", .labels(["first", "rest"])),
    ]
    var variables = results.variables
    var attributes: OrderedDictionary<String, AttributeValue> = [
      "prompts": .string(
        "\(indices.count) of \(count), evenly chosen of those with two tokens or more"),
      "prompt_indices": .integers(indices),
      "positions": .string("all that have a next token, position 0 among them"),
      "sample": .string(
        results.isSampled ? "medians of \(QuantileSample.capacity) of the tokens" : "all tokens"),
      "massive": .string(found.description),
    ]
    if let layer = found.layer {
      attributes["massive_layer"] = .integer(layer)
      dimensions.append(Dimension("massive_dim", .integers(found.dimensions)))
      variables += results.massiveVariables + found.variables
    }
    return ResultGroup(
      path: "stream/ablation", dimensions: dimensions, variables: variables,
      attributes: attributes)
  }
}
