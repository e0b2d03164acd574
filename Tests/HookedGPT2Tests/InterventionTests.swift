import NormLens
import Synchronization
import TestSupport
import Testing

/// Identities of interventions that need no reference values.
@Suite struct InterventionTests {
  let model: GPT2
  let tokens: [Int]
  let plain: Tensor

  init() throws {
    model = try Models.load("tiny-ln")
    tokens = try Golden.open("tiny-ln").tokens("b")
    plain = try model.run(tokens)
  }

  @Test func anEditActsOnceThoughEveryHeadReadsIt() throws {
    let model = try Models.load("tiny-ln")
    let calls = Atomic<Int>(0)
    _ = try model.run(
      [1, 2, 3],
      interventions: [
        .edit(.ln1Scale(1)) { _ in calls.add(1, ordering: .relaxed) },
        .zero(.attnIn(layer: 1, head: 0)),
      ])
    #expect(calls.load(ordering: .relaxed) == 1)
  }

  @Test func positionsOfATextStayItsOwn() throws {
    let zero = Intervention.zero(.z(layer: 1, head: 0).at(-1))
    let positioned = try zero.positioned(inTextOf: 4)
    #expect(positioned.target.positions == .at([3]))
    #expect(throws: ModelError.self) { try zero.positioned(inTextOf: 0) }
    let model = try Models.load("tiny-ln")
    let (early, late) = (
      try model.run([1, 2, 3, 4, 5], interventions: [positioned]),
      try model.run([1, 2, 3, 4, 5], interventions: [.zero(.z(layer: 1, head: 0).at(3))])
    )
    #expect(early.scalars == late.scalars)
    #expect(throws: ModelError.self) {
      try model.run([1, 2, 3], interventions: [.zero(.z(layer: 1, head: 0).at(2, -1))])
    }
  }

  @Test(arguments: ["tiny-ln", "tiny-lnfree", "tiny-relu-untied", "tiny-gelu-erf"])
  func writingBackWhatWasThereChangesNothing(_ name: String) throws {
    let model = try Models.load(name)
    let tokens = try Golden.open(name).tokens("b")
    let (plain, cache) = try model.runWithCache(tokens, hooks: Models.everyHook(model))
    let comparison = Comparison("\(name) activations written back", relative: 1e-5)
    for hook in cache.names {
      let value = try cache.tensor(hook)
      comparison.check(
        hook.rawValue,
        try model.run(tokens, interventions: [.replace(HookFilter(hook), with: value)]), plain)
      comparison.check(
        "\(hook) edited to itself",
        try model.run(tokens, interventions: [.edit(HookFilter(hook)) { _ in }]), plain)
    }
    comparison.report("runs")
  }

  @Test func everyShapeOfAReplacement() throws {
    // The whole site, the selected part, and the part without positions are the same change when
    // they hold the same numbers.
    let comparison = Comparison("tiny-ln shapes of replacements", relative: 1e-6)
    let (length, heads) = (tokens.count, model.config.nHeads)
    for site in [Site.residPre, .z, .result, .qInput, .pattern, .attnScores, .mlpPost, .ln2Scale] {
      let shape = site.shape(model.config, positions: length)
      let width = shape[shape.count - 1]
      let vector = Models.noise([width], seed: 7).map { $0 + 1.5 }
      let everywhere = Tensor(
        Array(repeating: vector.scalars, count: shape.dropLast().reduce(1, *)).flatMap(\.self),
        shape: shape)
      let hasHead = site.hasHeadAxis || site.isAttention
      for positions in [PositionSelection.all, .at([1, -1])] {
        let count = positions == .all ? length : 2
        let target = HookFilter(
          site, layers: 1, head: hasHead ? 1 : nil, positions: positions)
        let whole = try model.run(tokens, interventions: [.replace(target, with: everywhere)])
        let part = Tensor(
          Array(repeating: vector.scalars, count: count).flatMap(\.self), shape: [count, width])
        comparison.check(
          "\(target), part", try model.run(tokens, interventions: [.replace(target, with: part)]),
          whole)
        comparison.check(
          "\(target), vector",
          try model.run(tokens, interventions: [.replace(target, with: vector)]), whole)
        guard hasHead else { continue }
        // All heads: the vector once for each head.
        var all = target
        all.head = nil
        let perHead = Tensor(
          Array(repeating: vector.scalars, count: heads).flatMap(\.self), shape: [heads, width])
        comparison.check(
          "\(all), vector for each head",
          try model.run(tokens, interventions: [.replace(all, with: perHead)]),
          try model.run(tokens, interventions: [.replace(all, with: everywhere)]))
      }
    }
    comparison.report("runs")
  }

  @Test func severalAtOneHookActInOrder() throws {
    let value = Models.noise([model.config.dModel], seed: 1)
    let target = HookFilter.residMid(1)
    let both = try model.run(
      tokens, interventions: [.replace(target, with: value), .add(target, value)])
    let other = try model.run(
      tokens, interventions: [.add(target, value), .replace(target, with: value)])
    let comparison = Comparison("tiny-ln order of interventions", relative: 1e-6)
    comparison.check(
      "replace, add", both,
      try model.run(tokens, interventions: [.replace(target, with: value * 2)]))
    comparison.check(
      "add, replace", other, try model.run(tokens, interventions: [.replace(target, with: value)]))
    comparison.report("runs")
    #expect(both.scalars != other.scalars)
  }

  @Test func severalSitesTogether() throws {
    // Taking a block's two writes out is the same as carrying its input past it.
    let comparison = Comparison("tiny-ln a block taken out", relative: 1e-5)
    let (_, cache) = try model.runWithCache(tokens, hooks: [.residPre(0)])
    comparison.check(
      "block 0",
      try model.run(
        tokens, interventions: [.zero(.attnOut(0)), .zero(.mlpOut(0))]),
      try model.run(
        tokens, interventions: [.replace(.residPre(1), with: cache.tensor(.residPre, layer: 0))]))
    comparison.check(
      "both blocks",
      try model.run(tokens, interventions: [.zero(.attnOut(.all)), .zero(.mlpOut(.all))]),
      try model.run(
        tokens, interventions: [.replace(.residPost(-1), with: cache.tensor(.residPre, layer: 0))])
    )
    comparison.report("runs")
  }

  @Test func nothingBeforeAChangedPositionChanges() throws {
    let comparison = Comparison("tiny-ln rows before a change", relative: 1e-6)
    for site in [Site.embed, .residPre, .q, .k, .v, .attnScores, .pattern, .mlpPre, .residPost] {
      let target = HookFilter(site).at(4)
      let logits = try model.run(tokens, interventions: [.zero(target)])
      comparison.check("\(site)", logits.rows(0..<4), plain.rows(0..<4))
      #expect(logits.rows(4..<7).scalars != plain.rows(4..<7).scalars, "\(site)")
    }
    comparison.report("runs")
  }

  @Test func editsSeeOnePromptAtATime() throws {
    let golden = try Golden.open("tiny-ln")
    let prompts = try ["b", "c", "t1"].map { try golden.tokens($0) }
    // Doubling depends on the prompt's own values: a mix-up of rows would show.
    let doubled = try model.run(
      batch: prompts,
      interventions: [
        .edit(.residPre(1)) { x in
          #expect(x.shape.count == 2 && x.shape[1] == 24)
          x = x * 2
        },
        .edit(.pattern(0)) { x in
          #expect(x.shape[1] == x.shape[2] && x.shape[0] == 3)
          x = x * 0.5
        },
      ])
    let comparison = Comparison("tiny-ln edits in a batch", relative: 1e-5)
    for (index, prompt) in prompts.enumerated() {
      comparison.check(
        "prompt \(index)", doubled[index],
        try model.run(
          prompt,
          interventions: [
            .edit(.residPre(1)) { $0 = $0 * 2 }, .edit(.pattern(0)) { $0 = $0 * 0.5 },
          ]
        ))
    }
    comparison.report("prompts")
  }

  @Test func aPromptsOwnMeanInABatch() throws {
    let golden = try Golden.open("tiny-ln")
    let prompts = try ["b", "c", "d"].map { try golden.tokens($0) }
    let batch = try model.run(batch: prompts, interventions: [.mean(.mlpOut(0))])
    let comparison = Comparison("tiny-ln mean ablation in a batch", relative: 1e-5)
    for (index, prompt) in prompts.enumerated() {
      comparison.check(
        "prompt \(index)", batch[index],
        try model.run(prompt, interventions: [.mean(.mlpOut(0))]))
    }
    comparison.report("prompts")
  }

  @Test func aPositionIsAQueryPositionOfAPattern() throws {
    let (_, cache) = try model.runWithCache(
      tokens, hooks: [.pattern(.all)],
      interventions: [.zero(.pattern(layer: 0, head: 2).at(3))])
    let pattern = try cache.tensor(.pattern, layer: 0)
    for head in 0..<3 {
      for query in 0..<7 {
        let sum = (0..<7).reduce(Float(0)) { $0 + pattern[head, query, $1] }
        #expect(abs(sum - (head == 2 && query == 3 ? 0 : 1)) < 1e-5)
      }
    }
  }

  @Test func aLayerNamedTwiceIsChangedOnce() throws {
    let value = Models.noise([model.config.dModel], seed: 3)
    let once = try model.run(tokens, interventions: [.add(.residMid(1), value)])
    let twice = try model.run(tokens, interventions: [.add(.residMid(.layers([1, -1])), value)])
    #expect(once.scalars == twice.scalars)
  }
}
