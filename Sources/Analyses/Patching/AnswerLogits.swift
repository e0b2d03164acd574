import RealModule
public import Tensors

/// The logits at a prompt's last position, as a metric sees them, in double precision.
public struct AnswerLogits: Sendable {
  /// The logits of the right tokens.
  public let answer: [Double]
  /// The logits of the wrong tokens.
  public let wrong: [Double]
  /// Every token's logit, shape `[d_vocab]`; nil where the metric looks at answers only.
  public let vocabulary: Tensor?
  /// The clean run's prediction; nil where the metric looks at answers only.
  public let clean: Prediction?
  /// log Σ exp of the vocabulary's logits; NaN where the metric looks at answers only.
  public let logSum: Double

  /// A prediction over the vocabulary.
  public struct Prediction: Sendable {
    /// p, shape `[d_vocab]`.
    public let probability: [Double]
    /// log p.
    public let logProbability: [Double]

    /// The softmax of logits, shape `[d_vocab]`.
    public init(_ logits: Tensor) {
      let sum = rowStatistics(logits.reshaped([1, logits.count]), target: nil)[0].logSumExp
      logProbability = logits.scalars.map { Double($0) - sum }
      probability = logProbability.map(Double.exp)
    }
  }

  /// The derivative of a metric by the logits; what is empty is zero.
  public struct Gradient: Sendable {
    /// By those of the right tokens.
    public var answer: [Double]
    /// By those of the wrong tokens.
    public var wrong: [Double]
    /// By every token's, besides; shape `[d_vocab]`.
    public var vocabulary: [Double]

    /// A derivative.
    public init(answer: [Double] = [], wrong: [Double] = [], vocabulary: [Double] = []) {
      self.answer = answer
      self.wrong = wrong
      self.vocabulary = vocabulary
    }
  }

  /// The logits of a run that gave those of the answers and the wrong tokens, in this order.
  public init(answers logits: Tensor, _ pair: PromptPair) {
    answer = pair.answer.indices.map { Double(logits[$0]) }
    wrong = pair.wrong.indices.map { Double(logits[pair.answer.count + $0]) }
    (vocabulary, clean, logSum) = (nil, nil, .nan)
  }

  /// The logits of a run that gave the whole vocabulary's, with log Σ exp of them.
  public init(vocabulary logits: Tensor, logSum: Double, _ pair: PromptPair, clean: Prediction) {
    answer = pair.answer.map { Double(logits[$0]) }
    wrong = pair.wrong.map { Double(logits[$0]) }
    vocabulary = logits
    self.logSum = logSum
    self.clean = clean
  }

  /// The whole logits of a run, shape `[d_vocab]`, and those of the clean run.
  public init(_ logits: Tensor, _ pair: PromptPair, clean: Tensor) {
    let sum = rowStatistics(logits.reshaped([1, logits.count]), target: nil)[0].logSumExp
    self.init(vocabulary: logits, logSum: sum, pair, clean: Prediction(clean))
  }

  /// The largest of some logits.
  public func highest(_ logits: [Double]) -> Double { logits.max() ?? -.infinity }

  /// The probability of tokens with these logits together.
  public func probability(_ logits: [Double]) -> Double {
    logits.reduce(0) { $0 + Double.exp($1 - logSum) }
  }

  /// log Σ p of the answers.
  public var logProbabilityOfAnswer: Double {
    let top = highest(answer)
    return top + Double.log(answer.reduce(0) { $0 + Double.exp($1 - top) }) - logSum
  }

  /// Σ p_clean·(log p_clean − log p), which rounding must not make negative.
  public var divergenceFromClean: Double {
    guard let vocabulary, let clean else { return .nan }
    let logits = vocabulary.span
    var sum = 0.0
    for i in logits.indices {
      sum +=
        clean.probability[i] * (clean.logProbability[i] - (Double(logits[i]) - logSum))
    }
    return sum < 0 ? 0 : sum
  }
}

extension AnswerLogits {
  /// The derivative of `factor` times the largest of some logits, by them: of the first of equals.
  public func slopeOfHighest(_ logits: [Double], _ factor: Double = 1) -> [Double] {
    var slope = Array(repeating: 0.0, count: logits.count)
    if let index = logits.firstIndex(of: highest(logits)) { slope[index] = factor }
    return slope
  }

  /// `factor`·p of every token, shape `[d_vocab]`.
  func probabilities(times factor: Double) -> [Double] {
    guard let vocabulary else { return [] }
    let logits = vocabulary.span
    return logits.indices.map { factor * Double.exp(Double(logits[$0]) - logSum) }
  }

  /// The derivative of `factor`·log Σ p of the answers.
  func slopeOfLogProbability(_ factor: Double) -> Gradient {
    let top = highest(answer)
    let weights = answer.map { Double.exp($0 - top) }
    let sum = weights.reduce(0, +)
    return Gradient(
      answer: weights.map { factor * $0 / sum }, vocabulary: probabilities(times: -factor))
  }

  /// The derivative of the answers' probability less that of the wrong tokens.
  var slopeOfProbabilityDifference: Gradient {
    Gradient(
      answer: answer.map { Double.exp($0 - logSum) },
      wrong: wrong.map { -Double.exp($0 - logSum) },
      vocabulary: probabilities(times: probability(wrong) - probability(answer)))
  }

  /// The derivative of `divergenceFromClean`: exactly 0 at the clean run.
  var slopeOfDivergence: Gradient {
    guard let clean else { return Gradient() }
    return Gradient(
      vocabulary: zip(probabilities(times: 1), clean.probability).map { $0 - $1 })
  }
}
