import NormLens
import TestSupport
import Testing

/// What the three trained models know, and what attribution says of them.
@Suite struct BundledModelTests {
  /// Sentences of the indirect object task: prompt, indirect object, subject.
  static let sentences = [
    ("When Mary and John went to the store, John gave a drink to", " Mary", " John"),
    ("When Mary and John went to the store, Mary gave a drink to", " John", " Mary"),
    ("When Anna and Jack went to the school, Jack gave a book to", " Anna", " Jack"),
    ("When Karen and Eric went to the park, Karen gave a ring to", " Eric", " Karen"),
    ("Then, Laura and Brian went to the store. Brian gave a drink to", " Laura", " Brian"),
    ("Then, Paul and Mary went to the office. Mary gave a letter to", " Paul", " Mary"),
  ]

  @Test(arguments: BundledModels.names)
  func predictions(_ name: String) throws {
    let model = try GPT2.load(Fixtures.bundled(name))
    #expect(model.identity.name == name)
    for (text, next) in Self.sentences.prefix(1).map({ ($0.0, $0.1) }) + [
      ("The capital of France is", " Paris"),
      ("So Alice is a really great friend, isn't", " she"),
      // Induction: the second time round the list goes on as it did the first time.
      ("green coin ring warm quiet book green coin ring", " warm"),
      ("ring cake Mary small green ring cake Mary", " small"),
    ] {
      let logits = try model.run(batch: [model.tokens(text)], logits: .last)[0]
      let best = try model.tokenizer.piece(logits.row(0).indexOfMaximum!)
      #expect(best == next, "\(name): \(text) → \(best)")
    }
  }

  @Test(arguments: BundledModels.names)
  func attributionError(_ name: String) throws {
    let model = try GPT2.load(Fixtures.bundled(name))
    let tokenizer = try model.tokenizer
    let prompts = try Self.sentences.map { text, answer, wrong in
      Prompt(
        try model.tokens(text), answer: try tokenizer.singleToken(answer),
        wrong: try tokenizer.singleToken(wrong))
    }
    let result = try DirectLogitAttribution().run(model, prompts)
    let group = try #require(result[group: "dla"])
    let targets = group[variable: "target"]!.values.doubles!
    #expect(targets.allSatisfy { $0 > 3 }, "\(targets)")
    let pooled = group[variable: "nmae_pooled"]!.values.doubles![0]
    let closure = group[variable: "closure_error"]!.values.doubles!.map { abs($0) }.max()!
    print("\(name): NMAE pooled \(pooled) %, closure error at most \(closure) logits")
    #expect(closure < 1e-4)
    if name == "mini-lnfree" {
      #expect(pooled < 0.005)
    } else {
      #expect(pooled > 10)
    }
    #expect(result.provenance.facts["weights_sha256"] == .string(model.identity.weightsSHA256))
    #expect(model.identity.weightsSHA256.count == 64)
  }

  @Test(arguments: BundledModels.names)
  func lensEndsInThePrediction(_ name: String) throws {
    let model = try GPT2.load(Fixtures.bundled(name))
    let (text, answer, _) = Self.sentences[0]
    let prompt = Prompt(
      try model.tokens(text), answer: try model.tokenizer.singleToken(answer))
    for frozen in [false, true] {
      let group = try #require(
        LogitLens(frozenScale: frozen).run(model, [prompt])[group: "logit_lens"])
      guard case .strings(let top)? = group[variable: "top_token"]?.values else {
        Issue.record("no top_token")
        return
      }
      #expect(top.last == answer)
      #expect(group[variable: "rank"]!.values.doubles!.last == 0)
    }
  }
}
