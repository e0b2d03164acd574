import NormLens
import TestSupport
import Testing

/// What must hold of the cloud of all tokens whatever the model is.
@Suite struct CorpusGeometryTests {
  private func run(
    _ model: GPT2, _ prompts: [Prompt], batchSize: Int = 4, points: Int = 1000, seed: UInt64 = 0
  ) throws -> (group: ResultGroup, warning: String?) {
    var collectors: [any Collector] = [CorpusGeometry(model, seed: seed, points: points)]
    try CollectionPass(prompts, batchSize: batchSize).run(
      model, &collectors, into: DiscardingSink())
    let corpus = try #require(collectors[0] as? CorpusGeometry)
    return (try corpus.findings()[0], corpus.warning)
  }

  private func prompts(_ model: GPT2, _ lengths: [Int]) -> [Prompt] {
    var random = SeededGenerator(seed: 11)
    return lengths.map { length in
      Prompt((0..<length).map { _ in Int.random(in: 0..<model.config.dVocab, using: &random) })
    }
  }

  private static let measures = [
    "ones_share", "ones_variance_share", "mean_vector_share", "mean_cosine", "top_component_share",
    "effective_rank", "stable_rank", "participation_ratio", "intrinsic_dimension",
  ]

  @Test(arguments: ["tiny-ln", "tiny-lnfree", "tiny-relu-untied"])
  func batchesDoNotMatter(_ name: String) throws {
    let model = try GPT2.load(Fixtures.checkpoint(name))
    let prompts = prompts(model, [9, 1, 4, 12, 2, 12, 7, 11])
    let whole = try run(model, prompts, batchSize: 8)
    let single = try run(model, prompts, batchSize: 1)
    let comparison = Comparison("\(name) corpus geometry by batch size", relative: 2e-5)
    for measure in Self.measures {
      comparison.check(
        measure, try single.group.doubles(measure), try whole.group.doubles(measure))
    }
    comparison.report("measures")
    #expect(try whole.group.doubles("count") == [50])
  }

  @Test func whatNormsMustDo() throws {
    let model = try GPT2.load(Fixtures.checkpoint("tiny-ln"))
    let prompts = prompts(model, [16, 16, 16, 16, 16])
    let group = try run(model, prompts).group
    func cloud(_ measure: String, _ index: Int) throws -> [Double] {
      let values = try group.doubles(measure)
      return stride(from: index, to: values.count, by: 3).map { values[$0] }
    }
    // LayerNorm leaves nothing along the ones vector, and rows of one length: their mean cosine
    // follows from the mean vector's share s, (N·s − 1)/(N − 1).
    let norms = try cloud("mean_cosine", 1)
    for (share, cosine) in zip(try cloud("mean_vector_share", 1), norms) {
      #expect(abs((75 * share - 1) / 74 - cosine) < 1e-5)
    }
    #expect(try cloud("ones_share", 1).allSatisfy { $0 < 1e-8 })
    #expect(try cloud("ones_variance_share", 1).allSatisfy { $0 < 1e-8 })
    // 1 ≤ stable rank ≤ participation ratio ≤ effective rank ≤ d.
    for index in 0..<3 {
      let ranks = [
        try cloud("stable_rank", index), try cloud("participation_ratio", index),
        try cloud("effective_rank", index),
      ]
      for ln in norms.indices {
        #expect(
          1 <= ranks[0][ln] && ranks[0][ln] <= ranks[1][ln] && ranks[1][ln] <= ranks[2][ln]
            && ranks[2][ln] <= 24)
      }
    }
    let free = try GPT2.load(Fixtures.checkpoint("tiny-lnfree"))
    let corpus = try run(free, self.prompts(free, [16, 16, 9])).group
    for measure in Self.measures {
      let values = try corpus.doubles(measure)
      for start in stride(from: 0, to: values.count, by: 3) {
        #expect(values[start + 1] == values[start + 2], "\(measure)")
      }
    }
  }

  @Test func samplesAreBoundedAndSeeded() throws {
    let model = try GPT2.load(Fixtures.checkpoint("tiny-ln"))
    let prompts = prompts(model, Array(repeating: 16, count: 12))
    let (some, other) = (try run(model, prompts, points: 40), try run(model, prompts, points: 40))
    #expect(some.group == other.group)
    let reseeded = try run(model, prompts, points: 40, seed: 5).group
    #expect(
      try reseeded.doubles("intrinsic_dimension") != some.group.doubles("intrinsic_dimension"))
    #expect(try reseeded.doubles("effective_rank") == some.group.doubles("effective_rank"))
    let (points, duplicates) = (
      try some.group.doubles("intrinsic_dimension_points"),
      try some.group.doubles("intrinsic_dimension_duplicates")
    )
    #expect(zip(points, duplicates).allSatisfy { $0 + $1 == 40 })
    #expect(
      some.group.attributes["intrinsic_dimension_sample"]
        == .string("a uniform sample of 40 of the tokens"))
    #expect(try some.group.doubles("count") == [180])
  }

  @Test func fewTokens() throws {
    let model = try GPT2.load(Fixtures.checkpoint("tiny-ln"))
    for lengths in [[1, 1], [2]] {
      let found = try run(model, prompts(model, lengths))
      for measure in Self.measures {
        #expect(try found.group.doubles(measure).allSatisfy(\.isNaN), "\(measure)")
      }
      #expect(found.warning != nil)
    }
    let two = try run(model, prompts(model, [3]))
    #expect(try two.group.doubles("effective_rank").allSatisfy { abs($0 - 1) < 1e-3 })
    #expect(try two.group.doubles("intrinsic_dimension").allSatisfy(\.isNaN))
    #expect(two.group.attributes["warning"] == two.warning.map { .string($0) })
    #expect(two.warning?.contains("2 tokens in 24 dimensions") == true)
    let enough = try run(model, prompts(model, Array(repeating: 16, count: 16)))
    #expect(enough.warning == nil && enough.group.attributes["warning"] == nil)
  }
}
