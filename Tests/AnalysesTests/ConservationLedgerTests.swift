import NormLens
import TestSupport
import Testing

/// What a backward pass by rules passes on, against what it starts with.
@Suite struct ConservationLedgerTests {
  private let names = PatchingModels.all + ["mini-vanilla"]

  private static let conserving = BackwardRules(ln: true, identity: true, attentionPattern: true)

  private func load(_ name: String) throws -> GPT2 {
    try name == "mini-vanilla" ? GPT2.load(Fixtures.bundled(name)) : PatchingModels.load(name)
  }

  private func ledger(
    _ model: GPT2, _ pairs: [PromptPair], _ rules: BackwardRules,
    metric: Metric = .logitDifference, direction: ActivationPatching.Direction = .denoising
  ) throws -> ResultSet {
    let sweep = ActivationPatching(of: .residPre, direction: direction, metric: metric)
    return try AttributionPatching(of: sweep, by: [.relevance(rules)]).run(model, pairs)
  }

  private func warnings(_ result: ResultSet) -> String {
    "\(result[group: "patch"]?.attributes["warnings"] as Any)"
  }

  /// Wherever the rules make the sum exact it is, for every metric, and nothing warns.
  @Test func conserved() throws {
    for name in names {
      let model = try load(name)
      let pairs = try PatchingModels.equalPairs(
        name == "mini-vanilla" ? "mini" : name, model)
      let streams = model.config.streamLabels
      var worst = 0.0
      for rules in [
        Self.conserving, .relp, BackwardRules(ln: true),
        BackwardRules(identity: true, attentionPattern: true),
      ] {
        for metric in [Metric.logitDifference, .loss, .kl] {
          let result = try ledger(model, pairs, rules, metric: metric)
          let group = try result.group("patch/relevance")
          let from = try #require(group.attributes["conservation_exact_from"]?.description)
          let needsNorm = !rules.ln && model.config.normalization != .none
          #expect((from == "none") == needsNorm, "\(name) \(rules.names)")
          if rules == Self.conserving { #expect(from == "0_pre") }
          let first = streams.firstIndex(of: from) ?? streams.count
          let errors = try group.doubles("conservation_error")
          let tolerances = try group.doubles("conservation_tolerance")
          #expect(errors.count == pairs.count * streams.count)
          for index in errors.indices where index % streams.count >= first {
            let share = abs(errors[index]) / tolerances[index]
            worst = max(worst, share)
            #expect(share <= 1, "\(name) \(rules.names) \(metric.name) \(index)")
          }
          #expect(!warnings(result).contains("not conserved"))
        }
      }
      print("\(name): conservation errors at most \(fixed(worst, 3)) of what is allowed")
    }
  }

  /// Where the rules do not make it exact, it is not: the ledger is no tautology.
  @Test(arguments: ["tiny-ln", "tiny-gelu-erf", "mini", "mini-vanilla", "mini-lnfree"])
  func notConservedOtherwise(_ name: String) throws {
    let model = try load(name)
    let pairs = try PatchingModels.equalPairs(name == "mini-vanilla" ? "mini" : name, model)
    let hasNorms = model.config.normalization != .none
    for rules in [
      BackwardRules.relp, BackwardRules(ln: true, attentionPattern: true),
      BackwardRules(ln: true, identity: true, attentionPattern: true, uniformAttention: true),
    ] + (hasNorms ? [BackwardRules(identity: true, attentionPattern: true)] : []) {
      let group = try ledger(model, pairs, rules).group("patch/relevance")
      let error = try group.doubles("conservation_error")[0]
      let tolerance = try group.doubles("conservation_tolerance")[0]
      print("\(name), \(rules.names): error at the embeddings \(error), rounding \(tolerance)")
      #expect(abs(error) > 5 * tolerance, "\(name) \(rules.names)")
    }
  }

  /// The start is the metric for the linear ones, and the final stream's share what the unembedding
  /// reads, by hand.
  @Test(arguments: ["tiny-ln", "tiny-lnfree", "mini", "mini-lnfree"])
  func againstDirectSums(_ name: String) throws {
    let model = try load(name)
    let pairs = try PatchingModels.equalPairs(name, model)
    for direction in [ActivationPatching.Direction.denoising, .noising] {
      let result = try ledger(model, pairs, Self.conserving, direction: direction)
      let group = try result.group("patch/relevance")
      let metric = try result.doubles(
        "patch", direction == .denoising ? "corrupted_metric" : "clean_metric")
      let start = try group.doubles("conservation_start")
      let comparison = Comparison("\(name), \(direction.rawValue): the ledger's ends")
      comparison.check("start", start, metric)
      let streams = model.config.streamLabels.count
      let relevance = try group.doubles("conservation_stream")
      let biases = try group.doubles("conservation_bias")
      for (prompt, pair) in pairs.enumerated() {
        // The biases above the final stream: the final norm's and the unembedding's.
        var share = 0.0
        for (token, sign) in [(pair.answer[0], 1.0), (pair.wrong[0], -1.0)] {
          share += sign * Double(model.weights.b_U?[token] ?? 0)
          if let bias = model.weights.lnFinal?.bias {
            share += sign * bias.dot(model.weights.unembedding(of: token))
          }
        }
        let last = (prompt + 1) * streams - 1
        comparison.check("bias", [biases[last]], [share], scale: max(1, abs(start[prompt])))
        comparison.check(
          "stream", [relevance[last]], [start[prompt] - share], scale: max(1, abs(start[prompt])))
      }
      comparison.report()
    }
  }

  /// Two neurons whose outputs cancel, large enough for float32 to lose what they are added to: the
  /// sum is missed, and that is said.
  @Test func aMissIsSaid() throws {
    var checkpoint = try Checkpoint.open(Fixtures.checkpoint("tiny-ln"))
    func edit(_ name: String, _ change: (inout [Float], _ width: Int) -> Void) throws {
      let tensor = try #require(checkpoint.tensors[name])
      var scalars = tensor.scalars
      change(&scalars, tensor.shape[tensor.rank - 1])
      checkpoint.tensors[name] = Tensor(scalars, shape: tensor.shape)
    }
    // The last neuron is the first again, with the opposite output.
    for part in ["weight", "bias"] {
      try edit("h.0.mlp.c_fc.\(part)") { scalars, width in
        for start in stride(from: 0, to: scalars.count, by: width) {
          scalars[start + width - 1] = scalars[start]
        }
      }
    }
    try edit("h.0.mlp.c_proj.weight") { scalars, width in
      for i in 0..<width {
        scalars[i] = 1e6
        scalars[scalars.count - width + i] = -1e6
      }
    }
    let model = try checkpoint.model()
    let pairs = try PatchingModels.equalPairs("tiny-ln", model)
    let result = try ledger(model, pairs, Self.conserving)
    let group = try result.group("patch/relevance")
    let (errors, tolerances) = (
      try group.doubles("conservation_error"), try group.doubles("conservation_tolerance")
    )
    print("cancelling neurons: errors \(errors), allowed \(tolerances)")
    #expect(zip(errors, tolerances).contains { abs($0) > $1 })
    #expect(warnings(result).contains("relevance is not conserved in"))
  }

  /// It can be left out, and says nothing of a plain derivative.
  @Test func leftOut() throws {
    let model = try load("tiny-ln")
    let pairs = try PatchingModels.equalPairs("tiny-ln", model)
    var patching = AttributionPatching(of: .init(of: .residPre), by: [.relevance(.relp)])
    let kept = try patching.run(model, pairs)
    patching.ledger = false
    let without = try patching.run(model, pairs)
    let group = try without.group("patch/relevance")
    #expect(group[variable: "conservation_error"] == nil && group[dimension: "stream"] == nil)
    let comparison = Comparison("with and without a ledger", relative: 1e-5)
    comparison.check(
      "resid_pre", try without.doubles("patch/relevance", "resid_pre"),
      try kept.doubles("patch/relevance", "resid_pre"))
    comparison.report()
    #expect(
      try ledger(model, pairs, .gradient).group("patch/relevance")[dimension: "stream"] == nil)
  }
}
