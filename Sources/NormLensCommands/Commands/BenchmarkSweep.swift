import NormLens

/// A patching sweep as `bench` times it: every cell of some sites on one pair of random prompts,
/// from tokens to effects, in the batches that `patch` would cut.
struct BenchmarkSweep {
  let model: GPT2
  let sites: [PatchSite]
  /// How many tokens either prompt has.
  let length: Int
  /// The memory that the sweep may use, in bytes.
  let bytes: Int

  /// The sweeps by their names in the output.
  static let named: [(name: String, sites: [PatchSite])] = [
    ("sweep_resid_pre_12x15", [.residPre]), ("sweep_block_every_3x12x15", PatchSite.blocks),
    ("sweep_heads_by_pos_10800", PatchSite.headsByPos),
  ]

  /// What remains if each cell is resumed at its layer and position:
  /// Σ (n_layers − ℓ)·(pos − p) × a block's FLOPs for one token.
  var flops: Double {
    let layers = model.config.nLayers
    let blockTokens = sites.reduce(0) { sum, site in
      // Along any other axis than these all cells cost the same.
      let others = zip(site.axes, site.shape(model.config, length: length))
        .filter { ![.layer, .pos, .queryPos].contains($0.0) }
      return sum
        + others.reduce(layers * (layers + 1) / 2 * length * (length + 1) / 2) {
          $0 * $1.1
        }
    }
    return Double(blockTokens) * SuffixRuns.flopsPerBlockToken(model.config)
  }

  /// Runs the sweep once. The prompts differ from their first token on, so that no position is left
  /// out.
  func run() throws { _ = try patching.run(model, [pair]) }

  /// Estimates the sweep once by attribution: two forward passes and a backward one.
  func attribute() throws { _ = try AttributionPatching(of: patching).run(model, [pair]) }

  private var patching: ActivationPatching {
    var patching = ActivationPatching(of: sites)
    patching.bytes = bytes
    return patching
  }

  private var pair: PromptPair {
    let clean = (0..<length).map { ($0 * 7919 + 11) % model.config.dVocab }
    var corrupted = clean
    corrupted[0] = (clean[0] + 1) % model.config.dVocab
    return PromptPair(clean: clean, corrupted: corrupted, answer: 1, wrong: 2)
  }

  /// Runs the sweep some times between two measurements of the matrix-product peak: a machine that
  /// others use as well is as fast for one as for the other.
  ///
  /// - Returns: the median time, and the time that `flops` take at the higher peak.
  func measure(repetitions: Int) throws -> (seconds: Double, bound: Double) {
    let before = MachineLimits.sgemmPeak()
    let clock = ContinuousClock()
    let times = try (0..<repetitions).map { _ in try clock.measure { try run() } / .seconds(1) }
    let peak = max(before, MachineLimits.sgemmPeak())
    return (times.sorted()[repetitions / 2], flops / peak)
  }
}

extension BenchmarkSweep {
  /// One row of the table that shows whether a sweep's time follows its bound.
  struct Scaling {
    let layers: Int
    let length: Int
    let seconds: Double
    let bound: Double
  }

  /// Sweeps of `resid_pre` over prompts of 15 to 120 tokens at the depth of `config`, and over 15
  /// tokens at up to four times that depth; the median of three runs, of one where it is long.
  static func scaling(_ config: GPT2Config, bytes: Int) throws -> [Scaling] {
    var rows: [Scaling] = []
    for (factor, lengths) in [(1, [15, 30, 60, 120]), (2, [15]), (4, [15])] {
      var deep = config
      deep.nLayers *= factor
      let model = try Checkpoint.random(deep, name: "bench", seed: 0).model()
      for length in lengths {
        let sweep = BenchmarkSweep(model: model, sites: [.residPre], length: length, bytes: bytes)
        if length == 15 { try sweep.run() }
        let (seconds, bound) = try sweep.measure(repetitions: length <= 30 ? 3 : 1)
        rows.append(Scaling(layers: deep.nLayers, length: length, seconds: seconds, bound: bound))
      }
    }
    return rows
  }
}
