import NormLens

/// A patching sweep as `bench` times it: every cell of some sites on one pair of prompts, from the
/// two base runs to the logits of two answer tokens.
struct BenchmarkSweep {
  let model: GPT2
  let sites: [PatchSite]
  /// How many tokens the prompts have.
  let length: Int
  /// The memory of one walk, in bytes.
  let bytes: Int

  /// The FLOPs that resuming each cell at its layer and position leaves:
  /// Σ (n_layers − ℓ)·(pos − p) × those of one block for one token.
  var boundFlops: Double {
    let config = model.config
    let (d, m) = (Double(config.dModel), Double(config.dMLP))
    var blockTokens = 0.0
    for site in sites {
      let shape = site.shape(config, length: length)
      let others = zip(site.axes, shape).filter { ![.layer, .pos, .queryPos].contains($0.0) }
      let cells = others.reduce(1) { $0 * $1.1 }
      let layers = config.nLayers * (config.nLayers + 1) / 2
      blockTokens += Double(cells * layers * length * (length + 1) / 2)
    }
    return blockTokens * 2 * (4 * d * d + 2 * d * m)
  }

  /// Runs the sweep once and returns how many cells it has.
  func run() throws -> Int {
    let config = model.config
    let clean = (0..<length).map { ($0 * 7919 + 11) % config.dVocab }
    // Another second token: cells at the first position are the only ones that change nothing.
    let corrupted = clean.enumerated().map { $0 == 0 ? ($1 + 1) % config.dVocab : $1 }
    let base = try BaseRun(model, tokens: corrupted)
    let donor = try BaseRun(model, tokens: clean)
    var patterns: [Int: Tensor] = [:]
    if sites.contains(where: { $0.site == .pattern }) {
      let (_, cache) = try model.runWithCache(clean, hooks: [HookFilter(.pattern)])
      for layer in 0..<config.nLayers {
        patterns[layer] = try cache.tensor(.pattern, layer: layer)
      }
    }
    var runs: [PatchedRun] = []
    for site in sites {
      let shape = site.shape(config, length: length)
      for cell in 0..<shape.reduce(1, *) {
        var (indices, rest) = (shape, cell)
        for axis in shape.indices.reversed() {
          indices[axis] = rest % shape[axis]
          rest /= shape[axis]
        }
        let value =
          try site.site == .pattern
          ? patterns[indices[0]] ?? Tensor(zeros: [0])
          : donor.cache.tensor(site.site, layer: indices[0])
        runs.append(PatchedRun(base: 0, [.replace(site.target(indices), with: value)]))
      }
    }
    let engine = SuffixRuns(model, bases: [base])
    for batch in try engine.batches(runs, bytes: bytes) {
      _ = try engine.logits(batch.map { runs[$0] }, tokens: [[1, 2]])
    }
    return runs.count
  }
}
