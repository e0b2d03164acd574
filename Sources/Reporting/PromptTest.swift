/// The answer tokens of one prompt against the model's predictions, printed as TransformerLens'
/// `test_prompt` prints them.
public struct PromptTest: Sendable {
  /// One token with its place among the predictions.
  public struct Line: Sendable {
    /// How many tokens have a larger logit.
    public var rank: Int
    /// The token's logit.
    public var logit: Double
    /// The token's probability.
    public var probability: Double
    /// The token's text.
    public var token: String

    /// A line.
    public init(rank: Int, logit: Double, probability: Double, token: String) {
      self.rank = rank
      self.logit = logit
      self.probability = probability
      self.token = token
    }
  }

  /// The predictions where one answer token is expected.
  public struct Step: Sendable {
    /// The answers' lines: one, or one for each alternative.
    public var answers: [Line]
    /// The most likely tokens, best first.
    public var top: [Line]

    /// The predictions at one position.
    public init(answers: [Line], top: [Line]) {
      self.answers = answers
      self.top = top
    }
  }

  /// The prompt's tokens.
  public var prompt: [String]
  /// The tokens of each alternative answer; one where there are no alternatives.
  public var answers: [[String]]
  /// The predictions: one step for each token of the only answer, or one for all alternatives.
  public var steps: [Step]

  /// A test of one answer of one or several tokens, or of the first tokens of several answers.
  public init(prompt: [String], answers: [[String]], steps: [Step]) {
    self.prompt = prompt
    self.answers = answers
    self.steps = steps
  }

  /// The report.
  ///
  /// - Parameter bold: whether the headings are bold, for a terminal.
  public func text(bold: Bool) -> String {
    let several = answers.count > 1
    func strong(_ line: String) -> String { bold ? "\u{1B}[1m\(line)\u{1B}[0m" : line }
    var lines = [promptLine]
    lines.append(
      several
        ? "Tokenized answers: [\(answers.map(list).joined(separator: ", "))]"
        : "Tokenized answer: \(list(answers.first ?? []))")
    for step in steps {
      lines.append(strong("Performance on answer token\(several ? "s" : ""):"))
      for line in step.answers {
        let rank = String(line.rank).padded(8, right: false)
        lines.append(strong("Rank: \(rank) \(Self.numbers(line)) Token: |\(line.token)|"))
      }
      for (index, line) in step.top.enumerated() {
        lines.append(Self.topLine(index, line))
      }
    }
    let ranks = steps.map { step in
      "[" + step.answers.map { "(\(quoted($0.token)), \($0.rank))" }.joined(separator: ", ") + "]"
    }
    // Several alternatives have one step with several answers; several tokens have several steps.
    let summary =
      several
      ? "[\(ranks.joined(separator: ", "))]"
      : "["
        + steps.flatMap(\.answers).map { "(\(quoted($0.token)), \($0.rank))" }
        .joined(separator: ", ") + "]"
    lines.append(strong("Ranks of the answer tokens: \(summary)"))
    return lines.joined(separator: "\n")
  }

  /// The line that lists the prompt's tokens.
  public var promptLine: String { "Tokenized prompt: \(list(prompt))" }

  /// The line of the prediction at `place`, 0 being the most likely.
  public static func topLine(_ place: Int, _ line: Line) -> String {
    "Top \(place)th token. \(numbers(line)) Token: |\(line.token)|"
  }

  /// `Logit: 14.24 Prob:  3.51%`.
  private static func numbers(_ line: Line) -> String {
    "Logit: \(fixed(line.logit, 2).padded(5, right: true)) "
      + "Prob: \(percent(line.probability).padded(6, right: true))"
  }

  private func list(_ pieces: [String]) -> String {
    "[" + pieces.map(quoted).joined(separator: ", ") + "]"
  }

  /// The text as Python's `repr` writes it.
  private func quoted(_ text: String) -> String {
    let quote = text.contains("'") && !text.contains("\"") ? "\"" : "'"
    var inside = ""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\\": inside += "\\\\"
      case "'" where quote == "'": inside += "\\'"
      default: inside += shown(String(scalar))
      }
    }
    return quote + inside + quote
  }
}
