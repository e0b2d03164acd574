import NormLens
import TestSupport
import Testing

/// Attribution and patching of compressed models are the unprocessed model's: they do not depend on the
/// coordinates of the stream.
@Suite struct CompressedStreamAnalysisTests {
  @Test(arguments: CompressedForm.all)
  func attribution(_ form: CompressedForm) throws {
    let (plain, model) = (try form.plain(), try form.load())
    let prompt = Prompt(try Golden.open(form.checkpoint).tokens("full"), answer: 7, wrong: 3)
    let comparison = Comparison("\(form) attribution", relative: 1e-5)
    let attribution = DirectLogitAttribution(neurons: true)
    let before = try attribution.run(plain, [prompt])
    let after = try attribution.run(model, [prompt])
    for variable in [
      "contribution", "component_direct_effect", "head_contribution", "head_direct_effect",
      "neuron_contribution", "target",
    ] {
      comparison.check(
        variable, try after.doubles("dla", variable), try before.doubles("dla", variable))
    }
    for frozen in [false, true] {
      let lens = LogitLens(frozenScale: frozen)
      comparison.check(
        "lens", try lens.run(model, [prompt]).doubles("logit_lens", "logit"),
        try lens.run(plain, [prompt]).doubles("logit_lens", "logit"))
    }
    comparison.report("variables")
    #expect(after.provenance.facts["norm_width"] == .integer(plain.config.dModel))
    #expect(before.provenance.facts["norm_width"] == nil)
  }

  @Test(arguments: CompressedForm.all)
  func patching(_ form: CompressedForm) throws {
    let (plain, model) = (try form.plain(), try form.load())
    let pairs = try PatchingModels.pairs(form.checkpoint, plain)
    let sites: [PatchSite] = PatchSite.blocks + PatchSite.heads + [.residMid, .mlpPost]
    var sweep = ActivationPatching(of: sites)
    sweep.positions = .fromEnd
    let estimates = AttributionPatching(of: sweep, by: [.attribution, .relevance(.relp)])
    for method in ["activation", "attribution", "relevance"] {
      let results = try [plain, model].map { model in
        method == "activation" ? try sweep.run(model, pairs) : try estimates.run(model, pairs)
      }
      let (before, after) = (
        try SweepValues(results[0], method: method), try SweepValues(results[1], method: method)
      )
      let comparison = EffectComparison("\(form), \(method)")
      for site in sites {
        for (prompt, pair) in pairs.enumerated() {
          let logit = Double(try plain.run(pair.clean).maximumMagnitude)
          comparison.check(
            site.name, try after.cells(site.name, prompt: prompt, length: pair.length),
            try before.cells(site.name, prompt: prompt, length: pair.length), logit: logit)
        }
      }
      comparison.report()
    }
  }

  @Test(arguments: CompressedForm.all)
  func paths(_ form: CompressedForm) throws {
    let (plain, model) = (try form.plain(), try form.load())
    let pairs = try PatchingModels.pairs(form.checkpoint, plain)
    let senders = try PathSender.parse("all", plain.config)
    let receivers = try PathReceiver.parse("all", plain.config)
    for variant in [PathPatching.Variant.recomputed, .frozen] {
      let patching = PathPatching(senders: senders, receivers: receivers, variant: variant)
      let before = try patching.run(plain, pairs).doubles("path", "effect")
      let after = try patching.run(model, pairs).doubles("path", "effect")
      let difference = PathPatchingTests.difference(after, before)
      let allowed = try PathPatchingTests.allowed(before, plain, pairs)
      print("\(form), \(variant) paths: difference \(difference), allowed \(allowed)")
      #expect(difference <= allowed)
    }
  }
}
