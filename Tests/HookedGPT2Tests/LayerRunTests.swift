import NormLens
import Testing

/// Blocks that run on given streams, and what final streams predict.
@Suite struct LayerRunTests {
  private static let names = ["tiny-ln", "tiny-lnfree"]
  private let prompts = [[3, 1, 4, 1, 5], [9], [2, 6, 5]]

  private func streams(_ model: GPT2, _ layer: Int, _ interventions: [Intervention] = []) throws
    -> [Tensor]
  {
    try model.run(batch: prompts, stoppingAtLayer: layer, interventions: interventions).streams
  }

  @Test(arguments: names)
  func allBlocksAreTheModel(_ name: String) throws {
    let model = try Models.load(name)
    let layers = model.config.nLayers
    let expected = try streams(model, layers)
    for resumed in 0...layers {
      let found = try model.run(layers: Array(resumed..<layers), on: streams(model, resumed))
      #expect(found.map(\.scalars) == expected.map(\.scalars), "from layer \(resumed)")
    }
  }

  @Test(arguments: names)
  func aBlockLeftOutWritesNothing(_ name: String) throws {
    let model = try Models.load(name)
    let layers = model.config.nLayers
    for skipped in 0..<layers {
      let expected = try streams(
        model, layers,
        [.zero(.attnOut(.layer(skipped))), .zero(.mlpOut(.layer(skipped)))])
      let rest = (0..<layers).filter { $0 != skipped }
      let found = try model.run(layers: rest, on: streams(model, 0))
      #expect(found.map(\.scalars) == expected.map(\.scalars), "without block \(skipped)")
    }
  }

  @Test func mistakes() throws {
    let model = try Models.load("tiny-ln")
    let width = model.config.dModel
    let stream = Tensor(zeros: [2, width])
    #expect(throws: ModelError.layerOutOfRange(hook: "blocks", layer: 9, layers: 2)) {
      try model.run(layers: [0, 9], on: [stream])
    }
    #expect(throws: ModelError.emptyPrompt(prompt: 1)) {
      try model.run(layers: [0], on: [stream, Tensor(zeros: [0, width])])
    }
    #expect(throws: ModelError.emptyPrompt(prompt: 0)) { try model.run(layers: [0], on: []) }
    let tooLong = Tensor(zeros: [model.config.nCtx + 1, width])
    #expect(throws: ModelError.self) { try model.run(layers: [0], on: [tooLong]) }
  }

  @Test(arguments: names)
  func predictionsAreThoseOfTheLogits(_ name: String) throws {
    let model = try Models.load(name)
    let stream = try streams(model, model.config.nLayers)[0]
    let targets = [1, 4, 1, 5, 0]
    let logits = try model.run(prompts[0])
    #expect(
      model.predictions(stream, targets: targets) == rowStatistics(logits, targets: targets))
    let none = model.predictions(stream.rows(0..<0), targets: [])
    #expect(none.isEmpty)
  }

  /// A logit is x·u/σ + b with the norm's bias and the unembedding's in b.
  @Test(arguments: names)
  func readUnembedding(_ name: String) throws {
    let model = try Models.load(name)
    let (vocabulary, width) = (model.config.dVocab, model.config.dModel)
    let (logits, cache) = try model.runWithCache(
      prompts[0], hooks: [.residPost(.layer(-1)), .lnFinalScale])
    let stream = try cache["resid_post-1"]
    let scale = try cache["ln_final.hook_scale"]
    let read = model.weights.readUnembedding(0..<vocabulary)
    let zero = Tensor(zeros: [1, width])
    // The logits of no stream at all are what does not depend on it.
    let constant = model.unembed(zero, scaleOf: stream.rows(0..<1))
    let products = matmulTransposed(stream, MatrixView(read))
    var worst: Float = 0
    for row in 0..<stream.shape[0] {
      for token in 0..<vocabulary {
        let expected = products[row, token] / scale[row, 0] + constant[0, token]
        worst = max(worst, abs(expected - logits[row, token]))
      }
    }
    print("read unembedding of \(name): max difference \(worst)")
    #expect(worst < 1e-5)
  }
}
