import Results

/// What a patching experiment measures: one number of the logits at a prompt's last position.
///
/// For the model's answer tokens A and wrong tokens W (mostly one each), p = softmax(logits):
///
///     logit-difference          max_A logit − max_W logit
///     logit                     max_A logit
///     log-probability           log Σ_A p                      nats
///     probability-difference    p(A) − p(W), one token each
///     group-difference          Σ_A p − Σ_W p                  greater-than: years above, years below
///     loss                      −log Σ_A p                     nats
///     kl                        Σ_v p_clean(v)·(log p_clean(v) − log p(v))     nats, over the whole vocabulary
///
/// With several answers the maximum asks whether any of them wins, as the docstring task does with
/// its wrong ones. `loss` and `kl` fall where the model does better: the sign of an effect is that of
/// the metric, its normalised value is 1 for the clean run whatever the metric.
///
/// Attribution asks for the derivative by the logits x, too; with P_A = Σ_A p, and for a maximum that of
/// its first largest element:
///
///     log-probability           [v ∈ A]·p(v)/P_A − p(v)
///     probability-, group-difference   p(v)·([v ∈ A] − [v ∈ W] − (P_A − P_W))
///     loss                      −([v ∈ A]·p(v)/P_A − p(v))
///     kl                        p(v) − p_clean(v): nothing at the clean run itself
///
/// Zhang & Nanda 2024, arXiv:2309.16042, compare metrics: the logit difference is linear in the final
/// stream and shows negative components that probabilities hide.
public struct Metric: Sendable {
  /// What the metric looks at.
  public enum Scope: Sendable {
    /// The logits of the answer and wrong tokens.
    case answers
    /// The logits of the whole vocabulary: each run is unembedded as a whole.
    case vocabulary
  }

  /// What the metric needs of a prompt pair.
  public enum Needs: Sendable {
    case nothing, answer, answerAndWrong, oneAnswerAndOneWrong
  }

  /// The metric's name, as on the command line and in results.
  public let name: String
  /// The unit of its values and of effects: `logit`, `nat`, `1`.
  public let units: String
  /// What it looks at.
  public let scope: Scope
  /// What it needs of a prompt pair.
  public let needs: Needs
  /// Whether it falls where the model does better, as a loss does.
  public let falls: Bool
  private let value: @Sendable (AnswerLogits) throws -> Double
  private let slope: (@Sendable (AnswerLogits) throws -> AnswerLogits.Gradient)?

  /// A metric of one's own.
  ///
  /// ```swift
  /// Metric("margin", units: "logit") { $0.answer[0] - $0.wrong[0] }
  /// ```
  ///
  /// - Parameters:
  ///   - name: what results call it. A sweep that is taken up again knows its metric by it, so that
  ///     another metric needs another name.
  ///   - units: the unit of its values.
  ///   - scope: whether it looks at the whole vocabulary.
  ///   - needs: which tokens a pair must have.
  ///   - falls: whether it falls where the model does better.
  ///   - gradient: its derivative by the logits, which attribution needs; without it the metric serves
  ///     for exact patching only.
  ///   - value: the metric of one run.
  public init(
    _ name: String, units: String, over scope: Scope = .answers,
    needs: Needs = .answerAndWrong, falls: Bool = false,
    gradient: (@Sendable (AnswerLogits) throws -> AnswerLogits.Gradient)? = nil,
    _ value: @escaping @Sendable (AnswerLogits) throws -> Double
  ) {
    self.name = name
    self.units = units
    self.scope = scope
    self.needs = needs
    self.falls = falls
    self.value = value
    slope = gradient
  }

  /// The derivative of the metric by the logits of a run.
  ///
  /// - Throws: `AnalysisError.noGradient` for a metric without one.
  public func gradient(_ logits: AnswerLogits) throws -> AnswerLogits.Gradient {
    guard let slope else { throw AnalysisError.noGradient(metric: name) }
    return try slope(logits)
  }

  /// Whether it says how it changes with the logits.
  public var hasGradient: Bool { slope != nil }

  /// The metric of a run.
  public func callAsFunction(_ logits: AnswerLogits) throws -> Double { try value(logits) }

  /// The tokens whose logits a run must give; nil means the whole vocabulary.
  public func tokens(_ pair: PromptPair) -> [Int]? {
    if case .vocabulary = scope { nil } else { pair.answer + pair.wrong }
  }

  /// What the sign of an effect says.
  func signConvention(_ direction: ActivationPatching.Direction, normalized: Bool) -> String {
    if normalized {
      return direction == .denoising
        ? "1 = as good as the clean run, 0 = the corrupted run"
        : "0 = the clean run, -1 = as bad as the corrupted run"
    }
    return falls
      ? "negative = patching makes the model better" : "positive = patching raises the metric"
  }

  /// Fails where a pair lacks the tokens that the metric needs.
  ///
  /// - Throws: `AnalysisError.answers`.
  public func check(_ pair: PromptPair, prompt: Int) throws(AnalysisError) {
    let (expected, holds): (String, Bool) =
      switch needs {
      case .nothing: ("anything", true)
      case .answer: ("an answer token", !pair.answer.isEmpty)
      case .answerAndWrong:
        ("an answer token and a wrong one", !pair.answer.isEmpty && !pair.wrong.isEmpty)
      case .oneAnswerAndOneWrong:
        (
          "exactly one answer token and one wrong one",
          pair.answer.count == 1 && pair.wrong.count == 1
        )
      }
    if !holds {
      throw .answers(
        metric: name, prompt: prompt, expected: expected,
        found: "\(pair.answer.count) right and \(pair.wrong.count) wrong")
    }
  }
}

extension Metric {
  /// The answer's logit less the wrong one's.
  public static let logitDifference = Metric(
    "logit-difference", units: "logit",
    gradient: {
      .init(answer: $0.slopeOfHighest($0.answer), wrong: $0.slopeOfHighest($0.wrong, -1))
    }
  ) { $0.highest($0.answer) - $0.highest($0.wrong) }
  /// The answer's logit.
  public static let logit = Metric(
    "logit", units: "logit", needs: .answer,
    gradient: { .init(answer: $0.slopeOfHighest($0.answer)) }
  ) { $0.highest($0.answer) }
  /// The logarithm of the answer's probability.
  public static let logProbability = Metric(
    "log-probability", units: "nat", over: .vocabulary, needs: .answer,
    gradient: { $0.slopeOfLogProbability(1) }
  ) { $0.logProbabilityOfAnswer }
  /// The answer's probability less the wrong one's.
  public static let probabilityDifference = Metric(
    "probability-difference", units: "1", over: .vocabulary, needs: .oneAnswerAndOneWrong,
    gradient: { $0.slopeOfProbabilityDifference }
  ) { $0.probability($0.answer) - $0.probability($0.wrong) }
  /// The probability of all answers less that of all wrong tokens.
  public static let groupDifference = Metric(
    "group-difference", units: "1", over: .vocabulary,
    gradient: { $0.slopeOfProbabilityDifference }
  ) { $0.probability($0.answer) - $0.probability($0.wrong) }
  /// The answer's cross-entropy.
  public static let loss = Metric(
    "loss", units: "nat", over: .vocabulary, needs: .answer, falls: true,
    gradient: { $0.slopeOfLogProbability(-1) }
  ) { -$0.logProbabilityOfAnswer }
  /// The divergence from the clean run's prediction.
  public static let kl = Metric(
    "kl", units: "nat", over: .vocabulary, needs: .nothing, falls: true,
    gradient: { $0.slopeOfDivergence }
  ) { $0.divergenceFromClean }

  /// Every named metric.
  public static let all: [Metric] = [
    .logitDifference, .logit, .logProbability, .probabilityDifference, .kl, .loss, .groupDifference,
  ]
}

extension Metric {
  /// What every result of prompt pairs keeps of their unpatched runs: `clean_metric(prompt)`,
  /// `corrupted_metric(prompt)`, `clean_margin(prompt)`.
  func variables(clean: [Double], corrupted: [Double], margin: [Double]) -> [ResultVariable] {
    func variable(
      _ name: String, _ values: [Double], _ units: String, _ longName: String
    ) -> ResultVariable {
      ResultVariable(name, ["prompt"], .float64(values), longName: longName, units: units)
    }
    return [
      variable("clean_metric", clean, units, "metric of the clean run"),
      variable("corrupted_metric", corrupted, units, "metric of the corrupted run"),
      variable(
        "clean_margin", margin, "logit",
        "answer logit minus wrong logit of the clean run, the highest of each"),
    ]
  }
}
