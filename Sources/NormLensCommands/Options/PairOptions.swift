import ArgumentParser
import NormLens

/// The prompt pairs that a patching command works on.
struct PairOptions: ParsableArguments {
  @Option(
    name: [.customLong("clean"), .customLong("prompt")], parsing: .unconditionalSingleValue,
    help: ArgumentHelp(
      "A clean prompt; may be repeated, each with its --corrupted, --answer and --wrong.",
      valueName: "text"))
  var clean: [String] = []

  @Option(
    parsing: .unconditionalSingleValue,
    help: ArgumentHelp("The corrupted prompt, of as many tokens.", valueName: "text"))
  var corrupted: [String] = []

  @Option(
    parsing: .unconditionalSingleValue,
    help: ArgumentHelp(
      "The token that should follow the clean prompt, verbatim: \" Mary\" with its space.",
      valueName: "token"))
  var answer: [String] = []

  @Option(
    parsing: .unconditionalSingleValue,
    help: ArgumentHelp("The token that should not, likewise.", valueName: "token"))
  var wrong: [String] = []

  @Option(
    help: ArgumentHelp("A file of prompts (JSON, see the README).", valueName: "file.json"),
    completion: .file())
  var prompts: String?

  @Option(
    name: .customLong("clean-tokens"),
    help: ArgumentHelp(
      "Token ids instead of --clean; --answer and --wrong are ids then, too.", valueName: "1,2,3"))
  var cleanTokens: [String] = []

  @Option(
    name: .customLong("corrupted-tokens"),
    help: ArgumentHelp("Token ids instead of --corrupted.", valueName: "1,2,4"))
  var corruptedTokens: [String] = []

  @Flag(name: .customLong("no-bos"), help: "Put no BOS token in front of text.")
  var noBOS = false

  /// The files that are read.
  var inputs: [String] { [prompts].compactMap { $0 } }

  /// Whether text gets a BOS token; nil leaves it to the model.
  var prependBOS: Bool? { noBOS ? false : nil }

  /// What a result says of BOS; nil where token ids were given, which get none.
  func provenanceBOS(_ model: GPT2) -> Bool? {
    cleanTokens.isEmpty ? !noBOS && model.defaultPrependBOS : nil
  }

  /// The pairs, at least one, their tokens within the model's limits.
  ///
  /// - Parameter corruptedNeeded: whether each needs a corrupted prompt.
  func load(_ model: GPT2, corruptedNeeded: Bool = true) throws -> [PromptPair] {
    try checkOptions(corruptedNeeded)
    let pairs: [PromptPair]
    do {
      pairs =
        if let prompts {
          try PromptSet.read(prompts).pairs(
            model, prependBOS: prependBOS, corruptedNeeded: corruptedNeeded)
        } else if clean.isEmpty {
          try idPairs(model.config.dVocab)
        } else {
          try texts.pairs(model, prependBOS: prependBOS, corruptedNeeded: corruptedNeeded)
        }
    } catch ModelError.noTokenizer {
      throw CommandError(
        "the model has no tokenizer; give --clean-tokens 1,2,3 and --corrupted-tokens 1,2,4 instead "
          + "of text, and --answer and --wrong as token ids", status: .data)
    }
    // Bad tokens are found before anything is computed or created.
    let config = model.config
    for (index, pair) in pairs.enumerated() {
      if pair.clean.isEmpty { throw ModelError.emptyPrompt(prompt: index) }
      if pair.length > config.nCtx {
        throw ModelError.promptTooLong(prompt: index, tokens: pair.length, limit: config.nCtx)
      }
      for tokens in [pair.clean, pair.corrupted] {
        if let position = tokens.firstIndex(where: { !(0..<config.dVocab).contains($0) }) {
          throw ModelError.tokenOutOfRange(
            prompt: index, position: position, token: tokens[position], limit: config.dVocab)
        }
      }
    }
    return pairs
  }

  /// Fails where the prompts come from two sources, from none, or not in step.
  private func checkOptions(_ corruptedNeeded: Bool) throws(CommandError) {
    let sources = [
      ("--clean", !clean.isEmpty), ("--prompts", prompts != nil),
      ("--clean-tokens", !cleanTokens.isEmpty),
    ].filter(\.1).map(\.0)
    if sources.isEmpty {
      throw CommandError(
        "no prompts: give --clean TEXT --corrupted TEXT --answer TOKEN --wrong TOKEN, or "
          + "--prompts FILE")
    }
    if sources.count > 1 {
      throw CommandError("\(sources.joined(separator: " and ")): prompts come from one of them")
    }
    let counts = [
      ("--corrupted", corrupted.count, sources[0] == "--clean", corruptedNeeded),
      (
        "--corrupted-tokens", corruptedTokens.count, sources[0] == "--clean-tokens", corruptedNeeded
      ),
      ("--answer", answer.count, sources[0] != "--prompts", false),
      ("--wrong", wrong.count, sources[0] != "--prompts", false),
    ]
    let pairs = max(clean.count, cleanTokens.count)
    for (option, count, belongs, _) in counts where !belongs && count > 0 {
      throw CommandError(
        prompts != nil
          ? "\(option): a prompts file has its own; leave one of the two out"
          : "\(option) does not go with \(sources[0])")
    }
    for (option, count, belongs, isNeeded) in counts
    where belongs && count != pairs && (isNeeded || count > 0) {
      throw CommandError(
        "\(count) \(option) for \(pairs) \(sources[0]): expected one for each, in the same order")
    }
  }

  /// The texts of the command line as a set of prompts.
  private var texts: PromptSet {
    var set = PromptSet(
      name: "",
      prompts: clean.indices.map { index in
        PromptText(
          clean: clean[index], corrupted: corrupted.isEmpty ? nil : corrupted[index],
          answer: answer.isEmpty ? [] : [answer[index]], wrong: wrong.isEmpty ? [] : [wrong[index]])
      })
    set.origin = "command line"
    return set
  }

  private func idPairs(_ vocabulary: Int) throws -> [PromptPair] {
    try cleanTokens.indices.map { index in
      let clean = try tokenIDs(cleanTokens[index], option: "--clean-tokens")
      let corrupted =
        corruptedTokens.isEmpty
        ? clean : try tokenIDs(corruptedTokens[index], option: "--corrupted-tokens")
      if clean.count != corrupted.count {
        throw ModelError.unequalLengths(
          what: "prompt \(index), clean and corrupted", lengths: [clean.count, corrupted.count])
      }
      let pair = PromptPair(
        clean: clean, corrupted: corrupted,
        answer: try id(answer, index, "--answer", vocabulary),
        wrong: try id(wrong, index, "--wrong", vocabulary))
      if let id = pair.answer.first, pair.wrong == [id] {
        throw CommandError("prompt \(index): --answer and --wrong are the same token \(id)")
      }
      return pair
    }
  }

  private func id(
    _ texts: [String], _ index: Int, _ option: String, _ vocabulary: Int
  ) throws(CommandError) -> [Int] {
    if texts.isEmpty { return [] }
    guard let id = Int(texts[index]) else {
      throw CommandError("\(option) '\(texts[index])': with --clean-tokens expected a token id")
    }
    if !(0..<vocabulary).contains(id) {
      throw CommandError(
        "\(option) \(id): expected a token id from 0 to \(vocabulary - 1)", status: .data)
    }
    return [id]
  }
}
