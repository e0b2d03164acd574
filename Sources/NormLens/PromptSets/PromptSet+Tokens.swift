public import Analyses
public import HookedGPT2
import OrderedCollections

extension PromptSet {
  /// The prompts as pairs of token ids, for patching.
  ///
  /// - Parameters:
  ///   - model: the model whose tokenizer reads them.
  ///   - prependBOS: whether a BOS token stands in front; nil means the model's default. Positions
  ///     are shifted by it.
  /// - Throws: `ModelSourceError` for a prompt without a corrupted text or with one of another
  ///   length, an answer that is not one token or both right and wrong, a position whose token is
  ///   another one; `ModelError.noTokenizer`.
  public func pairs(_ model: GPT2, prependBOS: Bool? = nil) throws -> [PromptPair] {
    try prompts.indices.map { index in
      let item = try tokens(index, model, prependBOS)
      guard let text = prompts[index].corrupted else {
        throw ModelSourceError.field(
          path: origin, field: "prompts[\(index)].corrupted",
          expected: "text of as many tokens as 'clean'", found: "missing")
      }
      let corrupted = try model.tokens(text, prependBOS: prependBOS)
      if corrupted.count != item.clean.count {
        throw try unequal(
          index, item.clean.dropFirst(item.shift), corrupted.dropFirst(item.shift), model.tokenizer)
      }
      return PromptPair(
        clean: item.clean, corrupted: corrupted, answer: item.answer, wrong: item.wrong,
        positions: prompts[index].positions.mapValues { $0.pos + item.shift })
    }
  }

  /// The clean prompts alone; the corrupted ones are not looked at.
  ///
  /// - Parameters:
  ///   - model: the model whose tokenizer reads them.
  ///   - prependBOS: whether a BOS token stands in front; nil means the model's default.
  /// - Throws: as ``pairs(_:prependBOS:)``; more than one answer is an error, too.
  public func cleanPrompts(_ model: GPT2, prependBOS: Bool? = nil) throws -> [Prompt] {
    try prompts.indices.map { index in
      let item = try tokens(index, model, prependBOS)
      for (field, ids) in [("answer", item.answer), ("wrong", item.wrong)] where ids.count > 1 {
        throw ModelSourceError.field(
          path: origin, field: "prompts[\(index)].\(field)", expected: "one token",
          found: "a list of \(ids.count)")
      }
      return Prompt(item.clean, answer: item.answer.first, wrong: item.wrong.first)
    }
  }

  /// A prompt's clean tokens, how many of them BOS adds, and its answers; all checked.
  private func tokens(
    _ index: Int, _ model: GPT2, _ prependBOS: Bool?
  ) throws -> (clean: [Int], shift: Int, answer: [Int], wrong: [Int]) {
    let (prompt, tokenizer, place) = (prompts[index], try model.tokenizer, "prompts[\(index)]")
    let clean = try model.tokens(prompt.clean, prependBOS: prependBOS)
    let text = tokenizer.encode(prompt.clean)
    for (label, position) in prompt.positions {
      let found =
        text.indices.contains(position.pos) ? try tokenizer.piece(text[position.pos]) : nil
      if found != position.token {
        throw ModelSourceError.field(
          path: origin, field: "\(place).positions.\(label)",
          expected: "'\(position.token)' at position \(position.pos)",
          found: found.map { "'\($0)' there" } ?? "beyond the text's \(text.count) tokens")
      }
    }
    let answer = try ids(of: prompt.answer, "\(place).answer", tokenizer)
    let wrong = try ids(of: prompt.wrong, "\(place).wrong", tokenizer)
    if let both = wrong.first(where: answer.contains) {
      throw ModelSourceError.field(
        path: origin, field: "\(place).wrong", expected: "other tokens than 'answer'",
        found: "'\(try tokenizer.piece(both))' too")
    }
    return (clean, clean.count - text.count, answer, wrong)
  }

  /// The ids of texts that must be one token each, and different ones.
  private func ids(of texts: [String], _ field: String, _ tokenizer: Tokenizer) throws -> [Int] {
    var ids: [Int] = []
    for (index, text) in texts.enumerated() {
      let place = texts.count == 1 ? field : "\(field)[\(index)]"
      do {
        let id = try tokenizer.singleToken(text)
        if ids.contains(id) {
          throw ModelSourceError.field(
            path: origin, field: place, expected: "each token once", found: "'\(text)' again")
        }
        ids.append(id)
      } catch let error as TokenizerError {
        throw ModelSourceError.prompts(place: "\(origin): \(place)", problem: "\(error)")
      }
    }
    return ids
  }

  /// The error of a clean and a corrupted text of different lengths: what stands between the tokens
  /// that they begin with and those that they end with.
  private func unequal(
    _ index: Int, _ clean: ArraySlice<Int>, _ corrupted: ArraySlice<Int>, _ tokenizer: Tokenizer
  ) throws -> ModelSourceError {
    let shorter = min(clean.count, corrupted.count)
    let same = zip(clean, corrupted).prefix { $0 == $1 }.count
    let end = zip(clean.reversed(), corrupted.reversed()).prefix { $0 == $1 }.count
    let tail = min(end, shorter - same)
    func middle(_ ids: ArraySlice<Int>) throws -> String {
      let pieces = try ids.dropFirst(same).dropLast(tail).map { "'\(try tokenizer.piece($0))'" }
      if pieces.isEmpty { return "nothing" }
      return pieces.prefix(6).joined(separator: " ") + (pieces.count > 6 ? " …" : "")
    }
    return .prompts(
      place: "\(origin): prompts[\(index)]",
      problem: "'clean' has \(clean.count) tokens and 'corrupted' \(corrupted.count); expected as "
        + "many; at position \(same) 'clean' has \(try middle(clean)), 'corrupted' "
        + "\(try middle(corrupted)); choose words of as many tokens")
  }
}
