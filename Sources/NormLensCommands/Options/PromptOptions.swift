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
    help: ArgumentHelp("A file whose whole text is one prompt.", valueName: "file"),
    completion: .file())
  var text: String?

  @Option(help: ArgumentHelp("Token ids instead of text; may be repeated.", valueName: "1,2,3"))
  var tokens: [String] = []

  @Flag(name: .customLong("no-bos"), help: "Put no BOS token in front of text.")
  var noBOS = false

  /// The files that are read.
  var inputs: [String] { [prompts, text].compactMap { $0 } }

  /// Whether there is any prompt.
  var isGiven: Bool { !(prompt.isEmpty && tokens.isEmpty && inputs.isEmpty) }

  /// Whether text gets a BOS token; nil leaves it to the model.
  var prependBOS: Bool? { noBOS ? false : nil }

  /// What a result says of BOS; nil where token ids were given, which get none.
  func provenanceBOS(_ model: GPT2, extra: [String] = []) -> Bool? {
    let onlyIDs =
      extra.isEmpty && prompt.isEmpty && prompts == nil && text == nil && !tokens.isEmpty
    return onlyIDs ? nil : !noBOS && model.defaultPrependBOS
  }

  /// The prompts, `extra` first.
  ///
  /// - Parameter limited: whether a prompt beyond the model's n_ctx is an error.
  func load(_ model: GPT2, extra: [String] = [], limited: Bool = true) throws -> [Prompt] {
    var result: [Prompt] = []
    for text in extra + prompt {
      result.append(Prompt(try model.tokens(text, prependBOS: prependBOS)))
    }
    if let text {
      result.append(Prompt(try model.tokens(try readText(text), prependBOS: prependBOS)))
    }
    for list in tokens { result.append(Prompt(try tokenIDs(list, option: "--tokens"))) }
    if let prompts {
      result += try PromptSet.read(prompts).cleanPrompts(model, prependBOS: prependBOS)
    }
    if result.isEmpty {
      throw CommandError(
        "no prompt: give --prompt TEXT, --prompts FILE, --text FILE or --tokens IDS")
    }
    // Bad tokens are found before anything is computed or created.
    for (index, prompt) in result.enumerated() {
      if prompt.tokens.isEmpty { throw ModelError.emptyPrompt(prompt: index) }
      if limited && prompt.tokens.count > model.config.nCtx {
        throw ModelError.promptTooLong(
          prompt: index, tokens: prompt.tokens.count, limit: model.config.nCtx)
      }
    }
    return result
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
