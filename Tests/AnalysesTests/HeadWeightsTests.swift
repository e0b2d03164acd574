import NormLens
import TestSupport
import Testing

/// Copying scores and composition: gauges, constructed heads, chance.
@Suite struct HeadWeightsTests {
  /// The measures of weights are the same in every gauge that keeps the predictions.
  @Test(arguments: [
    [WeightProcessing.foldLN], [.centerWritingWeights], [.centerUnembed],
    [.foldLN, .centerWritingWeights, .centerUnembed, .foldValueBiases],
    [.foldLN, .centerWritingWeights, .isometric], [.foldLN, .centerWritingWeights, .crmsNorm],
  ])
  func gauges(_ steps: [WeightProcessing]) throws {
    let plain = try GPT2.load(Fixtures.checkpoint("tiny-ln"))
    let model = try Checkpoint.open(Fixtures.checkpoint("tiny-ln"), processing: steps).model()
    let comparison = Comparison("heads' weights after \(steps)", relative: 2e-5)
    let (before, after) = (try HeadCopying().group(plain), try HeadCopying().group(model))
    for name in ["copying", "ov_trace"] {
      comparison.check(name, try after.doubles(name), try before.doubles(name))
    }
    if steps.contains(.crmsNorm) {
      #expect(throws: AnalysisError.self) { try HeadComposition().group(model) }
    } else {
      let (before, after) = (try HeadComposition().group(plain), try HeadComposition().group(model))
      for kind in HeadComposition.Kind.allCases {
        let name = "\(kind.rawValue)_composition"
        let (x, y) = (try after.doubles(name), try before.doubles(name))
        #expect(zip(x, y).allSatisfy { $0.isNaN == $1.isNaN })
        comparison.check(name, x.map { $0.isNaN ? 0 : $0 }, y.map { $0.isNaN ? 0 : $0 })
        #expect(
          after[variable: name]?.attributes["random"]
            == before[variable: name]?.attributes["random"])
      }
    }
    comparison.report("variables")
  }

  /// With W_U = W_Eᵀ a head that writes what it reads copies, and one that writes its negative does
  /// the opposite.
  @Test func constructedHeads() throws {
    let config = try GPT2Config(nLayers: 1, dModel: 10, nHeads: 2, dHead: 10, nCtx: 8, dVocab: 50)
    var checkpoint = try Checkpoint.random(config, name: "copy", seed: 3)
    var (read, write) = (Tensor(zeros: [10, 60]), Tensor(zeros: [20, 10]))
    for i in 0..<10 {
      for head in 0..<2 {
        read[i, 40 + 10 * head + i] = 1
        write[10 * head + i, i] = head == 0 ? 1 : -1
      }
    }
    checkpoint.tensors["h.0.attn.c_attn.weight"] = read
    checkpoint.tensors["h.0.attn.c_proj.weight"] = write
    let copying = try HeadCopying().group(checkpoint.model()).doubles("copying")
    #expect(abs(copying[0] - 1) < 1e-6 && abs(copying[1] + 1) < 1e-6)
  }

  /// Heads of random weights compose as chance says: the mean square is 1/(d − 1).
  @Test func chance() throws {
    let config = try GPT2Config(nLayers: 4, dModel: 64, nHeads: 4, nCtx: 8, dVocab: 20)
    let model = try Checkpoint.random(config, name: "chance", seed: 8).model()
    let group = try HeadComposition().group(model)
    for kind in HeadComposition.Kind.allCases {
      let values = try group.doubles("\(kind.rawValue)_composition").filter { !$0.isNaN }
      #expect(values.count == 6 * 16)
      let meanSquare = values.reduce(0) { $0 + $1 * $1 } / Double(values.count)
      let ratio = (meanSquare * 63).squareRoot()
      print("\(kind)-composition of random heads: \(ratio) times chance")
      #expect(abs(ratio - 1) < 0.03)
    }
  }

  /// Heads wider than the stream.
  @Test func wideHeads() throws {
    let config = try GPT2Config(nLayers: 2, dModel: 6, nHeads: 2, dHead: 9, nCtx: 8, dVocab: 20)
    let model = try Checkpoint.random(config, name: "wide", seed: 8).model()
    let group = try HeadComposition().group(model)
    let found = try group.doubles("q_composition")
    for head in 0..<2 {
      for later in 0..<2 {
        let (a, b) = (model.W_OV(layer: 0, head: head), model.W_QK(layer: 1, head: later))
        let expected = a.times(b).frobeniusNorm / (a.frobeniusNorm * b.frobeniusNorm)
        #expect(abs(found[head * 4 + 2 + later] - expected) < 1e-6)
      }
    }
    #expect(try HeadCopying().group(model).doubles("copying").allSatisfy { abs($0) <= 1 })
  }
}
