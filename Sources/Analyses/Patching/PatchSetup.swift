import HookedGPT2
import Tensors

/// An experiment on prompt pairs with its choices checked and spelled out for a model: what a sweep
/// runs and what an attribution estimates.
struct PatchSetup {
  let experiment: ActivationPatching
  let model: GPT2
  let pairs: [PromptPair]
  let slots: PositionSlots
  let layers: [Int]
  /// The first position at which a pair's runs can differ.
  let firstDifferences: [Int]
  /// The tokens that noise disturbs in each prompt.
  let noisePositions: [[Int]]
  private let noiseUnit: Double

  init(_ experiment: ActivationPatching, _ model: GPT2, _ pairs: [PromptPair]) throws {
    self.experiment = experiment
    self.model = model
    // Noise makes the corrupted run of the clean tokens, and results must say so.
    self.pairs =
      experiment.noise == nil
      ? pairs
      : pairs.map { pair in
        var pair = pair
        pair.corrupted = pair.clean
        return pair
      }
    let config = model.config
    try Self.check(experiment, config, pairs)
    layers = try Self.layers(experiment, config)
    slots = try PositionSlots(
      experiment.positions, pairs,
      sweeps: experiment.sites.contains {
        !Set($0.axes).isDisjoint(with: [.pos, .queryPos, .keyPos])
      })
    if let noise = experiment.noise {
      let slots = try PositionSlots(noise.positions, pairs, sweeps: false)
      noisePositions = slots.positions.map { $0.compactMap(\.self).sorted() }
      noiseUnit = EmbeddingNoise.embeddingDeviation(model)
    } else {
      (noisePositions, noiseUnit) = ([], 0)
    }
    let noisy = noisePositions
    firstDifferences = pairs.enumerated().map { index, pair in
      if experiment.replacement != .otherRun { return 0 }
      if !noisy.isEmpty { return noisy[index].first ?? pair.length }
      return pair.firstDifference
    }
  }

  private static func check(
    _ experiment: ActivationPatching, _ config: GPT2Config, _ pairs: [PromptPair]
  ) throws {
    if pairs.isEmpty { throw AnalysisError.noPrompts(analysis: "patch") }
    if experiment.sites.isEmpty {
      throw ModelError.nothingMatches(filter: "sites", reason: "no sites are chosen")
    }
    if let name = experiment.sites.map(\.name).firstDuplicate {
      throw ModelError.nothingMatches(filter: name, reason: "the site is chosen twice")
    }
    if let bad = experiment.sites.first(where: { $0.site == .attnScores }),
      experiment.replacement != .otherRun
    {
      throw ModelError.intervention(
        hook: bad.name, problem: "a mean or zero in place of masked scores would unmask them")
    }
    guard (1...config.nLayers).contains(experiment.window) else {
      throw ModelError.nothingMatches(
        filter: "window \(experiment.window)",
        reason: "a window has 1 to \(config.nLayers) layers in this model")
    }
    for (prompt, pair) in pairs.enumerated() {
      try pair.check(prompt: prompt, config, isNoised: experiment.noise != nil)
      try experiment.metric.check(pair, prompt: prompt)
    }
  }

  private static func layers(
    _ experiment: ActivationPatching, _ config: GPT2Config
  ) throws -> [Int] {
    let chosen = experiment.layers ?? Array(0..<config.nLayers)
    let resolved = chosen.map { $0 < 0 ? $0 + config.nLayers : $0 }
    for (written, layer) in zip(chosen, resolved) where !(0..<config.nLayers).contains(layer) {
      throw ModelError.layerOutOfRange(
        hook: "layers \(chosen)", layer: written, layers: config.nLayers)
    }
    if resolved.isEmpty || resolved.firstDuplicate != nil {
      throw ModelError.nothingMatches(
        filter: "layers \(chosen)", reason: "expected some layers, each once")
    }
    if !resolved.contains(where: { $0 + experiment.window <= config.nLayers }) {
      throw ModelError.nothingMatches(
        filter: "layers \(chosen)",
        reason: "no window of \(experiment.window) layers that begins there ends by layer "
          + "\(config.nLayers - 1)")
    }
    return resolved
  }

  /// How many cells a site has along each axis of the results, without the prompts'.
  func shape(_ site: PatchSite) -> [Int] {
    site.axes.map { axis in
      switch axis {
      case .layer: layers.count
      case .pos, .queryPos, .keyPos: slots.count
      case .head: model.config.nHeads
      case .neuron: model.config.dMLP
      }
    }
  }

  /// The memory of a pair's two runs as they are kept.
  func runBytes(_ prompt: Int) -> Int {
    2 * 4
      * (model.config.nLayers * 9 * pairs[prompt].length * model.config.dModel
        + model.config.dVocab)
  }

  /// Prompts that are run together: some hundred rows, which matrix products want, whose runs take at
  /// most so many bytes; one prompt in any case.
  func groups(bytes: Int) -> [Range<Int>] {
    var groups: [Range<Int>] = []
    var (start, used, rows) = (0, 0, 0)
    for prompt in pairs.indices {
      if prompt > start
        && (used + runBytes(prompt) > bytes || rows + pairs[prompt].length > Self.rowsPerGroup)
      {
        groups.append(start..<prompt)
        (start, used, rows) = (prompt, 0, 0)
      }
      used += runBytes(prompt)
      rows += pairs[prompt].length
    }
    groups.append(start..<pairs.count)
    return groups
  }

  private static let rowsPerGroup = 512

  /// The runs of a group's pairs.
  func runs(of prompts: Range<Int>) throws -> [PairRuns] {
    var noise: [Intervention]?
    if let disturbance = experiment.noise {
      noise = prompts.enumerated().map { index, prompt in
        disturbance.intervention(
          model, index: index, number: prompt, positions: noisePositions[prompt], unit: noiseUnit)
      }
    }
    return try PairRuns.run(
      model, Array(pairs[prompts]), metric: experiment.metric, first: prompts.lowerBound,
      noise: noise)
  }

  /// The means that replace activations, if any.
  func referenceMeans() throws -> ReferenceMeans? {
    let (prompts, byPosition): ([[Int]], Bool)
    switch experiment.replacement {
    case .otherRun, .zero: return nil
    case .mean(let over): (prompts, byPosition) = (over, false)
    case .positionMean(let over): (prompts, byPosition) = (over, true)
    }
    return try ReferenceMeans(
      model, over: prompts, sites: Set(experiment.sites.map(\.site)),
      layers: Array(Set(layers.flatMap { $0..<min($0 + experiment.window, model.config.nLayers) })),
      byPosition: byPosition)
  }

  /// A pair's activation at a hook in the run that is patched, and what is put in its place.
  ///
  /// - Parameter means: `referenceMeans()`.
  func activations(
    _ name: HookName, of pair: PairRuns, _ means: ReferenceMeans?
  ) throws -> (base: Tensor, new: Tensor) {
    let layer = name.layer ?? 0
    let base = try pair.base(experiment.direction).activation(name.site, layer: layer, of: model)
    switch experiment.replacement {
    case .otherRun:
      let source = pair.source(experiment.direction)
      return (base, try source.activation(name.site, layer: layer, of: model))
    case .zero: return (base, Tensor(zeros: base.shape))
    case .mean, .positionMean:
      guard let means else {
        throw ModelError.notRecorded(hook: name.rawValue, recorded: [])
      }
      return (base, try means.value(name, positions: pair.pair.length))
    }
  }

  /// What is put in, in words.
  var replacementName: String {
    switch experiment.replacement {
    case .otherRun: "other run"
    case .zero: "zero"
    case .mean: "mean over reference prompts and positions"
    case .positionMean: "mean over reference prompts at each position"
    }
  }
}
