import NormLens
import TestSupport
import Testing

/// Logits and every activation against the float64 reference, alone and in a ragged batch.
@Suite struct ForwardGoldenTests {
  static let batch = ["a", "b", "c", "d", "e"]

  @Test(arguments: Fixtures.checkpoints)
  func everyHook(_ name: String) throws {
    let (model, golden) = (try Models.load(name), try Golden.open(name))
    let comparison = Comparison("\(name) hooks")
    for prompt in Golden.hookPrompts {
      let (logits, cache) = try model.runWithCache(
        golden.tokens(prompt), hooks: Models.everyHook(model))
      comparison.check("logits of \(prompt)", logits, try golden.logits(prompt))
      let names = try golden.names(in: "hooks/\(prompt)")
      #expect(Set(cache.names.map(\.rawValue)) == Set(names))
      for hook in names {
        comparison.check(
          "\(hook) of \(prompt)", try cache[hook], try golden.hook(hook, prompt: prompt))
      }
    }
    comparison.report("hooks")
  }

  @Test(arguments: Fixtures.checkpoints)
  func hooksDoNotChangeTheLogits(_ name: String) throws {
    // Recording takes other paths (materialised patterns, head results) than a plain run.
    let (model, golden) = (try Models.load(name), try Golden.open(name))
    let comparison = Comparison("\(name) plain runs against recorded ones", relative: 1e-5)
    for prompt in Golden.hookPrompts {
      let tokens = try golden.tokens(prompt)
      let plain = try model.run(tokens)
      comparison.check("\(prompt) against golden", plain, try golden.logits(prompt), scale: nil)
      let recorded = try model.runWithCache(tokens, hooks: Models.everyHook(model)).logits
      comparison.check(prompt, plain, recorded)
    }
    comparison.report("runs")
  }

  @Test(arguments: Fixtures.checkpoints)
  func raggedBatch(_ name: String) throws {
    let (model, golden) = (try Models.load(name), try Golden.open(name))
    let prompts = try Self.batch.map { try golden.tokens($0) }
    let (logits, cache) = try model.runWithCache(batch: prompts, hooks: Models.everyHook(model))
    #expect(cache.promptCount == 5 && cache.tokens == prompts)
    let last = "blocks.\(model.config.nLayers - 1).hook_resid_post"

    let againstGolden = Comparison("\(name) batch of five against golden")
    let againstSingle = Comparison("\(name) batch of five against single runs", relative: 1e-5)
    for (index, prompt) in Self.batch.enumerated() {
      againstGolden.check("logits of \(prompt)", logits[index], try golden.logits(prompt))
      againstGolden.check(
        "\(last) of \(prompt)",
        try cache.tensor(HookName(parsing: last, nLayers: model.config.nLayers), prompt: index),
        try golden.hook(last, prompt: prompt))
      let (aloneLogits, alone) = try model.runWithCache(
        prompts[index], hooks: Models.everyHook(model))
      againstSingle.check("logits of \(prompt)", logits[index], aloneLogits)
      for hook in alone.names {
        againstSingle.check(
          "\(hook) of \(prompt)", try cache.tensor(hook, prompt: index), try alone.tensor(hook))
      }
    }
    // Prompt b, of which every hook is golden, is the second of the batch.
    for hook in try golden.names(in: "hooks/b") {
      againstGolden.check(
        "\(hook) of b",
        try cache.tensor(HookName(parsing: hook, nLayers: model.config.nLayers), prompt: 1),
        try golden.hook(hook, prompt: "b"))
    }
    againstGolden.report()
    againstSingle.report()
  }

  @Test(arguments: ["tiny-ln", "tiny-lnfree"])
  func recordingPositions(_ name: String) throws {
    let (model, golden) = (try Models.load(name), try Golden.open(name))
    let comparison = Comparison("\(name) recorded positions")
    for (asked, positions) in [([-1], [6]), ([0, 3, -2], [0, 3, 5]), ([4, 1], [4, 1])] {
      // With a shorter prompt beside it negative positions mean other rows.
      let (logits, cache) = try model.runWithCache(
        batch: [golden.tokens("d"), golden.tokens("b")], hooks: Models.everyHook(model),
        positions: .at(asked))
      #expect(cache.positions[1] == positions)
      #expect(logits[1].shape == [7, model.config.dVocab], "positions must not cut the logits")
      for hook in cache.names {
        let axis = hook.site.isAttention ? 1 : 0
        comparison.check(
          "\(hook) at \(asked)", try cache.tensor(hook, prompt: 1),
          try golden.hook(hook.rawValue, prompt: "b").gathering(positions, axis: axis))
      }
    }
    comparison.report()
  }

  @Test func recordingLayers() throws {
    let (model, golden) = (try Models.load("tiny-ln"), try Golden.open("tiny-ln"))
    let tokens = try golden.tokens("b")
    let (_, cache) = try model.runWithCache(
      tokens, hooks: [.residPost(-1), .pattern(.layers([1])), .z(.all), .lnFinalScale])
    #expect(
      cache.names.map(\.rawValue) == [
        "blocks.0.attn.hook_z", "blocks.1.attn.hook_pattern", "blocks.1.attn.hook_z",
        "blocks.1.hook_resid_post", "ln_final.hook_scale",
      ])
    #expect(cache.byteCount == 4 * (2 * 7 * 24 + 3 * 7 * 7 + 7 * 24 + 7))
  }

  @Test func alwaysOnHooksFireInTransformerLensOrder() throws {
    let (model, golden) = (try Models.load("tiny-ln"), try Golden.open("tiny-ln"))
    let names = HookName.all(nLayers: model.config.nLayers)
    let (_, cache) = try model.runWithCache(
      golden.tokens("a"), hooks: names.reversed().map { HookFilter($0) })
    #expect(cache.names == names)
  }

  @Test(arguments: Fixtures.checkpoints)
  func stoppingAtALayer(_ name: String) throws {
    let (model, golden) = (try Models.load(name), try Golden.open(name))
    let layers = model.config.nLayers
    let comparison = Comparison("\(name) stopped runs")
    let prompts = [try golden.tokens("full"), try golden.tokens("t1"), try golden.tokens("b")]
    for layer in 0...layers {
      let hooks: [HookFilter] = layer == 0 ? [.embed] : [.pattern(.layer(layer - 1))]
      let (streams, cache) = try model.run(batch: prompts, stoppingAtLayer: layer, hooks: hooks)
      for (index, prompt) in ["full", "t1", "b"].enumerated() {
        let hook =
          layer < layers
          ? "blocks.\(layer).hook_resid_pre" : "blocks.\(layers - 1).hook_resid_post"
        comparison.check(
          "\(hook) of \(prompt)", streams[index], try golden.hook(hook, prompt: prompt))
        for recorded in cache.names {
          comparison.check(
            "\(recorded) of \(prompt)", try cache.tensor(recorded, prompt: index),
            try golden.hook(recorded.rawValue, prompt: prompt))
        }
      }
    }
    comparison.report("streams")
    for layer in [-1, layers + 1] {
      #expect(throws: ModelError.self) { try model.run(batch: prompts, stoppingAtLayer: layer) }
    }
    // A hook that the run does not reach is not silently missing.
    #expect {
      try model.run(batch: prompts, stoppingAtLayer: 0, hooks: [.residPost(0)])
    } throws: { error in
      guard case .nothingMatches? = error as? ModelError else { return false }
      return true
    }
    #expect {
      try model.run(batch: prompts, stoppingAtLayer: 0, interventions: [.zero(.residPost(0))])
    } throws: { error in
      guard case .nothingMatches? = error as? ModelError else { return false }
      return true
    }
  }

  @Test(arguments: Fixtures.checkpoints)
  func logitRows(_ name: String) throws {
    let (model, golden) = (try Models.load(name), try Golden.open(name))
    let prompts = [try golden.tokens("b"), try golden.tokens("t1"), try golden.tokens("full")]
    let goldens = [
      try golden.logits("b"), try golden.logits("t1"), try golden.logits("full"),
    ]
    let comparison = Comparison("\(name) selected logit rows")
    // Hooks of the end of the model change the order in which rows are chosen.
    for hooks in [[HookFilter.embed], [.lnFinalScale, .unembedIn], [.unembedOut]] {
      for rows in [GPT2.LogitRows.last, .at(.at([0])), .at(.at([-1, 0])), .all] {
        let (logits, cache) = try model.runWithCache(batch: prompts, hooks: hooks, logits: rows)
        for (index, whole) in goldens.enumerated() {
          let wanted: [Int] =
            switch rows {
            case .all: Array(0..<whole.shape[0])
            case .none: []
            case .at(let selection):
              try selection.resolved(length: whole.shape[0], hook: "test")
            }
          comparison.check(
            "\(rows), prompt \(index)", logits[index], whole.gathering(wanted))
          if cache.names.contains(HookName(.unembedOut)) {
            comparison.check(
              "unembed.hook_out, prompt \(index)", try cache.tensor(.unembedOut, prompt: index),
              whole)
          }
        }
      }
    }
    let (logits, cache) = try model.runWithCache(
      batch: prompts, hooks: [.attnOut(0)], logits: .none)
    #expect(logits.map(\.shape) == prompts.map { _ in [0, model.config.dVocab] })
    for (index, prompt) in ["b", "t1", "full"].enumerated() {
      comparison.check(
        "without logits, \(prompt)", try cache.tensor(.attnOut, layer: 0, prompt: index),
        try golden.hook("blocks.0.hook_attn_out", prompt: prompt))
    }
    comparison.report("selections")
  }

  @Test func batchedCache() throws {
    let (model, golden) = (try Models.load("tiny-ln"), try Golden.open("tiny-ln"))
    let equal = [try golden.tokens("a"), try golden.tokens("d")]
    let (_, cache) = try model.runWithCache(
      batch: equal, hooks: [.q(.all), .pattern(.all), .residPost(-1)])
    let q = try cache.batched(HookName(.q, layer: 0))
    #expect(q.shape == [2, 5, 3, 8])
    for prompt in 0..<2 {
      #expect(q.row(prompt).scalars == (try cache.tensor(.q, layer: 0, prompt: prompt)).scalars)
    }
    #expect(try cache.batched(HookName(.pattern, layer: 1)).shape == [2, 3, 5, 5])

    let (_, ragged) = try model.runWithCache(
      batch: equal + [golden.tokens("b")], hooks: [.q(.all), .residPost(-1)])
    #expect(
      throws: ModelError.unequalLengths(
        what: "batched 'blocks.0.attn.hook_q'", lengths: [5, 5, 7])
    ) {
      try ragged.batched(HookName(.q, layer: 0))
    }
    // One position of each prompt is one length again.
    let (_, last) = try model.runWithCache(
      batch: equal + [golden.tokens("b")], hooks: [.residPost(-1)], positions: .last)
    let stacked = try last.batched(HookName(.residPost, layer: 1))
    #expect(stacked.shape == [3, 1, 24])
    let comparison = Comparison("tiny-ln batched last positions")
    for (index, prompt) in ["a", "d", "b"].enumerated() {
      let whole = try golden.hook("blocks.1.hook_resid_post", prompt: prompt)
      comparison.check(
        prompt, stacked.row(index), whole.gathering([whole.shape[0] - 1]))
    }
    comparison.report("streams")
  }

  @Test func meanActivation() throws {
    let (model, golden) = (try Models.load("tiny-ln"), try Golden.open("tiny-ln"))
    let comparison = Comparison("tiny-ln mean activations")
    for hook in ["blocks.1.attn.hook_z", "blocks.0.hook_mlp_out", "hook_pos_embed"] {
      let parts = try ["t1", "b"].map { try golden.hook(hook, prompt: $0) }
      let shape = Array(parts[0].shape.dropFirst())
      let width = shape.reduce(1, *)
      var sums = [Double](repeating: 0, count: width)
      for (index, value) in parts.flatMap(\.values).enumerated() { sums[index % width] += value }
      let mean = try model.meanActivation(
        HookName(parsing: hook, nLayers: 2),
        over: [golden.tokens("t1"), golden.tokens("b")])
      comparison.check(hook, mean, GoldenArray(sums.map { $0 / 8 }, shape: shape))
    }
    comparison.report()
    #expect(throws: ModelError.self) {
      try model.meanActivation(HookName(.pattern, layer: 0), over: [golden.tokens("b")])
    }
  }
}
