import Foundation
import NormLens

/// Reads a prompt set: `{"name": …, "prompts": [{"clean": …, "answer": …, "wrong": …}]}`.
///
/// `answer` and `wrong` are verbatim and one token each, alone or in a list of one; `positions`
/// name tokens of the text without BOS and are checked against it.
enum PromptFile {
  static func read(_ path: String, _ model: GPT2, prependBOS: Bool?) throws -> [Prompt] {
    guard PathKind(path) == .file else { throw ModelSourceError.unreadable(path) }
    let json = try JSONScanner.parseFile(path)
    guard let list = json["prompts"]?.array, !list.isEmpty else {
      throw ModelSourceError.field(
        path: path, field: "prompts", expected: "a list of prompts",
        found: json["prompts"]?.kindName ?? "missing")
    }
    return try list.enumerated().map { index, item in
      func wrong(_ field: String, _ expected: String, _ found: String) -> ModelSourceError {
        .field(path: path, field: "prompts[\(index)].\(field)", expected: expected, found: found)
      }
      guard let text = item["clean"]?.string else {
        throw wrong("clean", "text", item["clean"]?.kindName ?? "missing")
      }
      func token(_ field: String) throws -> Int? {
        guard let value = item[field] else { return nil }
        let texts = value.string.map { [$0] } ?? value.array?.compactMap(\.string) ?? []
        guard texts.count == 1 else {
          throw wrong(
            field, "one token", value.array.map { "\($0.count) of them" } ?? value.kindName)
        }
        return try model.tokenizer.singleToken(texts[0])
      }
      try checkPositions(item, text, model, wrong)
      return Prompt(
        try model.tokens(text, prependBOS: prependBOS), answer: try token("answer"),
        wrong: try token("wrong"))
    }
  }

  private static func checkPositions(
    _ item: JSONValue, _ text: String, _ model: GPT2,
    _ wrong: (String, String, String) -> ModelSourceError
  ) throws {
    guard let positions = item["positions"] else { return }
    let pieces = try model.tokens(text, prependBOS: false).map { try model.tokenizer.piece($0) }
    for label in positions.keys ?? [] {
      guard let position = positions[label]?["pos"]?.integer,
        let token = positions[label]?["token"]?.string
      else { throw wrong("positions.\(label)", "{\"pos\": number, \"token\": text}", "other") }
      guard pieces.indices.contains(position), pieces[position] == token else {
        let found = pieces.indices.contains(position) ? "'\(pieces[position])'" : "nothing"
        throw wrong("positions.\(label)", "'\(token)' at position \(position)", found)
      }
    }
  }
}
