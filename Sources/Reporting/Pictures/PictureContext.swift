import OrderedCollections
import Results

/// What a group's pictures say beside their numbers: models, tokens, the group's own words.
struct PictureContext {
  let result: ResultSet
  let group: ResultGroup
  /// `token(prompt, pos)` and `label(prompt, pos)`, a row a prompt; nil where the group has none.
  private let tokenTexts, labels: [[String]]?

  init(result: ResultSet, group: ResultGroup) {
    self.result = result
    self.group = group
    tokenTexts = Self.rows("token", of: group)
    labels = Self.rows("label", of: group)
  }

  /// The models' names, in the order of the axis `model` where there is one.
  var models: [String] { texts("model_name") }

  /// A fact of the run that the group belongs to: of the nearest group above it that says so (one of
  /// several results in a file), else of the file.
  private func fact(_ name: String) -> AttributeValue? {
    var path = group.path
    while !path.isEmpty {
      if let found = result[group: path]?.attributes[name] { return found }
      path = path.split(separator: "/").dropLast().joined(separator: "/")
    }
    return result.provenance.facts[name]
  }

  private func texts(_ name: String) -> [String] {
    switch fact(name) {
    case .strings(let texts)?: texts
    case .string(let text)? where !text.isEmpty: [text]
    default: []
    }
  }

  /// `mini: LayerNorm, weights as stored`: one line for each model.
  var modelFacts: [String] {
    let (norms, gauges) = (texts("normalization"), texts("weight_processing"))
    return models.enumerated().map { index, model in
      func entry(_ list: [String]) -> String? {
        list.count == models.count ? list[index] : list.count == 1 ? list[0] : nil
      }
      let norm = entry(norms).map(Self.normalization)
      let gauge = entry(gauges).map { $0 == "none" ? "weights as stored" : "gauge " + $0 }
      return ([model] + [[norm, gauge].compactMap(\.self).joined(separator: ", ")])
        .filter { !$0.isEmpty }.joined(separator: ": ")
    }
  }

  private static func normalization(_ name: String) -> String {
    switch name {
    case "layernorm": "LayerNorm"
    case "none": "no LayerNorm"
    case "rmsnorm": "RMSNorm"
    default: name
    }
  }

  /// What the group says of all its numbers.
  var groupFacts: [String] {
    let words = ["direction", "metric", "method", "position", "layer_norm"].compactMap { name in
      group.attributes[name].map { "\(name.replacing("_", with: " ")): \(Self.once($0))" }
    }
    var lines = words.isEmpty ? [] : [words.joined(separator: " · ")]
    if let all = group.promptsInFile {
      lines.append("the first \(promptCount) of \(all) prompts")
    }
    return lines
  }

  /// What a value says, once where it says the same of several models.
  private static func once(_ value: AttributeValue) -> String {
    guard case .strings(let texts) = value else { return value.description }
    return OrderedSet(texts).joined(separator: "; ")
  }

  /// What the numbers of a variable mean: units, sign, formula.
  func facts(of variable: ResultVariable) -> [String] {
    var words: [String] = []
    if variable.units != "1" { words.append("in \(Self.unit(variable.units))") }
    if let sign = variable.signConvention, sign != "not signed" { words.append(sign) }
    var lines = words.isEmpty ? [] : [words.joined(separator: "; ")]
    if let more = Self.name(of: variable).remainder { lines.append(more) }
    if case .string(let formula)? = variable.attributes["formula"] { lines.append(formula) }
    return lines
  }

  /// What a variable is, in the words that fit a title; the rest of its description is `remainder`.
  static func name(of variable: ResultVariable) -> (title: String, remainder: String?) {
    var text = variable.longName
    if text.hasPrefix("difference between models: ") {
      text.removeFirst("difference between models: ".count)
    }
    guard let end = text.firstIndex(of: ";") else { return (text, nil) }
    let rest = text[text.index(after: end)...].drop { $0 == " " }
    return (String(text[..<end]), String(rest))
  }

  /// A unit in the plural of people.
  static func unit(_ unit: String) -> String {
    ["logit": "logits", "nat": "nats", "bit": "bits", "degree": "degrees", "radian": "radians"][
      unit] ?? unit
  }

  // MARK: Prompts and tokens

  /// How many prompts there are.
  var promptCount: Int { group[dimension: "prompt"]?.count ?? 0 }

  /// A prompt's tokens, spelled out; nil where the result does not hold them. Without a prompt, the
  /// tokens that all prompts share at a place and the place's label or number elsewhere.
  func tokens(prompt: Int?, count: Int) -> [String]? {
    guard let all = tokenTexts else { return nil }
    if let prompt { return Array(all[prompt].prefix(count)).map(Self.spelled) }
    return (0..<count).map { place in
      func shared(_ rows: [[String]]?) -> String? {
        guard let rows, let first = rows.first, place < first.count, !first[place].isEmpty else {
          return nil
        }
        return rows.allSatisfy { $0[place] == first[place] } ? first[place] : nil
      }
      return shared(all).map(Self.spelled) ?? shared(labels) ?? String(place)
    }
  }

  /// How many tokens a prompt has; nil where the result does not say.
  func length(prompt: Int) -> Int? {
    guard let ids = group[variable: "token_id"], ids.dimensions == ["prompt", "pos"],
      case .integers(let values) = ids.values, let width = group[dimension: "pos"]?.count
    else { return nil }
    return values[(prompt * width)..<((prompt + 1) * width)].count { $0 >= 0 }
  }

  /// Whether all prompts are of one length, so that their positions can be averaged.
  var promptsAreOfOneLength: Bool {
    let lengths = (0..<promptCount).map { length(prompt: $0) }
    return Set(lengths).count == 1
  }

  /// A prompt's text, as its tokens spell it.
  func text(prompt: Int) -> String? {
    guard let tokens = tokenTexts?[prompt] else { return nil }
    return tokens.prefix(length(prompt: prompt) ?? tokens.count).joined()
  }

  private static func rows(_ name: String, of group: ResultGroup) -> [[String]]? {
    guard let found = group[variable: name], found.dimensions == ["prompt", "pos"],
      case .strings(let texts) = found.values, let width = group[dimension: "pos"]?.count, width > 0
    else { return nil }
    return stride(from: 0, to: texts.count, by: width).map { Array(texts[$0..<($0 + width)]) }
  }

  /// A token as an axis shows it: a blank as `·`, other white space and control characters as
  /// escapes.
  static func spelled(_ token: String) -> String {
    shown(token).replacing(" ", with: "·")
  }
}

extension ResultVariable {
  /// What the sign of the numbers means.
  var signConvention: String? {
    if case .string(let text)? = attributes["sign_convention"] { text } else { nil }
  }
}
