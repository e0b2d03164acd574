import HookedGPT2
import OrderedCollections
import Results

/// The axes and coordinates that results of prompt pairs share: texts, `token` (clean),
/// `corrupted_token`, their ids, the names of positions, answers.
struct PairCoordinates {
  let dimensions: [Dimension]
  let variables: [ResultVariable]

  /// The prompts as a whole: their texts (token ids without a tokenizer) and answers.
  init(_ pairs: [PromptPair], model: GPT2) {
    let tokenizer = try? model.tokenizer
    func text(_ tokens: [Int]) -> String {
      guard let tokenizer else { return tokens.map(String.init).joined(separator: ",") }
      return tokens.map { (try? tokenizer.piece($0)) ?? "" }.joined()
    }
    dimensions = [Dimension("prompt", count: pairs.count)]
    variables =
      [
        ResultVariable(
          "clean_prompt", ["prompt"], .strings(pairs.map { text($0.clean) }),
          longName: "the clean prompt", units: "1", isCoordinate: true),
        ResultVariable(
          "corrupted_prompt", ["prompt"], .strings(pairs.map { text($0.corrupted) }),
          longName: "the corrupted prompt", units: "1", isCoordinate: true),
      ] + Self.answers(pairs, tokenizer)
  }

  /// The prompts at some positions.
  ///
  /// - Parameters:
  ///   - positions: the position of each slot in each prompt.
  ///   - coordinates: what stands along the axis `pos`.
  init(
    _ pairs: [PromptPair], model: GPT2, positions: [[Int?]],
    along coordinates: Dimension.Coordinates
  ) {
    dimensions = [Dimension("prompt", count: pairs.count), Dimension("pos", coordinates)]
    let tokenizer = try? model.tokenizer
    func text(_ token: Int) -> String { (try? tokenizer?.piece(token)) ?? "" }
    func coordinate(
      _ name: String, _ axes: [String], _ values: ResultVariable.Values, _ longName: String
    ) -> ResultVariable {
      ResultVariable(name, axes, values, longName: longName, units: "1", isCoordinate: true)
    }
    func along<Value>(_ value: (PromptPair, Int) -> Value, _ fill: Value) -> [Value] {
      zip(pairs, positions).flatMap { pair, slots in
        slots.map { $0.map { value(pair, $0) } ?? fill }
      }
    }
    var variables: [ResultVariable] = []
    for (name, tokens) in [("token", \PromptPair.clean), ("corrupted_token", \.corrupted)] {
      let meaning = name == "token" ? "clean" : "corrupted"
      if tokenizer != nil {
        variables.append(
          coordinate(
            name, ["prompt", "pos"], .strings(along({ text($0[keyPath: tokens][$1]) }, "")),
            "token text of the \(meaning) prompt"))
      }
      variables.append(
        coordinate(
          "\(name)_id", ["prompt", "pos"], .integers(along({ $0[keyPath: tokens][$1] }, -1)),
          "token id of the \(meaning) prompt, -1 past the end"))
    }
    variables.append(
      coordinate(
        "position", ["prompt", "pos"], .integers(along({ $1 }, -1)),
        "index of the token in its prompt, -1 past the end"))
    if pairs.contains(where: { !$0.positions.isEmpty }) {
      let names = along(
        { pair, position in
          pair.positions.filter { $0.value == position }.map(\.key).joined(separator: ",")
        }, "")
      variables.append(
        coordinate("label", ["prompt", "pos"], .strings(names), "name of the position"))
    }
    self.variables = variables + Self.answers(pairs, tokenizer)
  }

  private static func answers(_ pairs: [PromptPair], _ tokenizer: Tokenizer?) -> [ResultVariable] {
    var variables: [ResultVariable] = []
    func coordinate(_ name: String, _ values: [String], _ longName: String) {
      variables.append(
        ResultVariable(
          name, ["prompt"], .strings(values), longName: longName, units: "1", isCoordinate: true))
    }
    for (name, tokens) in [("answer", \PromptPair.answer), ("wrong", \.wrong)]
    where pairs.contains(where: { !$0[keyPath: tokens].isEmpty }) {
      if let tokenizer {
        coordinate(
          name,
          pairs.map { pair in
            pair[keyPath: tokens].map { (try? tokenizer.piece($0)) ?? "" }.joined(separator: "|")
          }, "the \(name) token, several between bars")
      }
      coordinate(
        "\(name)_id",
        pairs.map { $0[keyPath: tokens].map(String.init).joined(separator: "|") },
        "the \(name) token's id, several between bars")
    }
    return variables
  }
}
