import HDF5Store
import HookedGPT2
import OrderedCollections

/// The prompts file:
/// `{"name": …, "prompts": [{"clean": …, "corrupted": …, "answer": …, "wrong": …, "positions": …}]}`.
///
/// `answer` and `wrong` are a text or a list of texts; `positions` is an object of labels, each
/// `{"pos": 9, "token": " John"}`. A field that is not known is an error: a misspelt one would change
/// the question in silence.
extension PromptSet {
  /// Reads a prompts file.
  ///
  /// - Throws: `ModelSourceError` for a file that cannot be read or a field that is not as it must
  ///   be, `HDF5Error` for text that is no JSON.
  public static func read(_ path: String) throws -> PromptSet {
    guard PathKind(path) == .file else { throw ModelSourceError.unreadable(path) }
    return try PromptFields(path: path).set(try JSONScanner.parseFile(path))
  }

  /// Writes a prompts file, a line for each prompt; it appears complete or not at all.
  ///
  /// - Throws: `JSONError` where the file would be too large to be read, `HDF5Error` where it cannot
  ///   be written.
  public func write(to path: String) throws {
    let bytes = Array(json.utf8)
    _ = try JSONScanner.parse(bytes)
    try FileBytes.write(bytes, to: path)
  }

  /// The set as the text of a prompts file.
  public var json: String {
    var lines: [String] = []
    for (key, value) in [
      ("name", name), ("description", description), ("source", source), ("license", license),
      ("model", model),
    ] {
      if let value { lines.append("  \(JSONValue.quoted(key)): \(JSONValue.quoted(value))") }
    }
    let items = prompts.map { "    \($0.json.text)" }.joined(separator: ",\n")
    lines.append("  \"prompts\": [\n\(items)\n  ]")
    return "{\n" + lines.joined(separator: ",\n") + "\n}\n"
  }
}

extension PromptText {
  /// The prompt as it stands in a file.
  fileprivate var json: JSONValue {
    func tokens(_ list: [String]) -> JSONValue {
      list.count == 1 ? .string(list[0]) : .array(list.map { .string($0) })
    }
    var members: OrderedDictionary<String, JSONValue> = ["clean": .string(clean)]
    if let corrupted { members["corrupted"] = .string(corrupted) }
    if !answer.isEmpty { members["answer"] = tokens(answer) }
    if !wrong.isEmpty { members["wrong"] = tokens(wrong) }
    if !positions.isEmpty {
      members["positions"] = .object(
        positions.mapValues { .object(["pos": .integer($0.pos), "token": .string($0.token)]) })
    }
    return .object(members)
  }
}

/// Reads the fields of a prompts file, whose name stands in every error.
private struct PromptFields {
  let path: String

  func set(_ json: JSONValue) throws(ModelSourceError) -> PromptSet {
    try check(json, "", ["name", "prompts", "description", "source", "license", "model"])
    guard let list = json["prompts"]?.array else {
      throw wrong("prompts", "a list of prompts", json["prompts"]?.kindName ?? "missing")
    }
    if list.isEmpty { throw wrong("prompts", "at least one prompt", "an empty list") }
    var prompts: [PromptText] = []
    for (index, item) in list.enumerated() {
      prompts.append(try prompt(item, "prompts[\(index)]"))
    }
    var set = PromptSet(
      name: try text(json["name"], "name") ?? "",
      description: try text(json["description"], "description"),
      source: try text(json["source"], "source"), license: try text(json["license"], "license"),
      model: try text(json["model"], "model"), prompts: prompts)
    set.origin = path
    return set
  }

  private func prompt(_ item: JSONValue, _ place: String) throws(ModelSourceError) -> PromptText {
    try check(item, place, ["clean", "corrupted", "answer", "wrong", "positions"])
    guard let clean = try text(item["clean"], "\(place).clean") else {
      throw wrong("\(place).clean", "text", "missing")
    }
    return PromptText(
      clean: clean, corrupted: try text(item["corrupted"], "\(place).corrupted"),
      answer: try tokens(item["answer"], "\(place).answer"),
      wrong: try tokens(item["wrong"], "\(place).wrong"),
      positions: try positions(item["positions"], "\(place).positions"))
  }

  /// A text, or nil where there is no such member.
  private func text(_ value: JSONValue?, _ field: String) throws(ModelSourceError) -> String? {
    guard let value else { return nil }
    guard let text = value.string else { throw wrong(field, "text", value.kindName) }
    return text
  }

  /// One text or several.
  private func tokens(_ value: JSONValue?, _ field: String) throws(ModelSourceError) -> [String] {
    guard let value else { return [] }
    if let text = value.string { return [text] }
    guard let list = value.array else {
      throw wrong(field, "text or a list of texts", value.kindName)
    }
    if list.isEmpty { throw wrong(field, "at least one token", "an empty list") }
    var texts: [String] = []
    for (index, item) in list.enumerated() {
      guard let text = item.string else { throw wrong("\(field)[\(index)]", "text", item.kindName) }
      texts.append(text)
    }
    return texts
  }

  private func positions(
    _ value: JSONValue?, _ field: String
  ) throws(ModelSourceError) -> OrderedDictionary<String, PromptText.Position> {
    guard let value else { return [:] }
    guard case .object(let labels) = value else {
      throw wrong(field, "an object of labels and positions", value.kindName)
    }
    var result: OrderedDictionary<String, PromptText.Position> = [:]
    for (label, item) in labels {
      try check(item, "\(field).\(label)", ["pos", "token"])
      guard let position = item["pos"]?.integer, let token = item["token"]?.string else {
        throw wrong("\(field).\(label)", #"{"pos": number, "token": text}"#, item.text)
      }
      result[label] = PromptText.Position(position, token: token)
    }
    return result
  }

  private func check(
    _ value: JSONValue, _ place: String, _ known: [String]
  ) throws(ModelSourceError) {
    guard let keys = value.keys else {
      throw wrong(place.isEmpty ? "the top level" : place, "an object", value.kindName)
    }
    for key in keys where !known.contains(key) {
      let near = nearestText(to: key, among: known).map { "did you mean '\($0)'?" }
      throw .prompts(
        place: path,
        problem: "unknown field '\(place.isEmpty ? key : "\(place).\(key)")'; "
          + (near ?? "known are \(known.joined(separator: ", "))"))
    }
  }

  private func wrong(_ field: String, _ expected: String, _ found: String) -> ModelSourceError {
    .field(path: path, field: field, expected: expected, found: found)
  }
}
