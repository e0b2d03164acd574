import NormLens
import TestSupport
import Testing

/// Losses of changed models against models that were changed as a whole, in float64.
@Suite struct StreamAblationTests {
  @Test(arguments: EntropyNeuronsTests.models)
  func everyVariable(_ name: String) throws {
    let golden = try Golden.open("neurons-\(name)")
    let model = try GeometryGolden(name).model()
    let massive = try golden.integers("massive")
    let ablation = StreamAblation(
      lambdas: try golden.array("lambdas").values,
      massive: stride(from: 0, to: massive.count, by: 2).map {
        .init(position: massive[$0], dimension: massive[$0 + 1])
      })
    let prompts = try EntropyNeuronsTests.prompts(golden)
    let group = try ablation.run(model, prompts, batchSize: 3)
    let comparison = Comparison("\(name) ablations", relative: 1e-4)
    let names = try golden.names(in: "stream/ablation")
    for variable in names {
      let expected = try golden.array("stream/ablation/\(variable)").values
      let found = try group.doubles(variable)
      #expect(
        haveSameGaps(found, expected), "\(variable): NaN elsewhere")
      comparison.check(
        variable, found.map { $0.isNaN ? 0 : $0 }, expected.map { $0.isNaN ? 0 : $0 },
        scale: variable.hasPrefix("parallel") ? 1 : nil)
    }
    comparison.report("variables")
    let unchecked = group.variables.filter { !$0.isCoordinate && !names.contains($0.name) }
    #expect(unchecked.map(\.name) == ["count", "massive_mean", "massive_count"])
  }

  /// What must be the same number twice.
  @Test func identities() throws {
    let model = try GPT2.load(Fixtures.bundled("mini"))
    let layers = model.config.nLayers
    let prompts = EntropyNeuronsTests.random(model.config, lengths: [12, 1, 30, 2])
    var steps = 0
    let ablation = StreamAblation(lambdas: [0, 0.01, 0.02, 1])
    let group = try ablation.run(model, prompts) { steps += 1 }
    #expect(steps == ablation.steps(model, prompts) && steps > 0)
    let base = try group.doubles("base_loss")[0]
    let skips = try group.doubles("skip_loss")
    let scaled = try group.doubles("scaled_loss")
    #expect(scaled[3] == base)
    #expect(scaled[0] == skips[layers - 1])
    let middle = try group.doubles("middle_span_loss")
    #expect(middle[0].isNaN && middle[1] == skips[layers + 1] && middle[3] == skips[3])
    #expect(try group.doubles("count") == [41])
    // Each loss by itself.
    let direct = try prompts.filter { $0.tokens.count > 1 }.flatMap { prompt in
      let stream = try model.run(batch: [prompt.tokens], stoppingAtLayer: 1).streams
      let last = try model.run(layers: [3], on: stream)[0]
      let rows = last.rows(0..<prompt.tokens.count - 1)
      return model.predictions(rows, targets: Array(prompt.tokens.dropFirst())).map(\.loss)
    }
    let mean = direct.reduce(0, +) / 41
    #expect(abs(mean - skips[layers + 1]) < 1e-5)
    // No activation of this model is massive, and the group says so.
    #expect(group[variable: "massive_zero_loss"] == nil)
    #expect(group.attributes["massive"]?.description.contains("none") == true)
    #expect(group.attributes["massive"]?.description.contains("largest") == true)
  }

  /// The parallel model is the first order of the expansion in the writes: with all writes multiplied by
  /// λ the two differ by terms of second order.
  @Test func firstOrder() throws {
    let checkpoint = try Checkpoint.open(Fixtures.bundled("mini"))
    func error(_ lambda: Float) throws -> Double {
      var scaled = checkpoint
      for layer in 0..<checkpoint.config.nLayers {
        for name in [
          "attn.c_proj.weight", "attn.c_proj.bias", "mlp.c_proj.weight", "mlp.c_proj.bias",
        ] {
          let tensor = try #require(checkpoint.tensors["h.\(layer).\(name)"])
          scaled.tensors["h.\(layer).\(name)"] = tensor * lambda
        }
      }
      let model = try scaled.model()
      let prompts = EntropyNeuronsTests.random(model.config, lengths: [20])
      let errors = try StreamAblation(lambdas: []).run(model, prompts).doubles("parallel_error")
      return try #require(errors.last)
    }
    let ratio = try error(0.0004) / error(0.0002)
    print("error of the parallel model at twice the writes: \(ratio) times as large, expected 4")
    #expect(abs(ratio - 4) < 0.05)
  }

  /// A stream with a massive coordinate, which is found, zeroed and set to its mean.
  @Test func massive() throws {
    var checkpoint = try Checkpoint.open(Fixtures.bundled("mini"))
    let name = "wpe.weight"
    var positions = try #require(checkpoint.tensors[name])
    let d = checkpoint.config.dModel
    var first = positions.row(0)
    first.withUnsafeMutableBufferPointer { $0[7] = 2000 }
    positions.replaceRows(at: 0, with: first.reshaped([1, d]))
    checkpoint.tensors[name] = positions
    let model = try checkpoint.model()
    let prompts = EntropyNeuronsTests.random(model.config, lengths: [12, 9, 5])
    let group = try StreamAblation(lambdas: []).run(model, prompts)
    #expect(group[dimension: "massive_dim"]?.coordinates == .integers([7]))
    #expect(group.attributes["massive_layer"] == .integer(0))
    #expect(try group.doubles("massive_count") == [3, 0])
    let mean = try group.doubles("massive_mean")
    #expect(abs(mean[0] - 2000) < 2 && mean[1].isNaN)
    let base = try group.doubles("base_loss")[0]
    // Nearly one value: its mean changes hardly anything, its loss does.
    let (zero, means) = (
      try group.doubles("massive_zero_loss")[0], try group.doubles("massive_mean_loss")[0]
    )
    #expect(abs(means - base) < 1e-3 * abs(zero - base))
    let named = try StreamAblation(
      lambdas: [], massive: [.init(position: 0, dimension: 7)], massiveLayer: 0
    ).run(model, prompts)
    #expect(try named.doubles("massive_zero_loss") == [zero])
  }

  @Test func edges() throws {
    let model = try GPT2.load(Fixtures.checkpoint("tiny-ln"))
    let none = try StreamAblation().run(model, [Prompt([1]), Prompt([2])])
    #expect(try none.doubles("base_loss")[0].isNaN && none.doubles("count") == [0])
    #expect(try none.doubles("skip_loss").allSatisfy(\.isNaN))
    #expect(try none.doubles("parallel_error").allSatisfy(\.isNaN))
    // Evenly chosen, and without prompts that have nothing to predict.
    let prompts = (0..<10).map { Prompt($0 == 4 ? [1] : [1, $0 + 1]) }
    #expect(StreamAblation(promptLimit: 3).chosen(prompts) == [0, 3, 7])
    #expect(StreamAblation(promptLimit: 100).chosen(prompts) == [0, 1, 2, 3, 5, 6, 7, 8, 9])
    #expect(StreamAblation(promptLimit: 0).chosen(prompts).isEmpty)
    func fails(_ ablation: StreamAblation, saying part: String) {
      #expect {
        try ablation.run(model, prompts)
      } throws: {
        "\($0)".contains(part) && !"\($0)".contains("\n")
      }
    }
    fails(StreamAblation(massive: [.init(position: 2, dimension: 0)]), saying: "massive 2:0")
    fails(StreamAblation(massive: [.init(position: 0, dimension: -1)]), saying: "massive 0:-1")
    fails(StreamAblation(massiveLayer: 2), saying: "0 to 1")
    var checkpoint = try Checkpoint.open(Fixtures.checkpoint("tiny-ln"))
    let broken = try #require(checkpoint.tensors["h.1.mlp.c_proj.bias"])
    checkpoint.tensors["h.1.mlp.c_proj.bias"] = broken * .nan
    #expect(throws: AnalysisError.self) { try StreamAblation().run(checkpoint.model(), prompts) }
  }
}
