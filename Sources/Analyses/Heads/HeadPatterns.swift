public import HookedGPT2
import OrderedCollections
import RealModule
public import Results
import Tensors

/// What each attention head attends to, from its patterns: entropy, the sink at position 0, and how near the
/// pattern comes to that of a previous-token, duplicate-token or induction head.
///
/// The patterns are made again from queries and keys, one prompt and layer at a time, and a few rows of
/// one head are all that exists of them at once.
///
/// **Entropy** is the mean over queries of −Σ_j a_ij·ln a_ij. A causal pattern of T tokens can have at most
/// M = ln(T!)/T, each query spread evenly over what it sees; `entropy_ratio` is the share of it, and
/// quarters of it sort the heads (ReLU's Revival, Jha & Reagen 2024, arXiv:2410.09637).
///
/// **Sink rate** is the share of queries with more than 0.3 of their weight on position 0. The published figure
/// counts query 0, which has no choice (arXiv:2507.02559); `sink_rate_rest` leaves it out.
///
/// **Detectors** compare a pattern a with one of zeros and ones d, as TransformerLens' `detect_head`
/// does: `mul` is the share of the weight where d is 1, Σ a·d/Σ a; `abs` is 1 − Σ|a − d|/T, which is 1 for
/// equal patterns and falls below −1 where a query has several ones. A prompt whose d has no ones has
/// no score: NaN, and it does not count in the mean over prompts.
public struct HeadPatterns: Collector {
  /// What is left out, and what counts as what.
  public struct Settings: Sendable, Equatable {
    /// Whether the weights on position 0 are left out of the detectors.
    public var excludeBOS: Bool
    /// Whether the weights of queries on their own position are left out of the detectors.
    public var excludeCurrentToken: Bool
    /// From which weight on position 0 a query counts for the sink rate.
    public var sinkThreshold: Double
    /// The length of the sequence that stands twice at the end of every prompt, if one does: for
    /// `induction_offset`.
    public var repeated: Int?

    /// The settings; the defaults are the published ones.
    public init(
      excludeBOS: Bool = false, excludeCurrentToken: Bool = false, sinkThreshold: Double = 0.3,
      repeated: Int? = nil
    ) {
      self.excludeBOS = excludeBOS
      self.excludeCurrentToken = excludeCurrentToken
      self.sinkThreshold = sinkThreshold
      self.repeated = repeated
    }
  }

  private static let path = "heads"

  private let settings: Settings
  private let nLayers: Int
  private let nHeads: Int
  private var summarized: SummarizedTable
  private var scored: [Detector: Int] = [:]
  private var prompts = 0

  /// Looks at the patterns of all heads of a model.
  ///
  /// - Throws: `AnalysisError.unsuitable` where a prompt is shorter than what is said to stand twice at
  ///   its end.
  public init(_ model: GPT2, _ axes: PromptAxes, _ settings: Settings = Settings()) throws {
    if let repeated = settings.repeated,
      let short = axes.prompts.firstIndex(where: { $0.tokens.count < 2 * max(repeated, 1) })
    {
      throw AnalysisError.unsuitable(
        analysis: "heads",
        problem:
          "prompt \(short) has \(axes.prompts[short].tokens.count) tokens, expected at least "
          + "\(2 * repeated): \(repeated) tokens twice")
    }
    self.settings = settings
    (nLayers, nHeads) = (model.config.nLayers, model.config.nHeads)
    summarized = SummarizedTable(Self.table(model, axes, settings))
  }

  /// Queries and keys.
  public var hooks: [HookFilter] { [.q(.all), .k(.all)] }

  /// `heads`.
  public var tables: [PromptTable] { [summarized.table] }

  /// Takes the patterns of each prompt.
  ///
  /// - Throws: `AnalysisError.nonFinite`; what the sink throws.
  public mutating func collect(_ batch: CollectedBatch, into sink: any PromptSink) throws {
    for index in 0..<batch.count {
      let prompt = batch.firstPrompt + index
      let repeats = TokenRepeats(batch.cache.tokens[index])
      let counts = Detector.allCases.map { $0.cells(repeats, settings) }
      for (detector, count) in zip(Detector.allCases, counts) where count > 0 {
        scored[detector, default: 0] += 1
      }
      prompts += 1
      var values: OrderedDictionary<String, [Double]> = [:]
      for layer in 0..<nLayers {
        let sums = attentionSums(
          q: try batch.cache.tensor(.q, layer: layer, prompt: index),
          k: try batch.cache.tensor(.k, layer: layer, prompt: index),
          scale: batch.model.config.attentionScale(layer: layer), repeats: repeats,
          sinkThreshold: settings.sinkThreshold, period: settings.repeated)
        if let bad = sums.firstIndex(where: { !$0.entropy.isFinite }) {
          throw AnalysisError.nonFinite(
            analysis: "heads",
            what: "an attention score of L\(layer)H\(bad) in prompt \(prompt)")
        }
        for sums in sums {
          for (name, value) in measures(sums, length: repeats.count, counts) {
            values[name, default: []].append(value)
          }
        }
      }
      for (name, values) in values {
        try summarized.take(name, prompt: prompt, values, into: sink)
      }
    }
  }

  /// The means over prompts and the quarters of the entropies: `heads/summary`.
  public func findings() -> [ResultGroup] {
    var group = summarized.summary
    func add(
      _ name: String, _ dimensions: [String], _ values: ResultVariable.Values, _ meaning: String,
      _ formula: String? = nil, _ reference: String? = nil
    ) {
      var attributes: OrderedDictionary<String, AttributeValue> = [:]
      if let formula { attributes["formula"] = .string(formula) }
      if let reference { attributes["references"] = .string(reference) }
      group.variables.append(
        ResultVariable(
          name, dimensions, values, longName: meaning, units: "1", attributes: attributes))
    }
    let ratios = group[variable: "entropy_ratio"]?.values.doubles ?? []
    let quarters = ratios.map { $0.isNaN ? .nan : (4 * $0).rounded(.down).clamped(to: 0...3) + 1 }
    group.dimensions.append(Dimension("quarter", .labels(["1", "2", "3", "4"])))
    func counts(_ range: Range<Int>) -> [Int] {
      (1...4).map { quarter in range.count { quarters[$0] == Double(quarter) } }
    }
    func shares(_ counts: [Int]) -> [Double] {
      let total = counts.reduce(0, +)
      return counts.map { total == 0 ? .nan : Double($0) / Double(total) }
    }
    let all = counts(quarters.indices)
    let byLayer = (0..<nLayers).map { counts($0 * nHeads..<($0 + 1) * nHeads) }
    let revival = "arXiv:2410.09637"
    add(
      "entropy_quarter", ["layer", "head"], .float64(quarters),
      "quarter of the causal maximum that the head's entropy lies in, 1 to 4",
      "floor(4*entropy_ratio) + 1 of the mean over prompts, at most 4", revival)
    add(
      "quarter_count", ["quarter"], .integers(all),
      "heads whose entropy lies in this quarter of the causal maximum", nil, revival)
    add("quarter_share", ["quarter"], .float64(shares(all)), "share of these heads", nil, revival)
    add(
      "quarter_share_by_layer", ["layer", "quarter"], .float64(byLayer.flatMap(shares)),
      "share of these heads in the layer", nil, revival)
    for name in ["sink_rate", "sink_rate_rest", "first_attention"] {
      let values = (group[variable: name]?.values.doubles ?? []).filter { !$0.isNaN }
      add(
        "\(name)_all", [],
        .float64([values.isEmpty ? .nan : values.reduce(0, +) / Double(values.count)]),
        "\(group[variable: name]?.longName ?? name), and heads", nil, "arXiv:2507.02559")
    }
    for detector in Detector.allCases {
      add(
        "\(detector.rawValue)_prompts", [], .integers([scored[detector, default: 0]]),
        "prompts that have a score of this detector")
    }
    add("prompts", [], .integers([prompts]), "prompts")
    return [group]
  }

  // MARK: measures

  /// The patterns that heads are compared with.
  enum Detector: String, CaseIterable {
    case previous = "previous_token"
    case duplicate = "duplicate_token"
    case induction

    /// How many ones the pattern has.
    func cells(_ repeats: TokenRepeats, _ settings: Settings) -> Int {
      switch self {
      case .previous: max(0, repeats.count - (settings.excludeBOS ? 2 : 1))
      case .duplicate: repeats.duplicates + (settings.excludeBOS ? 0 : repeats.duplicatesOfFirst)
      case .induction:
        repeats.inductions + (settings.excludeCurrentToken ? 0 : repeats.inductionsOfOwn)
      }
    }

    /// The weight of a head's pattern on them.
    func weight(_ sums: AttentionSums, _ settings: Settings) -> Double {
      switch self {
      case .previous: sums.previous + (settings.excludeBOS ? 0 : sums.previousFirst)
      case .duplicate: sums.duplicate + (settings.excludeBOS ? 0 : sums.duplicateFirst)
      case .induction: sums.induction + (settings.excludeCurrentToken ? 0 : sums.inductionOwn)
      }
    }
  }

  /// The values of one head in one prompt, as the table names them.
  private func measures(
    _ sums: AttentionSums, length: Int, _ cells: [Int]
  ) -> [(String, Double)] {
    let (queries, rest) = (Double(length), Double(length - 1))
    let entropy = sums.entropy / queries
    // Query 0 has all its weight on its own position, which is position 0.
    let total =
      sums.between + (settings.excludeBOS ? 0 : sums.first)
      + (settings.excludeCurrentToken ? 0 : sums.own)
      + (settings.excludeBOS || settings.excludeCurrentToken ? 0 : 1)
    let firstIsSink = settings.sinkThreshold < 1 ? 1.0 : 0
    var values = [
      ("entropy", entropy), ("row_entropy", sums.entropyShare / rest),
      ("entropy_ratio", entropy / Self.largestEntropy(length)),
      ("sink_rate", (firstIsSink + Double(sums.sinks)) / queries),
      ("sink_rate_rest", Double(sums.sinks) / rest), ("first_attention", sums.first / rest),
    ]
    for (detector, cells) in zip(Detector.allCases, cells) {
      let weight = detector.weight(sums, settings)
      values.append(("\(detector.rawValue)_mul", cells == 0 ? .nan : weight / total))
      values.append(
        (
          "\(detector.rawValue)_abs",
          cells == 0 ? .nan : 1 - (total - 2 * weight + Double(cells)) / queries
        ))
    }
    if let repeated = settings.repeated {
      values.append(("induction_offset", sums.offset / Double(repeated)))
    }
    return values
  }

  /// The largest mean entropy that a causal pattern of `length` queries can have, in nats: ln(T!)/T.
  public static func largestEntropy(_ length: Int) -> Double {
    Double.logGamma(Double(length) + 1) / Double(length)
  }

  // MARK: variables

  private static func table(_ model: GPT2, _ axes: PromptAxes, _ settings: Settings) -> PromptTable
  {
    let dimensions = [
      axes.prompt, Dimension("layer", count: model.config.nLayers),
      Dimension("head", count: model.config.nHeads),
    ]
    func variable(
      _ name: String, _ meaning: String, _ formula: String, _ reference: String, units: String = "1"
    ) -> ResultVariable {
      ResultVariable(
        name, ["prompt", "layer", "head"], .float32([]), longName: meaning, units: units,
        attributes: ["formula": .string(formula), "references": .string(reference)])
    }
    let revival = "ReLU's Revival, arXiv:2410.09637"
    let sinks = "arXiv:2507.02559; sinks: arXiv:2309.17453"
    var variables = [
      variable(
        "entropy", "entropy of the attention pattern, mean over queries",
        "mean_i of -sum_j a_ij ln a_ij", revival, units: "nat"),
      variable(
        "row_entropy",
        "entropy of a query's attention over the most that it can be, mean over queries",
        "mean of H_i/ln(i + 1) over i >= 1; NaN for a single token", revival),
      variable(
        "entropy_ratio", "entropy over the causal maximum",
        "entropy/(ln(T!)/T); NaN for a single token", revival),
      variable(
        "sink_rate", "share of queries that attend to position 0, query 0 among them",
        "share of queries i >= 0 with a_i0 > \(settings.sinkThreshold)", sinks),
      variable(
        "sink_rate_rest", "share of queries that attend to position 0, without query 0",
        "share of queries i >= 1 with a_i0 > \(settings.sinkThreshold); NaN for a single token",
        sinks),
      variable(
        "first_attention", "attention to position 0, mean over the queries without query 0",
        "mean of a_i0 over i >= 1; NaN for a single token", sinks),
    ]
    let left =
      settings.excludeBOS || settings.excludeCurrentToken
      ? "; sums over all but "
        + [
          settings.excludeBOS ? "key 0" : nil,
          settings.excludeCurrentToken ? "each query's own key" : nil,
        ].compactMap { $0 }.joined(separator: " and ")
      : ""
    let elhage = "arXiv:2209.11895, arXiv:2211.00593; TransformerLens head_detector"
    for (detector, words, pattern) in [
      (Detector.previous, "previous token", "d_ij = 1 for j = i - 1"),
      (
        .duplicate, "earlier places of the query's token",
        "d_ij = 1 for j < i with token_j = token_i; NaN where no token occurs twice"
      ),
      (
        .induction, "tokens behind earlier places of the query's token",
        "d_ij = 1 for 1 <= j <= i with token_(j-1) = token_i, j - 1 < i; NaN where no token occurs twice"
      ),
    ] {
      variables.append(
        variable(
          "\(detector.rawValue)_mul", "share of the attention on \(words)",
          "sum_ij a_ij d_ij/sum_ij a_ij, \(pattern)\(left)", elhage))
      variables.append(
        variable(
          "\(detector.rawValue)_abs", "likeness of the pattern to attention on \(words) alone",
          "1 - sum_ij |a_ij - d_ij|/T, \(pattern)\(left)", elhage))
    }
    if let repeated = settings.repeated {
      variables.append(
        variable(
          "induction_offset",
          "attention from the second of two equal sequences to the token behind the query's in the first",
          "mean of a_i,i-\(repeated - 1) over the last \(repeated) queries", elhage))
    }
    let lengths = axes.prompts.map(\.tokens.count)
    let known = [
      ResultVariable(
        "tokens", ["prompt"], .integers(lengths), longName: "tokens of the prompt", units: "1"),
      ResultVariable(
        "entropy_maximum", ["prompt"], .float64(lengths.map(largestEntropy)),
        longName: "largest mean entropy that a causal pattern can have", units: "nat",
        attributes: ["formula": .string("ln(T!)/T"), "references": .string(revival)]),
    ]
    return PromptTable(
      ResultGroup(path: path, dimensions: dimensions, variables: known), variables: variables)
  }
}

extension Double {
  /// The value, or the bound that it lies beyond.
  fileprivate func clamped(to range: ClosedRange<Double>) -> Double {
    Swift.min(Swift.max(self, range.lowerBound), range.upperBound)
  }
}
