import ArgumentParser
import NormLens

/// How the effects of a patching sweep are found.
struct MethodOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "How effects are found, comma-separated: \(Self.names.joined(separator: ", ")).",
      valueName: "list"))
  var method = Self.exact

  @Option(
    help: ArgumentHelp(
      "The rules of relevance: \(BackwardRules.allNames.joined(separator: ", ")), comma-separated; "
        + "or none. (default: \(BackwardRules.relp.names.joined(separator: ",")))",
      valueName: "list"))
  var rules: String?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("The steps of integrated-gradients. (default: 10)", valueName: "n"))
  var steps: Int?

  private static let exact = "activation"
  private static let estimates: [AttributionPatching.Method] = [
    .attribution, .integratedGradients(steps: 10), .relevance(.relp),
  ]
  private static let names = [exact] + estimates.map(\.name)
  private static let stepLimit = 10_000

  /// Whether the exact sweep is asked for.
  var isExact: Bool { listWords(method).contains(Self.exact) }

  /// The estimates that are asked for, in the order of the results.
  ///
  /// - Throws: `CommandError` for methods, rules or steps that there are not.
  func chosenEstimates() throws -> [AttributionPatching.Method] {
    let words = try known(method, "--method", "method", among: Self.names)
    if rules != nil && !words.contains("relevance") {
      throw CommandError("--rules: no method here has rules; they need --method relevance")
    }
    if steps != nil && !words.contains("integrated-gradients") {
      throw CommandError(
        "--steps: no method here takes steps; they need --method integrated-gradients")
    }
    if let steps, !(1...Self.stepLimit).contains(steps) {
      throw CommandError("--steps \(steps): expected 1 to \(Self.stepLimit)")
    }
    return try Self.estimates.filter { words.contains($0.name) }.map { method in
      switch method {
      case .attribution: method
      case .integratedGradients: steps.map { .integratedGradients(steps: $0) } ?? method
      case .relevance: .relevance(try chosenRules())
      }
    }
  }

  private func chosenRules() throws -> BackwardRules {
    guard let rules else { return .relp }
    let words = try known(rules, "--rules", "rule", among: BackwardRules.allNames + ["none"])
    if words == ["none"] { return .gradient }
    guard let found = BackwardRules(names: words) else {
      throw CommandError("--rules '\(rules)': 'none' stands alone")
    }
    return found
  }

  /// The words of a list, all of them among the names.
  private func known(
    _ list: String, _ option: String, _ what: String, among names: [String]
  ) throws -> [String] {
    let words = listWords(list)
    if let word = words.first(where: { !names.contains($0) }) {
      let near = nearestText(to: word, among: names).map { "; did you mean '\($0)'?" } ?? ""
      throw CommandError(
        "\(option): unknown \(what) '\(word)'\(near) (known: \(names.joined(separator: ", ")))")
    }
    return words
  }
}
