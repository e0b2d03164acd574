public import HookedGPT2
import OrderedCollections
public import Results
import Tensors

/// Entropy neurons: those that act on predictions through the final norm's scale (group `neurons`).
///
/// **What it shows.** From the weights of one MLP: how much each neuron writes, how evenly its write
/// spreads over the vocabulary, and how much of it lies where the unembedding does not look
/// (``NeuronWeights``). From text: what the loss and the entropy become when a neuron is held at its
/// mean, with the final norm at work (total) and with its scale frozen (direct); the share that the norm
/// mediates; and the same for the first neurons together.
///
/// **What it does not.** A high score alone is no entropy neuron in the model at hand: without LayerNorm
/// the same weights have no scale to act through, and the total effect is the direct one.
///
/// Two passes over the text: the means of all neurons over all tokens, then the effects.
///
/// Stolfo et al. 2024, arXiv:2406.16254; Gurnee et al. 2024, arXiv:2401.12181; Baroni et al. 2025,
/// arXiv:2507.02559.
///
/// ```swift
/// let result = try EntropyNeurons(ablated: .neurons([584, 2123, 2870])).run(model, prompts)
/// ```
public struct EntropyNeurons: CollectedAnalysis {
  /// Which neurons are held at their means.
  public enum Ablated: Sendable, Equatable {
    /// So many of the highest scores, and so many others drawn at random.
    case ranked(top: Int, others: Int)
    /// Every one.
    case all
    /// These.
    case neurons([Int])
    /// None: the weights alone.
    case none
  }

  /// How many prompts run at once.
  public var batchSize: Int
  /// The MLP; the last if nil.
  public var layer: Int?
  /// How many of the smallest singular directions of W_U count as its null space; round(d/64) if nil.
  public var nullSpace: Int?
  /// The neurons to ablate; if nil the 16 of the highest scores and 16 others in the last layer, none
  /// in another.
  public var ablated: Ablated?
  /// How many neurons are ablated together: the first of a list, else those of the highest scores.
  public var cumulated: Int
  /// How many positions at a prompt's start do not count as predictions.
  public var skipFirst: Int
  /// Draws the neurons at random, and the tokens of medians where there are too many.
  public var seed: UInt64

  /// The analysis with its defaults.
  public init(
    batchSize: Int = 8, layer: Int? = nil, nullSpace: Int? = nil, ablated: Ablated? = nil,
    cumulated: Int = 16, skipFirst: Int = 0, seed: UInt64 = 0
  ) {
    self.batchSize = batchSize
    self.layer = layer
    self.nullSpace = nullSpace
    self.ablated = ablated
    self.cumulated = cumulated
    self.skipFirst = skipFirst
    self.seed = seed
  }

  /// `neurons`.
  public var name: String { "neurons" }

  /// One sentence that says what the result is.
  public func title(of model: GPT2) -> String {
    "entropy neurons of layer \(layer(of: model)) of \(model.identity.name)"
  }

  /// None: the effects need the means first, and both passes are in the conclusions.
  public func collectors(_ model: GPT2, _ axes: PromptAxes) -> [any Collector] { [] }

  /// A step for each prompt's forward pass, and as many as they cost for its ablations.
  public func steps(_ model: GPT2, _ prompts: [Prompt]) -> Int {
    switch selection(model) {
    case .none: 0
    default: prompts.count * (1 + ablationSteps(model))
    }
  }

  /// The group `neurons`.
  ///
  /// - Throws: as ``NeuronWeights``; `ModelError.nothingMatches` for neurons that there are not or that
  ///   are named twice; `AnalysisError.unsuitable` for ablations in another layer than the last.
  public func conclusions(
    _ model: GPT2, _ prompts: [Prompt], progress: () throws -> Void
  ) throws -> [ResultGroup] {
    let weights = try self.weights(model)
    let table = NeuronVariables(weights)
    let choice = try chosen(weights, model)
    if choice.neurons.isEmpty { return [table.group()] }
    let layer = weights.layer

    // Enough tokens at once for matrix products to be worth their while.
    let longest = prompts.map(\.tokens.count).max() ?? 1
    let pass = CollectionPass(prompts, batchSize: max(batchSize, min(256 / longest, 64)))
    func run(_ collector: any Collector, steps: Int) throws -> [any Collector] {
      var collectors = [collector]
      var done = 0
      try pass.run(model, &collectors, into: DiscardingSink()) { count in
        for _ in 0..<(count - done) * steps { try progress() }
        done = count
      }
      return collectors
    }
    guard
      let means = try run(NeuronMeans(model, layer: layer), steps: 1)[0] as? NeuronMeans,
      let effects = try run(
        NeuronAblation(
          model, means: means.means, neurons: choice.neurons, cumulated: choice.together,
          skipFirst: skipFirst, seed: seed),
        steps: ablationSteps(model))[0] as? NeuronAblation
    else { preconditionFailure("EntropyNeurons: a pass returned another collector") }
    return [
      table.group(
        means: means.means, effects: effects, choice, skipFirst: skipFirst, seed: seed)
    ]
  }

  /// The group `neurons` as far as the weights know it; no text is needed.
  ///
  /// - Throws: as ``NeuronWeights``.
  public func withoutText(_ model: GPT2) throws -> ResultSet {
    ResultSet(
      title: title(of: model), groups: [NeuronVariables(try weights(model)).group()],
      provenance: Provenance(model: model))
  }

  private func weights(_ model: GPT2) throws -> NeuronWeights {
    try NeuronWeights(model, layer: layer(of: model), nullSpace: nullSpace)
  }

  private func layer(of model: GPT2) -> Int { layer ?? model.config.nLayers - 1 }

  private func selection(_ model: GPT2) -> Ablated {
    ablated ?? (layer(of: model) == model.config.nLayers - 1 ? .ranked(top: 16, others: 16) : .none)
  }

  /// What a prompt's ablations cost, in forward passes.
  private func ablationSteps(_ model: GPT2) -> Int {
    let neurons =
      switch selection(model) {
      case .ranked(let top, let others): top + others
      case .all: model.config.dMLP
      case .neurons(let list): list.count
      case .none: 0
      }
    // Some 20 operations an entry, total and direct.
    let entries = Double(neurons + cumulated) * Double(model.config.dVocab)
    return 1 + Int(40 * entries / (2 * Double(model.weights.parameterCount)))
  }

  /// The neurons to ablate, each with why it was chosen.
  struct Choice {
    /// In ascending order.
    var neurons: [Int]
    /// For each of ``neurons`` 1 (of the highest scores), 2 (drawn at random) or 3 (asked for).
    var reasons: [Int]
    /// Those that are ablated together, in order.
    var together: [Int]
  }

  private func chosen(_ weights: NeuronWeights, _ model: GPT2) throws -> Choice {
    let count = weights.norm.count
    let ranking = weights.ranking.filter { !weights.score[$0].isNaN }
    var reasons: [Int: Int] = [:]
    var together = Array(ranking.prefix(max(cumulated, 0)))
    let selection = selection(model)
    if selection != .none && weights.layer != model.config.nLayers - 1 {
      throw AnalysisError.unsuitable(
        analysis: name,
        problem:
          "neurons of layer \(weights.layer) cannot be ablated here: their writes pass through "
          + "later layers; expected layer \(model.config.nLayers - 1), or no ablation")
    }
    switch selection {
    case .ranked(let top, let others):
      for neuron in ranking.prefix(max(top, 0)) { reasons[neuron] = 1 }
      var random = SeededGenerator(seed: seed)
      let rest = (0..<count).filter { reasons[$0] == nil }.shuffled(using: &random)
      for neuron in rest.prefix(max(others, 0)) { reasons[neuron] = 2 }
      together = together.filter { reasons[$0] == 1 }
    case .all: for neuron in 0..<count { reasons[neuron] = 3 }
    case .neurons(let list):
      for neuron in list {
        guard (0..<count).contains(neuron) else {
          throw ModelError.nothingMatches(
            filter: "neuron \(neuron)",
            reason: "layer \(weights.layer) has neurons 0 to \(count - 1)")
        }
        guard reasons.updateValue(3, forKey: neuron) == nil else {
          throw ModelError.nothingMatches(
            filter: "neuron \(neuron)", reason: "it was named before; each is ablated once")
        }
      }
      together = Array(list.prefix(max(cumulated, 0)))
    case .none: together = []
    }
    let neurons = reasons.keys.sorted()
    return Choice(
      neurons: neurons, reasons: neurons.map { reasons[$0] ?? 0 }, together: together)
  }
}
