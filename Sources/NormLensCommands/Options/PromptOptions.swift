import ArgumentParser
import Foundation
import NormLens

/// The text that a command works on.
struct PromptOptions: ParsableArguments {
  @Option(
    name: [.customLong("prompt"), .customLong("clean")],
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
    for list in tokens { result.append(Prompt(try Self.ids(list))) }
    if let prompts { result += try PromptFile.read(prompts, model, prependBOS: prependBOS) }
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

  private static func ids(_ list: String) throws -> [Int] {
    try list.split(separator: ",", omittingEmptySubsequences: false).map { word in
      guard let id = Int(word.trimmingCharacters(in: .whitespaces)) else {
        throw CommandError("--tokens '\(list)': '\(word)' is not a token id")
      }
      return id
    }
  }
}

/// The text of a file.
func readText(_ path: String) throws -> String {
  guard FileManager.default.fileExists(atPath: path) else {
    throw ModelSourceError.unreadable(path: path, reason: "no such file")
  }
  do {
    return String(decoding: try Data(contentsOf: URL(fileURLWithPath: path)), as: UTF8.self)
  } catch {
    throw ModelSourceError.unreadable(path: path, reason: error.localizedDescription)
  }
}

/// The tokens that a question is asked about.
struct AnswerOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "The token that should come next, verbatim: \" Mary\" with its space.", valueName: "token"))
  var answer: String?

  @Option(help: ArgumentHelp("The token that should not, verbatim.", valueName: "token"))
  var wrong: String?

  func validate() throws {
    if wrong != nil && answer == nil {
      throw ValidationError("--wrong needs --answer, which it is compared with")
    }
  }

  /// The prompts with these answers; those of a prompts file keep their own.
  func apply(to prompts: [Prompt], _ model: GPT2) throws -> [Prompt] {
    let answer = try answer.map { try model.tokenizer.singleToken($0) }
    let wrong = try wrong.map { try model.tokenizer.singleToken($0) }
    return prompts.map { prompt in
      var prompt = prompt
      prompt.answer = prompt.answer ?? answer
      prompt.wrong = prompt.wrong ?? wrong
      return prompt
    }
  }
}
