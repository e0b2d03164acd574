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
  let setup: PatchSetup
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

  init(_ setup: PatchSetup) {
    self.setup = setup
    memory = setup.experiment.bytes
    makeGroups()
  }

  // MARK: cells

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
    let site = setup.experiment.sites[number]
    var indices = Array(repeating: 0, count: shape.count)
    var (rest, start) = (place, setup.firstDifferences[prompt])
    for axis in shape.indices.reversed() {
      indices[axis] = rest % shape[axis]
      rest /= shape[axis]
    }
    var (isBehind, isMasked) = (false, false)
    var query: Int?
    for (axis, kind) in site.axes.enumerated() {
      switch kind {
      case .layer:
        indices[axis] = setup.layers[indices[axis]]
        if indices[axis] + setup.experiment.window > setup.model.config.nLayers { return .absent }
      case .pos, .queryPos:
        guard let position = setup.slots.positions[prompt][indices[axis]] else { return .absent }
        indices[axis] = position
        if position < start { isBehind = true }
        start = position
        query = position
      case .keyPos:
        guard let position = setup.slots.positions[prompt][indices[axis]] else { return .absent }
        indices[axis] = position
        // Nothing attends to what comes later.
        if let query, position > query { isMasked = true }
      case .head, .neuron: break
      }
    }
    let length = setup.pairs[prompt].length
    if isBehind || isMasked || start >= length { return .unchanged }
    return .run(
      SweepCell(
        site: number, prompt: prompt, place: place, indices: indices,
        cost: SuffixRuns.Cost(
          setup.model.config, layer: indices[0], position: start, length: length)))
  }

  /// The cells of some prompts that must be run, in the order of sites, prompts and places.
  func cells(of prompts: Range<Int>) -> [SweepCell] {
    var cells: [SweepCell] = []
    for (number, site) in setup.experiment.sites.enumerated() {
      let shape = setup.shape(site)
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
      + (setup.experiment.metric.scope == .vocabulary ? 3 * 4 * setup.model.config.dVocab : 0)
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
    let (config, length) = (setup.model.config, setup.pairs[prompt].length)
    let made: Set<Site> = [.attnScores, .pattern, .result, .mlpPre, .mlpPost]
    let scalars = made.intersection(setup.experiment.sites.map(\.site)).reduce(
      9 * length * config.dModel
    ) { $0 + $1.shape(config, positions: length).reduce(1, *) }
    return 2 * 4 * (config.nLayers * scalars + config.dVocab)
  }

  /// Prompts go together until their cells fill a walk or their runs a quarter of the memory.
  private mutating func makeGroups() {
    var (start, cellBytes, runs) = (0, 0, 0)
    for prompt in setup.pairs.indices {
      let cells = cells(of: prompt..<prompt + 1)
      cellCount += cells.count
      blockTokens += cells.reduce(0) { $0 + $1.cost.blockTokens }
      cellBytes += cells.reduce(0) { $0 + bytes($1) }
      runs += runBytes(prompt)
      memoryNeeded = max(memoryNeeded, min(cellBytes, walkBytes) + runs)
      let next = prompt + 1
      if next == setup.pairs.count || cellBytes >= walkBytes || runs + runBytes(next) > memory / 4 {
        groups.append(start..<next)
        (start, cellBytes, runs) = (next, 0, 0)
      }
    }
  }
}

/// What is put in place of the activations of a batch of cells.
struct ReplacementValues {
  private let setup: PatchSetup
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
  init(_ setup: PatchSetup, _ runs: [PairRuns], _ means: ReferenceMeans?, first: Int) {
    self.setup = setup
    self.runs = runs
    self.means = means
    self.first = first
  }

  /// The patched run of a cell; nil where what is put in is what is there.
  mutating func run(_ cell: SweepCell) throws -> PatchedRun? {
    let site = setup.experiment.sites[cell.site]
    let run = cell.prompt - first
    var interventions: [Intervention] = []
    var changes = false
    for layer in cell.indices[0]..<cell.indices[0] + setup.experiment.window {
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
    let found = try setup.activations(name, of: runs[run], means)
    known[key] = found
    return found
  }
}

extension Sequence where Element: Hashable {
  /// The first element that occurs a second time.
  var firstDuplicate: Element? {
    var seen: Set<Element> = []
    return first { !seen.insert($0).inserted }
  }
}
