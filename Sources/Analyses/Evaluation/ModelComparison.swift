import HookedGPT2
import Results
import Tensors

/// How far a second model's predictions of the same tokens are: p is the model's distribution, q the
/// other's.
///
/// The published values (arXiv:2507.02559) are of `p + 1e-8` renormalised, which takes a little off
/// every divergence; here the distributions are taken as they are.
struct ModelComparison {
  /// The second model.
  let model: GPT2
  private var worse = LargestTokens(limit: 10)
  private var better = LargestTokens(limit: 10)

  init(_ model: GPT2) { self.model = model }

  /// What differs at one token.
  struct Difference {
    let own: RowStatistics
    let other: RowStatistics
    let divergence: RowDivergence

    /// The model's loss less the other's.
    var deltaLoss: Double { own.loss - other.loss }
    var agrees: Bool { own.top == other.top }
    var isFinite: Bool {
      other.loss.isFinite && divergence.jensenShannon.isFinite
        && divergence.kullbackLeibler.isFinite && divergence.reverse.isFinite
    }
  }

  mutating func add(_ difference: Difference, _ place: TokenPlace) {
    let delta = difference.deltaLoss
    if delta > 0 { worse.add(delta, place) }
    if delta < 0 { better.add(-delta, place) }
  }

  static let jsdFormula = "(KL(p||m) + KL(q||m))/2 with m = (p + q)/2; at most ln 2"

  /// What is kept of every token.
  static let measures: [TokenMeasure<Difference>] = [
    TokenMeasure(
      "jsd", "Jensen-Shannon divergence of the two models' predictions", "nat",
      "\(jsdFormula); the published variant adds 1e-8 to p and q and renormalises"
    ) { $0.divergence.jensenShannon },
    TokenMeasure(
      "delta_loss", "cross-entropy less the other model's", "nat",
      "ln q(token at pos + 1) - ln p(token at pos + 1)",
      sign: "positive = the model predicts worse than the other"
    ) { $0.deltaLoss },
    TokenMeasure("kl", "KL(p||q), q the other model's prediction", "nat", "sum p ln(p/q)") {
      $0.divergence.kullbackLeibler
    },
    TokenMeasure(
      "kl_reverse", "KL(q||p), q the other model's prediction", "nat", "sum q ln(q/p)"
    ) { $0.divergence.reverse },
    TokenMeasure(
      "agreement", "whether both models find the same token likeliest", "1",
      "1 where argmax p == argmax q, else 0"
    ) { $0.agrees ? 1 : 0 },
  ]

  /// The tokens whose loss differs most, in both directions (group `evaluate/changes`).
  func changes(_ axes: PromptAxes) -> ResultGroup {
    func padded(_ largest: LargestTokens, _ sign: Double)
      -> [(value: Double, token: TokenPlace)?]
    {
      let found = largest.sorted.map { (value: sign * $0.value, token: $0.token) }
      return (0..<largest.limit).map { $0 < found.count ? found[$0] : nil }
    }
    return ResultGroup(
      path: "evaluate/changes",
      dimensions: [
        Dimension("change", .labels(["worse", "better"])), Dimension("rank", count: worse.limit),
      ],
      variables: tokenVariables(
        padded(worse, 1) + padded(better, -1), ["change", "rank"], axes, value: "delta_loss",
        longName: "the largest differences of cross-entropy to the other model",
        sign: "positive = the model predicts worse than the other",
        formula: "largest and smallest ln q(next token) - ln p(next token)"))
  }
}
