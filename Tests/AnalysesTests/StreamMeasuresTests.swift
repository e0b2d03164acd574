import Foundation
import TestSupport
import Testing

@testable import Analyses
import NormLens

/// What must hold of the residual stream's measures whatever the model is, and what unusual input gives.
@Suite struct StreamMeasuresTests {
  private func prompts(_ model: GPT2, _ lengths: [Int]) -> [Prompt] {
    var random = SeededGenerator(seed: 21)
    return lengths.map { length in
      Prompt((0..<length).map { _ in Int.random(in: 0..<model.config.dVocab, using: &random) })
    }
  }

  /// The last stream is the sum of its parts: their shares sum to 1.
  @Test(arguments: ["tiny-ln", "tiny-lnfree", "tiny-relu-untied"])
  func identities(_ name: String) throws {
    let model = try GPT2.load(Fixtures.checkpoint(name))
    let prompts = prompts(model, [9, 1, 12, 2, 7])
    let result = try StreamMeasures(batchSize: 2).run(model, prompts)
    let growth = try result.group("stream/growth")
    let shares = try growth.doubles("final_share")
    var worst = 0.0
    for kind in 0..<2 {
      let half = shares.count / 2
      worst = max(worst, abs(shares[kind * half..<(kind + 1) * half].reduce(0, +) - 1))
    }
    print("\(name): shares of the last stream sum to 1 within \(worst)")
    #expect(worst < 1e-12)
    // Growth multiplies up to the last variance over the first.
    let (variance, ratio) = (try growth.doubles("variance_mean"), try growth.doubles("growth"))
    let streams = variance.count / 2
    let product = ratio[(streams + 1)...].reduce(1, *)
    #expect(abs(product * variance[streams] / variance[2 * streams - 1] - 1) < 1e-12)
    // The angle of a block's write is that of the streams at its ends, at the last token.
    let distance = try result.group("stream/distance")
    let distances = try distance.doubles("angular_distance")
    let states = model.config.nLayers + 1
    for layer in 0..<states {
      #expect(distances[layer * states + layer] == 0)
      if layer > 0 { #expect(distances[layer * states + layer - 1].isNaN) }
    }
    #expect(try distance.doubles("count") == [4])
    // e^entropy lies between 1 and the number of directions.
    let (rank, entropy) = (
      try result.doubles("stream/spectra", "effective_rank"),
      try result.doubles("stream/spectra", "prompt_entropy_normalized")
    )
    #expect(rank.allSatisfy { $0.isNaN || 1 <= $0 && $0 <= 12 })
    #expect(entropy.allSatisfy { $0.isNaN || 0 <= $0 && $0 <= 1 })
  }

  /// Tokens whose entropy is known: centred, as the published repository computes it, and not centred.
  @Test func entropyByHand() throws {
    let tokens = Tensor([1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 0], shape: [4, 3])
    func entropy(_ rows: Tensor, clipped: Bool) throws -> Double {
      StreamSpectra.entropy(try #require(StreamSpectra.spectra([rows], clipped: clipped)[0]))
    }
    let centred = tokens.centredUnitRows()
    #expect(abs(try entropy(centred, clipped: false) - 0.887784) < 1e-6)
    #expect(abs(try entropy(centred, clipped: true) - 1.065039) < 1e-6)
    let half = Float(0.5).squareRoot()
    let units = Tensor([1, 0, 0, 0, 1, 0, 0, 0, 1, half, half, 0], shape: [4, 3])
    #expect(abs(try entropy(units, clipped: false) - 1.039721) < 1e-6)
    // A matrix and its transpose have the same directions.
    #expect(
      abs(try entropy(centred.transposed(), clipped: false) - entropy(centred, clipped: false))
        < 1e-6)
  }

  /// (1, 0) and (1, 1) are a quarter of π apart.
  @Test func distanceByHand() {
    let step = streamSteps(
      Tensor([1, 1], shape: [1, 2]), from: Tensor([1, 0], shape: [1, 2]))[0]
    #expect(abs(StreamDistance.distance(step) - 0.25) < 1e-15)
  }

  @Test func batchesDoNotMatter() throws {
    let model = try GPT2.load(Fixtures.checkpoint("tiny-ln"))
    let prompts = prompts(model, [9, 1, 4, 12, 2, 12, 7, 11])
    let whole = try StreamMeasures(batchSize: 8).run(model, prompts)
    let single = try StreamMeasures(batchSize: 1).run(model, prompts)
    let comparison = Comparison("stream measures by batch size", relative: 2e-5)
    for group in whole.groups {
      for variable in group.variables where variable.values.doubles != nil {
        comparison.check(
          "\(group.path)/\(variable.name)",
          try single.doubles(group.path, variable.name).map { $0.isNaN ? 0 : $0 },
          try group.doubles(variable.name).map { $0.isNaN ? 0 : $0 },
          scale: variable.units == "degree" ? 90 : nil)
      }
    }
    comparison.report("variables")
  }

  /// Entropy and curvature of the smallest prompts.
  @Test func shortPrompts() throws {
    let model = try GPT2.load(Fixtures.checkpoint("tiny-ln"))
    let streams = model.config.streamLabels.count
    let result = try StreamMeasures().run(model, prompts(model, [1, 2, 3]))
    let entropy = try result.doubles("stream/spectra", "prompt_entropy")
    let curvature = try result.doubles("stream/spectra", "curvature")
    #expect(entropy.prefix(streams).allSatisfy { $0.isNaN })
    #expect(entropy[streams..<2 * streams].allSatisfy { abs($0) < 1e-6 })
    #expect(curvature.prefix(2 * streams).allSatisfy { $0.isNaN })
    #expect(curvature.suffix(streams).allSatisfy { $0 > 0 && $0 < .pi })
    // One token: nothing but position 0.
    let one = try StreamMeasures().run(model, [Prompt([4])])
    #expect(try one.doubles("stream/distance", "angular_distance").allSatisfy { $0.isNaN })
    #expect(try one.doubles("stream/linearity", "linearity").allSatisfy { $0.isNaN })
    #expect(try one.doubles("stream/summary", "count") == [1, 0])
    let variance = try one.doubles("stream/growth", "variance_mean")
    #expect(variance.prefix(streams).allSatisfy { $0 > 0 })
    #expect(variance.suffix(streams).allSatisfy { $0.isNaN })
    #expect(throws: AnalysisError.noPrompts(analysis: "stream")) {
      try StreamMeasures().run(model, [])
    }
  }

  /// The same token everywhere, without positions: nothing varies.
  @Test func constantStreams() throws {
    var checkpoint = try Checkpoint.open(Fixtures.checkpoint("tiny-ln"))
    for (name, tensor) in checkpoint.tensors where name.contains("wpe") {
      checkpoint.tensors[name] = Tensor(zeros: tensor.shape)
    }
    let model = try checkpoint.model()
    let result = try StreamMeasures().run(model, [Prompt(Array(repeating: 3, count: 12))])
    let first = try result.doubles("stream/spectra", "prompt_entropy")[0]
    #expect(first.isNaN)
    #expect(try result.doubles("stream/linearity", "rank")[0] == 0)
  }

  /// A model whose weights are all zero writes nothing and has no directions.
  @Test func zeroWeights() throws {
    var checkpoint = try Checkpoint.open(Fixtures.checkpoint("tiny-ln"))
    for (name, tensor) in checkpoint.tensors {
      checkpoint.tensors[name] = Tensor(zeros: tensor.shape)
    }
    let model = try checkpoint.model()
    let result = try StreamMeasures(referenceConventions: true).run(
      model, prompts(model, [5, 9]))
    for (group, variable) in [
      ("stream", "turn_angle"), ("stream", "relative_write"), ("stream", "write_cosine"),
      ("stream/growth", "growth"), ("stream/growth", "final_share"),
      ("stream/growth", "block_influence"), ("stream/linearity", "linearity"),
      ("stream/linearity", "linearity_without_residual"), ("stream/massive", "ratio"),
      ("stream/distance", "angular_distance"), ("stream/spectra", "prompt_entropy"),
      ("stream/spectra", "curvature"), ("stream/spectra", "curvature_reference"),
    ] {
      #expect(try result.doubles(group, variable).allSatisfy { $0.isNaN }, "\(group)/\(variable)")
    }
    #expect(try result.doubles("stream/massive", "massive").allSatisfy { $0 == 0 })
  }

  @Test func notFinite() throws {
    var checkpoint = try Checkpoint.open(Fixtures.checkpoint("tiny-ln"))
    let name = try #require(checkpoint.tensors.keys.first { $0.contains("wte") })
    var scalars = try #require(checkpoint.tensors[name]).scalars
    let shape = try #require(checkpoint.tensors[name]).shape
    // Squares overflow float32 in the first block's norm.
    for index in scalars.indices { scalars[index] *= 3e38 }
    checkpoint.tensors[name] = Tensor(scalars, shape: shape)
    let model = try checkpoint.model()
    #expect {
      try StreamMeasures().run(model, prompts(model, [5]))
    } throws: { error in
      guard case .nonFinite("stream", let what)? = error as? AnalysisError else { return false }
      return what.contains("prompt 0")
    }
  }

  /// Massive activations: in one prompt's coordinate, a thousand times the median.
  @Test func massiveActivations() throws {
    var checkpoint = try Checkpoint.open(Fixtures.checkpoint("tiny-ln"))
    let name = try #require(checkpoint.tensors.keys.first { $0.contains("wpe") })
    var scalars = try #require(checkpoint.tensors[name]).scalars
    let shape = try #require(checkpoint.tensors[name]).shape
    scalars[5] = 5000
    checkpoint.tensors[name] = Tensor(scalars, shape: shape)
    let model = try checkpoint.model()
    let group = try StreamMeasures().run(model, prompts(model, [5, 9, 1])).group("stream/massive")
    let (massive, position, coordinate, prompt) = (
      try group.doubles("massive"), try group.doubles("top_activation_pos"),
      try group.doubles("top_activation_dim"), try group.doubles("top_activation_prompt")
    )
    // All three prompts have it, and it is one place.
    #expect(massive[0] == 3)
    #expect(position[0] == 0 && coordinate[0] == 5 && prompt[0] >= 0)
    #expect(!(position[1] == 0 && coordinate[1] == 5))
  }

  @Test(arguments: ["crmsnorm", "isometric"])
  func streamsWithoutOnesAreRefused(_ form: String) throws {
    let steps = try WeightProcessing.parse("fold_ln,center_writing_weights,\(form)")
    let model = try GPT2.load(Fixtures.checkpoint("tiny-ln"), processing: steps)
    #expect {
      try StreamMeasures().run(model, [Prompt([1, 2, 3])])
    } throws: { error in
      guard case .unsuitable(_, let problem)? = error as? AnalysisError else { return false }
      return problem.contains(form)
    }
  }
}
