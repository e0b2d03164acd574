import ArgumentParser
import NormLens

/// `normlens tokenize`: ids and pieces.
struct TokenizeCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "tokenize", abstract: "Show the tokens of a text.")

  @OptionGroup var model: ModelOptions
  @Argument(help: "The text.") var texts: [String] = []
  @OptionGroup var prompts: PromptOptions
  @Flag(help: "Print {\"ids\": […], \"tokens\": […]}, a line for each text.") var json = false

  func run() throws {
    let model = try model.load()
    let tokenizer = try model.tokenizer
    for (index, prompt) in try prompts.load(model, extra: texts, limited: false).enumerated() {
      let pieces = try prompt.tokens.map { try tokenizer.piece($0) }
      if json {
        Terminal.print(
          JSONText.object([
            ("ids", JSONText.list(prompt.tokens.map(String.init))),
            ("tokens", JSONText.list(pieces.map(JSONText.quoted))),
          ]))
        continue
      }
      if index > 0 { Terminal.print("") }
      var table = TextTable([("pos", .right), ("id", .right), ("token", .left)])
      for (position, (id, piece)) in zip(prompt.tokens, pieces).enumerated() {
        table.add([String(position), String(id), "|\(shown(piece))|"])
      }
      Terminal.print(table.text)
    }
  }
}
