import HookedGPT2
import OrderedCollections
import RealModule
import Results
import Tensors

/// How well every next token is predicted (group `evaluate`), with the distribution of the loss, its
/// calibration (`/calibration`), its course over positions (`/position`) and the worst tokens
/// (`/worst`); against a second model also how far the predictions differ (`/changes`).
///
/// The final streams come from the pass, logits are made for some rows at a time and never kept.
struct TokenPredictions: Collector {
  private let model: GPT2
  private let axes: PromptAxes
  private let skipped: Set<Int>
  private let seed: UInt64
  private var losses: LossDistribution
  private var calibration: Calibration
  private var positions: PositionLoss
  private var bootstrap: PromptBootstrap
  private var comparison: ModelComparison?

  /// The sums over a prompt's tokens that standard errors and intervals are made of.
  private enum Sum: Int, CaseIterable {
    case count, loss, entropy, correct, jsd, delta, kl, reverse, agreement
  }

  init(_ settings: Evaluation, _ model: GPT2, _ axes: PromptAxes) {
    self.model = model
    self.axes = axes
    skipped = settings.skippedTokens
    seed = settings.seed
    losses = LossDistribution(seed: seed)
    calibration = Calibration(bins: settings.bins)
    positions = PositionLoss(positions: axes.longest, seed: seed &+ 1)
    bootstrap = PromptBootstrap(sums: Sum.allCases.count + settings.bins, seed: seed &+ 2)
    comparison = settings.against.map { ModelComparison($0) }
  }

  var hooks: [HookFilter] {
    [HookFilter(HookName(.residPost, layer: model.config.nLayers - 1))]
  }

  var tables: [PromptTable] {
    let group = ResultGroup(
      path: "evaluate", dimensions: [axes.prompt, axes.position, quantileAxis],
      variables: axes.tokenCoordinates, attributes: attributes)
    var variables = Self.measures.map(\.variable)
    if comparison != nil { variables += ModelComparison.measures.map(\.variable) }
    return [PromptTable(group, variables: variables, findings: numbers)]
  }

  // MARK: the prompts

  mutating func collect(_ batch: CollectedBatch, into sink: any PromptSink) throws {
    let tokens = batch.cache.tokens
    let streams = try (0..<batch.count).map {
      try batch.cache.tensor(.residPost, layer: model.config.nLayers - 1, prompt: $0)
    }
    let others = try comparison.map {
      try $0.model.run(batch: tokens, stoppingAtLayer: $0.model.config.nLayers).streams
    }
    let predicted = predictions(tokens, streams, others)
    var row = 0
    for prompt in 0..<batch.count {
      let rows = row..<row + tokens[prompt].count - 1
      try take(
        batch.firstPrompt + prompt, tokens[prompt], Array(predicted.own[rows]),
        predicted.other.map { Array($0[rows]) }, predicted.apart.map { Array($0[rows]) }, into: sink
      )
      row = rows.upperBound
    }
  }

  /// What both models say of every token but each prompt's first.
  private func predictions(
    _ tokens: [[Int]], _ streams: [Tensor], _ others: [Tensor]?
  ) -> (own: [RowStatistics], other: [RowStatistics]?, apart: [RowDivergence]?) {
    let targets = tokens.flatMap { $0.dropFirst() }
    guard let second = comparison?.model, let others else {
      return (model.predictions(.predicting(streams), targets: targets), nil, nil)
    }
    return model.predictions(
      .predicting(streams), against: second, .predicting(others), targets: targets)
  }

  /// Takes one prompt's predictions in.
  private mutating func take(
    _ prompt: Int, _ tokens: [Int], _ own: [RowStatistics], _ other: [RowStatistics]?,
    _ apart: [RowDivergence]?, into sink: any PromptSink
  ) throws {
    let unknown = [Float](repeating: .nan, count: axes.longest)
    var values = Self.measures.map { _ in unknown }
    var differences = ModelComparison.measures.map { _ in unknown }
    var sums = [Double](repeating: 0, count: Sum.allCases.count + calibration.counts.count)
    func add(_ sum: Sum, _ value: Double) { sums[sum.rawValue] += value }
    for (position, statistics) in own.enumerated() {
      let target = tokens[position + 1]
      if skipped.contains(target) { continue }
      guard statistics.loss.isFinite, statistics.entropy.isFinite else {
        throw nonFinite(prompt, position, model)
      }
      let isCorrect = statistics.top == target
      for (index, measure) in Self.measures.enumerated() {
        values[index][position] = Float(measure.value((statistics, isCorrect)))
      }
      let place = TokenPlace(prompt: prompt, position: position, token: target)
      losses.add(statistics.loss, place)
      positions.add(position, loss: statistics.loss, entropy: statistics.entropy)
      let bin = calibration.add(confidence: statistics.topProbability, isCorrect: isCorrect)
      add(.count, 1)
      add(.loss, statistics.loss)
      add(.entropy, statistics.entropy)
      add(.correct, isCorrect ? 1 : 0)
      sums[Sum.allCases.count + bin] += statistics.topProbability - (isCorrect ? 1 : 0)

      guard let other, let apart, let second = comparison?.model else { continue }
      let difference = ModelComparison.Difference(
        own: statistics, other: other[position], divergence: apart[position])
      guard difference.isFinite else { throw nonFinite(prompt, position, second) }
      for (index, measure) in ModelComparison.measures.enumerated() {
        differences[index][position] = Float(measure.value(difference))
      }
      comparison?.add(difference, place)
      add(.jsd, difference.divergence.jensenShannon)
      add(.delta, difference.deltaLoss)
      add(.kl, difference.divergence.kullbackLeibler)
      add(.reverse, difference.divergence.reverse)
      add(.agreement, difference.agrees ? 1 : 0)
    }
    if sums[0] > 0 { bootstrap.add(sums) }
    for (measure, values) in zip(Self.measures, values) {
      try sink.take("evaluate", measure.variable.name, prompt: prompt, values)
    }
    if comparison == nil { return }
    for (measure, values) in zip(ModelComparison.measures, differences) {
      try sink.take("evaluate", measure.variable.name, prompt: prompt, values)
    }
  }

  private func nonFinite(_ prompt: Int, _ position: Int, _ model: GPT2) -> AnalysisError {
    .nonFinite(
      analysis: "evaluate",
      what: "the prediction of \(model.identity.name) at position \(position) of prompt \(prompt)")
  }

  // MARK: the findings

  func findings() throws -> [ResultGroup] {
    [
      ResultGroup(path: "evaluate", dimensions: [quantileAxis], variables: numbers),
      calibration.group, positions.group, worst,
    ] + (comparison.map { [$0.changes(axes)] } ?? [])
  }

  private var quantileAxis: Dimension {
    Dimension("quantile", .labels(LossDistribution.quantiles.map(\.name)))
  }

  private var attributes: OrderedDictionary<String, AttributeValue> {
    let predicted = axes.prompts.reduce(0) { $0 + max(0, $1.tokens.count - 1) }
    var attributes: OrderedDictionary<String, AttributeValue> = [
      "references": .string(
        "arXiv:2507.02559 (loss, entropy, calibration), arXiv:1706.04599 (ECE)"),
      "positions": .string(
        "values at pos are about the token at pos + 1; every position of every prompt but its last "
          + "counts, position 0 and end-of-text targets too, as in the published evaluations"),
      "quantiles": .string(
        predicted > LossDistribution.capacity
          ? "of a uniform sample of \(LossDistribution.capacity) tokens; interpolated linearly"
          : "exact; interpolated linearly"),
      "intervals": .string(
        "2.5 and 97.5 percent over \(PromptBootstrap.replicates) Poisson bootstrap replicates of the "
          + "prompts; standard errors of ratios of sums over prompts; NaN of fewer than two prompts"
      ),
    ]
    if !skipped.isEmpty { attributes["skipped_tokens"] = .integers(skipped.sorted()) }
    if let other = comparison?.model {
      attributes["against_model"] = .string(other.identity.name)
      attributes["against_weights_sha256"] = .string(other.identity.weightsSHA256)
      attributes["against_normalization"] = .string(other.config.normalization.rawValue)
    }
    return attributes
  }

  /// The numbers over all tokens; NaN while there are none.
  private var numbers: [ResultVariable] {
    let (bootstrap, first) = (bootstrap, Sum.allCases.count)
    func mean(_ sum: Sum) -> Double {
      bootstrap.totals[0] == 0 ? .nan : bootstrap.totals[sum.rawValue] / bootstrap.totals[0]
    }
    func scalar(
      _ name: String, _ value: Double, _ longName: String, _ units: String, _ formula: String,
      sign: String = "not signed", _ reference: String = "arXiv:2507.02559"
    ) -> ResultVariable {
      ResultVariable(
        name, [], .float64([value]), longName: longName, units: units, sign: sign,
        attributes: ["formula": .string(formula), "references": .string(reference)])
    }
    func bounds(
      _ name: String, _ interval: (low: Double, high: Double), _ what: String, _ units: String,
      sign: String = "not signed"
    ) -> [ResultVariable] {
      [("low", "2.5", interval.low), ("high", "97.5", interval.high)].map { end, percent, value in
        scalar(
          "\(name)_ci_\(end)", value, "\(end) end of the 95 % interval of the \(what)", units,
          "\(percent) percent over bootstrap replicates of the prompts", sign: sign)
      }
    }
    let quantiles = losses.quantiles(LossDistribution.quantiles.map(\.share))
    func quantile(_ name: String) -> Double {
      zip(LossDistribution.quantiles, quantiles).first { $0.0.name == name }?.1 ?? .nan
    }
    let lossMean = mean(.loss)
    var variables = [
      ResultVariable(
        "count", [], .integers([losses.count]), longName: "tokens counted", units: "1",
        attributes: [
          "formula": .string("tokens behind the first of each prompt, less those left out"),
          "references": .string("arXiv:2507.02559"),
        ]),
      scalar("loss_mean", lossMean, "mean cross-entropy", "nat", "mean of -ln p(next token)"),
      scalar(
        "loss_stderr", bootstrap.standardError(Sum.loss.rawValue),
        "standard error of the mean cross-entropy, prompts being independent", "nat",
        "sqrt(n/(n - 1) sum over prompts of (S_i - mean*N_i)^2)/N, S_i and N_i a prompt's loss and "
          + "tokens"),
    ]
    variables += bounds(
      "loss", bootstrap.interval(Sum.loss.rawValue), "mean cross-entropy", "nat")
    for (name, key, words) in [
      ("median", "p50", "median"), ("p95", "p95", "95 percent quantile of the"),
      ("p99", "p99", "99 percent quantile of the"),
      ("p999", "p99.9", "99.9 percent quantile of the"),
    ] {
      variables.append(
        scalar(
          "loss_\(name)", quantile(key), "\(words) cross-entropy", "nat",
          "quantile over tokens of -ln p(next token)"))
    }
    variables += [
      scalar(
        "loss_max", losses.largest.sorted.first?.value ?? .nan, "largest cross-entropy", "nat",
        "largest -ln p(next token)"),
      ResultVariable(
        "loss_quantile", ["quantile"], .float64(quantiles), longName: "quantiles of cross-entropy",
        units: "nat",
        attributes: [
          "formula": .string("quantiles over tokens of -ln p(next token)"),
          "references": .string("arXiv:2507.02559"),
        ]),
      scalar(
        "perplexity", Double.exp(lossMean), "perplexity", "1", "exp(mean cross-entropy)"),
      scalar(
        "bits", lossMean / Double.log(2), "mean cross-entropy in bits a token", "bit",
        "mean cross-entropy/ln 2"),
      scalar("entropy_mean", mean(.entropy), "mean entropy", "nat", "mean of -sum p ln p"),
    ]
    variables += bounds("entropy", bootstrap.interval(Sum.entropy.rawValue), "mean entropy", "nat")
    variables += [
      scalar(
        "accuracy", mean(.correct), "share of tokens that the model finds likeliest", "1",
        "mean of [argmax p == next token]"),
      scalar(
        "ece", calibration.error, "expected calibration error", "1",
        "sum over \(calibration.counts.count) equal-width bins of max p of n_b/N*|mean max p - "
          + "accuracy|", "arXiv:1706.04599"),
    ]
    variables += bounds(
      "ece",
      bootstrap.interval { sums in
        sums.dropFirst(first).reduce(0) { $0 + abs($1) } / sums[sums.startIndex]
      }, "expected calibration error", "1")
    guard comparison != nil else { return variables }
    let worse = "positive = the model predicts worse than the other"
    variables += [
      scalar(
        "loss_mean_against", lossMean - mean(.delta), "mean cross-entropy of the other model",
        "nat", "mean of -ln q(next token)"),
      scalar(
        "delta_loss_mean", mean(.delta), "mean difference of cross-entropy to the other model",
        "nat", "mean of ln q(next token) - ln p(next token)", sign: worse),
      scalar(
        "delta_loss_stderr", bootstrap.standardError(Sum.delta.rawValue),
        "standard error of the mean difference, prompts being independent", "nat",
        "as loss_stderr"),
    ]
    variables += bounds(
      "delta_loss", bootstrap.interval(Sum.delta.rawValue), "mean difference of cross-entropy",
      "nat", sign: worse)
    variables.append(
      scalar(
        "jsd_mean", mean(.jsd), "mean Jensen-Shannon divergence of the two models' predictions",
        "nat", ModelComparison.jsdFormula))
    variables += bounds(
      "jsd", bootstrap.interval(Sum.jsd.rawValue), "mean Jensen-Shannon divergence", "nat")
    return variables + [
      scalar("kl_mean", mean(.kl), "mean KL(p||q), q the other model's", "nat", "sum p ln(p/q)"),
      scalar(
        "kl_reverse_mean", mean(.reverse), "mean KL(q||p), q the other model's", "nat",
        "sum q ln(q/p)"),
      scalar(
        "top_agreement", mean(.agreement), "share of tokens where both find the same one likeliest",
        "1", "mean of [argmax p == argmax q]"),
    ]
  }

  /// The tokens that are predicted worst, and how much of the sum they carry.
  private var worst: ResultGroup {
    let numbers = [1, 10, 100, 1000].filter { $0 <= max(losses.count, 1) }
    var attributes: OrderedDictionary<String, AttributeValue> = [
      "rule": .string(
        "warning where the 1, 10, 100 or 1,000 worst tokens carry more than 5 % of the summed loss and "
          + "more than ten times their share of the tokens")
    ]
    if let warning = losses.warning { attributes["warning"] = .string(warning) }
    return ResultGroup(
      path: "evaluate/worst",
      dimensions: [
        Dimension("rank", count: min(10, losses.count)), Dimension("worst", .integers(numbers)),
      ],
      variables: tokenVariables(
        Array(losses.largest.sorted.prefix(10)), ["rank"], axes, value: "loss",
        longName: "the largest cross-entropies", sign: "not signed",
        formula: "largest -ln p(next token)") + [
          ResultVariable(
            "share", ["worst"], .float64(numbers.map { losses.share(ofWorst: $0) }),
            longName: "share of the summed loss that the worst tokens carry", units: "1",
            attributes: [
              "formula": .string("sum over the worst/sum over all"),
              "references": .string("arXiv:2507.02559"),
            ])
        ], attributes: attributes)
  }

  /// What is kept of every token.
  private static let measures: [TokenMeasure<(RowStatistics, isCorrect: Bool)>] = [
    TokenMeasure(
      "loss", "cross-entropy of the token at pos + 1", "nat", "-ln p(token at pos + 1)"
    ) { $0.0.loss },
    TokenMeasure("entropy", "entropy of the prediction at pos", "nat", "-sum p ln p") {
      $0.0.entropy
    },
    TokenMeasure("confidence", "probability of the likeliest token", "1", "max p") {
      $0.0.topProbability
    },
    TokenMeasure(
      "correct", "whether the likeliest token is the one at pos + 1", "1",
      "1 where argmax p == token at pos + 1, else 0"
    ) { $0.isCorrect ? 1 : 0 },
  ]
}

/// A number of every predicted token, and how it is found.
struct TokenMeasure<Source>: Sendable {
  let variable: ResultVariable
  let value: @Sendable (Source) -> Double

  init(
    _ name: String, _ longName: String, _ units: String, _ formula: String,
    sign: String = "not signed", _ value: @escaping @Sendable (Source) -> Double
  ) {
    variable = ResultVariable(
      name, ["prompt", "pos"], .float32([]),
      longName: "\(longName); NaN at a prompt's last position and where the token is left out",
      units: units, sign: sign,
      attributes: ["formula": .string(formula), "references": .string("arXiv:2507.02559")])
    self.value = value
  }
}

/// Tokens with their values as variables: the values, and for each the prompt, the position that it is
/// predicted from, and the token.
func tokenVariables(
  _ found: [(value: Double, token: TokenPlace)?], _ dimensions: [String], _ axes: PromptAxes,
  value: String, longName: String, sign: String, formula: String
) -> [ResultVariable] {
  func facts(_ formula: String) -> OrderedDictionary<String, AttributeValue> {
    ["formula": .string(formula), "references": .string("arXiv:2507.02559")]
  }
  func integers(
    _ name: String, _ longName: String, _ number: (TokenPlace) -> Int
  ) -> ResultVariable {
    ResultVariable(
      name, dimensions, .integers(found.map { $0.map { number($0.token) } ?? -1 }),
      longName: longName, units: "1", attributes: facts("-1 where there is none"))
  }
  var variables = [
    ResultVariable(
      value, dimensions, .float64(found.map { $0?.value ?? .nan }), longName: longName,
      units: "nat", sign: sign, attributes: facts(formula)),
    integers("\(value)_prompt", "the token's prompt", \.prompt),
    integers("\(value)_pos", "the position that the token is predicted from", \.position),
    integers("token_id", "id of the token that is predicted", \.token),
  ]
  if let pieces = axes.pieces {
    variables.append(
      ResultVariable(
        "token", dimensions,
        .strings(
          found.map { $0.map { pieces[$0.token.prompt][$0.token.position + 1] } ?? "" }),
        longName: "text of the token that is predicted", units: "1",
        attributes: facts("empty where there is none")))
  }
  return variables
}
