import HookedGPT2

/// The words of a kind of prompts that a tokenizer has as one token, and how many it has not.
struct PromptWords {
  let kind: String
  let model: String
  let tokenizer: Tokenizer
  /// What was kept, such as `30 of 99 names`.
  private(set) var kept: [String] = []

  init(_ kind: String, _ model: GPT2) throws {
    self.kind = kind
    self.model = model.identity.name
    tokenizer = try model.tokenizer
  }

  /// Whether a word with a leading space is one token.
  func isSingle(_ word: String) -> Bool { tokenizer.encode(" " + word).count == 1 }

  /// The words that are one token each.
  ///
  /// - Parameters:
  ///   - words: words, a text of words separated by blanks.
  ///   - what: what they are, in the plural.
  ///   - minimum: how many the prompts need.
  /// - Throws: `ModelSourceError.prompts` where fewer are, naming those that are not.
  mutating func single(
    _ words: String, _ what: String, atLeast minimum: Int
  ) throws(ModelSourceError) -> [String] {
    try keep(words.split(separator: " ").map(String.init), what, atLeast: minimum) { [$0] }
  }

  /// The items all of whose words are one token each.
  mutating func keep<Item>(
    _ items: [Item], _ what: String, atLeast minimum: Int, _ words: (Item) -> [String]
  ) throws(ModelSourceError) -> [Item] {
    let result = items.filter { words($0).allSatisfy(isSingle) }
    if result.count < minimum {
      throw cannotHold(
        items.flatMap(words).filter { !isSingle($0) }.map { " " + $0 },
        "\(minimum) \(what) of one token each with their leading space",
        "\(result.count) of \(items.count)")
    }
    kept.append("\(result.count) of \(items.count) \(what)")
    return result
  }

  /// The error of a tokenizer that does not have what a kind of prompts needs.
  func cannotHold(_ failing: [String], _ expected: String, _ found: String) -> ModelSourceError {
    let shown = failing.prefix(8).map { "'\($0)'" }.joined(separator: ", ")
    return .prompts(
      place: kind,
      problem: "the tokenizer of '\(model)' cannot hold these prompts: expected \(expected), found "
        + "\(found); it cuts \(shown)\(failing.count > 8 ? ", …" : "") otherwise; take a model with "
        + "another tokenizer, or another kind of prompts")
  }

  /// A set of prompts, checked against the tokenizer.
  ///
  /// - Parameters:
  ///   - facts: what the description says of the prompts.
  ///   - source: who made up the prompts.
  /// - Throws: whatever ``PromptSet/pairs(_:prependBOS:)`` finds; `ModelSourceError.prompts` for a
  ///   prompt that is longer than the model's positions.
  func set(
    _ prompts: [PromptText], _ facts: [String], source: String, _ model: GPT2
  ) throws -> PromptSet {
    let set = PromptSet(
      name: kind,
      description: (facts
        + (kept.isEmpty ? [] : ["one token each: " + kept.joined(separator: ", ")]))
        .joined(separator: "; "),
      source: source, model: self.model, prompts: prompts)
    let longest = try set.pairs(model).map(\.length).max() ?? 0
    if longest > model.config.nCtx {
      throw ModelSourceError.prompts(
        place: kind,
        problem: "a prompt has \(longest) tokens; the model has n_ctx = \(model.config.nCtx) "
          + "positions; make it shorter")
    }
    return set
  }

  /// Draws different combinations, as evenly from each of several frames as their sizes allow.
  ///
  /// - Parameters:
  ///   - count: how many.
  ///   - sizes: how many combinations each frame (a template, a year) has.
  /// - Returns: frames in turn, each with the index of a combination, none twice.
  /// - Throws: `ModelSourceError.prompts` where there are fewer.
  func draw(
    _ count: Int, from sizes: [Int], using random: inout SeededGenerator
  ) throws(ModelSourceError) -> [(frame: Int, index: Int)] {
    let total = sizes.reduce(0, +)
    if total < count { throw tooFew(count, total) }
    let order = sizes.indices.shuffled(using: &random)
    var shares = sizes.map { _ in 0 }
    var frames: [Int] = []
    while frames.count < count {
      for frame in order where shares[frame] < sizes[frame] && frames.count < count {
        shares[frame] += 1
        frames.append(frame)
      }
    }
    // Fisher and Yates' shuffle of each frame's indices, as far as it is needed.
    var moved: [[Int: Int]] = sizes.map { _ in [:] }
    var next = sizes.map { _ in 0 }
    return frames.map { frame in
      let place = next[frame]
      next[frame] += 1
      let other = Int.random(in: place..<sizes[frame], using: &random)
      let index = moved[frame][other] ?? other
      moved[frame][other] = moved[frame][place] ?? place
      return (frame, index)
    }
  }

  /// The error of options that leave fewer different prompts than are asked for.
  func tooFew(_ count: Int, _ total: Int) -> ModelSourceError {
    .prompts(
      place: kind,
      problem: "\(count) prompts were asked for; with these options there are \(total) different "
        + "ones; ask for fewer, or allow more")
  }
}
