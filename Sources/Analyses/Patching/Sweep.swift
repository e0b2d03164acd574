import HookedGPT2
import Tensors

/// One cell of a sweep: what is overwritten in one run.
struct SweepCell {
  /// The index of its site among the sweep's.
  let site: Int
  /// Its prompt, among all of the set.
  let prompt: Int
  /// Its place among the site's cells of one prompt.
  let place: Int
  /// Its first layer, and along the other axes of the site the position, head, neuron.
  let indices: [Int]
  let cost: SuffixRuns.Cost
}

/// All cells of an experiment, and how they are cut into groups of prompts and batches.
///
/// The cut depends only on the experiment, so that a sweep that is taken up again computes each batch
/// as an uninterrupted one would, to the last bit.
struct Sweep {
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
  /// Prompts that are run together.
  private(set) var groups: [Range<Int>] = []
  private(set) var cellCount = 0
  private(set) var blockTokens = 0
  /// The memory that may be used, and what the sweep can make use of.
  let memory: Int
  private(set) var memoryNeeded = 0

  /// What one walk through the layers holds: enough rows to fill the machine, few enough that
  /// progress is seen.
  private var walkBytes: Int { min(memory / 2, 512 << 20) }

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
    memory = experiment.bytes
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
    makeGroups()
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

  // MARK: cells

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

  /// What is known of a cell without running it.
  enum Fate {
    /// It must be run.
    case run(SweepCell)
    /// It overwrites something with the same: its effect is 0.
    case unchanged
    /// It does not exist: a position before a prompt's beginning, a window beyond the last layer.
    case absent
  }

  /// The cell at `place` among the site's cells of a prompt.
  func fate(site number: Int, prompt: Int, place: Int, shape: [Int]) -> Fate {
    let site = experiment.sites[number]
    var indices = Array(repeating: 0, count: shape.count)
    var (rest, start) = (place, firstDifferences[prompt])
    for axis in shape.indices.reversed() {
      indices[axis] = rest % shape[axis]
      rest /= shape[axis]
    }
    var (isBehind, isMasked) = (false, false)
    var query: Int?
    for (axis, kind) in site.axes.enumerated() {
      switch kind {
      case .layer:
        indices[axis] = layers[indices[axis]]
        if indices[axis] + experiment.window > model.config.nLayers { return .absent }
      case .pos, .queryPos:
        guard let position = slots.positions[prompt][indices[axis]] else { return .absent }
        indices[axis] = position
        if position < start { isBehind = true }
        start = position
        query = position
      case .keyPos:
        guard let position = slots.positions[prompt][indices[axis]] else { return .absent }
        indices[axis] = position
        // Nothing attends to what comes later.
        if let query, position > query { isMasked = true }
      case .head, .neuron: break
      }
    }
    let length = pairs[prompt].length
    if isBehind || isMasked || start >= length { return .unchanged }
    return .run(
      SweepCell(
        site: number, prompt: prompt, place: place, indices: indices,
        cost: SuffixRuns.Cost(
          model.config, layer: indices[0], position: start, length: length)))
  }

  /// The cells of some prompts that must be run, in the order of sites, prompts and places.
  func cells(of prompts: Range<Int>) -> [SweepCell] {
    var cells: [SweepCell] = []
    for (number, site) in experiment.sites.enumerated() {
      let shape = shape(site)
      for prompt in prompts {
        for place in 0..<shape.reduce(1, *) {
          if case .run(let cell) = fate(site: number, prompt: prompt, place: place, shape: shape) {
            cells.append(cell)
          }
        }
      }
    }
    return cells
  }

  /// The memory of a cell during a walk: its rows and, where the metric looks at all of them, its
  /// logits with a copy.
  private func bytes(_ cell: SweepCell) -> Int {
    cell.cost.bytes
      + (experiment.metric.scope == .vocabulary ? 3 * 4 * model.config.dVocab : 0)
  }

  /// Cells in batches for one walk each, as indices.
  func batches(_ cells: [SweepCell]) -> [[Int]] {
    SuffixRuns.batches(
      cells.map { cell in
        var cost = cell.cost
        cost.bytes = bytes(cell)
        return cost
      }, bytes: walkBytes)
  }

  /// The memory of a pair's two runs, and of what is made of them to be put in: patterns and neurons
  /// are not kept by runs, and a batch may reach through all layers.
  private func runBytes(_ prompt: Int) -> Int {
    let (config, length) = (model.config, pairs[prompt].length)
    let made: Set<Site> = [.attnScores, .pattern, .result, .mlpPre, .mlpPost]
    let scalars = made.intersection(experiment.sites.map(\.site)).reduce(
      9 * length * config.dModel
    ) { $0 + $1.shape(config, positions: length).reduce(1, *) }
    return 2 * 4 * (config.nLayers * scalars + config.dVocab)
  }

  /// Prompts go together until their cells fill a walk or their runs a quarter of the memory.
  private mutating func makeGroups() {
    var (start, cellBytes, runs) = (0, 0, 0)
    for prompt in pairs.indices {
      let cells = cells(of: prompt..<prompt + 1)
      cellCount += cells.count
      blockTokens += cells.reduce(0) { $0 + $1.cost.blockTokens }
      cellBytes += cells.reduce(0) { $0 + bytes($1) }
      runs += runBytes(prompt)
      memoryNeeded = max(memoryNeeded, min(cellBytes, walkBytes) + runs)
      let next = prompt + 1
      if next == pairs.count || cellBytes >= walkBytes || runs + runBytes(next) > memory / 4 {
        groups.append(start..<next)
        (start, cellBytes, runs) = (next, 0, 0)
      }
    }
  }

  // MARK: runs

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
}

/// What is put in place of the activations of a batch of cells.
struct ReplacementValues {
  private let sweep: Sweep
  private let runs: [PairRuns]
  private let means: ReferenceMeans?
  private let first: Int
  /// Activations that were computed for this batch, of the base run and in its place.
  private var known: [Key: (base: Tensor, new: Tensor)] = [:]

  private struct Key: Hashable {
    let name: HookName
    let run: Int
  }

  /// - Parameter runs: those of a group.
  init(_ sweep: Sweep, _ runs: [PairRuns], _ means: ReferenceMeans?, first: Int) {
    self.sweep = sweep
    self.runs = runs
    self.means = means
    self.first = first
  }

  /// The patched run of a cell; nil where what is put in is what is there.
  mutating func run(_ cell: SweepCell) throws -> PatchedRun? {
    let site = sweep.experiment.sites[cell.site]
    let run = cell.prompt - first
    var interventions: [Intervention] = []
    var changes = false
    for layer in cell.indices[0]..<cell.indices[0] + sweep.experiment.window {
      var filter = site.target(cell.indices)
      filter.layers = .layer(layer)
      let name = HookName(site.site, layer: layer)
      let (base, new) = try activations(name, run)
      if try !filter.isSame(base, new, at: name) { changes = true }
      interventions.append(.replace(filter, with: new))
    }
    return changes ? PatchedRun(base: run, interventions) : nil
  }

  private mutating func activations(
    _ name: HookName, _ run: Int
  ) throws -> (base: Tensor, new: Tensor) {
    let key = Key(name: name, run: run)
    if let found = known[key] { return found }
    let (pair, experiment) = (runs[run], sweep.experiment)
    let layer = name.layer ?? 0
    let base = try pair.base(experiment.direction).activation(
      name.site, layer: layer, of: sweep.model)
    let new: Tensor
    switch experiment.replacement {
    case .otherRun:
      new = try pair.source(experiment.direction).activation(
        name.site, layer: layer, of: sweep.model)
    case .zero: new = Tensor(zeros: base.shape)
    case .mean, .positionMean:
      guard let means else {
        throw ModelError.notRecorded(hook: name.rawValue, recorded: [])
      }
      new = try means.value(name, positions: pair.pair.length)
    }
    known[key] = (base, new)
    return (base, new)
  }
}

extension Sequence where Element: Hashable {
  /// The first element that occurs a second time.
  var firstDuplicate: Element? {
    var seen: Set<Element> = []
    return first { !seen.insert($0).inserted }
  }
}
