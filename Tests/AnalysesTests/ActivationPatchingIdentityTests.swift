import NormLens
import TestSupport
import Testing

/// What must hold of activation patching whatever the model is.
@Suite struct ActivationPatchingIdentityTests {
  typealias Direction = ActivationPatching.Direction

  /// The named sites; of the trained models those that are not large.
  private func sites(_ name: String) -> [PatchSite] {
    let large = [PatchSite.mlpPost, .headPatternDestSrc]
    return PatchSite.all.filter { !PatchingModels.bundled.contains(name) || !large.contains($0) }
  }

  private func logit(_ model: GPT2, _ pair: PromptPair) throws -> Double {
    max(
      Double(try model.run(pair.clean).maximumMagnitude),
      Double(try model.run(pair.corrupted).maximumMagnitude))
  }

  /// A run patched with its own activations is that run: every effect is 0, and both metrics are the
  /// same number.
  @Test(arguments: PatchingModels.all)
  func ownValuesChangeNothing(_ name: String) throws {
    let model = try PatchingModels.load(name)
    let pairs = try PatchingModels.pairs(name, model).flatMap { pair in
      [pair.clean, pair.corrupted].map {
        PromptPair(clean: $0, corrupted: $0, answer: pair.answer, wrong: pair.wrong)
      }
    }
    for metric in [Metric.logitDifference, .kl] {
      for direction in [Direction.denoising, .noising] {
        var patching = ActivationPatching(
          of: sites(name) + ActivationPatchingTests.customSites, direction: direction,
          metric: metric)
        patching.positions = .fromEnd
        let found = try SweepValues(try patching.run(model, pairs))
        #expect(found.cleanMetric == found.corruptedMetric)
        if metric.name == "kl" { #expect(found.cleanMetric.allSatisfy { $0 < 1e-12 }) }
        for site in patching.sites {
          let values = try found[site.name]
          #expect(values.contains(0) && values.allSatisfy { $0 == 0 || $0.isNaN }, "\(site)")
          #expect(try found["\(site.name)_normalized"].allSatisfy(\.isNaN), "\(site): 0/0")
        }
      }
    }
  }

  /// A set of identical and different pairs: the identical ones stay exactly 0 beside the others.
  @Test func ownValuesAmongOthers() throws {
    let model = try PatchingModels.load("mini")
    var pairs = try PatchingModels.equalPairs("mini", model)
    pairs[1].corrupted = pairs[1].clean
    let found = try SweepValues(ActivationPatching(of: PatchSite.blocks).run(model, pairs))
    for site in PatchSite.blocks {
      for prompt in pairs.indices {
        let cells = try found.cells(site.name, prompt: prompt, length: pairs[0].length)
        #expect(cells.values.allSatisfy { $0 == 0 } == (prompt == 1))
      }
    }
  }

  /// Before the first token that differs nothing differs.
  @Test(arguments: PatchingModels.all, [Direction.denoising, .noising])
  func nothingBeforeTheFirstDifference(_ name: String, _ direction: Direction) throws {
    let model = try PatchingModels.load(name)
    let pairs = try PatchingModels.pairs(name, model)
    for window in [1, 2] where window <= model.config.nLayers {
      var patching = ActivationPatching(
        of: sites(name) + ActivationPatchingTests.customSites, direction: direction)
      patching.positions = .fromEnd
      patching.window = window
      let found = try SweepValues(try patching.run(model, pairs))
      var (zeros, others) = (0, 0)
      for site in patching.sites {
        for (prompt, pair) in pairs.enumerated() {
          for (cell, effect) in try found.cells(site.name, prompt: prompt, length: pair.length) {
            if mustBeZero(site, cell, pair) {
              zeros += 1
              #expect(effect == 0, "\(site) \(cell) of \(prompt)")
            } else if effect != 0 {
              others += 1
            }
          }
        }
      }
      #expect(zeros > 0 && others > 0)
    }
  }

  /// The whole stream replaced is the other run, at every layer.
  @Test(arguments: PatchingModels.all, [Direction.denoising, .noising])
  func theWholeStreamIsTheOtherRun(_ name: String, _ direction: Direction) throws {
    let model = try PatchingModels.load(name)
    let pairs = try PatchingModels.pairs(name, model)
    let site = PatchSite("stream", of: .residPre, over: [.layer])
    let comparison = EffectComparison("\(name), \(direction.rawValue): the whole stream")
    for metric in Metric.all {
      let found = try SweepValues(
        ActivationPatching(of: site, direction: direction, metric: metric).run(model, pairs))
      for (prompt, pair) in pairs.enumerated() {
        let gap = found.cleanMetric[prompt] - found.corruptedMetric[prompt]
        let effect = direction == .denoising ? gap : -gap
        let cells = try found.cells(site.name, prompt: prompt, length: pair.length)
        comparison.check(
          "\(metric.name) of \(prompt)", cells, cells.mapValues { _ in effect },
          logit: try logit(model, pair))
      }
    }
    comparison.report()
  }

  /// A block's output is the next block's input.
  @Test(arguments: ["tiny-ln", "tiny-lnfree", "patching-deep", "mini", "mini-lnfree"])
  func residPostIsTheNextResidPre(_ name: String) throws {
    let model = try PatchingModels.load(name)
    let pairs = try PatchingModels.equalPairs(name, model)
    let post = PatchSite("resid_post", of: .residPost, over: [.layer, .pos])
    let comparison = EffectComparison("\(name): resid_post and the next resid_pre")
    let found = try SweepValues(ActivationPatching(of: [post, .residPre]).run(model, pairs))
    for (prompt, pair) in pairs.enumerated() {
      let after = try found.cells(post.name, prompt: prompt, length: pair.length)
      let next = try found.cells("resid_pre", prompt: prompt, length: pair.length)
      let shifted = Dictionary(
        uniqueKeysWithValues: next.filter { $0.key[0] > 0 }.map {
          ([$0.key[0] - 1, $0.key[1]], $0.value)
        })
      comparison.check("\(prompt)", after, shifted, logit: try logit(model, pair))
    }
    comparison.report()
  }

  /// What a head writes is linear in its z.
  @Test(arguments: PatchingModels.all, [Direction.denoising, .noising])
  func zIsResult(_ name: String, _ direction: Direction) throws {
    let model = try PatchingModels.load(name)
    let pairs = try PatchingModels.pairs(name, model)
    let result = PatchSite("result", of: .result, over: [.layer, .head])
    let byPos = PatchSite("result_by_pos", of: .result, over: [.layer, .pos, .head])
    var patching = ActivationPatching(
      of: [.headZ, result, .headZByPos, byPos], direction: direction)
    patching.positions = .fromEnd
    let found = try SweepValues(try patching.run(model, pairs))
    let comparison = EffectComparison("\(name), \(direction.rawValue): z and result")
    for (prompt, pair) in pairs.enumerated() {
      for (z, other) in [("head_z", result), ("head_z_by_pos", byPos)] {
        comparison.check(
          "\(z) of \(prompt)", try found.cells(z, prompt: prompt, length: pair.length),
          try found.cells(other.name, prompt: prompt, length: pair.length),
          logit: try logit(model, pair))
      }
    }
    comparison.report()
  }

  /// Where only S2 differs, its stream at layer 0 is everything: 1 restored, −1 destroyed.
  @Test(arguments: PatchingModels.bundled)
  func onlyS2Differs(_ name: String) throws {
    let model = try PatchingModels.load(name)
    let pairs = try PatchingModels.equalPairs(name, model)
    let S2 = try #require(
      pairs[0].clean.indices.first { pairs[0].clean[$0] != pairs[0].corrupted[$0] })
    for (direction, whole) in [(Direction.denoising, 1.0), (.noising, -1.0)] {
      let found = try SweepValues(
        ActivationPatching(of: .residPre, direction: direction).run(model, pairs))
      #expect(found.cleanMetric.allSatisfy { $0 > 1 })
      #expect(found.corruptedMetric.allSatisfy { $0 < -1 })
      let cells = try found.cells("resid_pre_normalized", prompt: nil, length: pairs[0].length)
      for position in 0..<pairs[0].length {
        let value = try #require(cells[[0, position]])
        if position == S2 {
          print("\(name), \(direction.rawValue): S2 at layer 0 is \(value)")
          #expect(abs(value - whole) < 1e-5)
        } else {
          // The other tokens' embeddings are the same in both runs.
          #expect(value == 0)
        }
      }
      // At the end everything has come to the last position.
      let last = try #require(cells[[model.config.nLayers - 1, pairs[0].length - 1]])
      #expect(abs(last) > 0.2 && last * whole > 0)
    }
  }

  /// Denoising and noising of the exchanged pair are one computation.
  @Test(arguments: ["tiny-ln", "mini-lnfree"])
  func exchangedPairs(_ name: String) throws {
    let model = try PatchingModels.load(name)
    let pairs = try PatchingModels.equalPairs(name, model)
    let exchanged = pairs.map { pair in
      PromptPair(
        clean: pair.corrupted, corrupted: pair.clean, answer: pair.answer, wrong: pair.wrong)
    }
    let sites = PatchSite.blocks + PatchSite.heads
    let one = try SweepValues(ActivationPatching(of: sites).run(model, pairs))
    let other = try SweepValues(
      ActivationPatching(of: sites, direction: .noising).run(model, exchanged))
    let comparison = EffectComparison("\(name): exchanged runs")
    for site in sites {
      for (prompt, pair) in pairs.enumerated() {
        comparison.check(
          "\(site) of \(prompt)",
          try one.cells(site.name, prompt: prompt, length: pair.length),
          try other.cells(site.name, prompt: prompt, length: pair.length),
          logit: try logit(model, pair))
      }
    }
    comparison.report()
  }

  /// A window of one layer is none, and a window of all streams at the last position, behind which
  /// nothing lies, is its last layer's.
  @Test(arguments: ["tiny-ln", "patching-deep", "mini"])
  func windows(_ name: String) throws {
    let model = try PatchingModels.load(name)
    let pairs = try PatchingModels.equalPairs(name, model)
    let plain = ActivationPatching(of: sites(name))
    var window = plain
    window.window = 1
    let (a, b) = (try plain.run(model, pairs), try window.run(model, pairs))
    for site in plain.sites {
      #expect(
        try a.doubles("patch/activation", site.name) == b.doubles("patch/activation", site.name))
    }
    window = ActivationPatching(of: PatchSite("stream", of: .residPre, over: [.layer, .pos]))
    window.window = model.config.nLayers
    let found = try SweepValues(try window.run(model, pairs))
    let single = try SweepValues(b)
    let comparison = EffectComparison("\(name): a window of all streams is the last one")
    for (prompt, pair) in pairs.enumerated() {
      let cells = try found.cells("stream", prompt: prompt, length: pair.length)
      #expect(cells.count == pair.length)
      let alone = try single.cells("resid_pre", prompt: prompt, length: pair.length)
      let last = alone[[model.config.nLayers - 1, pair.length - 1]]
      comparison.check(
        "\(prompt)", cells, [[0, pair.length - 1]: try #require(last)],
        logit: try logit(model, pair), scale: alone.values.reduce(0) { max($0, abs($1)) })
    }
    comparison.report()
  }

  /// Prompts in another order give the same effects in that order, and the same means.
  @Test(arguments: ["tiny-ln", "mini"])
  func orderOfPrompts(_ name: String) throws {
    let model = try PatchingModels.load(name)
    let pairs = try PatchingModels.equalPairs(name, model)
    let order = [2, 0, 1]
    let sites = sites(name)
    let one = try SweepValues(ActivationPatching(of: sites).run(model, pairs))
    let other = try SweepValues(
      ActivationPatching(of: sites).run(model, order.map { pairs[$0] }))
    let comparison = EffectComparison("\(name): prompts in another order")
    for site in sites {
      for (new, old) in order.enumerated() {
        let logit = try logit(model, pairs[old])
        comparison.check(
          "\(site) of \(old)", try other.cells(site.name, prompt: new, length: pairs[old].length),
          try one.cells(site.name, prompt: old, length: pairs[old].length), logit: logit)
      }
      let (a, b) = (try one["\(site.name)_normalized"], try other["\(site.name)_normalized"])
      #expect(zip(a, b).allSatisfy { abs($0 - $1) <= 1e-4 }, "\(site)")
      let (c, d) = (try one["\(site.name)_stderr"], try other["\(site.name)_stderr"])
      #expect(zip(c, d).allSatisfy { abs($0 - $1) <= 1e-4 }, "\(site)")
    }
    comparison.report()
  }

  /// Whether a cell lies before the first token that differs, or at a key that its query cannot see.
  private func mustBeZero(_ site: PatchSite, _ cell: [Int], _ pair: PromptPair) -> Bool {
    let place = Dictionary(uniqueKeysWithValues: zip(site.axes, cell))
    let position = place[.pos] ?? place[.queryPos]
    if let query = place[.queryPos], let key = place[.keyPos], key > query { return true }
    let first = zip(pair.clean, pair.corrupted).enumerated().first { $1.0 != $1.1 }?.offset
    return position.map { $0 < first ?? pair.length } ?? false
  }

  /// Batches of a few cells, and one thread or two: the same effects within rounding and the same
  /// exact zeros.
  @Test(arguments: ["tiny-ln", "mini"])
  func batchesAndThreads(_ name: String) throws {
    let model = try PatchingModels.load(name)
    let pairs = try PatchingModels.pairs(name, model)
    var patching = ActivationPatching(of: sites(name))
    patching.positions = .fromEnd
    var batches = 0
    let whole = try SweepValues(try patching.run(model, pairs) { _ in batches += 1 })
    let threads = Threads.count
    defer { Threads.count = threads }
    for (title, bytes, count) in [
      ("small batches", 200_000, threads), ("one thread", nil, 1), ("two threads", nil, 2),
    ] {
      var other = patching
      if let bytes { other.bytes = bytes }
      Threads.count = count
      var parts = 0
      var last = 0.0
      let found = try SweepValues(
        try other.run(model, pairs) { progress in
          parts += 1
          #expect(progress.fraction >= last && progress.fraction <= 1)
          last = progress.fraction
        })
      #expect(last == 1)
      if bytes != nil { #expect(parts > 10 * batches, "\(parts) batches, \(batches) before") }
      let comparison = EffectComparison("\(name), \(title), \(parts) batches")
      for site in patching.sites {
        for (prompt, pair) in pairs.enumerated() {
          let expected = try whole.cells(site.name, prompt: prompt, length: pair.length)
          let cells = try found.cells(site.name, prompt: prompt, length: pair.length)
          for (cell, effect) in cells where mustBeZero(site, cell, pair) {
            #expect(effect == 0 && expected[cell] == 0, "\(site) \(cell) of \(prompt)")
          }
          comparison.check(
            "\(site) of \(prompt)", cells, expected, logit: try logit(model, pair))
        }
      }
      comparison.report()
    }
  }

  /// What an interrupted sweep left is taken up to the last bit, and only by the same sweep.
  @Test func resuming() throws {
    struct Stop: Error {}
    let model = try PatchingModels.load("tiny-ln")
    func pairs(label: Int) throws -> [PromptPair] {
      try PatchingModels.equalPairs("tiny-ln", model).map { pair in
        var pair = pair
        pair.positions = ["X": label]
        return pair
      }
    }
    func sweep(_ factor: Double) -> ActivationPatching {
      var patching = ActivationPatching(
        of: [.residPre, .headZ],
        metric: Metric("margin", units: "logit") { factor * ($0.answer[0] - $0.wrong[0]) })
      patching.noise = EmbeddingNoise(positions: .labels)
      patching.bytes = 200_000
      return patching
    }
    let same = try pairs(label: 2)
    var left: ResultSet?
    #expect(throws: Stop.self) {
      try sweep(1).run(model, same) { progress in
        left = progress.partial()
        throw Stop()
      }
    }
    let partial = try #require(left)
    let whole = try sweep(1).run(model, same)
    var known: [Double] = []
    let resumed = try sweep(1).run(model, same, resuming: partial) {
      known.append($0.resumed.fraction)
      #expect($0.resumed.cells <= $0.cells.done && $0.resumed.fraction <= $0.fraction)
    }
    #expect(known.first == known.last && (0.01..<1).contains(known[0]))
    for site in ["resid_pre", "head_z"] {
      let (found, expected) = (
        try resumed.doubles("patch/activation", site), try whole.doubles("patch/activation", site)
      )
      #expect(found == expected && expected.contains { $0 != 0 }, "\(site)")
    }
    func refused(_ text: String, _ body: () throws -> Void) {
      #expect(performing: body, throws: { "\($0)".contains(text) && !"\($0)".contains("\n") })
    }
    refused("another sweep: metric of the clean prompt 0") {
      _ = try sweep(2).run(model, same, resuming: partial)
    }
    let other = try pairs(label: 3)
    refused("another sweep: noise") { _ = try sweep(1).run(model, other, resuming: partial) }
    refused("an unfinished sweep") { _ = try sweep(1).run(model, same, resuming: whole) }
  }

  /// With noise both runs are of the clean tokens, and the result says so.
  @Test func tokensOfNoisedRuns() throws {
    let model = try PatchingModels.load("tiny-ln")
    let pairs = try PatchingModels.equalPairs("tiny-ln", model)
    var patching = ActivationPatching(of: .residPre)
    patching.noise = EmbeddingNoise()
    let result = try patching.run(model, pairs)
    #expect(
      try result.doubles("patch/activation", "corrupted_token_id")
        == result.doubles("patch/activation", "token_id"))
  }

  /// The interval lies around the mean, is the same for the same seed and nearly so for another, and
  /// is about 1.96 standard errors wide to either side.
  @Test func bootstrap() throws {
    let model = try PatchingModels.load("tiny-ln")
    let pairs = (0..<24).map {
      PatchingModels.random(model.config, length: 6, differing: [2, 4], seed: 100 + UInt64($0))
    }
    func run(_ seed: UInt64) throws -> SweepValues {
      var patching = ActivationPatching(of: [.residPre, .headZ], metric: .kl)
      patching.seed = seed
      return try SweepValues(try patching.run(model, pairs))
    }
    let (found, again, other) = (try run(1), try run(1), try run(2))
    for site in ["resid_pre", "head_z"] {
      let names = ["_normalized", "_stderr", "_ci_low", "_ci_high"]
      let values = try names.map { try found[site + $0] }
      #expect(try values == names.map { try again[site + $0] })
      #expect(try values[0] == other["\(site)_normalized"])
      #expect(try values[2] != other["\(site)_ci_low"])
      let effects = try found[site]
      let cells = values[0].count
      let gaps = zip(found.cleanMetric, found.corruptedMetric).map { $0 - $1 }
      let gap = gaps.reduce(0, +) / Double(pairs.count)
      for cell in 0..<cells {
        let own = pairs.indices.map { effects[$0 * cells + cell] }
        let mean = own.reduce(0, +) / Double(pairs.count)
        let squares = own.reduce(0) { $0 + ($1 - mean) * ($1 - mean) }
        let deviation = (squares / Double(pairs.count - 1)).squareRoot()
        let stderr = deviation / Double(pairs.count).squareRoot() / abs(gap)
        #expect(abs(values[0][cell] - mean / gap) <= 1e-5 * max(1, abs(mean / gap)))
        #expect(abs(values[1][cell] - stderr) <= 1e-5 * max(1, stderr))
        #expect(values[2][cell] <= values[0][cell] && values[0][cell] <= values[3][cell])
        // Zeros all the way where every effect is 0.
        if own.allSatisfy({ $0 == 0 }) {
          #expect(values[2][cell] == 0 && values[3][cell] == 0 && values[1][cell] == 0)
        }
      }
    }
    // Constant ratios have no spread: the whole stream restored is always everything.
    var stream = ActivationPatching(of: PatchSite("stream", of: .residPre, over: [.layer]))
    stream.metric = .kl
    let whole = try SweepValues(try stream.run(model, pairs))
    for name in ["stream_normalized", "stream_ci_low", "stream_ci_high"] {
      #expect(try whole[name].allSatisfy { abs($0 - 1) < 1e-4 }, "\(name)")
    }
  }

  /// The interval written out: the same draws, the ratios of all samples that have one.
  @Test(arguments: [false, true])
  func bootstrapWrittenOut(_ hasPairWithoutGap: Bool) throws {
    let model = try PatchingModels.load("tiny-ln")
    var pairs = (0..<3).map {
      PatchingModels.random(model.config, length: 6, differing: [2, 4], seed: 40 + UInt64($0))
    }
    if hasPairWithoutGap { pairs[1].corrupted = pairs[1].clean }
    var patching = ActivationPatching(of: .headZ, direction: .noising, replacement: .zero)
    patching.seed = 11
    let found = try SweepValues(try patching.run(model, pairs))
    var random = SeededGenerator(seed: 11)
    let samples = (0..<1000).map { _ in
      pairs.indices.map { _ in Int.random(in: 0..<pairs.count, using: &random) }
    }
    let gaps = zip(found.cleanMetric, found.corruptedMetric).map { $0 - $1 }
    let effects = try found["head_z"]
    let (low, high) = (try found["head_z_ci_low"], try found["head_z_ci_high"])
    for cell in low.indices {
      let ratios = samples.compactMap { sample -> Double? in
        let gap = sample.reduce(0) { $0 + gaps[$1] }
        if gap == 0 { return nil }
        return sample.reduce(0) { $0 + effects[$1 * low.count + cell] } / gap
      }.sorted()
      #expect((ratios.count < 1000) == hasPairWithoutGap)
      for (value, share) in [(low[cell], 0.025), (high[cell], 0.975)] {
        let place = share * Double(ratios.count - 1)
        let (below, above) = (ratios[Int(place)], ratios[min(Int(place) + 1, ratios.count - 1)])
        let expected = below + (place - place.rounded(.down)) * (above - below)
        #expect(abs(value - expected) <= 1e-5 * max(1, abs(expected)), "\(cell): \(share)")
      }
    }
  }

  /// A single pair has no spread to speak of.
  @Test func onePairHasNoInterval() throws {
    let model = try PatchingModels.load("tiny-ln")
    let pair = PatchingModels.random(model.config, length: 6, differing: [2], seed: 1)
    let result = try ActivationPatching(of: .headZ).run(model, [pair])
    let group = try result.group("patch/activation")
    #expect(group[variable: "head_z_normalized"] != nil)
    for suffix in ["_stderr", "_ci_low", "_ci_high"] {
      #expect(group[variable: "head_z\(suffix)"] == nil)
    }
  }
}
