import Foundation
import NormLens
import TestSupport
import Testing

/// Resumed runs against one whole forward pass for each.
@Suite struct SuffixRunTests {
  /// What design and float32 allow: effects agree to 3e-4 of the largest effect and 5e-7 of the
  /// largest logit.
  private func check(
    _ name: String, _ model: GPT2, bases: [[Int]], _ runs: [PatchedRun],
    freezing frozen: Set<FrozenStep> = []
  ) throws {
    let baseRuns = try bases.map { try BaseRun(model, tokens: $0) }
    let found = try SuffixRuns(model, bases: baseRuns, freezing: frozen).logits(runs, tokens: nil)
    let freezes = try bases.map { tokens in
      let sites: [Site] = [.ln1Scale, .ln2Scale, .lnFinalScale, .pattern]
      let (_, cache) = try model.runWithCache(tokens, hooks: sites.map { HookFilter($0) })
      return (frozen.contains(.layerNorm) ? try Intervention.freezeLayerNorm(cache) : [])
        + (frozen.contains(.pattern) ? try Intervention.freezePattern(cache) : [])
    }
    var (effect, error, logit) = (0.0, 0.0, 0.0)
    var worst = ""
    for (run, (logits, _)) in zip(runs, found) {
      let tokens = bases[run.base]
      let whole = try model.run(tokens, interventions: freezes[run.base] + run.interventions)
      let naive = whole.row(tokens.count - 1)
      let base = baseRuns[run.base].logits
      effect = max(effect, Double((naive - base).maximumMagnitude))
      logit = max(logit, Double(naive.maximumMagnitude))
      let difference = Double((naive - logits).maximumMagnitude)
      if difference > error {
        error = difference
        worst = run.interventions.map { "\($0)" }.joined(separator: " + ").prefix(300) + ""
      }
    }
    print(
      "\(name): \(runs.count) runs, largest effect \(fixed(effect, 3)), "
        + "largest error \(error) at \(worst)")
    #expect(error <= 3e-4 * effect + 5e-7 * logit, "\(name): \(error) at \(worst)")
  }

  private static let sites = SuffixRuns.sites.sorted { $0.rawValue < $1.rawValue }

  private func value(_ shape: [Int], _ random: inout SeededGenerator) -> Tensor {
    Tensor(
      (0..<shape.reduce(1, *)).map { _ in
        Float(Int32(truncatingIfNeeded: random.next())) / Float(Int32.max)
      }, shape: shape)
  }

  @Test(
    arguments: Fixtures.checkpoints + ["mini", "mini-lnfree"] + CompressedForm.all.map(\.name))
  func everySiteEqualsWholeRuns(_ name: String) throws {
    let model = try load(name)
    let (bases, groups) = try everySite(model)
    try check(name, model, bases: bases, groups.flatMap(\.self))
    // Alone, nothing else has changed the rows that an edit meets.
    for (index, runs) in groups.enumerated() {
      try check("\(name), group \(index) alone", model, bases: bases, runs)
    }
  }

  /// Norms and patterns that stay the base run's, against whole runs that put them in place.
  @Test(
    arguments: ["tiny-ln", "tiny-lnfree", "mini"] + CompressedForm.all.map(\.name),
    [[.layerNorm], [.pattern], [.layerNorm, .pattern]] as [Set<FrozenStep>])
  func frozenStepsEqualWholeRuns(_ name: String, frozen: Set<FrozenStep>) throws {
    let model = try load(name)
    let (bases, groups) = try everySite(model)
    let steps = frozen.map { "\($0)" }.sorted().joined(separator: " and ")
    try check(
      "\(name), \(steps) frozen", model, bases: bases, groups.flatMap(\.self), freezing: frozen)
  }

  private func load(_ name: String) throws -> GPT2 {
    if let form = CompressedForm.all.first(where: { $0.name == name }) { return try form.load() }
    return try GPT2.load(
      name.hasPrefix("mini") ? Fixtures.bundled(name) : Fixtures.checkpoint(name))
  }

  /// Two prompts, and of each zeros, means, other values and a closure at every site, layer, some
  /// heads and some positions, in groups of one site and layer.
  private func everySite(_ model: GPT2) throws -> (bases: [[Int]], groups: [[PatchedRun]]) {
    let config = model.config
    var random = SeededGenerator(seed: 17)
    let lengths = [min(9, config.nCtx), min(4, config.nCtx)]
    let bases = lengths.map { count in
      (0..<count).map { _ in Int(random.next() % UInt64(config.dVocab)) }
    }
    var groups: [[PatchedRun]] = []
    for site in Self.sites {
      for layer in 0..<config.nLayers {
        var runs: [PatchedRun] = []
        for (base, tokens) in bases.enumerated() {
          let whole = try model.runWithCache(
            tokens, hooks: [HookFilter(site, layers: .layer(layer))]
          ).cache.tensor(HookName(site, layer: layer)).shape
          let hasHead = site.isAttention || site.hasHeadAxis
          for head in hasHead ? [nil, config.nHeads - 1] : [nil] {
            for positions: PositionSelection in [.all, .at([tokens.count / 2]), .last] {
              let target = HookFilter(
                site, layers: .layer(layer), head: head, positions: positions)
              runs.append(PatchedRun(base: base, [.zero(target)]))
              runs.append(PatchedRun(base: base, [.replace(target, with: value(whole, &random))]))
              if site != .attnScores { runs.append(PatchedRun(base: base, [.mean(target)])) }
              runs.append(PatchedRun(base: base, [.edit(target) { x in x = x * 1.5 }]))
            }
          }
        }
        groups.append(runs)
      }
    }
    return (bases, groups)
  }

  @Test(arguments: ["tiny-ln", "tiny-lnfree", "mini"])
  func severalInterventionsAtOnce(_ name: String) throws {
    let model = try load(name)
    let config = model.config
    var random = SeededGenerator(seed: 5)
    let tokens = (0..<min(10, config.nCtx)).map { _ in
      Int(random.next() % UInt64(config.dVocab))
    }
    func draw(_ count: Int) -> Int { Int(random.next() % UInt64(count)) }
    let runs = (0..<200).map { _ in
      PatchedRun(
        base: 0,
        (0..<1 + draw(4)).map { _ in
          let site = Self.sites[draw(Self.sites.count)]
          let positions: PositionSelection = draw(3) == 0 ? .all : .at([draw(tokens.count)])
          let hasHead = site.isAttention || site.hasHeadAxis
          let target = HookFilter(
            site, layers: draw(4) == 0 ? .all : .layer(draw(config.nLayers)),
            head: hasHead && draw(2) == 0 ? draw(config.nHeads) : nil, positions: positions)
          switch draw(3) {
          case 0: return site == .attnScores ? .edit(target) { $0 = $0 * 0.5 } : .zero(target)
          case 1: return site == .attnScores ? .edit(target) { $0 = $0 * 0.7 } : .mean(target)
          default: return .edit(target) { $0 = $0 * 0.9 }
          }
        })
    }
    try check("\(name), several", model, bases: [tokens], runs)
  }

  /// Patches of positions before the first token that differs, and of a run's own values, change
  /// exactly nothing; a patch of every position gives the donor's logits.
  @Test(arguments: ["tiny-ln", "tiny-lnfree", "mini", "mini-lnfree"])
  func whatChangesNothingIsNotRun(_ name: String) throws {
    let model = try load(name)
    let config = model.config
    let length = min(12, config.nCtx)
    let corrupted = (0..<length).map { ($0 * 7 + 3) % config.dVocab }
    var clean = corrupted
    clean[5] = (clean[5] + 1) % config.dVocab
    let base = try BaseRun(model, tokens: corrupted)
    var donor = try BaseRun(model, tokens: clean)
    try donor.sharePrefix(of: base)
    var runs: [PatchedRun] = []
    var isSame: [Bool] = []
    for site in [Site.residPre, .attnOut, .mlpOut, .z, .k, .v, .q, .residPost] {
      for layer in 0..<config.nLayers {
        for position in 0..<length {
          let target = HookFilter(site, layers: .layer(layer), positions: .at([position]))
          for (run, same) in [(donor, position < 5), (base, true)] {
            let value = try run.cache.tensor(site, layer: layer)
            runs.append(PatchedRun(base: 0, [.replace(target, with: value)]))
            isSame.append(same)
          }
        }
      }
    }
    let engine = SuffixRuns(model, bases: [base])
    for (index, (logits, differs)) in try engine.logits(runs, tokens: nil).enumerated()
    where isSame[index] {
      #expect(!differs && logits.scalars == base.logits.scalars)
    }
    var largest: Float = 0
    for layer in 0..<config.nLayers {
      let whole = try engine.logits(
        [
          PatchedRun(
            base: 0,
            [
              .replace(
                .residPre(.layer(layer)), with: try donor.cache.tensor(.residPre, layer: layer))
            ])
        ], tokens: nil)[0]
      largest = max(largest, (whole.logits - donor.logits).maximumMagnitude)
    }
    print("\(name): the whole stream replaced gives the donor's logits within \(largest)")
    #expect(largest <= 1e-6 * donor.logits.maximumMagnitude + 1e-5)
  }

  @Test func batchesHoldEveryRunOnceWithinTheirMemory() throws {
    let model = try GPT2.load(Fixtures.bundled("mini"))
    let config = model.config
    let base = try BaseRun(model, tokens: Array(1...10))
    let engine = SuffixRuns(model, bases: [base])
    let runs = (0..<config.nLayers).reversed().flatMap { layer in
      (0..<10).map { position in
        PatchedRun(
          base: 0,
          [.zero(HookFilter(.residPre, layers: .layer(layer), positions: .at([position])))])
      }
    }
    let bytes = 400_000
    let batches = try engine.batches(runs, bytes: bytes)
    #expect(batches.count > 1 && batches.flatMap(\.self).sorted() == Array(runs.indices))
    for batch in batches {
      let used = try batch.map { try engine.cost(runs[$0]).bytes }.reduce(0, +)
      #expect(used <= bytes || batch.count == 1)
    }
    let whole = try engine.logits(runs, tokens: [[3, 4]])
    for batch in batches {
      for (index, part) in zip(
        batch, try engine.logits(batch.map { runs[$0] }, tokens: [[3, 4]]))
      {
        #expect((part.logits - whole[index].logits).maximumMagnitude <= 1e-5)
      }
    }
    let cost = try engine.cost(runs[0])
    #expect(cost.layer == config.nLayers - 1 && cost.position == 0 && cost.blockTokens == 10)
  }
}
