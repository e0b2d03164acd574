import Foundation
import NormLens
import TestSupport
import Testing

/// Selectability of the bundled models' keys: what must hold whatever the values are, and its cost.
@Suite struct SelectabilityTests {
  private func run(
    _ model: GPT2, _ tokens: [[Int]], keys: Int? = 32, perKey: Bool = false, seed: UInt64 = 0,
    batch: Int = 4
  ) throws -> [String: ResultGroup] {
    let prompts = tokens.map { Prompt($0) }
    var collectors: [any Collector] = [
      try Selectability(model, prompts, .init(keys: keys, perKey: perKey, seed: seed))
    ]
    let sink = MemorySink(collectors[0].tables)
    try CollectionPass(prompts, batchSize: batch).run(model, &collectors, into: sink)
    let groups = sink.result + (try collectors[0].findings())
    return Dictionary(uniqueKeysWithValues: groups.map { ($0.path, $0) })
  }

  private func random(_ count: Int, _ model: GPT2, seed: UInt64) -> [Int] {
    var random = SeededGenerator(seed: seed)
    return (0..<count).map { _ in Int.random(in: 0..<model.config.dVocab, using: &random) }
  }

  @Test(arguments: ["mini", "mini-lnfree"]) func bundledModels(name: String) throws {
    let model = try GPT2.load(Fixtures.bundled(name))
    let tokens = [random(100, model, seed: 1), random(20, model, seed: 2), [5]]
    let groups = try run(model, tokens, keys: nil, perKey: true)
    let heads = try #require(groups["selectability"])
    let spaces = try #require(groups["selectability/space"])
    #expect(try heads.doubles("unsolved").allSatisfy { $0 == 0 })
    #expect(try heads.doubles("trivially_selectable") == [0, 1, 1])
    #expect(try spaces.doubles("trivially_selectable") == [1, 1, 1])
    let count = model.config.nLayers * model.config.nHeads
    let share = try heads.doubles("unselectable_share")
    // 20 keys in 32 dimensions; a single key has nothing to be compared with.
    #expect(share[count..<2 * count].allSatisfy { $0 == 0 })
    #expect(share[(2 * count)...].allSatisfy { $0.isNaN })
    // A key that is its own best query is not unselectable.
    let ever = try heads.doubles("ever_argmax_share")
    let own = try heads.doubles("self_query_share")
    for cell in 0..<2 * count { #expect(own[cell] <= 1 - share[cell] + 1e-6) }
    #expect(ever.prefix(2 * count).allSatisfy { $0 >= 0 && $0 <= 1 })
    // All keys of a layer lie in general position in model space.
    let names = Selectability.spaces
    let inModel = try spaces.doubles("unselectable_share")
    for cell in 0..<2 * model.config.nLayers * names.count
    where cell % names.count < names.count - 1 { #expect(inModel[cell] == 0) }
    if model.config.normalization == .none {
      let margins = try spaces.doubles("margin_median")
      for layer in 0..<model.config.nLayers {
        let row = Array(margins[layer * names.count..<layer * names.count + 4])
        #expect(row[1] == row[2] && row[2] == row[3] && row[0] >= row[1])
      }
    }
    // The summary is the mean over the prompts that have a value.
    let summary = try #require(groups["selectability/summary"]).doubles("unselectable_share")
    for cell in 0..<count {
      #expect(abs(summary[cell] - (share[cell] + share[cell + count]) / 2) < 1e-6)
    }
    print(
      "\(name), 100 random tokens: unselectable share \(share.prefix(count).max() ?? .nan) at most")
  }

  @Test func samplesAreASubset() throws {
    let model = try GPT2.load(Fixtures.bundled("mini"))
    let tokens = [random(60, model, seed: 3), random(9, model, seed: 4)]
    let all = try run(model, tokens, keys: nil, perKey: true)["selectability"]?.doubles("margin")
    let some = try run(model, tokens, keys: 7, perKey: true)["selectability"]?.doubles("margin")
    let again = try run(model, tokens, keys: 7, perKey: true, batch: 1)["selectability"]?
      .doubles("margin")
    let other = try run(model, tokens, keys: 7, perKey: true, seed: 1)["selectability"]?
      .doubles("margin")
    let (whole, sample) = (try #require(all), try #require(some))
    let cells = model.config.nLayers * model.config.nHeads
    // Seven keys and position 0 of the first prompt, and of the second.
    #expect(sample.count { !$0.isNaN } == 2 * 8 * cells)
    for index in sample.indices where !sample[index].isNaN {
      #expect(abs(sample[index] - whole[index]) <= 1e-5 * (1 + abs(whole[index])))
    }
    #expect(sample.map(\.isNaN) == again?.map(\.isNaN))
    #expect(sample.map(\.isNaN) != other?.map(\.isNaN))
  }

  /// b_K adds one vector to all keys: no margin changes.
  @Test func keyBiasesDoNotMatter() throws {
    let model = try GPT2.load(Fixtures.bundled("mini"))
    let (_, cache) = try model.runWithCache(
      random(80, model, seed: 5), hooks: [.k(.layer(2))], positions: .all)
    let keys = try cache.tensor(.k, layer: 2).column(1)
    let shift = Tensor((0..<keys.shape[1]).map { Float($0) - 7 }, shape: [keys.shape[1]])
    let found = keyMargins(of: [keys, keys.addingToRows(shift)])
    let comparison = Comparison("margins with another key bias", relative: 1e-5)
    comparison.check("margin", found[1].keys.map(\.margin), found[0].keys.map(\.margin))
    comparison.report()
  }

  /// Random keys of the size of GPT-2 small's: 12 × 12 heads of 64 dimensions, 256 tokens.
  @Test func costOfAllHeads() {
    var seed = SeededGenerator(seed: 6)
    let sets = (0..<144).map { _ in
      Tensor(
        (0..<256 * 64).map { index in
          // A falling spectrum, as keys have.
          Float.random(in: -1...1, using: &seed) / Float(1 + index % 64).squareRoot()
        }, shape: [256, 64])
    }
    for (what, count) in [("32", 33), ("all", 256)] {
      let start = ContinuousClock.now
      let found = keyMargins(
        of: sets, at: Array(0..<count), questions: [.margins, .firstUnselectable])
      let time = ContinuousClock.now - start
      #expect(found.allSatisfy { $0.count(.unsolved) == 0 })
      print("144 heads, 256 keys of 64 dimensions, \(what) keys a head: \(time)")
    }
  }
}
