import Foundation
import NormLens
import TestSupport
import Testing

/// Continuing a text with kept keys and values against running the whole text at each step.
@Suite struct GenerationTests {
  private func greedy(_ model: GPT2, _ prompt: [Int], count: Int) throws -> [Int] {
    var tokens = prompt
    for _ in 0..<count {
      let logits = try model.run(batch: [tokens], logits: .last)[0]
      tokens.append(logits.row(0).indexOfMaximum!)
    }
    return Array(tokens.dropFirst(prompt.count))
  }

  @Test(arguments: Fixtures.checkpoints)
  func greedyEqualsRecomputing(_ name: String) throws {
    let (model, golden) = (try Models.load(name), try Golden.open(name))
    var random = SeededGenerator(seed: 0)
    for prompt in ["t1", "a", "b", "c", "full"] {
      let tokens = try golden.tokens(prompt)
      // As many as the context can take, and the token after the last position.
      let room = model.config.nCtx - tokens.count + 1
      let expected = try greedy(model, tokens, count: room)
      #expect(try model.generate(tokens, count: 1000, using: &random) == expected)
      #expect(try model.generate(tokens, count: 2, using: &random) == Array(expected.prefix(2)))
      #expect(try model.generate(tokens, count: 0, using: &random).isEmpty)
    }
    #expect(random.next() == SeededGenerator.first(0), "greedy choice must not draw")
  }

  @Test func theLowestTemperaturesAreGreedy() throws {
    let model = try Models.load("tiny-ln")
    var random = SeededGenerator(seed: 3)
    let expected = try greedy(model, [1, 2, 3], count: 5)
    for temperature in [1e-9, 1e-38, 1e-300] {
      let sampling = Sampling(temperature: temperature)
      let found = try model.generate([1, 2, 3], count: 5, sampling: sampling, using: &random)
      #expect(found == expected)
    }
    // More tokens than any number of positions.
    let all = try model.generate([1, 2, 3], count: .max, using: &random)
    #expect(all.count == model.config.nCtx - 2)
  }

  @Test func nothingIsChosenFromNaN() throws {
    let model = try Models.load("tiny-ln")
    var random = SeededGenerator(seed: 3)
    #expect(throws: ModelError.nonFinite(what: "the logits after 3 tokens")) {
      try model.generate(
        [1, 2, 3], count: 5, interventions: [.zero(.ln1Scale(0))], using: &random)
    }
  }

  @Test func interventionsActAtEachStep() throws {
    let (model, golden) = (try Models.load("tiny-ln"), try Golden.open("tiny-ln"))
    let prompt = try golden.tokens("a")
    let changes: [Intervention] = [.zero(.mlpOut(0))]
    var tokens = prompt
    while tokens.count < 17 {
      let logits = try model.run(batch: [tokens], logits: .last, interventions: changes)[0]
      tokens.append(logits.row(0).indexOfMaximum!)
    }
    var random = SeededGenerator(seed: 0)
    let new = try model.generate(prompt, count: 100, interventions: changes, using: &random)
    #expect(new == Array(tokens.dropFirst(5)))
    #expect(new != (try model.generate(prompt, count: 100, using: &random)))
  }

  @Test func stopsAtTheStopToken() throws {
    let (model, golden) = (try Models.load("tiny-ln"), try Golden.open("tiny-ln"))
    let prompt = try golden.tokens("a")
    var random = SeededGenerator(seed: 0)
    let all = try model.generate(prompt, count: 100, using: &random)
    let stop = all[3]
    let first = all.firstIndex(of: stop)!
    #expect(
      try model.generate(prompt, count: 100, stop: stop, using: &random)
        == Array(all[...first]))
  }

  @Test func chanceIsReproducible() throws {
    let (model, golden) = (try Models.load("tiny-ln"), try Golden.open("tiny-ln"))
    let prompt = try golden.tokens("c")
    func generate(_ seed: UInt64, _ sampling: Sampling) throws -> [Int] {
      var random = SeededGenerator(seed: seed)
      return try model.generate(prompt, count: 13, sampling: sampling, using: &random)
    }
    for sampling in [Sampling(), Sampling(temperature: 3), Sampling(temperature: 3, topK: 5)] {
      #expect(try generate(1, sampling) == (try generate(1, sampling)))
    }
    let hot = Sampling(temperature: 30)
    #expect(Set(try (0..<8).map { try generate($0, hot) }).count == 8)
    for seed in [UInt64(0), 1, 2] {
      #expect(
        try generate(seed, Sampling(temperature: 1, topK: 1)) == (try generate(seed, .greedy)))
      #expect(
        try generate(seed, Sampling(temperature: 5, topK: 10_000))
          == (try generate(seed, Sampling(temperature: 5))))
      #expect(
        try generate(seed, Sampling(temperature: 1e-4)) == (try generate(seed, .greedy)))
    }
  }

  @Test func topKChoosesAmongTheMostLikely() throws {
    let (model, golden) = (try Models.load("tiny-ln"), try Golden.open("tiny-ln"))
    let prompt = try golden.tokens("c")
    var seen: Set<Int> = []
    for seed in 0..<20 {
      var random = SeededGenerator(seed: UInt64(seed))
      var tokens = prompt
      for token in try model.generate(
        prompt, count: 5, sampling: Sampling(temperature: 8, topK: 3), using: &random)
      {
        let logits = try model.run(batch: [tokens], logits: .last)[0]
        let place = logits.row(0).topIndices(3).firstIndex(of: token)
        #expect(place != nil)
        if let place { seen.insert(place) }
        tokens.append(token)
      }
    }
    #expect(seen == [0, 1, 2])
  }

  @Test(arguments: [1.0, 0.5, 4.0])
  func samplingFollowsTheSoftmax(_ temperature: Double) throws {
    // 11 tokens, 6,000 draws with a fixed seed: each share lies within 4 standard deviations.
    let (model, golden) = (try Models.load("tiny-1x1"), try Golden.open("tiny-1x1"))
    let prompt = try golden.tokens("c")
    let logits = try golden.logits("c").row(2).values.map { $0 / temperature }
    let largest = logits.max()!
    let weights = logits.map { exp($0 - largest) }
    let total = weights.reduce(0, +)
    let draws = 6000
    var random = SeededGenerator(seed: 11)
    var counts = [Int](repeating: 0, count: logits.count)
    for _ in 0..<draws {
      let new = try model.generate(
        prompt, count: 1, sampling: Sampling(temperature: temperature), using: &random)
      counts[new[0]] += 1
    }
    for (count, weight) in zip(counts, weights) {
      let share = weight / total
      let deviation = (share * (1 - share) / Double(draws)).squareRoot()
      #expect(abs(Double(count) / Double(draws) - share) <= 4 * deviation + 1e-4)
    }
  }
}

extension SeededGenerator {
  /// The first number of a seed.
  static func first(_ seed: UInt64) -> UInt64 {
    var random = SeededGenerator(seed: seed)
    return random.next()
  }
}
