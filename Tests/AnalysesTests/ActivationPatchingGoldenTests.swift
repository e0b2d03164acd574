import NormLens
import TestSupport
import Testing

/// Activation patching against the float64 loop of `Tests/Golden/make_patching_golden.py`.
@Suite struct ActivationPatchingGoldenTests {
  private func replacement(
    _ name: String, _ golden: PatchingGolden
  ) throws -> Replacement {
    switch name {
    case "zero": .zero
    case "mean": .mean(over: try golden.references("ragged"))
    case "position_mean": .positionMean(over: try golden.references("seven"))
    default: .otherRun
    }
  }

  private func patching(
    _ sweep: PatchingGolden.Sweep, _ golden: PatchingGolden
  ) throws -> (ActivationPatching, [PromptPair]) {
    let sites = try sweep.sites.map { name in
      try #require(PatchSite.all.first { $0.name == name }, "no site \(name)")
    }
    let metric = try #require(
      Metric.all.first { $0.name == sweep.metric }, "no metric \(sweep.metric)")
    let direction = try #require(ActivationPatching.Direction(rawValue: sweep.direction))
    var patching = ActivationPatching(
      of: sites, direction: direction, metric: metric,
      replacement: try replacement(sweep.replacement, golden))
    patching.window = sweep.window
    return (patching, try golden.pairs(sweep.set, answers: sweep.answers))
  }

  /// A golden array by index.
  private func cells(_ array: GoldenArray) -> [[Int]: Double] {
    Dictionary(uniqueKeysWithValues: zip(NaivePatching.cells(array.shape), array.values))
  }

  private func logit(_ model: GPT2, _ pairs: [PromptPair]) throws -> Double {
    try pairs.flatMap { [$0.clean, $0.corrupted] }
      .map { Double(try model.run($0).maximumMagnitude) }.max() ?? 0
  }

  @Test(arguments: PatchingGolden.checkpoints)
  func everySweep(_ name: String) throws {
    let model = try GPT2.load(Fixtures.checkpoint(name))
    let golden = try PatchingGolden(name)
    let sweeps = try golden.sweeps()
    #expect(sweeps.count == (name == "patching-deep" ? 8 : 34))
    let effects = EffectComparison("\(name), golden effects")
    let normalized = EffectComparison("\(name), golden normalised effects")
    let metrics = Comparison("\(name), golden metrics of whole runs")
    for sweep in sweeps {
      let (patching, pairs) = try patching(sweep, golden)
      let length = pairs[0].length
      let found = try SweepValues(try patching.run(model, pairs))
      let logit = try logit(model, pairs)
      let clean = try golden.golden.array("\(sweep.path)/clean_metric").values
      let corrupted = try golden.golden.array("\(sweep.path)/corrupted_metric").values
      let gap = (clean.reduce(0, +) - corrupted.reduce(0, +)) / Double(pairs.count)
      let label = "\(sweep.set) \(sweep.direction) \(sweep.metric) \(sweep.replacement)"
      metrics.check("\(label) clean", found.cleanMetric, clean, scale: max(1, logit))
      metrics.check("\(label) corrupted", found.corruptedMetric, corrupted, scale: max(1, logit))
      for site in sweep.sites {
        let array = try golden.golden.array("\(sweep.path)/\(site)")
        for prompt in pairs.indices {
          let cells = try found.cells(site, prompt: prompt, length: length)
          #expect(cells.count == array.row(prompt).values.count)
          effects.check(
            "\(label) w \(sweep.window) \(site) of \(prompt)", cells,
            self.cells(array.row(prompt)), logit: logit, scale: array.magnitude)
        }
        let ratio = try golden.golden.array("\(sweep.path)/\(site)_normalized")
        // The error of the effects and of the gap that they are divided by.
        normalized.check(
          "\(label) w \(sweep.window) \(site)_normalized",
          try found.cells("\(site)_normalized", prompt: nil, length: length), self.cells(ratio),
          logit: logit / abs(gap) * (1 + ratio.magnitude), scale: array.magnitude / abs(gap))
      }
    }
    effects.report()
    normalized.report()
    metrics.report("metrics")
  }

  /// Pairs of several lengths in one set: positions counted from the end, and sites without a
  /// position as they are.
  @Test(arguments: PatchingGolden.checkpoints, [ActivationPatching.Direction.denoising, .noising])
  func unequalLengths(_ name: String, _ direction: ActivationPatching.Direction) throws {
    let model = try GPT2.load(Fixtures.checkpoint(name))
    let golden = try PatchingGolden(name)
    let sets = try golden.sweeps().filter {
      $0.direction == direction.rawValue && $0.metric == "logit-difference"
        && $0.replacement == "other_run" && $0.window == 1
    }
    #expect(sets.map(\.set) == ["seven", "five"])
    // Interleaved: prompts of seven and of five tokens take turns.
    var order: [(sweep: PatchingGolden.Sweep, index: Int, pair: PromptPair)] = []
    let pairs = try sets.map { try golden.pairs($0.set) }
    for index in 0..<3 {
      for (sweep, pairs) in zip(sets, pairs) where index < pairs.count {
        order.append((sweep, index, pairs[index]))
      }
    }
    var patching = ActivationPatching(of: PatchSite.all, direction: direction)
    patching.positions = .fromEnd
    let found = try SweepValues(try patching.run(model, order.map(\.pair)))
    let logit = try logit(model, order.map(\.pair))
    let effects = EffectComparison(
      "\(name), golden effects, unequal lengths, \(direction.rawValue)")
    for site in PatchSite.all.map(\.name) {
      for (prompt, item) in order.enumerated() {
        let array = try golden.golden.array("\(item.sweep.path)/\(site)")
        let cells = try found.cells(site, prompt: prompt, length: item.pair.length)
        #expect(cells.count == array.row(item.index).values.count, "\(site) of \(prompt)")
        effects.check(
          "\(site) of \(prompt)", cells, self.cells(array.row(item.index)), logit: logit,
          scale: array.magnitude)
      }
    }
    effects.report()

    // Without a position axis the normalised mean is over all five.
    let heads = EffectComparison("\(name), golden normalised heads, unequal lengths")
    func mean(_ variable: String) throws -> [Double] {
      let arrays = try order.map {
        try golden.golden.array("\($0.sweep.path)/\(variable)").row($0.index).values
      }
      return arrays[0].indices.map { i in
        arrays.reduce(0) { $0 + $1[i] } / Double(arrays.count)
      }
    }
    let gap = try mean("clean_metric")[0] - mean("corrupted_metric")[0]
    for site in PatchSite.heads.map(\.name) {
      let ratios = try mean(site).map { $0 / gap }
      let shape = [model.config.nLayers, model.config.nHeads]
      let effect = ratios.reduce(0) { max($0, abs($1)) }
      heads.check(
        site, try found.cells("\(site)_normalized", prompt: nil, length: 0),
        self.cells(GoldenArray(ratios, shape: shape)), logit: logit / abs(gap) * (1 + effect))
    }
    heads.report()
  }
}
