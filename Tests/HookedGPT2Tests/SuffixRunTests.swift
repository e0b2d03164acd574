import Foundation
import NormLens
import TestSupport
import Testing

/// Resumed runs against one whole forward pass for each.
@Suite struct SuffixRunTests {
  /// What design and float32 allow: effects agree to 3e-4 of the largest effect and 5e-7 of the
  /// largest logit.
  private func check(
    _ name: String, _ model: GPT2, bases: [[Int]], _ runs: [PatchedRun]
  ) throws {
    let baseRuns = try bases.map { try BaseRun(model, tokens: $0) }
    let found = try SuffixRuns(model, bases: baseRuns).logits(runs, tokens: nil)
    var (effect, error, logit) = (0.0, 0.0, 0.0)
    var worst = ""
    for (run, (logits, _)) in zip(runs, found) {
      let tokens = bases[run.base]
      let whole = try model.run(tokens, interventions: run.interventions)
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

  @Test(arguments: Fixtures.checkpoints + ["mini", "mini-lnfree"])
  func everySiteEqualsWholeRuns(_ name: String) throws {
    let model = try GPT2.load(
      name.hasPrefix("mini") ? Fixtures.bundled(name) : Fixtures.checkpoint(name))
    let config = model.config
    var random = SeededGenerator(seed: 17)
    let lengths = [min(9, config.nCtx), min(4, config.nCtx)]
    let bases = lengths.map { count in
      (0..<count).map { _ in Int(random.next() % UInt64(config.dVocab)) }
    }
    var runs: [PatchedRun] = []
    for (base, tokens) in bases.enumerated() {
      for site in Self.sites {
        for layer in 0..<config.nLayers {
          let hasHead = site.isAttention || site.hasHeadAxis
          for head in hasHead ? [nil, config.nHeads - 1] : [nil] {
            for positions: PositionSelection in [.all, .at([tokens.count / 2]), .last] {
              let target = HookFilter(
                site, layers: .layer(layer), head: head, positions: positions)
              let whole = try model.runWithCache(
                tokens, hooks: [HookFilter(site, layers: .layer(layer))]
              ).cache.tensor(HookName(site, layer: layer)).shape
              runs.append(PatchedRun(base: base, [.zero(target)]))
              runs.append(PatchedRun(base: base, [.replace(target, with: value(whole, &random))]))
              if site != .attnScores { runs.append(PatchedRun(base: base, [.mean(target)])) }
              runs.append(
                PatchedRun(
                  base: base, [.edit(target) { x in x = x * 1.5 }]))
            }
          }
        }
      }
    }
    try check(name, model, bases: bases, runs)
  }

  @Test(arguments: ["tiny-ln", "tiny-lnfree", "mini"])
  func severalInterventionsAtOnce(_ name: String) throws {
    let model = try GPT2.load(
      name.hasPrefix("mini") ? Fixtures.bundled(name) : Fixtures.checkpoint(name))
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
}
