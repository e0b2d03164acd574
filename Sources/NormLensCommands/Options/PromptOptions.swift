import ArgumentParser
import Foundation
import NormLens

/// The text that a command works on.
struct PromptOptions: ParsableArguments {
  @Option(
    name: [.customLong("prompt"), .customLong("clean")], parsing: .unconditionalSingleValue,
    help: ArgumentHelp("A prompt; may be repeated.", valueName: "text"))
  var prompt: [String] = []

  @Option(
    help: ArgumentHelp("A file of prompts (JSON, see the README).", valueName: "file.json"),
    completion: .file())
  var prompts: String?

  @Option(
    help: ArgumentHelp(
      "A file whose whole text is one prompt; may be repeated.", valueName: "file"),
    completion: .file())
  var text: [String] = []

  @Option(help: ArgumentHelp("Token ids instead of text; may be repeated.", valueName: "1,2,3"))
  var tokens: [String] = []

  @Option(
    help: ArgumentHelp(
      "Cut a longer text into windows of this many tokens, each with a BOS token in front where text "
        + "gets one; prompts with answers stay whole.", valueName: "n"))
  var context: Int?

  @Flag(name: .customLong("no-bos"), help: "Put no BOS token in front of text.")
  var noBOS = false

  func validate() throws {
    if let context, context < 2 {
      throw ValidationError("--context \(context): expected at least 2 tokens")
    }
  }

  /// What is said where there is no prompt.
  static let noPrompt =
    "no prompt: give --prompt TEXT, --prompts FILE, --text FILE or --tokens IDS"

  /// The files that are read.
  var inputs: [String] { [prompts].compactMap { $0 } + text }

  /// Whether there is any prompt.
  var isGiven: Bool { !(prompt.isEmpty && tokens.isEmpty && inputs.isEmpty) }

  /// Whether text gets a BOS token; nil leaves it to the model.
  var prependBOS: Bool? { noBOS ? false : nil }

  /// What a result says of BOS; nil where token ids were given, which get none.
  func provenanceBOS(_ model: GPT2, extra: [String] = []) -> Bool? {
    let onlyIDs =
      extra.isEmpty && prompt.isEmpty && inputs.isEmpty && !tokens.isEmpty
    return onlyIDs ? nil : !noBOS && model.defaultPrependBOS
  }

  /// The prompts, `extra` first.
  ///
  /// - Parameters:
  ///   - answered: whether every prompt gets an answer, so that none is cut.
  ///   - limited: whether a prompt beyond the model's n_ctx is an error.
  func load(
    _ model: GPT2, extra: [String] = [], answered: Bool = false, limited: Bool = true,
    quiet: Bool = false
  ) throws -> [Prompt] {
    let read = try read(model, extra: extra, answered: answered, limited: limited)
    if !quiet { read.note() }
    return read.prompts
  }

  /// The prompts, `extra` first, and what had to be done to them.
  ///
  /// - Parameters:
  ///   - window: the tokens of a window without `--context`; nil leaves texts whole.
  ///   - answered: whether every prompt gets an answer, so that none is cut.
  ///   - limited: whether a prompt beyond the model's n_ctx is an error.
  func read(
    _ model: GPT2, extra: [String] = [], window: Int? = nil, answered: Bool = false,
    limited: Bool = true
  ) throws -> LoadedPrompts {
    let limit = model.config.nCtx
    if let context, limited && context > limit {
      throw CommandError(
        "--context \(context): the model has n_ctx = \(limit) positions; give at most that",
        status: .data)
    }
    var result = LoadedPrompts(window: context ?? window)
    let hasBOS = prependBOS ?? model.defaultPrependBOS
    for text in extra + prompt {
      result.add(
        Prompt(try model.tokens(text, prependBOS: prependBOS)), hasBOS: hasBOS, answered: answered)
    }
    for file in text {
      result.add(
        Prompt(try model.tokens(try readText(file), prependBOS: prependBOS)), hasBOS: hasBOS,
        answered: answered)
    }
    for list in tokens {
      result.add(
        Prompt(try tokenIDs(list, option: "--tokens")), hasBOS: false, answered: answered)
    }
    if let prompts {
      for prompt in try PromptSet.read(prompts).cleanPrompts(model, prependBOS: prependBOS) {
        result.add(prompt, hasBOS: hasBOS, answered: answered)
      }
    }
    if result.prompts.isEmpty {
      throw CommandError(Self.noPrompt)
    }
    // Bad tokens are found before anything is computed or created.
    for (index, prompt) in result.prompts.enumerated() {
      if prompt.tokens.isEmpty { throw ModelError.emptyPrompt(prompt: index) }
      guard limited && prompt.tokens.count > limit else { continue }
      let error = ModelError.promptTooLong(
        prompt: index, tokens: prompt.tokens.count, limit: limit)
      if answered || prompt.answer != nil || prompt.wrong != nil { throw error }
      throw CommandError(
        "\(error), or cut it into windows (--context \(limit))", status: .data)
    }
    return result
  }
}

/// The prompts of a command line, and what was cut to make them.
struct LoadedPrompts {
  /// The prompts.
  var prompts: [Prompt] = []
  /// The tokens of a window; nil leaves texts whole.
  private let window: Int?
  private var cutTexts = 0
  private var windows = 0
  private var droppedTokens = 0
  private var wholeLongPrompts = 0

  init(window: Int?) { self.window = window }

  /// Takes a text in: cut, if it is long and asks no question at its end.
  fileprivate mutating func add(_ prompt: Prompt, hasBOS: Bool, answered: Bool) {
    guard let window, prompt.tokens.count > window else {
      prompts.append(prompt)
      return
    }
    if answered || prompt.answer != nil || prompt.wrong != nil {
      wholeLongPrompts += 1
      prompts.append(prompt)
      return
    }
    let pieces = TextWindows(prompt.tokens, length: window, hasBOS: hasBOS)
    prompts += pieces.windows.map { Prompt($0) }
    cutTexts += 1
    windows += pieces.windows.count
    droppedTokens += pieces.dropped
  }

  /// What a result says of it; nothing where nothing was cut.
  var facts: Provenance {
    guard let window, cutTexts > 0 else { return Provenance() }
    return Provenance([
      "context": .integer(window), "context_texts": .integer(cutTexts),
      "context_windows": .integer(windows), "context_dropped_tokens": .integer(droppedTokens),
    ])
  }

  /// Says on standard error what was cut, and what was not.
  func note() {
    guard let window else { return }
    func count(_ number: Int, _ what: String) -> String {
      "\(number) \(what)\(number == 1 ? "" : "s")"
    }
    if cutTexts > 0 {
      Terminal.note(
        "\(count(cutTexts, "text")) cut into \(count(windows, "window")) of at most \(window) tokens"
          + (droppedTokens > 0
            ? "; \(count(droppedTokens, "token")) left over, alone in a window" : ""))
    }
    if wholeLongPrompts > 0 {
      Terminal.note(
        "\(count(wholeLongPrompts, "prompt")) with answers longer than --context \(window): not cut"
      )
    }
  }
}

/// The ids of a list such as `1,2,3`, which `option` was given.
func tokenIDs(_ list: String, option: String) throws -> [Int] {
  try list.split(separator: ",", omittingEmptySubsequences: false).map { word in
    guard let id = Int(word.trimmingCharacters(in: .whitespaces)) else {
      throw CommandError("\(option) '\(list)': '\(word)' is not a token id")
    }
    return id
  }
}

/// The text of a file, which must be UTF-8: another encoding would be other tokens than its author
/// sees.
func readText(_ path: String) throws -> String {
  try validText(try readBytes(path), path)
}

/// The bytes of a file or a pipe.
func readBytes(_ path: String) throws -> [UInt8] {
  do {
    // Unlike Data's initializer it also reads pipes: --text /dev/stdin.
    let file = try FileHandle(forReadingFrom: URL(fileURLWithPath: path))
    return [UInt8](try file.readToEnd() ?? Data())
  } catch {
    throw ModelSourceError.unreadable(path)
  }
}

/// The text that the bytes of a file are.
func validText(_ bytes: [UInt8], _ path: String) throws -> String {
  if let text = String(validating: bytes, as: UTF8.self) { return text }
  var (decoder, iterator, offset) = (UTF8(), bytes.makeIterator(), 0)
  while case .scalarValue(let scalar) = decoder.decode(&iterator) { offset += UTF8.width(scalar) }
  throw CommandError(
    "\(path): not UTF-8 at byte \(offset); convert it, as with iconv -f latin1 -t utf-8",
    status: .data)
}

/// The token that a question is asked about.
struct AnswerOptions: ParsableArguments {
  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "The token that should come next, verbatim: \" Mary\" with its space.", valueName: "token"))
  var answer: String?

  /// The prompts with this answer, and the wrong one that it is compared with.
  ///
  /// - Throws: `CommandError` where a prompts file has answers: to replace only some of them would
  ///   compare answers to different questions.
  func apply(to prompts: [Prompt], wrong: String?, _ model: GPT2) throws -> [Prompt] {
    guard let answer else { return prompts }
    if prompts.contains(where: { $0.answer != nil || $0.wrong != nil }) {
      throw CommandError(
        "--answer: the prompts file has answers of its own; leave out --answer and --wrong, or take "
          + "the answers out of the file")
    }
    let ids = try [answer, wrong].map { try $0.map { try Self.token($0, model) } }
    return prompts.map { prompt in
      var prompt = prompt
      (prompt.answer, prompt.wrong) = (ids[0], ids[1])
      return prompt
    }
  }

  private static func token(_ text: String, _ model: GPT2) throws -> Int {
    do {
      return try model.tokenizer.singleToken(text)
    } catch ModelError.noTokenizer {
      throw CommandError(
        "answer '\(text)': the model has no tokenizer to find its token with; use a model with one",
        status: .data)
    }
  }
}
