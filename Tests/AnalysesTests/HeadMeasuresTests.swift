import NormLens
import TestSupport
import Testing

/// What is known of the measures of heads without a reference.
@Suite struct HeadMeasuresTests {
  /// M = ln(T!)/T.
  @Test func largestEntropies() {
    for (length, expected) in [(128, 3.878), (32, 2.549), (256, 4.560), (1024, 5.936)] {
      #expect(abs(HeadPatterns.largestEntropy(length) - expected) < 6e-4)
    }
    #expect(HeadPatterns.largestEntropy(1) == 0)
    #expect(abs(HeadPatterns.largestEntropy(2) - 0.5 * 0.6931471805599453) < 1e-15)
  }

  /// A model whose queries are 0 attends evenly: the largest entropy, and weights that are known.
  @Test func evenAttention() throws {
    let config = try GPT2Config(nLayers: 2, dModel: 12, nHeads: 3, nCtx: 300, dVocab: 40)
    var checkpoint = try Checkpoint.random(config, name: "even", seed: 1)
    for layer in 0..<2 {
      let name = "h.\(layer).attn.c_attn.weight"
      checkpoint.tensors[name] = checkpoint.tensors[name].map { Tensor(zeros: $0.shape) }
    }
    let model = try checkpoint.model()
    let repeated = (0..<20).map { $0 }
    let prompts = [
      Prompt((0..<256).map { ($0 * $0 + 3) % 40 }), Prompt([7]), Prompt(repeated + repeated),
    ]
    let result = try HeadMeasures(composition: true).run(model, prompts)
    func values(_ name: String, _ prompt: Int) throws -> [Double] {
      let all = try result.doubles("heads", name)
      return Array(all[prompt * 6..<(prompt + 1) * 6])
    }
    for prompt in [0, 2] {
      #expect(try values("entropy_ratio", prompt).allSatisfy { abs($0 - 1) < 1e-6 })
      #expect(try values("row_entropy", prompt).allSatisfy { abs($0 - 1) < 1e-6 })
    }
    #expect(try values("entropy", 1) == Array(repeating: 0, count: 6))
    for name in [
      "entropy_ratio", "row_entropy", "sink_rate_rest", "first_attention", "previous_token_mul",
      "duplicate_token_abs", "induction_mul",
    ] {
      #expect(try values(name, 1).allSatisfy(\.isNaN), "\(name)")
    }
    // Weights on the first key: 1, 1/2, 1/3, then 1/4: three sinks.
    #expect(try values("sink_rate", 0).allSatisfy { abs($0 - 3.0 / 256) < 1e-7 })
    #expect(try values("sink_rate_rest", 0).allSatisfy { abs($0 - 2.0 / 255) < 1e-7 })
    #expect(try values("sink_rate", 1) == Array(repeating: 1, count: 6))
    // Query i of the second copy gives 1/(i + 1) to one key.
    let expected = (20..<40).reduce(0.0) { $0 + 1 / Double($1 + 1) }
    #expect(try values("induction_mul", 2).allSatisfy { abs($0 - expected / 40) < 1e-7 })
    #expect(try values("duplicate_token_mul", 2).allSatisfy { abs($0 - expected / 40) < 1e-7 })
    #expect(
      try values("induction_abs", 2).allSatisfy {
        abs($0 - (1 - (40 - 2 * expected + 20) / 40)) < 1e-6
      })
    #expect(
      try result.doubles("heads/summary", "quarter_count") == [0, 0, 0, 6])
    // Heads that read nothing compose with nothing, and copy nothing.
    #expect(try result.doubles("heads/weights", "copying").allSatisfy(\.isNaN))
    #expect(try result.doubles("heads/composition", "q_composition").allSatisfy(\.isNaN))
  }

  /// Prompts run together as alone.
  @Test func batches() throws {
    let model = try GPT2.load(Fixtures.checkpoint("tiny-ln"))
    var random = SeededGenerator(seed: 2)
    let prompts = [5, 1, 16, 2, 9].map { length in
      Prompt((0..<length).map { _ in Int.random(in: 0..<9, using: &random) })
    }
    let together = try HeadMeasures(batchSize: 4).run(model, prompts)
    let alone = try HeadMeasures(batchSize: 1).run(model, prompts)
    let comparison = Comparison("heads of prompts together and alone", relative: 1e-5)
    for variable in try together.group("heads").variables {
      let values = try together.doubles("heads", variable.name)
      let other = try alone.doubles("heads", variable.name)
      #expect(zip(values, other).allSatisfy { $0.isNaN == $1.isNaN })
      comparison.check(
        variable.name, values.map { $0.isNaN ? 0 : $0 }, other.map { $0.isNaN ? 0 : $0 })
    }
    comparison.report("variables")
  }

  /// Weights that overflow are an error, not a number.
  @Test func overflow() throws {
    let config = try GPT2Config(nLayers: 1, dModel: 8, nHeads: 2, nCtx: 16, dVocab: 20)
    var checkpoint = try Checkpoint.random(config, name: "large", seed: 1)
    let name = "h.0.attn.c_attn.weight"
    checkpoint.tensors[name] = checkpoint.tensors[name].map { $0 * 1e30 }
    let model = try checkpoint.model()
    for tokens in [[3], [1, 2, 3]] {
      #expect {
        try HeadMeasures().run(model, [Prompt(tokens)])
      } throws: { error in
        guard case .nonFinite(let analysis, _)? = error as? AnalysisError else { return false }
        return analysis == "heads"
      }
    }
    #expect(throws: AnalysisError.noPrompts(analysis: "heads")) {
      try HeadMeasures().run(model, [])
    }
  }

  @Test func repeatedTokens() throws {
    let model = try GPT2.load(Fixtures.bundled("mini"))
    let prompts = try RepeatedTokens(count: 3, length: 20, seed: 5).prompts(model)
    let bos = try #require(try model.tokenizer.bos)
    for prompt in prompts {
      #expect(prompt.tokens.count == 41 && prompt.tokens[0] == bos)
      #expect(Array(prompt.tokens[1..<21]) == Array(prompt.tokens[21...]))
      #expect(Set(prompt.tokens).count == 21)
    }
    #expect(Set(prompts.map(\.tokens)).count == 3)
    #expect(try prompts == RepeatedTokens(count: 3, length: 20, seed: 5).prompts(model))
    let plain = try RepeatedTokens(count: 1, length: 4).prompts(model, prependBOS: false)
    #expect(plain[0].tokens.count == 8)
    #expect(throws: ModelError.self) {
      try RepeatedTokens(count: 1, length: model.config.nCtx).prompts(model)
    }
    // Without a tokenizer there is no BOS; of 20 tokens 30 different ones cannot be drawn.
    let config = try GPT2Config(nLayers: 1, dModel: 8, nHeads: 2, nCtx: 64, dVocab: 20)
    let bare = try Checkpoint.random(config, name: "bare", seed: 1).model()
    #expect(try RepeatedTokens(count: 1, length: 20).prompts(bare)[0].tokens.count == 40)
    #expect(throws: AnalysisError.self) { try RepeatedTokens(count: 1, length: 30).prompts(bare) }
    // What is said to stand twice must fit into every prompt.
    #expect(throws: AnalysisError.self) {
      try HeadMeasures(patterns: HeadPatterns.Settings(repeated: 2)).run(bare, [Prompt([1, 2, 3])])
    }
  }
}
