import ArgumentParser
import NormLens

/// `normlens tokenize`: ids and pieces.
struct TokenizeCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "tokenize", abstract: "Show the tokens of a text.")

  @OptionGroup var model: ModelOptions
  @Argument(help: "The text.") var texts: [String] = []
  @OptionGroup var prompts: PromptOptions
  @Option(
    help: ArgumentHelp("A file of texts, one on each line.", valueName: "file"),
    completion: .file())
  var lines: String?
  @Flag(name: .customLong("null"), help: "Texts of --lines end with a NUL byte, not a line's end.")
  var endsWithNull = false
  @Option(help: "What ill-formed UTF-8 in --lines is: strict (an error) or replace (U+FFFD).")
  var errors = Errors.strict
  @Flag(help: "Print {\"ids\": […], \"tokens\": […]}, a line for each text.") var json = false

  /// What ill-formed UTF-8 is, in Python's words.
  enum Errors: String, ExpressibleByArgument, CaseIterable {
    case strict
    case replace
  }

  func validate() throws {
    if lines == nil && (endsWithNull || errors != .strict) {
      throw ValidationError("--null and --errors are about --lines FILE, which is not there")
    }
  }

  func run() throws {
    let model = try model.load()
    let tokenizer = try model.tokenizer
    var count = 0
    if let lines {
      try readTexts(lines) { text in
        let ids = try model.tokens(text, prependBOS: prompts.prependBOS)
        try check(ids, text, tokenizer)
        try show(ids, tokenizer, isFirst: count == 0)
        count += 1
      }
      if !prompts.isGiven && texts.isEmpty { return }
    }
    for prompt in try prompts.load(model, extra: texts, limited: false) {
      try show(prompt.tokens, tokenizer, isFirst: count == 0)
      count += 1
    }
  }

  /// Calls `body` with each text of a file.
  private func readTexts(_ path: String, _ body: (String) throws -> Void) throws {
    let bytes = try readBytes(path)
    // Before anything is printed.
    if errors == .strict { _ = try validText(bytes, path) }
    let end = endsWithNull ? 0 : UInt8(ascii: "\n")
    var start = 0
    while start < bytes.count {
      let stop = bytes[start...].firstIndex(of: end) ?? bytes.count
      try body(String(decoding: bytes[start..<stop], as: UTF8.self))
      start = stop + 1
    }
  }

  /// Tokens that are not their text would make every number behind them wrong.
  private func check(_ ids: [Int], _ text: String, _ tokenizer: Tokenizer) throws {
    let bytes = try tokenizer.bytes(of: ids)
    guard bytes.count >= text.utf8.count, bytes.suffix(text.utf8.count).elementsEqual(text.utf8)
    else {
      throw CommandError(
        "'\(shown(text))': expected tokens of this text, found those of "
          + "'\(shown(String(decoding: bytes, as: UTF8.self)))'", status: .data)
    }
  }

  private func show(_ ids: [Int], _ tokenizer: Tokenizer, isFirst: Bool) throws {
    let pieces = try ids.map { try tokenizer.piece($0) }
    if json {
      Terminal.print(
        JSONText.object([
          ("ids", JSONText.list(ids.map(String.init))),
          ("tokens", JSONText.list(pieces.map(JSONText.quoted))),
        ]))
      return
    }
    if !isFirst { Terminal.print("") }
    var table = TextTable([("pos", .right), ("id", .right), ("token", .left)])
    for (position, (id, piece)) in zip(ids, pieces).enumerated() {
      table.add([String(position), String(id), "|\(shown(piece))|"])
    }
    Terminal.print(table.text)
  }
}
