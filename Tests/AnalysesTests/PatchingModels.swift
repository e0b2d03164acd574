import NormLens
import TestSupport

/// The models that sweeps are tried on, with prompt pairs for each.
enum PatchingModels {
  static let bundled = ["mini", "mini-lnfree"]
  static let all = Fixtures.checkpoints + ["patching-deep"] + bundled

  static func load(_ name: String) throws -> GPT2 {
    try GPT2.load(bundled.contains(name) ? Fixtures.bundled(name) : Fixtures.checkpoint(name))
  }

  /// Sentences of the indirect object task that the bundled models know: clean and corrupted, the
  /// answer and what is wrong; of 15, 15, 15 and 9 tokens with BOS.
  static let sentences = [
    (
      "When Mary and John went to the store, John gave a drink to",
      "When Mary and John went to the store, Mary gave a drink to", " Mary", " John"
    ),
    (
      "When Anna and Jack went to the school, Jack gave a book to",
      "When Anna and Jack went to the school, Anna gave a book to", " Anna", " Jack"
    ),
    (
      "When Karen and Eric went to the park, Karen gave a ring to",
      "When Karen and Eric went to the park, Eric gave a ring to", " Eric", " Karen"
    ),
    (
      "So Alice is a really great friend, isn't", "So David is a really great friend, isn't",
      " she",
      " he"
    ),
  ]

  static func pair(_ model: GPT2, _ index: Int) throws -> PromptPair {
    let (clean, corrupted, answer, wrong) = sentences[index]
    let tokenizer = try model.tokenizer
    return PromptPair(
      clean: try model.tokens(clean), corrupted: try model.tokens(corrupted),
      answer: try tokenizer.singleToken(answer), wrong: try tokenizer.singleToken(wrong))
  }

  /// A pair of two lengths: sentences for the bundled models, random tokens for the others, which
  /// differ in one token of the one pair and in two of the other.
  static func pairs(_ name: String, _ model: GPT2) throws -> [PromptPair] {
    if bundled.contains(name) { return [try pair(model, 0), try pair(model, 3)] }
    let config = model.config
    return [
      random(config, length: min(9, config.nCtx), differing: [2], seed: 1),
      random(config, length: min(5, config.nCtx), differing: [1, 3], seed: 2),
    ]
  }

  /// Pairs of one length.
  static func equalPairs(_ name: String, _ model: GPT2) throws -> [PromptPair] {
    if bundled.contains(name) { return try [0, 1, 2].map { try pair(model, $0) } }
    let length = min(7, model.config.nCtx)
    return (0..<3).map {
      random(model.config, length: length, differing: [1 + $0, 4], seed: 3 + UInt64($0))
    }
  }

  static func random(
    _ config: GPT2Config, length: Int, differing: [Int], seed: UInt64
  ) -> PromptPair {
    var random = SeededGenerator(seed: seed)
    func draw() -> Int { Int(random.next() % UInt64(config.dVocab)) }
    let clean = (0..<length).map { _ in draw() }
    var corrupted = clean
    for position in differing { corrupted[position] = (clean[position] + 1) % config.dVocab }
    let answer = draw()
    return PromptPair(
      clean: clean, corrupted: corrupted, answer: answer, wrong: (answer + 1) % config.dVocab)
  }
}
