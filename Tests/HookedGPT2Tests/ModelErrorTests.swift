import NormLens
import TestSupport
import Testing

/// What comes from outside and cannot be right is refused with one line that names it.
@Suite struct ModelErrorTests {
  let model: GPT2
  let tokens = [1, 2, 3, 4, 5]

  init() throws { model = try Models.load("tiny-ln") }

  /// Requires exactly this error and that it prints as one line with these parts.
  private func expect(
    _ expected: ModelError, saying parts: [String],
    sourceLocation: SourceLocation = #_sourceLocation,
    _ body: () throws -> Void
  ) {
    #expect(throws: expected, sourceLocation: sourceLocation) { try body() }
    #expect(!expected.description.contains("\n"), sourceLocation: sourceLocation)
    for part in parts {
      #expect(expected.description.contains(part), sourceLocation: sourceLocation)
    }
  }

  @Test func badTokens() {
    expect(
      .tokenOutOfRange(prompt: 0, position: 1, token: 53, limit: 53), saying: ["53", "0 to 52"]
    ) { _ = try model.run([1, 53]) }
    expect(.tokenOutOfRange(prompt: 0, position: 0, token: -1, limit: 53), saying: ["-1"]) {
      _ = try model.run([-1])
    }
    expect(.tokenOutOfRange(prompt: 1, position: 2, token: 99, limit: 53), saying: ["prompt 1"]) {
      _ = try model.run(batch: [[1], [1, 2, 99]])
    }
    expect(.promptTooLong(prompt: 0, tokens: 17, limit: 16), saying: ["17", "n_ctx = 16"]) {
      _ = try model.run(Array(repeating: 1, count: 17))
    }
    expect(.promptTooLong(prompt: 1, tokens: 17, limit: 16), saying: ["prompt 1"]) {
      _ = try model.run(batch: [[1], Array(repeating: 1, count: 17)])
    }
    expect(.emptyPrompt(prompt: 0), saying: ["no tokens"]) { _ = try model.run([]) }
    expect(.emptyPrompt(prompt: 1), saying: ["prompt 1"]) { _ = try model.run(batch: [[1], []]) }
    expect(.emptyPrompt(prompt: 0), saying: []) { _ = try model.run(batch: []) }
    expect(.noTokenizer, saying: ["--tokens"]) { _ = try model.tokens("text") }
    var random = SeededGenerator(seed: 0)
    expect(.promptTooLong(prompt: 0, tokens: 17, limit: 16), saying: []) {
      _ = try model.generate(Array(repeating: 1, count: 17), count: 1, using: &random)
    }
    expect(.emptyPrompt(prompt: 0), saying: []) {
      _ = try model.generate([], count: 3, using: &random)
    }
  }

  @Test func filtersThatMatchNothing() {
    func expectNothing(
      _ hooks: [HookFilter], _ positions: PositionSelection = .all,
      sourceLocation: SourceLocation = #_sourceLocation
    ) {
      #expect(sourceLocation: sourceLocation) {
        try model.runWithCache(tokens, hooks: hooks, positions: positions)
      } throws: { error in
        guard case .nothingMatches? = error as? ModelError else { return false }
        return !"\(error)".contains("\n")
      }
    }
    expectNothing([])
    expectNothing([.q(.layers([]))])
    expectNothing([.q(layer: 0, head: 3)])
    expectNothing([.q(layer: 0, head: -1)])
    expectNothing([HookFilter(.residPre, head: 0)])
    expectNothing([.residPre(0)], .at([]))
    expectNothing([.residPre(0)], .at([5]))
    expectNothing([.residPre(0)], .at([-6]))
    // Recording takes whole activations: a part that was asked for is not silently the whole.
    expectNothing([.z(layer: 0, head: 1)])
    expectNothing([.residPre(0).at(1)])
    #expect {
      try model.run(batch: [tokens], logits: .at(.at([5])))
    } throws: { error in
      guard case .nothingMatches? = error as? ModelError else { return false }
      return true
    }
  }

  @Test func layers() {
    for layer in [2, -3] {
      #expect {
        try model.runWithCache(tokens, hooks: [.residPre(.layer(layer))])
      } throws: { error in
        guard case .layerOutOfRange(_, _, let layers)? = error as? ModelError else { return false }
        return layers == 2 && "\(error)".contains("0 to 1")
      }
      #expect(throws: ModelError.self) {
        try model.run(tokens, interventions: [.zero(.z(.layers([0, layer])))])
      }
    }
  }

  @Test func notRecorded() throws {
    let (_, cache) = try model.runWithCache(tokens, hooks: [.residPre(.all)])
    expect(
      .notRecorded(
        hook: "blocks.0.attn.hook_q",
        recorded: ["blocks.0.hook_resid_pre", "blocks.1.hook_resid_pre"]),
      saying: ["blocks.0.attn.hook_q", "blocks.1.hook_resid_pre"]
    ) { _ = try cache.tensor(.q, layer: 0) }
    #expect(throws: ModelError.self) { try cache["pattern1"] }
    #expect(throws: ModelError.self) { try cache.batched(HookName(.embed)) }
    #expect(throws: ModelError.unknownHook(name: "patern1", suggestion: "pattern1")) {
      try cache["patern1"]
    }
    #expect(throws: ModelError.self) { try Intervention.freezeLayerNorm(cache) }
    #expect(throws: ModelError.self) { try Intervention.freezePattern(cache) }
    #expect(try cache["resid_pre-1"].shape == [5, 24])
  }

  @Test func replacementsOfTheWrongShapeNameTheRightOnes() {
    func expectShapes(
      _ intervention: Intervention, _ shapes: [String],
      sourceLocation: SourceLocation = #_sourceLocation
    ) {
      #expect(sourceLocation: sourceLocation) {
        try model.run(tokens, interventions: [intervention])
      } throws: { error in
        guard case .intervention? = error as? ModelError else { return false }
        return shapes.allSatisfy { "\(error)".contains($0) }
      }
    }
    let wrong = Tensor(zeros: [4, 4])
    expectShapes(.replace(.residPre(0), with: wrong), ["[4, 4]", "[5, 24]", "[24]"])
    expectShapes(.add(.residPre(0), wrong), ["[5, 24]", "[24]"])
    expectShapes(
      .replace(.z(layer: 1, head: 2).at(1, 2), with: wrong), ["[5, 3, 8]", "[2, 8]", "[8]"])
    expectShapes(.replace(.q(1), with: wrong), ["[5, 3, 8]", "[3, 8]"])
    expectShapes(.replace(.pattern(0), with: wrong), ["[3, 5, 5]", "[3, 5]"])
    expectShapes(
      .replace(.pattern(layer: 0, head: 1).at(-1), with: wrong), ["[3, 5, 5]", "[1, 5]", "[5]"])
    // The right number of scalars is not the right shape.
    expectShapes(.replace(.residPre(0), with: Tensor(zeros: [24, 5])), ["[5, 24]"])
  }

  @Test func interventionsThatContradict() {
    func expectRefusal(
      _ interventions: [Intervention], sourceLocation: SourceLocation = #_sourceLocation
    ) {
      #expect(sourceLocation: sourceLocation) {
        try model.run(tokens, interventions: interventions)
      } throws: { error in
        switch error as? ModelError {
        case .intervention, .nothingMatches, .layerOutOfRange: !"\(error)".contains("\n")
        default: false
        }
      }
    }
    for site in [Site.attnIn, .qInput, .kInput, .vInput] {
      expectRefusal([.zero(.ln1Normalized(0)), .zero(HookFilter(site, layers: 0))])
    }
    // In different layers there is no contradiction.
    #expect(throws: Never.self) {
      try model.run(tokens, interventions: [.zero(.ln1Normalized(0)), .zero(.qInput(1))])
    }
    expectRefusal([.zero(.residPre(0).at(5))])
    expectRefusal([.zero(.residPre(0).at(.at([])))])
    expectRefusal([.zero(HookFilter(.residPre, layers: 0, head: 0))])
    expectRefusal([.zero(.z(layer: 0, head: 3))])
    expectRefusal([.zero(.residPre(0), prompt: 1)])
    expectRefusal([.zero(.residPre(0), prompt: -1)])
    expectRefusal([.edit(.residPre(0)) { $0 = Tensor(zeros: [5, 23]) }])
  }

  @Test func errorsOfEditsComeThrough() {
    struct Mine: Error {}
    #expect(throws: Mine.self) {
      try model.run(tokens, interventions: [.edit(.residPre(1)) { _ in throw Mine() }])
    }
  }
}
