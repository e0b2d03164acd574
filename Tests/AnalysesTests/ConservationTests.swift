import NormLens
import TestSupport
import Testing

/// Relevance is passed on whole where the rules make every step linear: to 1e-12 in the
/// double-precision model of the tests, and in the ledger of the analysis.
@Suite struct ConservationTests {
  static let names = [
    "tiny-ln", "tiny-lnfree", "patching-deep", "tiny-relu-untied", "tiny-gelu-erf",
    "tiny-gelu-erf-rmsnorm",
  ]
  /// The rules under which everything is linear.
  static let everything = BackwardRules(ln: true, identity: true, attentionPattern: true)

  private func pair(_ name: String, biases: Bool) throws -> DoublePair {
    let pair = DoublePair(try GradientGolden(name).model())
    return biases ? pair : DoublePair(pair.model.withoutBiases(), pair.pair)
  }

  /// The hooks of the streams, lowest first, as the ledger has them.
  private func streams(_ config: GPT2Config) -> [String] {
    (0..<config.nLayers).flatMap {
      ["blocks.\($0).hook_resid_pre", "blocks.\($0).hook_resid_mid"]
    } + ["blocks.\(config.nLayers - 1).hook_resid_post"]
  }

  /// Σ x·ρ at a hook of the corrupted run.
  private func relevance(
    _ pair: DoublePair, _ hook: String, _ gradients: DoubleGPT2.Gradients
  ) -> Double {
    pair.corrupted[hook].dot(gradients[hook])
  }

  /// Whether a bias is added above stream number `stream`.
  private func isAbove(_ bias: String, _ stream: Int) -> Bool {
    let words = bias.split(separator: ".")
    guard words[0] == "blocks", let layer = Int(words[1]) else { return true }
    let isOfMLP = ["ln2", "b_in", "b_out"].contains(words[2])
    return 2 * layer + (isOfMLP ? 1 : 0) >= stream
  }

  /// Without biases on the way every stream's relevance is the metric; queries and keys may have
  /// biases.
  @Test(arguments: names)
  func withoutBiases(_ name: String) throws {
    let pair = try pair(name, biases: false)
    let block = pair.model.blocks[0]
    #expect(block.b_Q.contains { abs($0) > 0.1 } && block.b_K.contains { abs($0) > 0.1 })
    #expect(block.b_V.allSatisfy { $0 == 0 } && pair.model.b_U.allSatisfy { $0 == 0 })
    let gradients = pair.gradients(Self.everything)
    let metric = pair.metric(pair.corrupted)
    var deviation = Deviation()
    for hook in streams(pair.model.config) + ["unembed.hook_in"] {
      deviation.add(relevance(pair, hook, gradients), metric)
    }
    deviation.add(
      relevance(pair, "hook_embed", gradients) + relevance(pair, "hook_pos_embed", gradients),
      metric)
    // Inside a layer, too: what the MLP and attention wrote is what they read.
    for layer in 0..<pair.model.config.nLayers {
      let h = "blocks.\(layer)."
      for (output, inputs) in [
        ("hook_mlp_out", ["mlp.hook_post", "mlp.hook_pre"]),
        ("hook_attn_out", ["attn.hook_result", "attn.hook_z", "attn.hook_v"]),
      ] {
        let whole = relevance(pair, h + output, gradients)
        #expect(abs(whole) > 1e-4)
        for input in inputs {
          deviation.add(relevance(pair, h + input, gradients), whole, scale: abs(metric))
        }
      }
      #expect(gradients["\(h)attn.hook_pattern"].magnitude == 0)
    }
    print("\(name): metric \(metric), conserved to \(deviation.worst)")
    #expect(deviation.worst < 1e-12 && abs(metric) > 0.05)
  }

  /// With biases their shares complete the sum; those of queries and keys get nothing.
  @Test(arguments: names)
  func withBiases(_ name: String) throws {
    let pair = try pair(name, biases: true)
    let gradients = pair.gradients(Self.everything)
    let metric = pair.metric(pair.corrupted)
    let size = gradients.biases.values.reduce(abs(metric)) { sum, pair in
      sum + abs(zip(pair.bias, pair.gradient).reduce(0) { $0 + $1.0 * $1.1 })
    }
    var deviation = Deviation()
    for (index, hook) in streams(pair.model.config).enumerated() {
      let share = gradients.biasShare { isAbove($0, index) }
      deviation.add(relevance(pair, hook, gradients) + share, metric, scale: size)
    }
    let inputs =
      relevance(pair, "hook_embed", gradients) + relevance(pair, "hook_pos_embed", gradients)
    deviation.add(inputs + gradients.biasShare(), metric, scale: size)
    for (name, share) in gradients.biases where name.hasSuffix("b_Q") || name.hasSuffix("b_K") {
      #expect(share.gradient.allSatisfy { $0 == 0 } && share.bias.contains { $0 != 0 })
    }
    let biases = gradients.biasShare()
    print(
      "\(name): inputs \(inputs) + biases \(biases) = metric \(metric), to \(deviation.worst)")
    #expect(deviation.worst < 1e-12 && abs(biases) > 0.01 && abs(inputs) > 0.01)
  }

  /// The default rules let relevance through queries and keys as well, and the sum fails: it holds from
  /// the last MLP on and not below the last attention.
  @Test(arguments: names)
  func defaultRules(_ name: String) throws {
    let pair = try pair(name, biases: false)
    let gradients = pair.gradients(.relp)
    let metric = pair.metric(pair.corrupted)
    let found = streams(pair.model.config).map { relevance(pair, $0, gradients) }
    print("\(name): metric \(metric), relevance of the streams \(found)")
    for value in found.suffix(2) { #expect(abs(value - metric) < 1e-12 * abs(metric)) }
    for value in found.dropLast(2) { #expect(abs(value - metric) > 1e-3 * abs(metric)) }
  }

  /// Why norms need a rule: their derivative sees no change of length, and nothing is left of the last
  /// stream's relevance. Exactly so without ε.
  @Test(arguments: ["tiny-ln", "patching-deep", "tiny-gelu-erf-rmsnorm"], [0.0, 1e-5])
  func scaleInvariance(_ name: String, _ epsilon: Double) throws {
    let some = try pair(name, biases: false)
    var model = some.model
    model.config.layerNormEpsilon = epsilon
    let pair = DoublePair(model, some.pair)
    let hook = "blocks.\(model.config.nLayers - 1).hook_resid_post"
    let stream = pair.corrupted[hook]
    let plain = pair.gradients(.gradient)[hook]
    let size = zip(stream.values, plain.values).reduce(0) { $0 + abs($1.0 * $1.1) }
    let left = stream.dot(plain)
    let metric = pair.metric(pair.corrupted)
    let kept = stream.dot(pair.gradients(.init(ln: true))[hook])
    print("\(name), epsilon \(epsilon): \(left) left of \(size); by the rule \(kept) of \(metric)")
    #expect(size > 0.1 && abs(metric) > 0.1)
    if epsilon == 0 {
      #expect(abs(left) < 1e-13 * size)
    } else {
      // ε's share: of the order of ε / variance.
      #expect(abs(left) < 1e-4 * size && abs(left) > 1e-10 * size)
    }
    #expect(abs(kept - metric) < 1e-12 * size)
  }

  // MARK: the ledger of the analysis

  /// A model of which `withoutBiases` is true.
  private func modelWithoutBiases(_ name: String) throws -> GPT2 {
    var checkpoint = try Checkpoint.open(Fixtures.checkpoint(name))
    let d = checkpoint.config.dModel
    for (name, tensor) in checkpoint.tensors where name.hasSuffix("bias") {
      // Queries and keys keep theirs.
      let kept = name.hasSuffix("c_attn.bias") ? 2 * d : 0
      let values = tensor.scalars.enumerated().map { $0.offset < kept ? $0.element : 0 }
      checkpoint.tensors[name] = Tensor(values, shape: tensor.shape)
    }
    return try checkpoint.model()
  }

  private func ledger(
    _ model: GPT2, _ pairs: [PromptPair], _ rules: BackwardRules,
    _ direction: ActivationPatching.Direction = .denoising
  ) throws -> (group: ResultGroup, warnings: [String]) {
    let experiment = ActivationPatching(of: PatchSite.headZ, direction: direction)
    let result = try AttributionPatching(of: experiment, by: [.relevance(rules)]).run(model, pairs)
    var warnings: [String] = []
    if case .strings(let texts)? = try result.group("patch").attributes["warnings"] {
      warnings = texts.filter { $0.contains("conserved") }
    }
    return (try result.group("patch/relevance"), warnings)
  }

  /// Every number of the ledger against the double-precision model, for all rules; and the stream that
  /// it says the sum is exact from: there it is exact to 1e-11 in double precision, and below it is not.
  @Test(arguments: names)
  func ledgerIsRight(_ name: String) throws {
    let model = try GradientGolden(name).model()
    let double = DoublePair(model)
    let hooks = streams(model.config)
    let labels = model.config.streamLabels
    #expect(labels.count == hooks.count)
    var deviation = Deviation()
    var exact: Set<String> = []
    for bits in 1..<16 {
      let rules = BackwardRules(
        ln: bits & 1 > 0, identity: bits & 2 > 0, attentionPattern: bits & 4 > 0,
        uniformAttention: bits & 8 > 0)
      let (group, warnings) = try ledger(model, [double.pair], rules)
      #expect(warnings.isEmpty, "\(rules.names): \(warnings)")
      let gradients = double.gradients(rules)
      let metric = double.metric(double.corrupted)
      let start = try group.doubles("conservation_start")[0]
      let expected = hooks.map { relevance(double, $0, gradients) }
      let shares = hooks.indices.map { stream in
        gradients.biasShare { isAbove($0, stream) }
      }
      let size = (expected + shares).reduce(abs(metric)) { max($0, abs($1)) }
      deviation.add(start, metric, scale: size)
      let (stream, bias, error) = (
        try group.doubles("conservation_stream"), try group.doubles("conservation_bias"),
        try group.doubles("conservation_error")
      )
      for index in hooks.indices {
        deviation.add(stream[index], expected[index], scale: size)
        deviation.add(bias[index], shares[index], scale: size)
        deviation.add(
          error[index], expected[index] + shares[index] - metric, scale: size)
      }
      guard case .string(let from)? = group.attributes["conservation_exact_from"] else {
        Issue.record("\(rules.names): no conservation_exact_from")
        continue
      }
      exact.insert(from)
      let first = labels.firstIndex(of: from) ?? labels.count
      let tolerance = try group.doubles("conservation_tolerance")
      for index in hooks.indices {
        let missing = abs(expected[index] + shares[index] - metric)
        if index >= first {
          #expect(missing < 1e-11 * size, "\(rules.names): \(labels[index])")
          #expect(abs(error[index]) <= tolerance[index])
        } else if index == first - 1 {
          #expect(missing > 1e-6 * size, "\(rules.names): \(labels[index]) is exact, too")
        }
      }
    }
    print("\(name): ledger differs by \(deviation.worst); exact from \(exact.sorted())")
    #expect(deviation.worst < 2e-5 && deviation.size > 0.1)
    #expect(exact.contains("0_pre") && exact.count > 1)
  }

  /// Without biases the streams alone make up the metric, in both directions and for several prompts.
  @Test(
    arguments: ["tiny-ln", "tiny-relu-untied", "patching-deep"],
    [ActivationPatching.Direction.denoising, .noising])
  func ledgerWithoutBiases(
    _ name: String, _ direction: ActivationPatching.Direction
  ) throws {
    let model = try modelWithoutBiases(name)
    let pairs = try PatchingModels.equalPairs(name, model)
    let (group, warnings) = try ledger(model, pairs, Self.everything, direction)
    #expect(warnings.isEmpty)
    #expect(try group.doubles("conservation_bias").allSatisfy { $0 == 0 })
    let (stream, start) = (
      try group.doubles("conservation_stream"), try group.doubles("conservation_start")
    )
    let count = stream.count / pairs.count
    let base = direction == .denoising ? \PromptPair.corrupted : \.clean
    var deviation = Deviation()
    for (prompt, pair) in pairs.enumerated() {
      let logits = try model.run(pair[keyPath: base])
      let last = logits.row(pair.length - 1)
      let metric = Double(last[pair.answer[0]]) - Double(last[pair.wrong[0]])
      deviation.add(start[prompt], metric)
      for value in stream[prompt * count..<(prompt + 1) * count] {
        deviation.add(value, metric, scale: max(1, abs(metric)))
      }
    }
    print("\(name), \(direction.rawValue): streams and metric differ by \(deviation.worst)")
    #expect(deviation.worst < 2e-5 && deviation.size > 0.1)
  }
}
