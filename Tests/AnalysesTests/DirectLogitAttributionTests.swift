import NormLens
import TestSupport
import Testing

/// Direct logit attribution against the float64 reference.
@Suite struct DirectLogitAttributionTests {
  /// Runs the attribution of golden prompts in one ragged batch.
  static func run(
    _ name: String, _ golden: Golden, wrong: Bool, prompts: [String] = Golden.attributionPrompts,
    batchSize: Int = 32
  ) throws -> ResultGroup {
    let model = try GPT2.load(Fixtures.checkpoint(name))
    let group = wrong ? "dla" : "dla_single"
    let items = try prompts.map { prompt in
      Prompt(
        try golden.tokens(prompt), answer: Int(try golden.text("answer", of: "\(group)/\(prompt)")),
        wrong: wrong ? Int(try golden.text("wrong", of: "\(group)/\(prompt)")) : nil)
    }
    let result = try DirectLogitAttribution(neurons: true, batchSize: batchSize).run(model, items)
    return try #require(result[group: "dla"])
  }

  @Test(arguments: Fixtures.checkpoints, [true, false])
  func golden(_ name: String, wrong: Bool) throws {
    let golden = try Golden.open(name)
    let path = wrong ? "dla" : "dla_single"
    let group = try Self.run(name, golden, wrong: wrong)
    let prompts = Golden.attributionPrompts
    #expect(group[dimension: "prompt"]?.count == prompts.count)
    let layers = try #require(group[dimension: "layer"]?.count)

    func values(_ variable: String, _ prompt: Int) throws -> [Double] {
      let all = try group.doubles(variable)
      let width = all.count / prompts.count
      return Array(all[prompt * width..<(prompt + 1) * width])
    }

    let comparison = Comparison("\(name) \(path)")
    for (index, prompt) in prompts.enumerated() {
      let at = "\(path)/\(prompt)"
      #expect(
        group[dimension: "component"]?.coordinates
          == .labels(try golden.text("labels", of: at).split(separator: ",").map(String.init)))
      let components = try golden.array("\(at)/components")
      comparison.check("\(at)/components", try values("contribution", index), components.values)
      // The last is the bias, which has no direct effect of its own.
      comparison.check(
        "\(at)/components_direct_effect", try values("component_direct_effect", index).dropLast(),
        try golden.array("\(at)/components_direct_effect").values)
      comparison.check(
        "\(at)/heads", try values("head_contribution", index),
        try golden.array("\(at)/heads").values)
      comparison.check(
        "\(at)/heads_direct_effect", try values("head_direct_effect", index),
        try golden.array("\(at)/heads_direct_effect").values)
      let neurons = try golden.array("\(at)/neurons").values
      comparison.check(
        "\(at)/neurons", Array(try values("neuron_contribution", index).suffix(neurons.count)),
        neurons)
      #expect(try values("neuron_contribution", index).count == layers * neurons.count)
      let target = try golden.array("\(at)/target").values
      // A target may be a small difference of large components, whose rounding it inherits.
      comparison.check(
        "\(at)/target", try values("target", index), target,
        scale: max(abs(target[0]), components.magnitude))

      // Closure: at most 1e-4 × max(1, Σ|components|) by contract, far less in fact.
      let closure = try values("closure_error", index)[0]
      let magnitude = components.values.reduce(0) { $0 + abs($1) }
      comparison.check("\(at)/closure_error", [closure], [0], scale: max(1, magnitude))
      let sum = try values("contribution", index).reduce(0, +)
      comparison.check("\(at)/sum", [sum - target[0]], [0], scale: max(1, magnitude))
    }
    for (variable, attribute) in [
      ("nmae_pooled", "nmae_pooled"), ("nmae_head_mean", "nmae_head_mean"),
    ] {
      let expected = try #require(Double(try golden.text(attribute, of: path)))
      let found = try group.doubles(variable)[0]
      if try golden.text("normalization", of: "/") == "none" {
        // Percent; zero but for the rounding of float32.
        #expect(found < 1e-3 && expected < 1e-8, "\(name) \(variable) \(found)")
      } else {
        comparison.check("\(path) \(variable)", [found], [expected])
      }
    }
    comparison.report("arrays")
  }

  @Test(arguments: ["tiny-ln", "tiny-lnfree"])
  func batchesDoNotMatter(_ name: String) throws {
    let golden = try Golden.open(name)
    let together = try Self.run(name, golden, wrong: true)
    let apart = try Self.run(name, golden, wrong: true, batchSize: 1)
    let comparison = Comparison("\(name) dla one by one", relative: 1e-5)
    for variable in together.variables {
      guard let values = variable.values.doubles,
        let other = apart[variable: variable.name]?.values.doubles,
        variable.name != "closure_error", !variable.name.hasPrefix("nmae")
      else { continue }
      comparison.check(variable.name, values, other)
    }
    comparison.report("variables")
  }

  @Test func anotherPosition() throws {
    // The attribution at position p of a long prompt is that at the end of its first p + 1 tokens.
    let golden = try Golden.open("tiny-ln")
    let model = try GPT2.load(Fixtures.checkpoint("tiny-ln"))
    let tokens = try golden.tokens("full")
    let comparison = Comparison("tiny-ln dla at other positions", relative: 1e-5)
    for position in [0, 4, -3] {
      let end = position < 0 ? tokens.count + position : position
      let inside = try DirectLogitAttribution(position: position)
        .run(model, [Prompt(tokens, answer: 7, wrong: 3)])
      let alone = try DirectLogitAttribution()
        .run(model, [Prompt(Array(tokens[...end]), answer: 7, wrong: 3)])
      for variable in ["contribution", "head_contribution", "head_direct_effect", "target"] {
        comparison.check(
          "\(variable) at \(position)", try inside.doubles("dla", variable),
          try alone.doubles("dla", variable))
      }
    }
    comparison.report("variables")
    #expect(throws: ModelError.self) {
      try DirectLogitAttribution(position: 16).run(model, [Prompt(tokens, answer: 7)])
    }
  }

  @Test func whatCannotBeAttributed() throws {
    let model = try GPT2.load(Fixtures.checkpoint("tiny-ln"))
    let attribution = DirectLogitAttribution()
    #expect(throws: AnalysisError.noPrompts(analysis: "dla")) { try attribution.run(model, []) }
    #expect(throws: AnalysisError.noAnswer(analysis: "dla", prompt: 1)) {
      try attribution.run(model, [Prompt([1, 2], answer: 3), Prompt([1, 2])])
    }
    for (answer, wrong) in [(53, nil), (-1, nil), (3, 53)] as [(Int, Int?)] {
      #expect(throws: ModelError.self) {
        try attribution.run(model, [Prompt([1, 2], answer: answer, wrong: wrong)])
      }
    }
    // What is added to the stream between the components is none of them: their sum misses it.
    let noise = Tensor((0..<24).map { Float(($0 * 7) % 5) }, shape: [24])
    #expect {
      try attribution.run(
        model, [Prompt([1, 2], answer: 3)], interventions: [.add(.residMid(1), noise)])
    } throws: { error in
      guard case .closure(_, 0, _, _)? = error as? AnalysisError else { return false }
      return !"\(error)".contains("\n")
    }
    // A change of a component is attributed as the component; the heads that it overruled are not
    // in the stream.
    for change in [Intervention.add(.attnOut(1), noise), .zero(.attnOut(1))] {
      let changed = try attribution.run(
        model, [Prompt([1, 2], answer: 3)], interventions: [change])
      let heads = try changed.doubles("dla", "head_contribution")
      #expect(heads.map(\.isNaN) == [false, false, false, true, true, true])
      #expect(try changed.doubles("dla", "nmae_pooled")[0].isFinite)
    }
    // A head's result that is set to zero writes nothing.
    let silenced = try attribution.run(
      model, [Prompt([1, 2], answer: 3)], interventions: [.zero(.result(layer: 1, head: 2))])
    #expect(try silenced.doubles("dla", "head_contribution")[5] == 0)
    #expect(try silenced.doubles("dla", "head_direct_effect")[5] == 0)
    #expect {
      try attribution.run(
        model, [Prompt([1, 2], answer: 3)], interventions: [.zero(.ln2Scale(0))])
    } throws: { error in
      guard case .nonFinite? = error as? AnalysisError else { return false }
      return true
    }
  }
}
