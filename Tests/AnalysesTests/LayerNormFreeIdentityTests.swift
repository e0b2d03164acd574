import NormLens
import TestSupport
import Testing

/// The identities of research sheet "LN removal" §6.16 that tell a LayerNorm-free model from one
/// with LayerNorm; (a), folding, is with the tests of the model.
@Suite struct LayerNormFreeIdentityTests {
  static let free = ["tiny-lnfree", "tiny-apollo"]

  /// Loads a checkpoint and one of its golden prompts.
  private func open(_ name: String) throws -> (model: GPT2, tokens: [Int]) {
    (try GPT2.load(Fixtures.checkpoint(name)), try Golden.open(name).tokens("full"))
  }

  /// (b) NMAE is 0 to rounding without LayerNorm, and is not with it.
  @Test func attributionIsExactOnlyWithoutLayerNorm() throws {
    for name in Fixtures.checkpoints {
      let (model, tokens) = try open(name)
      let result = try DirectLogitAttribution().run(
        model, (2...tokens.count).map { Prompt(Array(tokens[..<$0]), answer: 7, wrong: 3) })
      let pooled = result[group: "dla", variable: "nmae_pooled"]!.values.doubles![0]
      let perHead = result[group: "dla", variable: "nmae_head_mean"]!.values.doubles![0]
      print("\(name) NMAE: \(pooled) % pooled, \(perHead) % per head")
      if Self.free.contains(name) {
        #expect(pooled < 1e-3 && perHead < 1e-3)
        #expect(fixed(pooled, 2) == "0.00")
      } else {
        #expect(pooled > 1 && perHead > 1)
      }
    }
  }

  /// (c) What a last-layer neuron does to the logits is the same whether the final scale may follow
  /// or is frozen, and both are the attribution; with LayerNorm only the frozen effect is.
  @Test(arguments: ["tiny-lnfree", "tiny-apollo", "tiny-ln"])
  func totalEffectIsDirectEffect(_ name: String) throws {
    let (model, tokens) = try open(name)
    let last = model.config.nLayers - 1
    let (plain, cache) = try model.runWithCache(
      tokens, hooks: [.lnFinalScale, .mlpPost(.all)])
    let result = try DirectLogitAttribution(neurons: true).run(
      model, [Prompt(tokens, answer: 7, wrong: 3)])
    let neurons = result[group: "dla", variable: "neuron"]!.values.doubles!
      .suffix(model.config.dMLP)
    func target(_ logits: Tensor) -> Double {
      Double(logits[tokens.count - 1, 7]) - Double(logits[tokens.count - 1, 3])
    }
    let freeze = try Intervention.freeze([.lnFinalScale], to: cache)
    let scale = neurons.map { abs($0) }.max()!
    let frozenGap = Comparison(
      "\(name) frozen effect of a neuron is its attribution", relative: 1e-4)
    var totalGap = 0.0
    for (neuron, attribution) in zip(0..., neurons) {
      let off = Intervention.edit(.mlpPost(.layer(last))) { x in
        for position in 0..<x.shape[0] { x[position, neuron] = 0 }
      }
      let total = target(plain) - target(try model.run(tokens, interventions: [off]))
      let direct = target(plain) - target(try model.run(tokens, interventions: freeze + [off]))
      // Two float32 logits are subtracted: their own size sets what can be seen.
      frozenGap.check(
        "neuron \(neuron)", [direct], [attribution], scale: max(scale, abs(target(plain))))
      totalGap = max(totalGap, abs(total - direct))
    }
    frozenGap.report("neurons")
    print("\(name) total against frozen effect of neurons: largest gap \(totalGap / scale)")
    if Self.free.contains(name) {
      #expect(totalGap / scale < 1e-4)
    } else {
      #expect(totalGap / scale > 1e-2)
    }
  }

  /// (d) The logit of every token is Σ components·w + b_U.
  @Test(arguments: free)
  func everyLogitIsASumOfComponents(_ name: String) throws {
    let (model, tokens) = try open(name)
    let vocabulary = model.config.dVocab
    let result = try DirectLogitAttribution().run(
      model, (0..<vocabulary).map { Prompt(tokens, answer: $0) })
    let group = try #require(result[group: "dla"])
    let contribution = group[variable: "contribution"]!.values.doubles!
    let width = contribution.count / vocabulary
    let logits = try Golden.open(name).logits("full").row(tokens.count - 1).values
    let comparison = Comparison("\(name) logits as sums of components")
    for token in 0..<vocabulary {
      let parts = contribution[token * width..<(token + 1) * width]
      comparison.check(
        "token \(token)", [parts.reduce(0, +)], [logits[token]],
        scale: max(1, parts.reduce(0) { $0 + abs($1) }))
      // The bias is b_U alone: there is no final norm to add one.
      #expect(parts.last! == Double(model.weights.b_U![token]))
    }
    comparison.report("tokens")
  }

  /// (e) What a last-layer head writes moves the logits linearly past the last MLP: twice the output
  /// is twice the move.
  @Test(arguments: ["tiny-lnfree", "tiny-apollo", "tiny-ln"])
  func doublingAHeadMovesLogitsLinearly(_ name: String) throws {
    let (model, tokens) = try open(name)
    let last = model.config.nLayers - 1
    let (plain, cache) = try model.runWithCache(
      tokens, hooks: [.result(.layer(last)), .mlpOut(.layer(last))])
    // The MLP of the layer reads the head as well; it is held so that only the direct way is left.
    let hold = try Intervention.freeze([.mlpOut], to: cache)
    let comparison = Comparison("\(name) a head's output times 2 and 3", relative: 1e-5)
    var bend = 0.0
    for head in 0..<model.config.nHeads {
      func logits(times factor: Float) throws -> Tensor {
        try model.run(
          tokens,
          interventions: hold + [.edit(.result(layer: last, head: head)) { $0 = $0 * factor }])
      }
      let (double, triple) = (try logits(times: 2) - plain, try logits(times: 3) - plain)
      let own = try cache.tensor(.result, layer: last).column(head)
      let largest = Double(plain.maximumMagnitude)
      let gap = (triple - double * 2).maximumMagnitude / double.maximumMagnitude
      bend = max(bend, Double(gap))
      guard Self.free.contains(name) else { continue }
      comparison.check("head \(head): twice the move", triple, double * 2, scale: largest)
      // The move is the head's own output read by the unembedding.
      var expected: [Double] = []
      for position in 0..<tokens.count {
        for token in 0..<model.config.dVocab {
          expected.append(own.row(position).dot(model.weights.unembedding(of: token)))
        }
      }
      comparison.check(
        "head \(head): z·W_O·W_U", double, GoldenArray(expected, shape: double.shape),
        scale: largest)
    }
    print("\(name) logits' departure from linearity in a head: \(bend)")
    if Self.free.contains(name) {
      comparison.report("moves")
      #expect(bend < 1e-4)
    } else {
      #expect(bend > 1e-2)
    }
  }

  /// (f) The same weights with ε = 1e-5 are a LayerNorm model: its attribution is not exact.
  @Test func theSameWeightsWithAnOrdinaryEpsilonFail() throws {
    for name in Self.free {
      let model = try GPT2.load(Fixtures.checkpoint(name))
      let file = try SafetensorsFile(path: "\(Fixtures.checkpoint(name))/model.safetensors")
      var tensors: [String: Tensor] = [:]
      for full in file.names where full != "lm_head.weight" {
        tensors[full.replacing("transformer.", with: "")] = try file.tensor(named: full)
      }
      var config = model.config
      config.normalization = .layerNorm
      config.layerNormEpsilon = 1e-5
      config.tiedUnembed = true
      let wrong = GPT2(
        config: config, weights: try GPT2Weights(tensors, config: config),
        identity: GPT2.Identity(name: name))
      let tokens = try Golden.open(name).tokens("full")
      let result = try DirectLogitAttribution().run(
        wrong, (2...tokens.count).map { Prompt(Array(tokens[..<$0]), answer: 7, wrong: 3) })
      let pooled = result[group: "dla", variable: "nmae_pooled"]!.values.doubles![0]
      print("\(name) with epsilon 1e-5: NMAE \(pooled) % pooled")
      #expect(pooled > 1)
    }
  }
}
