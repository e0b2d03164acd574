import NormLens
import RealModule
import TestSupport
import Testing

/// Activation patching against one whole forward pass a cell.
@Suite struct ActivationPatchingTests {
  /// Sites that no named sweep has.
  static let customSites = [
    PatchSite("resid_post", of: .residPost, over: [.layer, .pos]),
    PatchSite("stream", of: .residPre, over: [.layer]),
    PatchSite("all_heads", of: .z, over: [.layer, .pos]),
    PatchSite("result", of: .result, over: [.layer, .head]),
    PatchSite("result_by_pos", of: .result, over: [.layer, .pos, .head]),
    PatchSite("scores", of: .attnScores, over: [.layer, .head]),
    PatchSite("scores_by_query", of: .attnScores, over: [.layer, .head, .queryPos]),
    PatchSite("attended", of: .pattern, over: [.layer, .head, .keyPos]),
    PatchSite("mlp_pre", of: .mlpPre, over: [.layer, .pos]),
    PatchSite("neuron", of: .mlpPost, over: [.layer, .neuron]),
    PatchSite("head_first", of: .z, over: [.layer, .head, .pos]),
  ]

  /// The cells of a sweep that are run naively: all of the random checkpoints, and of a large sweep
  /// of a trained model some fifty a prompt that lie everywhere.
  private func sample(
    _ name: String, _ model: GPT2
  ) -> (PatchSite, [Int]) -> Bool {
    { site, cell in
      let weights = [7, 13, 31, 3]
      let mixed = zip(cell, weights).reduce(0) { $0 + $1.0 * $1.1 }
      return !PatchingModels.bundled.contains(name)
        || mixed % Self.step(site, model, length: 12) == 0
    }
  }

  private static func step(_ site: PatchSite, _ model: GPT2, length: Int) -> Int {
    1 + site.shape(model.config, length: length).reduce(1, *) / 50
  }

  /// Compares one experiment with its naive self.
  private func compare(
    _ title: String, _ name: String, _ model: GPT2, _ patching: ActivationPatching,
    _ pairs: [PromptPair], into comparison: EffectComparison,
    measure: NaivePatching.Measure? = nil, noise: ((Int) throws -> [Intervention])? = nil
  ) throws {
    var naive = NaivePatching(
      measure: try #require(measure ?? NaivePatching.measure(patching.metric.name)))
    naive.direction = patching.direction
    naive.replacement = patching.replacement
    naive.window = patching.window
    naive.noise = noise
    naive.includes = sample(name, model)
    let expected = try naive.run(model, pairs, patching.sites)
    let found = try SweepValues(try patching.run(model, pairs))
    for (prompt, one) in expected.enumerated() {
      let allowed = 5e-7 * one.logit
      let clean = abs(found.cleanMetric[prompt] - one.clean)
      let corrupted = abs(found.corruptedMetric[prompt] - one.corrupted)
      // The metric itself, of whole runs: three units in the last place of its largest logit.
      #expect(max(clean, corrupted) <= 4 * allowed + 1e-6, "\(title) of \(prompt)")
      for site in patching.sites {
        let cells = try found.cells(site.name, prompt: prompt, length: pairs[prompt].length)
        var extents = site.shape(model.config, length: pairs[prompt].length)
        extents[0] -= patching.window - 1
        #expect(cells.count == extents.reduce(1, *), "\(title) \(site) of \(prompt)")
        comparison.check(
          "\(title) \(site) of \(prompt)", cells, one.effects[site.name] ?? [:], logit: one.logit,
          scale: cells.values.reduce(0) { max($0, abs($1)) })
      }
    }
  }

  @Test(arguments: PatchingModels.all, [ActivationPatching.Direction.denoising, .noising])
  func everySite(_ name: String, _ direction: ActivationPatching.Direction) throws {
    let model = try PatchingModels.load(name)
    let comparison = EffectComparison("\(name), \(direction.rawValue), every site, two lengths")
    var patching = ActivationPatching(
      of: PatchSite.all + Self.customSites, direction: direction)
    if PatchingModels.bundled.contains(name) {
      patching.sites.removeAll { [.mlpPost, .headPatternDestSrc].contains($0) }
    }
    patching.positions = .fromEnd
    try compare(
      "", name, model, patching, PatchingModels.pairs(name, model), into: comparison)
    comparison.report()
  }

  /// The large sweeps of a trained model, on the short prompt.
  @Test(arguments: PatchingModels.bundled)
  func neuronsAndPatternWeights(_ name: String) throws {
    let model = try PatchingModels.load(name)
    let comparison = EffectComparison("\(name), neurons and single weights of patterns")
    let patching = ActivationPatching(of: [.mlpPost, .headPatternDestSrc])
    try compare(
      "", name, model, patching, [PatchingModels.pair(model, 3)], into: comparison)
    comparison.report()
  }

  @Test(arguments: ["tiny-ln", "tiny-lnfree", "mini", "mini-lnfree"])
  func everyMetric(_ name: String) throws {
    let model = try PatchingModels.load(name)
    let comparison = EffectComparison("\(name), every metric, both directions")
    for direction in [ActivationPatching.Direction.denoising, .noising] {
      for metric in Metric.all {
        try compare(
          "\(direction.rawValue) \(metric.name)", name, model,
          ActivationPatching(
            of: [.residPre, .headZ, .headPattern], direction: direction, metric: metric),
          PatchingModels.equalPairs(name, model), into: comparison)
      }
    }
    comparison.report()
  }

  /// A metric of one's own: of the answers, and of the whole vocabulary.
  @Test(arguments: ["tiny-ln", "mini-lnfree"])
  func customMetrics(_ name: String) throws {
    let model = try PatchingModels.load(name)
    let pairs = try PatchingModels.equalPairs(name, model)
    let comparison = EffectComparison("\(name), metrics of one's own")
    let margin = Metric("twice", units: "logit") { 2 * $0.answer[0] + $0.wrong[0] }
    try compare(
      margin.name, name, model, ActivationPatching(of: [.attnOut, .headQ], metric: margin), pairs,
      into: comparison
    ) { x, _, A, W in 2 * x[A[0]] + x[W[0]] }
    // The logit of token 2 and the mean of all: the whole vocabulary, without answers.
    let spread = Metric("above_mean", units: "logit", over: .vocabulary, needs: .nothing) {
      let logits = $0.vocabulary?.scalars.map(Double.init) ?? []
      return logits[2] - logits.reduce(0, +) / Double(logits.count)
    }
    let bare = pairs.map { PromptPair(clean: $0.clean, corrupted: $0.corrupted) }
    try compare(
      spread.name, name, model,
      ActivationPatching(of: [.mlpOut, .headV], direction: .noising, metric: spread), bare,
      into: comparison
    ) { x, _, _, _ in x[2] - x.reduce(0, +) / Double(x.count) }
    comparison.report()
  }

  @Test(arguments: ["tiny-ln", "tiny-lnfree", "patching-deep", "mini", "mini-lnfree"])
  func everyReplacement(_ name: String) throws {
    let model = try PatchingModels.load(name)
    let pairs = try PatchingModels.equalPairs(name, model)
    let comparison = EffectComparison("\(name), zero and means, both directions")
    let references =
      pairs.map(\.clean) + [
        PatchingModels.random(model.config, length: pairs[0].length, differing: [1], seed: 9).clean
      ]
    let ragged = references + [Array(references[0].prefix(3))]
    let attention =
      PatchSite.all.filter(\.site.isAttention)
      + Self.customSites.filter {
        $0.site == .pattern
      }
    let sites = (PatchSite.all + Self.customSites).filter { $0.site != .attnScores }
    for direction in [ActivationPatching.Direction.denoising, .noising] {
      for (title, replacement) in [
        ("zero", Replacement.zero), ("mean", .mean(over: ragged)),
        ("position mean", .positionMean(over: references)),
      ] {
        var chosen = sites
        if title == "mean" { chosen.removeAll { attention.contains($0) } }
        if PatchingModels.bundled.contains(name) {
          chosen = chosen.filter {
            [.residPre, .mlpOut, .headZ, .headKByPos, .headPatternByPos].contains($0)
          }
        }
        try compare(
          "\(direction.rawValue) \(title)", name, model,
          ActivationPatching(of: chosen, direction: direction, replacement: replacement), pairs,
          into: comparison)
      }
    }
    comparison.report()
  }

  @Test(arguments: ["patching-deep", "mini", "mini-lnfree"])
  func windows(_ name: String) throws {
    let model = try PatchingModels.load(name)
    let pairs = try PatchingModels.equalPairs(name, model)
    let comparison = EffectComparison("\(name), windows of 2, 3 and 4 layers")
    for window in 2...4 {
      for (direction, replacement) in [
        (ActivationPatching.Direction.denoising, Replacement.otherRun), (.noising, .otherRun),
        (.noising, .zero),
      ] {
        var patching = ActivationPatching(
          of: [.residPre, .attnOut, .mlpOut, .headZ, .headKByPos, .headPattern],
          direction: direction, replacement: replacement)
        patching.window = window
        try compare(
          "\(window) layers \(direction.rawValue) \(replacement)", name, model, patching, pairs,
          into: comparison)
      }
    }
    comparison.report()
  }

  /// Chosen layers and positions are those of the whole sweep.
  @Test(arguments: ["tiny-ln", "mini"])
  func chosenLayersAndPositions(_ name: String) throws {
    let model = try PatchingModels.load(name)
    let pairs = try PatchingModels.equalPairs(name, model)
    let length = pairs[0].length
    let sites = [PatchSite.residPre, .headZByPos, .headPatternDestSrc, .headZ]
    let all = try SweepValues(ActivationPatching(of: sites).run(model, pairs))
    var patching = ActivationPatching(of: sites)
    patching.layers = [-1, 0]
    patching.positions = .at([.index(-1), .index(4)])
    let some = try SweepValues(try patching.run(model, pairs))
    let comparison = EffectComparison("\(name), chosen layers and positions")
    for site in sites {
      for prompt in pairs.indices {
        let whole = try all.cells(site.name, prompt: prompt, length: length)
        let found = try some.cells(site.name, prompt: prompt, length: length)
        let expected = whole.filter { cell, _ in
          zip(site.axes, cell).allSatisfy { axis, index in
            switch axis {
            case .layer: [0, model.config.nLayers - 1].contains(index)
            case .pos, .queryPos, .keyPos: [4, length - 1].contains(index)
            case .head, .neuron: true
            }
          }
        }
        #expect(found.count == expected.count, "\(site)")
        comparison.check(
          "\(site) of \(prompt)", found, expected,
          logit: Double(try model.run(pairs[prompt].clean).maximumMagnitude))
      }
    }
    comparison.report()
  }

  /// Noise on embeddings: the corrupted run is the clean prompt's, disturbed.
  @Test(arguments: ["tiny-ln", "tiny-lnfree", "mini"])
  func noise(_ name: String) throws {
    let model = try PatchingModels.load(name)
    let pairs = try PatchingModels.equalPairs(name, model)
    let comparison = EffectComparison("\(name), noise on embeddings")
    let noise = EmbeddingNoise(deviations: 2, positions: .at([.index(4), .index(2)]), seed: 7)
    let disturbances = try pairs.indices.map { try disturbance(model, noise, [2, 4], prompt: $0) }
    for direction in [ActivationPatching.Direction.denoising, .noising] {
      var patching = ActivationPatching(
        of: [.residPre, .mlpOut, .headZ, .headVByPos, .headPattern], direction: direction)
      patching.noise = noise
      try compare(
        direction.rawValue, name, model, patching, pairs, into: comparison,
        noise: { [disturbances[$0]] })
    }
    comparison.report()
    // Another seed is other noise; the same is the same.
    func corrupted(_ seed: UInt64) throws -> [Double] {
      var patching = ActivationPatching(of: .headZ)
      patching.noise = EmbeddingNoise(deviations: 2, seed: seed)
      return try SweepValues(try patching.run(model, pairs)).corruptedMetric
    }
    #expect(try corrupted(1) == corrupted(1))
    #expect(try zip(corrupted(1), corrupted(2)).allSatisfy { $0 != $1 })
    // The pairs' own corrupted prompts are not run, and the result does not name them.
    var patching = ActivationPatching(of: .residPre)
    patching.noise = noise
    let result = try patching.run(model, pairs)
    let ids = ["token_id", "corrupted_token_id"].map {
      result[group: "patch/activation", variable: $0]?.values.doubles
    }
    #expect(ids[0] != nil && ids[0] == ids[1])
  }

  /// The noise on a prompt, written out: two numbers of Box and Muller a draw, row by row.
  private func disturbance(
    _ model: GPT2, _ noise: EmbeddingNoise, _ positions: [Int], prompt: Int
  ) throws -> Intervention {
    let embedding = model.weights.W_E.scalars.map(Double.init)
    let mean = embedding.reduce(0, +) / Double(embedding.count)
    let variance =
      embedding.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(embedding.count)
    let deviation = noise.deviations * variance.squareRoot()
    var random = SeededGenerator(seed: noise.seed &+ 0x1000_0001 &* UInt64(prompt + 1))
    let count = positions.count * model.config.dModel
    let values = (0..<count / 2).flatMap { _ in
      let (u, w) = (
        Double.random(in: 0..<1, using: &random), Double.random(in: 0..<1, using: &random)
      )
      let radius = deviation * (-2 * Double.log(1 - u)).squareRoot()
      return [Float(radius * Double.cos(2 * .pi * w)), Float(radius * Double.sin(2 * .pi * w))]
    }
    return .add(
      .embed.at(.at(positions)), Tensor(values, shape: [positions.count, model.config.dModel]))
  }
}
