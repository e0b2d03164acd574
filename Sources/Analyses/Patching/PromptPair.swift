import HookedGPT2
public import OrderedCollections

/// A clean and a corrupted prompt of one length, and the question that tells them apart.
public struct PromptPair: Sendable, Equatable {
  /// The clean prompt's token ids, BOS included where there is one.
  public var clean: [Int]
  /// The corrupted prompt's, as many.
  public var corrupted: [Int]
  /// The tokens that are right for the clean prompt; usually one.
  public var answer: [Int]
  /// The tokens that are wrong for it.
  public var wrong: [Int]
  /// Positions with a name (`S2`, `END`), as indices into the tokens, BOS counted.
  public var positions: OrderedDictionary<String, Int>

  /// A pair of prompts.
  public init(
    clean: [Int], corrupted: [Int], answer: [Int] = [], wrong: [Int] = [],
    positions: OrderedDictionary<String, Int> = [:]
  ) {
    self.clean = clean
    self.corrupted = corrupted
    self.answer = answer
    self.wrong = wrong
    self.positions = positions
  }

  /// A pair with one answer and one wrong token.
  public init(clean: [Int], corrupted: [Int], answer: Int, wrong: Int) {
    self.init(clean: clean, corrupted: corrupted, answer: [answer], wrong: [wrong])
  }

  /// How many tokens either prompt has.
  public var length: Int { clean.count }

  /// The first position at which the prompts differ; their length where they do not.
  var firstDifference: Int { zip(clean, corrupted).prefix { $0 == $1 }.count }

  /// Fails where the prompts are not of one length or the answers not of the vocabulary.
  ///
  /// - Throws: `AnalysisError.pair`.
  func check(
    prompt: Int, _ config: GPT2Config, isNoised: Bool = false
  ) throws(AnalysisError) {
    if !isNoised && clean.count != corrupted.count {
      throw .pair(
        prompt: prompt,
        problem: "the clean prompt has \(clean.count) tokens, the corrupted one "
          + "\(corrupted.count); expected the same number: change the texts so that they tokenize "
          + "alike")
    }
    for token in answer + wrong where token < 0 || token >= config.dVocab {
      throw .pair(
        prompt: prompt,
        problem:
          "an answer or wrong token has token id \(token); expected 0 to \(config.dVocab - 1)")
    }
  }
}
