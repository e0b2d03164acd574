import NormLens
import TestSupport
import Testing

/// Attribution and lens of a model with RMSNorm, whose stream has a mean: nothing is centred.
@Suite struct RMSNormAnalysisTests {
  static let path = "rmsnorm/tiny-gelu-erf"

  private func open() throws -> (model: GPT2, prompt: Prompt, golden: Golden) {
    var checkpoint = try Checkpoint.open(Fixtures.checkpoint("tiny-gelu-erf"))
    checkpoint.config.normalization = .rmsNorm
    let tokens = try Golden.open("tiny-gelu-erf").tokens("b")
    return (
      try checkpoint.model(), Prompt(tokens, answer: 7, wrong: 3), try Golden.open("processing")
    )
  }

  @Test func directLogitAttribution() throws {
    let (model, prompt, golden) = try open()
    let result = try DirectLogitAttribution(neurons: true).run(model, [prompt])
    let group = try result.group("dla")
    let comparison = Comparison("RMSNorm attribution against float64")
    for (variable, name) in [
      ("contribution", "components"), ("head_contribution", "heads"),
      ("head_direct_effect", "heads_direct_effect"), ("neuron_contribution", "neurons"),
      ("target", "target"),
    ] {
      comparison.check(
        variable, try group.doubles(variable), try golden.array("\(Self.path)/dla/\(name)").values)
    }
    comparison.check(
      "component_direct_effect", try group.doubles("component_direct_effect").dropLast(),
      try golden.array("\(Self.path)/dla/components_direct_effect").values)
    comparison.report("variables")
    #expect(abs(try group.doubles("closure_error")[0]) < 1e-5)
    #expect(
      group[variable: "contribution"]?.attributes["formula"]
        == .string("c/scale(r) * gain . w, scale frozen"))
  }

  @Test(arguments: [false, true])
  func logitLens(frozen: Bool) throws {
    let (model, prompt, golden) = try open()
    let result = try LogitLens(frozenScale: frozen).run(model, [prompt])
    let lens = try golden.array("\(Self.path)/logit_lens/\(frozen ? "frozen" : "recomputed")")
    // The answer's logit of every stream and position.
    let answer = lens.gathering([7], axis: 2)
    let comparison = Comparison("RMSNorm lens, \(frozen ? "frozen" : "recomputed")")
    comparison.check("logit", try result.doubles("logit_lens", "logit"), answer.values)
    comparison.report("variables")
  }

  /// Processing leaves attributions of a LayerNorm model what they are: rmsnorm after centring is
  /// the same decomposition, centred.
  @Test func processedModelsCloseToo() throws {
    for name in Fixtures.checkpoints where !name.hasPrefix("tiny-lnf") && name != "tiny-apollo" {
      let plain = try GPT2.load(Fixtures.checkpoint(name))
      let processed = try GPT2.load(
        Fixtures.checkpoint(name), processing: [.foldLN, .centerWritingWeights, .rmsNorm])
      let prompt = Prompt(try Golden.open(name).tokens("full"), answer: 7, wrong: 3)
      let comparison = Comparison(
        "\(name) attribution after fold_ln, centring, rmsnorm", relative: 1e-5)
      let before = try DirectLogitAttribution().run(plain, [prompt])
      let after = try DirectLogitAttribution().run(processed, [prompt])
      for variable in ["contribution", "head_contribution", "head_direct_effect", "target"] {
        // b_V is in the heads in both; the gain has moved, the product has not.
        comparison.check(
          variable, try after.doubles("dla", variable), try before.doubles("dla", variable))
      }
      comparison.report("variables")
    }
  }
}
