public import HookedGPT2
public import Results
import Tensors

/// Activation patching: which activations carry what distinguishes two prompts.
///
/// **What it shows.** Run a base prompt, overwrite one activation with what it was in another run, and
/// see how far the metric moves. Done for every layer, position, head or neuron in turn (a *sweep* of
/// *cells*) it draws where the information is that tells the prompts apart. It is causal and exact:
/// what attribution patching and relevance patching estimate.
///
///     effect(cell) = metric(base run with the cell overwritten) − metric(base run)
///
/// **Direction.** Denoising (the default, as in TransformerLens) runs the corrupted prompt and
/// restores clean values: which activations are enough. Noising runs the clean prompt and puts in
/// corrupted values: which are needed. They are not each other's mirror: of two inputs of an AND only
/// noising finds both, of an OR only denoising.
///
/// **Normalised** over a prompt set by the ratio of means, not the mean of ratios:
///
///     normalized = mean effect / (mean clean metric − mean corrupted metric)
///
/// so that denoising gives 0 for nothing restored and 1 for everything, noising 0 … −1.
///
/// **What it costs.** A cell at layer ℓ and position p is resumed there: `(n_layers − ℓ)·(pos − p)`
/// block passes of one token instead of `n_layers·pos`, and all cells of a batch share one product for
/// each weight (`SuffixRuns`). Cells whose replacement equals what is there are not run and are
/// exactly 0.
///
/// ```swift
/// let result = try ActivationPatching(of: .residPre, metric: .logitDifference).run(model, pairs)
/// ```
///
/// Meng et al. 2022, arXiv:2202.05262; Zhang & Nanda 2024, arXiv:2309.16042; Heimersheim & Nanda 2024,
/// arXiv:2404.15255; axes and names as in TransformerLens' `patching.py`.
public struct ActivationPatching: Sendable {
  /// Which run is patched with values of which.
  public enum Direction: String, Sendable {
    /// The corrupted run, with clean values.
    case denoising
    /// The clean run, with corrupted values.
    case noising
  }

  /// What is overwritten: a variable of the results each.
  public var sites: [PatchSite]
  /// Which run is patched.
  public var direction: Direction
  /// What is measured.
  public var metric: Metric
  /// What is put in.
  public var replacement: Replacement
  /// How many adjacent layers a cell overwrites at once, beginning with its own. Cells whose window
  /// would end beyond the last layer are not computed.
  public var window = 1
  /// The layers of the sweep; nil means all.
  public var layers: [Int]?
  /// The positions of the sweep.
  public var positions = PatchPositions.all
  /// Noise that makes the corrupted run of the clean tokens; the pairs' corrupted tokens are not
  /// used.
  public var noise: EmbeddingNoise?
  /// The memory that may be used beside the weights, in bytes. How a sweep is cut into batches
  /// depends on it.
  public var bytes = 2 << 30
  /// Where the bootstrap's choices come from.
  public var seed: UInt64 = 0

  /// Sweeps over several sites.
  public init(
    of sites: [PatchSite], direction: Direction = .denoising, metric: Metric = .logitDifference,
    replacement: Replacement = .otherRun
  ) {
    self.sites = sites
    self.direction = direction
    self.metric = metric
    self.replacement = replacement
  }

  /// A sweep over one site.
  public init(
    of site: PatchSite, direction: Direction = .denoising, metric: Metric = .logitDifference,
    replacement: Replacement = .otherRun
  ) {
    self.init(of: [site], direction: direction, metric: metric, replacement: replacement)
  }

  /// How far a sweep is.
  public struct Progress {
    /// Cells that are done, and all.
    public let cells: (done: Int, total: Int)
    /// The share of the work that is done, from 0 to 1.
    public let fraction: Double
    /// What of it a partial result had: this took no time.
    public let resumed: (cells: Int, fraction: Double)
    private let effects: PatchEffects

    fileprivate init(_ effects: PatchEffects, _ sweep: Sweep, done: Work, resumed: Work) {
      self.effects = effects
      let all = Double(max(1, sweep.blockTokens))
      cells = (done.cells, sweep.cellCount)
      fraction = Double(done.blockTokens) / all
      self.resumed = (resumed.cells, Double(resumed.blockTokens) / all)
    }

    /// What is known so far, as `run(_:_:resuming:progress:)` takes it up again: cells that are not
    /// done are NaN, and the provenance says `complete` = 0.
    public func partial() -> ResultSet { effects.partial() }
  }

  /// Cells and what they cost.
  fileprivate struct Work {
    var cells = 0
    var blockTokens = 0

    mutating func add(_ cells: [SweepCell]) {
      self.cells += cells.count
      blockTokens += cells.reduce(0) { $0 + $1.cost.blockTokens }
    }
  }

  /// Overwrites every cell of every site in turn, in every pair.
  ///
  /// - Parameters:
  ///   - model: any model.
  ///   - pairs: prompt pairs; clean and corrupted have one length each.
  ///   - partial: what an interrupted run of the very same sweep left (`Progress.partial()`).
  ///   - progress: told after each batch of cells.
  /// - Returns: group `patch` with `clean_metric(prompt)` and `corrupted_metric(prompt)`; group
  ///   `patch/activation` with a variable for each site, `prompt` and the site's axes, in the metric's
  ///   units, and `<site>_normalized` without `prompt`, for several pairs with `<site>_stderr`,
  ///   `<site>_ci_low` and `<site>_ci_high`. What a reader should be warned of is the attribute
  ///   `warnings` of `patch`.
  /// - Throws: `AnalysisError` for pairs that cannot be compared and numbers that are not finite;
  ///   `ModelError`; `AnalysisError.resume` for a partial result of another sweep.
  public func run(
    _ model: GPT2, _ pairs: [PromptPair], resuming partial: ResultSet? = nil,
    progress: (Progress) throws -> Void = { _ in }
  ) throws -> ResultSet {
    let sweep = Sweep(try PatchSetup(self, model, pairs))
    var effects = try PatchEffects(sweep, resuming: partial)
    let means = try sweep.setup.referenceMeans()
    var (done, resumed) = (Work(), Work())
    for group in sweep.groups {
      let cells = sweep.cells(of: group)
      let batches = sweep.batches(cells).map { $0.map { cells[$0] } }
      let isDone = batches.map { effects.hasAll($0) }
      // The first group's runs are made in any case: they tell whether the metric is still the same.
      if group.lowerBound > 0 && effects.hasMetrics(of: group) && !isDone.contains(false) {
        done.add(cells)
        resumed.add(cells)
        continue
      }
      let runs = try sweep.setup.runs(of: group)
      try effects.set(runs, prompts: group)
      let engine = SuffixRuns(model, bases: runs.map { $0.base(direction) })
      for (batch, isDone) in zip(batches, isDone) {
        if isDone {
          resumed.add(batch)
        } else {
          var values = ReplacementValues(sweep.setup, runs, means, first: group.lowerBound)
          // Cells whose replacement is what is there change nothing and are not run.
          var changed: [(cell: SweepCell, run: PatchedRun)] = []
          for cell in batch {
            if let run = try values.run(cell) {
              changed.append((cell, run))
            } else {
              effects.set(cell, 0)
            }
          }
          let found = try runs.effects(of: changed.map(\.run), engine, direction)
          for ((cell, _), effect) in zip(changed, found) { effects.set(cell, effect) }
        }
        done.add(batch)
        try progress(Progress(effects, sweep, done: done, resumed: resumed))
      }
    }
    return effects.result()
  }

  /// What a sweep will cost, before it is run.
  ///
  /// - Throws: as `run(_:_:resuming:progress:)` where the pairs or the choices are wrong.
  public func estimate(_ model: GPT2, _ pairs: [PromptPair]) throws -> Estimate {
    let sweep = Sweep(try PatchSetup(self, model, pairs))
    return Estimate(
      cells: sweep.cellCount,
      flops: Double(sweep.blockTokens) * SuffixRuns.flopsPerBlockToken(model.config),
      bytes: min(sweep.memory, sweep.memoryNeeded))
  }

  /// The cost of a sweep.
  public struct Estimate: Sendable {
    /// How many cells are run; those that cannot change anything are not among them.
    public let cells: Int
    /// The FLOPs of the blocks' products with weights; what attention and unembedding need is little.
    public let flops: Double
    /// The memory beside the weights.
    public let bytes: Int
  }
}
