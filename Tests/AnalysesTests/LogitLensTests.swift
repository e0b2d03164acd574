import Foundation
import NormLens
import TestSupport
import Testing

/// The logit lens against the float64 reference; the statistics of each row are computed here, in
/// double precision, from the golden logits.
@Suite struct LogitLensTests {
  static let answer = 7

  /// What one row of logits says, by the definitions.
  struct Row {
    var rank: Int
    var probability: Double
    var entropy: Double
    var top: Int
    var topProbability: Double
    /// Whether two logits that decide rank or top lie too near to each other for float32.
    var isTie: Bool

    init(_ logits: [Double], answer: Int, scale: Double) {
      let largest = logits.max()!
      let weights = logits.map { exp($0 - largest) }
      let total = weights.reduce(0, +)
      let shares = weights.map { $0 / total }
      rank = logits.filter { $0 > logits[answer] }.count
      probability = shares[answer]
      entropy = -shares.reduce(0) { $1 > 0 ? $0 + $1 * log($1) : $0 }
      top = logits.firstIndex(of: largest)!
      topProbability = shares[top]
      // Ten times the error that the lens logits are found to have.
      let near = 2e-6 * scale
      let leaders = logits.filter { $0 > largest - near }.count
      let rivals = logits.filter { abs($0 - logits[answer]) < near }.count
      isTie = leaders > 1 || rivals > 1
    }
  }

  @Test func whatALensDoesNotSeeIsRefused() throws {
    let model = try GPT2.load(Fixtures.checkpoint("tiny-ln"))
    let prompts = [Prompt([1, 2, 3], answer: 4)]
    for late in [HookFilter.lnFinalScale, .lnFinalNormalized, .unembedIn, .unembedOut] {
      #expect(throws: ModelError.self) {
        try LogitLens().run(model, prompts, interventions: [.zero(late)])
      }
    }
    #expect {
      try LogitLens().run(model, prompts, interventions: [.zero(.ln1Scale(0))])
    } throws: { error in
      guard case .nonFinite? = error as? AnalysisError else { return false }
      return true
    }
  }

  @Test(arguments: Fixtures.checkpoints, [false, true])
  func golden(_ name: String, frozen: Bool) throws {
    let golden = try Golden.open(name)
    let model = try GPT2.load(Fixtures.checkpoint(name))
    let prompts = Golden.attributionPrompts
    let lens = LogitLens(frozenScale: frozen)
    let kind = frozen ? "frozen" : "recomputed"
    let group = try #require(
      lens.run(model, prompts.map { Prompt(try golden.tokens($0), answer: Self.answer) })[
        group: "logit_lens"])
    let streams = model.config.streamLabels
    #expect(group[dimension: "stream"]?.coordinates == .labels(streams))
    let longest = try #require(group[dimension: "pos"]?.count)
    func values(_ variable: String) throws -> [Double] {
      try group.doubles(variable)
    }
    let (logit, rank, prob) = (try values("logit"), try values("rank"), try values("prob"))
    let (entropy, topProb) = (try values("entropy"), try values("top_prob"))
    let top = try values("top_token_id")

    let whole = Comparison("\(name) \(kind) lens logits")
    let rows = Comparison("\(name) \(kind) lens statistics")
    var ties = 0
    for (index, prompt) in prompts.enumerated() {
      let at = "logit_lens/\(prompt)"
      #expect(
        try golden.text("streams", of: at).split(separator: ",").map(String.init) == streams)
      let expected = try golden.array("\(at)/\(kind)")
      let length = expected.shape[1]
      let (_, cache) = try model.runWithCache(
        golden.tokens(prompt),
        hooks: [.residPre(.all), .residMid(.all), .residPost(-1)])
      for (stream, label) in streams.enumerated() {
        let hook = try HookName(
          parsing: label == "final_post"
            ? "resid_post-1"
            : "resid_" + label.split(separator: "_")[1] + label.split(separator: "_")[0],
          nLayers: model.config.nLayers)
        let logits = expected.row(stream)
        whole.check(
          "\(label) of \(prompt)", try lens.lensLogits(model, cache, hook), logits)
        for position in 0..<longest {
          let cell = (index * streams.count + stream) * longest + position
          guard position < length else {
            #expect(logit[cell].isNaN && rank[cell].isNaN && prob[cell].isNaN)
            #expect(entropy[cell].isNaN && topProb[cell].isNaN && top[cell] == -1)
            continue
          }
          let row = logits.row(position).values
          let truth = Row(row, answer: Self.answer, scale: logits.magnitude)
          let place = "\(label) of \(prompt) at \(position)"
          rows.check("logit, \(place)", [logit[cell]], [row[Self.answer]], scale: logits.magnitude)
          rows.check("prob, \(place)", [prob[cell]], [truth.probability], scale: 1)
          rows.check("entropy, \(place)", [entropy[cell]], [truth.entropy], scale: 1)
          rows.check("top_prob, \(place)", [topProb[cell]], [truth.topProbability], scale: 1)
          if truth.isTie {
            ties += 1
          } else {
            #expect(Int(rank[cell]) == truth.rank && Int(top[cell]) == truth.top, "\(place)")
          }
        }
      }
    }
    // A golden value where float32 cannot decide would make the test say less than it seems to.
    #expect(ties <= 2)
    whole.report("streams")
    rows.report("statistics")
  }

  @Test(arguments: ["tiny-ln", "tiny-lnfree"])
  func batchesDoNotMatter(_ name: String) throws {
    let golden = try Golden.open(name)
    let model = try GPT2.load(Fixtures.checkpoint(name))
    let prompts = try ["c", "full", "t1", "b"].map {
      Prompt(try golden.tokens($0), answer: Self.answer)
    }
    let together = try #require(LogitLens().run(model, prompts)[group: "logit_lens"])
    let apart = try #require(LogitLens(batchSize: 1).run(model, prompts)[group: "logit_lens"])
    for variable in ["logit", "prob", "entropy", "top_prob"] {
      let (a, b) = (
        try together.doubles(variable), try apart.doubles(variable)
      )
      #expect(a.count == b.count)
      for (x, y) in zip(a, b) { #expect((x.isNaN && y.isNaN) || abs(x - y) < 1e-4) }
    }
    #expect(together[variable: "top_token_id"]!.values == apart[variable: "top_token_id"]!.values)
  }

  @Test func frozenLensLogitsDifferByAttributions() throws {
    // Between two successive streams of the frozen lens lies what was added between them.
    let golden = try Golden.open("tiny-ln")
    let model = try GPT2.load(Fixtures.checkpoint("tiny-ln"))
    let tokens = try golden.tokens("b")
    let lens = try LogitLens(frozenScale: true).run(model, [Prompt(tokens, answer: 7)])
    let dla = try DirectLogitAttribution().run(model, [Prompt(tokens, answer: 7)])
    let logit = try lens.doubles("logit_lens", "logit")
    let parts = try dla.doubles("dla", "contribution")
    let last = (0..<5).map { logit[$0 * tokens.count + tokens.count - 1] }
    let comparison = Comparison("tiny-ln steps of the frozen lens", relative: 1e-5)
    let scale = parts.map { abs($0) }.max()!
    for step in 0..<4 {
      comparison.check(
        "step \(step)", [last[step + 1] - last[step]], [parts[2 + step]], scale: scale)
    }
    comparison.check("0_pre", [last[0]], [parts[0] + parts[1] + parts[6]], scale: scale)
    comparison.report("steps")
  }

  @Test func promptsWithoutAnswers() throws {
    let model = try GPT2.load(Fixtures.checkpoint("tiny-ln"))
    let none = try #require(LogitLens().run(model, [Prompt([1, 2])])[group: "logit_lens"])
    #expect(none[variable: "logit"] == nil && none[variable: "entropy"] != nil)
    let some = try #require(
      LogitLens().run(model, [Prompt([1, 2]), Prompt([1, 2], answer: 4)])[group: "logit_lens"])
    let rank = try some.doubles("rank")
    #expect(rank.prefix(10).allSatisfy(\.isNaN) && !rank.suffix(10).contains(where: \.isNaN))
    #expect(throws: AnalysisError.noPrompts(analysis: "lens")) { try LogitLens().run(model, []) }
  }
}
