public import HookedGPT2

/// Induction: random words A, and A once more; after the last but one of them comes the last.
extension PromptSet {
  /// What the corrupted prompt has in place of A and A; B and C are other random words.
  public enum InductionCorruption: String, Sendable, CaseIterable {
    /// A, B: the second copy is new.
    case ab
    /// B, A: the first copy is another.
    case ba
    /// B, B: the repetition stays.
    case bb
    /// B, C: nothing is left.
    case bc
  }

  /// Prompts of induction: `length` random tokens and all but the last of them again; the answer is
  /// the last, the wrong token another one of them, so that both have been seen as often.
  ///
  /// Labels: `A1`, the first occurrence of the prompt's last token; `A1+1`, the answer's; `A2`, the
  /// start of the second copy; `END`.
  ///
  /// - Parameters:
  ///   - model: the model whose tokenizer gives the tokens.
  ///   - count: how many prompts, all different.
  ///   - seed: what determines the prompts.
  ///   - length: how many tokens A has, at least three.
  ///   - corruption: what the corrupted prompt has in place of A and A.
  ///   - words: the words to draw from, without leading space; by default what the tokenizer has of
  ///     lower-case words with a leading space among the ids 100 to 9999.
  /// - Throws: `ModelSourceError.prompts` where a word is not one token, the words are too few or
  ///   the model has too few positions; `ModelError.noTokenizer`.
  /// - Precondition: `count` is positive and `length` at least 3.
  public static func induction(
    model: GPT2, count: Int, seed: UInt64 = 0, length: Int = 20,
    corruption: InductionCorruption = .ab, words chosen: [String]? = nil
  ) throws -> PromptSet {
    precondition(count > 0 && length >= 3, "induction: count \(count), length \(length)")
    let words = try PromptWords("induction", model)
    var vocabulary = try chosen.map { try inductionWords($0, words) } ?? inductionWords(words)
    let needed = (corruption == .bc ? 3 : 2) * length
    if vocabulary.count < needed {
      throw ModelSourceError.prompts(
        place: "induction",
        problem: "\(length) tokens and others in their place need \(needed) words; there are "
          + "\(vocabulary.count); take a shorter length or more words")
    }
    let different = (0..<length).reduce(1) { product, taken in
      let (result, overflow) = product.multipliedReportingOverflow(by: vocabulary.count - taken)
      return overflow ? Int.max : result
    }
    if count > different { throw words.tooFew(count, different) }

    var random = SeededGenerator(seed: seed)
    var seen: Set<String> = []
    var prompts: [PromptText] = []
    while prompts.count < count {
      // A, B and C: the beginning of a shuffle.
      for place in 0..<needed {
        vocabulary.swapAt(place, Int.random(in: place..<vocabulary.count, using: &random))
      }
      let a = vocabulary[..<length]
      let b = vocabulary[length..<2 * length]
      let c = vocabulary[(needed - length)..<needed]
      let (first, second) =
        switch corruption {
        case .ab: (a, b)
        case .ba: (b, a)
        case .bb: (b, b)
        case .bc: (b, c)
        }
      let clean = (a + a.dropLast()).joined()
      let wrong = a[Int.random(in: 0..<length - 2, using: &random)]
      guard seen.insert(clean).inserted else { continue }
      prompts.append(
        PromptText(
          clean: clean, corrupted: (first + second.dropLast()).joined(), answer: [a[length - 1]],
          wrong: [wrong],
          positions: [
            "A1": PromptText.Position(length - 2, token: a[length - 2]),
            "A1+1": PromptText.Position(length - 1, token: a[length - 1]),
            "A2": PromptText.Position(length, token: a[0]),
            "END": PromptText.Position(2 * length - 2, token: a[length - 2]),
          ]))
    }
    return try words.set(
      prompts,
      [
        "induction: random words and all but the last of them again", "length \(length)",
        "corruption \(corruption.rawValue)", "\(vocabulary.count) words", "seed \(seed)",
      ], source: "random words of the tokenizer", model)
  }

  /// Chosen words as tokens; each must be one, and occur once.
  private static func inductionWords(
    _ chosen: [String], _ words: PromptWords
  ) throws(ModelSourceError) -> [String] {
    let failing = chosen.filter { !words.isSingle($0) }.map { " " + $0 }
    if !failing.isEmpty {
      throw words.cannotHold(
        failing, "\(chosen.count) words of one token each with their leading space",
        "\(chosen.count - failing.count)")
    }
    if Set(chosen).count < chosen.count {
      throw .prompts(place: "induction", problem: "a word is among the chosen ones twice")
    }
    return chosen.map { " " + $0 }
  }

  /// The tokenizer's own words.
  private static func inductionWords(_ words: PromptWords) throws -> [String] {
    let tokenizer = words.tokenizer
    return try (100..<max(100, min(10_000, tokenizer.count))).compactMap { id in
      let word = try tokenizer.piece(id)
      let isWord = word.wholeMatch(of: #/ [a-z]{3,}/#) != nil && tokenizer.encode(word) == [id]
      return isWord ? word : nil
    }
  }
}
