import NormLens
import TestSupport
import Testing

/// How queries lie to the ones direction.
@Suite struct QueryAlignmentTests {
  private func run(_ model: GPT2, _ prompts: [[Int]]) throws -> [ResultGroup] {
    let prompts = prompts.map { Prompt($0) }
    var collectors: [any Collector] = [try QueryAlignment(model, prompts)]
    let sink = MemorySink(collectors[0].tables)
    try CollectionPass(prompts, batchSize: 2).run(model, &collectors, into: sink)
    return sink.result + (try collectors[0].findings())
  }

  @Test(arguments: [
    (8, 72.57), (64, 84.23), (768, 88.34), (1024, 88.55), (1280, 88.73), (1600, 88.83),
  ])
  func randomDirections(dimension: Int, expected: Double) {
    let angle = QueryAlignment.randomAngle(dimension: dimension)
    // The expected values are means of samples.
    #expect(abs(angle - expected) < 0.03)
    print("random directions in \(dimension) dimensions: \(angle)°")
  }

  @Test func randomDirectionsInThePlane() {
    #expect(abs(QueryAlignment.randomAngle(dimension: 2) - 45) < 1e-6)
    // Uniform on the sphere: |x₁| is uniform, E[asin|x₁|] = π/2 − 1.
    #expect(abs(QueryAlignment.randomAngle(dimension: 3) - 180 / Double.pi) < 1e-6)
  }

  @Test func anglesNeedUncenteredWeights() throws {
    let tokens = [[1, 2, 3, 4, 5], [6, 7]]
    func attribute(_ groups: [ResultGroup]) -> String? {
      if case .string(let text)? = groups[0][variable: "angle_to_ones"]?.attributes["not_computed"]
      {
        text
      } else {
        nil
      }
    }
    let plain = try run(try GPT2.load(Fixtures.checkpoint("tiny-ln")), tokens)
    #expect(attribute(plain) == nil)
    #expect(try plain[0].doubles("angle_to_ones").allSatisfy { $0 >= 0 && $0 <= 90 })

    let folded = try run(
      try GPT2.load(Fixtures.checkpoint("tiny-ln"), processing: [.foldLN]), tokens)
    #expect(attribute(folded)?.contains("fold_ln") == true)
    let free = try run(try GPT2.load(Fixtures.checkpoint("tiny-lnfree")), tokens)
    #expect(attribute(free)?.contains("LN-free") == true)
    for centered in [folded, free] {
      #expect(try centered[0].doubles("angle_to_ones").allSatisfy { $0.isNaN })
      #expect(try centered[0].doubles("ones_share").allSatisfy { $0.isNaN })
      #expect(try centered[0].doubles("bias_angle_to_ones").allSatisfy { $0.isNaN })
      #expect(try centered[0].doubles("usable_norm").allSatisfy { $0 > 0 })
    }
    // Folding changes neither what queries can do nor what they did.
    let comparison = Comparison("query alignment, LayerNorm folded")
    for name in ["usable_norm", "spread_bound", "entropy"] {
      comparison.check(name, try folded[0].doubles(name), try plain[0].doubles(name))
    }
    comparison.report()
  }

  /// RMSNorm leaves the normalised stream its mean, so that the bound holds the whole effective query.
  @Test func boundHoldsWithRMSNorm() throws {
    var checkpoint = try Checkpoint.open(Fixtures.checkpoint("tiny-ln"))
    checkpoint.config.normalization = .rmsNorm
    // A large mean of the stream.
    let embedding = try #require(checkpoint.tensors["wte.weight"])
    checkpoint.tensors["wte.weight"] = embedding.map { $0 + 5 }
    let model = try checkpoint.model()
    // The only query at positions ≥ 1 is its own median.
    let tokens = [1, 2]
    let bound = try run(model, [tokens])[0].doubles("spread_bound")
    let (_, cache) = try model.runWithCache(tokens, hooks: [.attnScores(.all)])
    let (layers, heads) = (model.config.nLayers, model.config.nHeads)
    for layer in 0..<layers {
      let scores = try cache.tensor(.attnScores, layer: layer)
      for head in 0..<heads {
        let spread = abs(Double(scores[head, 1, 0] - scores[head, 1, 1]))
        #expect(spread <= bound[(layers + layer) * heads + head] + 1e-6)
      }
    }
  }

  /// No two scores of one query differ by more than the bound, and the mean over prompts is one.
  @Test func boundHolds() throws {
    let model = try GPT2.load(Fixtures.bundled("mini"))
    let text = try [
      "When Mary and John went to the store, John gave a drink to", "So Alice is a friend",
    ].map { try model.tokens($0) }
    let groups = try run(model, text)
    let bound = try groups[0].doubles("spread_bound")
    let (layers, heads) = (model.config.nLayers, model.config.nHeads)
    for (prompt, tokens) in text.enumerated() {
      let (_, cache) = try model.runWithCache(tokens, hooks: [.attnScores(.all)])
      for layer in 0..<layers {
        let scores = try cache.tensor(.attnScores, layer: layer)
        for head in 0..<heads {
          // The median of the bounds bounds at least half of the queries.
          let own = bound[((prompt * 2 + 1) * layers + layer) * heads + head]
          let within = (1..<tokens.count).count { t in
            let row = (0...t).map { Double(scores[head, t, $0]) }
            return (row.max() ?? 0) - (row.min() ?? 0) <= own + 1e-3
          }
          #expect(2 * within >= tokens.count - 1)
        }
      }
    }
    let (summary, entropy) = (try groups[1].doubles("entropy"), try groups[0].doubles("entropy"))
    #expect(groups.map(\.path) == ["query_alignment", "query_alignment/summary"])
    for cell in summary.indices {
      #expect(abs(summary[cell] - (entropy[cell] + entropy[cell + summary.count]) / 2) < 1e-6)
    }
    #expect(summary.prefix(layers * heads).allSatisfy { abs($0) < 1e-6 })
  }
}
