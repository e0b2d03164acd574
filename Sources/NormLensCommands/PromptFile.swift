import Foundation
import NormLens

/// Reads a prompt set: `{"name": …, "prompts": [{"clean": …, "answer": …, "wrong": …}]}`.
///
/// `answer` and `wrong` are verbatim and one token each, alone or in a list of one; `positions`
/// name tokens of the text without BOS and are checked against it. A field that is not known is an
/// error: a misspelt one would change the question in silence.
struct PromptFile {
  private let path: String
  private let model: GPT2
  private let prependBOS: Bool?

  static func read(_ path: String, _ model: GPT2, prependBOS: Bool?) throws -> [Prompt] {
    guard PathKind(path) == .file else { throw ModelSourceError.unreadable(path) }
    return try PromptFile(path: path, model: model, prependBOS: prependBOS)
      .prompts(try JSONScanner.parseFile(path))
  }

  private func prompts(_ json: JSONValue) throws -> [Prompt] {
    try checkFields(
      of: json, "", ["name", "prompts", "description", "source", "license", "model"])
    guard let list = json["prompts"]?.array else {
      throw wrong("prompts", "a list of prompts", json["prompts"]?.kindName ?? "missing")
    }
    if list.isEmpty { throw wrong("prompts", "at least one prompt", "an empty list") }
    return try list.enumerated().map { try prompt($1, "prompts[\($0)]") }
  }

  private func prompt(_ item: JSONValue, _ place: String) throws -> Prompt {
    try checkFields(of: item, place, ["clean", "corrupted", "answer", "wrong", "positions"])
    guard let text = item["clean"]?.string else {
      throw wrong("\(place).clean", "text", item["clean"]?.kindName ?? "missing")
    }
    if let corrupted = item["corrupted"], corrupted.string == nil {
      throw wrong("\(place).corrupted", "text", corrupted.kindName)
    }
    if let positions = item["positions"] {
      try checkPositions(positions, text, "\(place).positions")
    }
    return Prompt(
      try model.tokens(text, prependBOS: prependBOS),
      answer: try item["answer"].map { try token($0, "\(place).answer") },
      wrong: try item["wrong"].map { try token($0, "\(place).wrong") })
  }

  private func token(_ value: JSONValue, _ field: String) throws -> Int {
    let list = value.array ?? [value]
    guard list.count == 1 else { throw wrong(field, "one token", "a list of \(list.count)") }
    guard let text = list[0].string else { throw wrong(field, "text", list[0].kindName) }
    do {
      return try model.tokenizer.singleToken(text)
    } catch let error as TokenizerError {
      throw CommandError("\(path): \(field): \(error)", status: .data)
    }
  }

  private func checkPositions(_ positions: JSONValue, _ text: String, _ field: String) throws {
    guard let labels = positions.keys else {
      throw wrong(field, "an object of labels and positions", positions.kindName)
    }
    let pieces = try model.tokens(text, prependBOS: false).map { try model.tokenizer.piece($0) }
    for label in labels {
      guard let position = positions[label]?["pos"]?.integer,
        let token = positions[label]?["token"]?.string
      else { throw wrong("\(field).\(label)", "{\"pos\": number, \"token\": text}", "other") }
      guard pieces.indices.contains(position), pieces[position] == token else {
        let found = pieces.indices.contains(position) ? "'\(pieces[position])'" : "nothing"
        throw wrong("\(field).\(label)", "'\(token)' at position \(position)", found)
      }
    }
  }

  private func checkFields(of value: JSONValue, _ place: String, _ known: [String]) throws {
    guard let keys = value.keys else {
      throw wrong(place.isEmpty ? "the top level" : place, "an object", value.kindName)
    }
    for key in keys where !known.contains(key) {
      let near = nearestText(to: key, among: known).map { "did you mean '\($0)'?" }
      throw CommandError(
        "\(path): unknown field '\(place.isEmpty ? key : "\(place).\(key)")'; "
          + (near ?? "known are \(known.joined(separator: ", "))"), status: .data)
    }
  }

  private func wrong(_ field: String, _ expected: String, _ found: String) -> ModelSourceError {
    .field(path: path, field: field, expected: expected, found: found)
  }
}
