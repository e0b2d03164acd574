import Foundation
import NormLens
import TestSupport
import Testing

/// Checkpoints without LayerNorm: recognised by ε, folded, and nothing like what they would be if
/// they were taken for LayerNorm models.
@Suite struct LayerNormFreeTests {
  static let checkpoints = ["tiny-lnfree", "tiny-apollo"]

  @Test(arguments: Fixtures.checkpoints)
  func recognition(_ name: String) throws {
    let model = try Models.load(name)
    let free = Self.checkpoints.contains(name)
    #expect(model.config.normalization == (free ? .none : .layerNorm))
    #expect(
      (try Golden.open(name).text("normalization", of: "/")) == model.config.normalization.rawValue)
    #expect((model.weights.lnFinal == nil) == free)
    #expect(model.weights.blocks.allSatisfy { ($0.ln1 == nil) == free && ($0.ln2 == nil) == free })
    #expect((model.weights.b_U != nil) == free)
    #expect(model.config.tiedUnembed == (!free && name != "tiny-relu-untied"))
    #expect(model.identity.weightProcessing == (free ? ["fold_affine_norms"] : []))
  }

  @Test(arguments: checkpoints)
  func scalesAreOneAndNormalizedIsCentred(_ name: String) throws {
    let (model, golden) = (try Models.load(name), try Golden.open(name))
    let (_, cache) = try model.runWithCache(
      golden.tokens("full"), hooks: Models.everyHook(model))
    let comparison = Comparison("\(name) normalized is centred", relative: 1e-6)
    let last = HookName(.residPost, layer: model.config.nLayers - 1)
    var norms: [(scale: HookName, normalized: HookName, stream: HookName)] = [
      (HookName(.lnFinalScale), HookName(.lnFinalNormalized), last)
    ]
    for layer in 0..<model.config.nLayers {
      norms.append(
        (
          HookName(.ln1Scale, layer: layer), HookName(.ln1Normalized, layer: layer),
          HookName(.residPre, layer: layer)
        ))
      norms.append(
        (
          HookName(.ln2Scale, layer: layer), HookName(.ln2Normalized, layer: layer),
          HookName(.residMid, layer: layer)
        ))
    }
    for norm in norms {
      #expect(try cache.tensor(norm.scale).scalars.allSatisfy { $0 == 1 }, "\(norm.scale)")
      let stream = try cache.tensor(norm.stream)
      let width = stream.rowCount
      var centred = stream.scalars.map(Double.init)
      for row in 0..<stream.shape[0] {
        let cells = row * width..<(row + 1) * width
        let mean = centred[cells].reduce(0, +) / Double(width)
        for i in cells { centred[i] -= mean }
      }
      comparison.check(
        norm.normalized.rawValue, try cache.tensor(norm.normalized),
        GoldenArray(centred, shape: stream.shape))
    }
    comparison.report()
    #expect(try cache.tensor(.unembedIn).scalars == cache.tensor(last).scalars)
  }

  /// Identity (a) of the LN-removal sheet: the published arithmetic, a LayerNorm with ε = 1e12,
  /// carried out as such, gives the folded model's logits.
  @Test(arguments: checkpoints)
  func foldedEqualsEpsilonTrick(_ name: String) throws {
    let (model, golden) = (try Models.load(name), try Golden.open(name))
    let trick = try Self.asLayerNorm(name, epsilon: 1e12)
    let comparison = Comparison("\(name) folded against eps = 1e12 in float32")
    for prompt in Golden.hookPrompts {
      let tokens = try golden.tokens(prompt)
      comparison.check("eps trick, \(prompt)", try trick.run(tokens), try golden.logits(prompt))
      comparison.check("folded, \(prompt)", try model.run(tokens), try golden.logits(prompt))
    }
    comparison.report("runs")
  }

  /// Identity (f): a tool that overwrites ε computes something else.
  @Test(arguments: checkpoints)
  func anotherEpsilonIsAnotherModel(_ name: String) throws {
    let golden = try Golden.open(name)
    // Through the loader: the same files with one number changed in config.json.
    let directory = try TemporaryDirectory()
    let copy = try directory.copy(Fixtures.checkpoint(name), as: "copy")
    let url = URL(fileURLWithPath: "\(copy)/config.json")
    let config = try String(contentsOf: url, encoding: .utf8)
    let changed = config.replacing(
      #/"layer_norm_epsilon": [^,]*/#, with: "\"layer_norm_epsilon\": 1e-05")
    #expect(changed != config)
    try changed.write(to: url, atomically: true, encoding: .utf8)
    let wrong = try GPT2.load(copy)
    #expect(wrong.config.normalization == .layerNorm)
    for prompt in Golden.hookPrompts {
      let (logits, right) = (try wrong.run(golden.tokens(prompt)), try golden.logits(prompt))
      let largest = zip(logits.scalars, right.values).map { abs(Double($0) - $1) }.max()!
      #expect(largest > 0.1 * right.magnitude, "\(prompt)")
    }
  }

  @Test func thresholdOfRecognition() {
    #expect(LayerNormFolding.isLayerNormFree(epsilon: 1e12))
    #expect(LayerNormFolding.isLayerNormFree(epsilon: 1e6))
    #expect(!LayerNormFolding.isLayerNormFree(epsilon: 999_999))
    #expect(!LayerNormFolding.isLayerNormFree(epsilon: 1e-5))
  }

  /// An edit of a centred stream enters the folded weights, which annihilate the mean.
  @Test func aConstantAddedToNormalizedChangesNothing() throws {
    let (model, golden) = (try Models.load("tiny-lnfree"), try Golden.open("tiny-lnfree"))
    let tokens = try golden.tokens("b")
    let plain = try model.run(tokens)
    let constant = Tensor(repeating: 2, shape: [model.config.dModel])
    let comparison = Comparison("tiny-lnfree constants added to a norm's output", relative: 1e-5)
    for filter in [
      HookFilter.ln1Normalized(0), .ln2Normalized(1), .lnFinalNormalized, .residPre(0),
      .unembedIn, .mlpIn(1),
    ] {
      comparison.check(
        "\(filter)", try model.run(tokens, interventions: [.add(filter, constant)]), plain)
    }
    comparison.report("runs")
  }

  /// The checkpoint's tensors with real LayerNorms of this ε, unfolded.
  static func asLayerNorm(_ name: String, epsilon: Double) throws -> GPT2 {
    let file = try SafetensorsFile(path: "\(Fixtures.checkpoint(name))/model.safetensors")
    var tensors: [String: Tensor] = [:]
    for full in file.names where full != "lm_head.weight" {
      tensors[full.replacing("transformer.", with: "")] = try file.tensor(named: full)
    }
    let folded = try Models.load(name).config
    let config = try GPT2Config(
      nLayers: folded.nLayers, dModel: folded.dModel, nHeads: folded.nHeads, dMLP: folded.dMLP,
      nCtx: folded.nCtx, dVocab: folded.dVocab, activation: folded.activation,
      normalization: .layerNorm, layerNormEpsilon: epsilon)
    return GPT2(
      config: config, weights: try GPT2Weights(tensors, config: config),
      identity: GPT2.Identity(name: name))
  }
}
