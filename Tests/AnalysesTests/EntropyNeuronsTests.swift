import NormLens
import TestSupport
import Testing

/// Entropy neurons against float64 by brute force, and what must hold whatever the numbers are.
@Suite struct EntropyNeuronsTests {
  static let models = GeometryGolden.models

  static func prompts(_ golden: Golden) throws -> [Prompt] {
    try (0..<golden.names(in: "prompts").count).map {
      Prompt(try golden.integers("prompts/\($0)"))
    }
  }

  static func random(
    _ config: GPT2Config, lengths: [Int], seed: UInt64 = 5
  ) -> [Prompt] {
    var random = SeededGenerator(seed: seed)
    return lengths.map { length in
      Prompt((0..<length).map { _ in Int.random(in: 0..<config.dVocab, using: &random) })
    }
  }

  @Test(arguments: models)
  func everyVariable(_ name: String) throws {
    let golden = try Golden.open("neurons-\(name)")
    let model = try GeometryGolden(name).model()
    let analysis = EntropyNeurons(
      batchSize: 3, ablated: name == "mini" ? .ranked(top: 16, others: 0) : .all, cumulated: 5,
      skipFirst: 1)
    let result = try analysis.run(model, Self.prompts(golden))
    let group = try result.group("neurons")
    #expect(group.attributes["ablated_together"] == .integers(try golden.integers("together")))
    let comparison = Comparison("\(name) neurons", relative: 1e-4)
    let names = try golden.names(in: "neurons")
    for variable in names {
      let expected = try golden.array("neurons/\(variable)").values
      let found = try group.doubles(variable)
      #expect(
        haveSameGaps(found, expected), "\(variable): NaN elsewhere")
      // Shares are held against 1; effects on loss and entropy against the largest of them.
      let isShare = variable.contains("share") || variable.hasSuffix("cosine")
      let scale =
        variable.contains("effect")
        ? try golden.array("neurons/loss_effect_total_abs").magnitude : isShare ? 1 : nil
      let tolerant = variable.hasSuffix("_change") || variable.hasPrefix("mediated")
      let values = { (values: [Double]) in values.map { $0.isNaN ? 0 : $0 } }
      let loose = Comparison("\(name) neurons", relative: 1e-3)
      (tolerant ? loose : comparison).check(
        variable, values(found), values(expected), scale: scale)
    }
    let first = try NeuronWeights(model, layer: 0)
    for (variable, values) in [
      ("norm", first.norm), ("logit_variance", first.logitVariance),
      ("null_space_share", first.nullSpaceShare), ("singular_value", first.singularValues),
    ] {
      // Where the null space is the ones direction alone, nothing lies in it.
      comparison.check(
        "layer 0 \(variable)", values, try golden.array("layer0/\(variable)").values,
        scale: variable == "null_space_share" ? 1 : nil)
    }
    comparison.report("variables")
    let unchecked = group.variables.filter { !$0.isCoordinate && !names.contains($0.name) }
    #expect(unchecked.map(\.name) == ["ablated"])
  }

  /// Without a norm there is no scale to freeze: both effects are the same numbers.
  @Test func withoutLayerNorm() throws {
    let model = try GPT2.load(Fixtures.bundled("mini-lnfree"))
    let prompts = Self.random(model.config, lengths: [30, 8])
    let group = try EntropyNeurons().run(model, prompts).group("neurons")
    for what in ["loss", "entropy"] {
      for ending in ["", "_abs"] {
        let total = try group.doubles("\(what)_effect_total\(ending)").filter { !$0.isNaN }
        let direct = try group.doubles("\(what)_effect_direct\(ending)").filter { !$0.isNaN }
        #expect(total.count == 32 && total == direct)
        #expect(total.contains { $0 != 0 })
      }
    }
    #expect(try group.doubles("mediated_share").filter { !$0.isNaN }.allSatisfy { $0 == 0 })
    // The published weights have lost the ones direction: a null singular value.
    let values = try group.doubles("singular_value")
    #expect(values[values.count - 1] < 1e-4 * values[0])
  }

  /// Folding and centring change none of the measures.
  @Test func gauge() throws {
    let path = Fixtures.checkpoint("tiny-ln")
    let plain = try GPT2.load(path)
    let folded = try GPT2.load(path, processing: WeightProcessing.transformerLens)
    try Self.compare(plain, folded, "fold_ln, center_writing_weights, center_unembed")
  }

  /// A compressed stream has the measures of the model before.
  @Test(arguments: CompressedForm.all) func compressed(_ form: CompressedForm) throws {
    try Self.compare(try form.plain(), try form.load(), "\(form)")
  }

  private static func compare(_ plain: GPT2, _ other: GPT2, _ title: String) throws {
    let prompts = random(plain.config, lengths: [9, 4, 1])
    let comparison = Comparison("neurons after \(title)", relative: 1e-4)
    let analysis = EntropyNeurons(nullSpace: 3, ablated: .all, cumulated: 3)
    let before = try analysis.run(plain, prompts).group("neurons")
    let after = try analysis.run(other, prompts).group("neurons")
    let ratios = Comparison("ratios of effects after \(title)", relative: 1e-3)
    for variable in before.variables where variable.name != "null_space_cosine" {
      // A dead neuron has no effect, and no share of it.
      let expected = try before.doubles(variable.name).map { $0.isNaN ? -1 : $0 }
      let found = try after.doubles(variable.name).map { $0.isNaN ? -1 : $0 }
      (variable.name.hasPrefix("mediated") ? ratios : comparison).check(
        variable.name, found, expected)
    }
    comparison.report("variables")
  }

  /// An entropy neuron built by hand: it writes where the unembedding does not look.
  @Test func handmade() throws {
    var checkpoint = try Checkpoint.open(Fixtures.checkpoint("tiny-ln"))
    let config = checkpoint.config
    let plain = try NeuronWeights(checkpoint.model(), layer: config.nLayers - 1)
    // The last direction but the ones is read least.
    let d = config.dModel
    let unembedding = try #require(checkpoint.tensors["wte.weight"])
    let gain = try #require(checkpoint.tensors["ln_f.weight"])
    var gram = GramMatrix(width: d)
    let read = unembedding.multiplyingRows(gain).centeringRows()
    gram.add(read, subtracting: read.meanOverRows().scalars.map(Double.init))
    let vectors = try #require(symmetricEigenvectors(gram.products, order: d)).vectors
    let name = "h.\(config.nLayers - 1).mlp.c_proj.weight"
    var written = try #require(checkpoint.tensors[name])
    let neuron = 5
    let length = Float(3 * (plain.norm.max() ?? 0))
    written.replaceRows(
      at: neuron,
      with: Tensor(
        vectors[(d - 2) * d..<(d - 1) * d].map { Float($0) * length }, shape: [1, d]))
    checkpoint.tensors[name] = written
    let model = try checkpoint.model()
    let weights = try NeuronWeights(model, layer: config.nLayers - 1, nullSpace: 2)
    #expect(weights.ranking[0] == neuron)
    #expect(weights.nullSpaceShare[neuron] > 0.9999)
    let result = try EntropyNeurons(ablated: .neurons([neuron])).run(
      model, Self.random(config, lengths: [10, 12]))
    let mediated = try result.doubles("neurons", "mediated_share")[neuron]
    print("a neuron in the direction read least: \(mediated) mediated by the norm")
    #expect(mediated > 0.2)
  }

  @Test func edges() throws {
    let path = Fixtures.checkpoint("tiny-ln")
    let model = try GPT2.load(path)
    let (config, last) = (model.config, model.config.nLayers - 1)
    // Prompts of one token have means and no predictions.
    let none = try EntropyNeurons().run(model, [Prompt([1]), Prompt([2])]).group("neurons")
    #expect(try none.doubles("tokens") == [0])
    #expect(try none.doubles("base_loss")[0].isNaN)
    #expect(try none.doubles("loss_effect_total").allSatisfy(\.isNaN))
    #expect(try none.doubles("mean_activation").allSatisfy(\.isFinite))
    // Nothing to ablate: the weights, with and without text.
    let alone = try EntropyNeurons(ablated: EntropyNeurons.Ablated.none).run(
      model, [Prompt([1, 2])])
    #expect(alone.groups == (try EntropyNeurons().withoutText(model)).groups)
    #expect(alone.groups == (try EntropyNeurons(layer: last).withoutText(model)).groups)
    let first = try EntropyNeurons(layer: 0).run(model, [Prompt([1, 2])]).group("neurons")
    #expect(first[variable: "loss_effect_total"] == nil)
    // The same neurons for the same seed.
    func drawn(_ seed: UInt64) throws -> [Double] {
      try EntropyNeurons(seed: seed).run(model, [Prompt([1, 2])]).doubles("neurons", "ablated")
    }
    #expect(try drawn(1) == drawn(1))
    #expect(try drawn(1) != drawn(2))
    #expect(try drawn(1).count { $0 == 1 } == 16 && drawn(1).count { $0 == 2 } == 16)

    func fails(_ analysis: EntropyNeurons, saying part: String) {
      #expect {
        try analysis.run(model, [Prompt([1, 2, 3])])
      } throws: {
        "\($0)".contains(part) && !"\($0)".contains("\n")
      }
    }
    fails(EntropyNeurons(ablated: .neurons([config.dMLP])), saying: "0 to \(config.dMLP - 1)")
    fails(EntropyNeurons(ablated: .neurons([3, 3])), saying: "neuron 3")
    fails(EntropyNeurons(layer: 7), saying: "7")
    fails(EntropyNeurons(layer: 0, ablated: .all), saying: "layer 0")
    fails(EntropyNeurons(nullSpace: config.dModel), saying: "null space")
    fails(EntropyNeurons(nullSpace: 0), saying: "null space")

    // A neuron that writes nothing, and one that is not a number.
    var checkpoint = try Checkpoint.open(path)
    let name = "h.\(last).mlp.c_proj.weight"
    let written = try #require(checkpoint.tensors[name])
    func changed(writing value: Float) throws -> GPT2 {
      var silent = written
      silent.replaceRows(at: 4, with: Tensor(repeating: value, shape: [1, config.dModel]))
      checkpoint.tensors[name] = silent
      return try checkpoint.model()
    }
    let silent = try EntropyNeurons(ablated: .all).run(
      changed(writing: 0), [Prompt([1, 2, 3])]
    ).group("neurons")
    #expect(try silent.doubles("norm")[4] == 0)
    #expect(try silent.doubles("score")[4].isNaN)
    #expect(try silent.doubles("loss_effect_total")[4] == 0)
    #expect(throws: AnalysisError.self) {
      try EntropyNeurons().run(changed(writing: .nan), [Prompt([1, 2, 3])])
    }
    // An unembedding of zeros has no directions; all tokens are equally likely.
    checkpoint.tensors[name] = written
    checkpoint.tensors["wte.weight"] = Tensor(zeros: [config.dVocab, config.dModel])
    let blank = try EntropyNeurons(ablated: .all).run(
      checkpoint.model(), [Prompt([1, 2, 3])]
    ).group("neurons")
    #expect(blank.attributes["tokens_without_direction"] == .integer(config.dVocab))
    #expect(try blank.doubles("score").allSatisfy(\.isNaN))
    #expect(try blank.doubles("loss_effect_total").allSatisfy { abs($0) < 1e-12 })
  }

  /// Neurons beyond a block of neurons, rows beyond a block of rows.
  @Test func manyShortPrompts() throws {
    let model = try GPT2.load(Fixtures.bundled("mini"))
    let prompts = Self.random(model.config, lengths: Array(repeating: 3, count: 400))
    let all = try EntropyNeurons(ablated: .all, cumulated: 0).run(model, prompts).group("neurons")
    let some = try EntropyNeurons(batchSize: 1, ablated: .neurons([600, 3]), cumulated: 1).run(
      model, prompts
    ).group("neurons")
    for name in ["loss_effect_total", "entropy_effect_direct"] {
      let (a, b) = (try all.doubles(name), try some.doubles(name))
      for neuron in [3, 600] { #expect(abs(a[neuron] - b[neuron]) < 1e-6, "\(name)") }
    }
    #expect(try some.doubles("cumulative_loss").count == 2)
    let base = try some.doubles("base_loss")[0]
    let one = try some.doubles("cumulative_loss")[1] - base
    #expect(abs(one - (try some.doubles("loss_effect_total")[600])) < 1e-6)
  }
}
