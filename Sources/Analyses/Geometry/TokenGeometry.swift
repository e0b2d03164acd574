import HookedGPT2
import OrderedCollections
import Results
import Tensors

/// What each norm does to each token's stream: lengths, shares and angles (group `ln_geometry`), and
/// their quantiles over tokens (`ln_geometry/summary`).
///
/// LayerNorm is a projection onto the hyperplane across the ones vector, a scaling to length √d, a
/// gain and a bias (Brody et al. 2023, arXiv:2305.02582). For a row x with z = (x − mean)/scale, gain g
/// and bias b the angle between x and LN(x) is split into what each step turns; scaling turns nothing.
struct TokenGeometry: Collector {
  private let sites: [NormSite]
  private let axes: PromptAxes
  private let formulas: [Formula]
  private let seed: UInt64
  /// What the weights alone say.
  private let ellipsoids: (dimensions: [Dimension], variables: [ResultVariable])
  /// Position 0, and the others.
  private var samples: [QuantileSample]

  static let classes = ["first", "rest"]
  static let quantiles: [(name: String, share: Double)] = [
    ("p05", 0.05), ("p50", 0.5), ("p95", 0.95),
  ]

  init(_ model: GPT2, _ axes: PromptAxes, seed: UInt64) {
    sites = model.normSites
    self.axes = axes
    self.seed = seed
    ellipsoids = GainEllipsoid.variables(of: model)
    formulas = NormStatistic.allCases.map { Formula($0, model.config.normalization) }
    samples = (0..<2).map {
      QuantileSample(
        measures: NormStatistic.allCases.count * model.normSites.count, seed: seed &+ $0)
    }
  }

  var hooks: [HookFilter] { sites.map { HookFilter($0.input) } }

  var tables: [PromptTable] {
    let group = ResultGroup(
      path: "ln_geometry",
      dimensions: [axes.prompt, Dimension("ln", .labels(sites.map(\.label))), axes.position]
        + ellipsoids.dimensions,
      variables: axes.tokenCoordinates + ellipsoids.variables,
      attributes: [
        "references": .string("arXiv:2305.02582 (projection and scaling), arXiv:2409.12951"),
        "input": .string("x is the residual stream before the norm; z, g, b as in LN(x) = z*g + b"),
      ])
    return [
      PromptTable(group, variables: formulas.map { $0.variable(["prompt", "ln", "pos"], []) })
    ]
  }

  mutating func collect(_ batch: CollectedBatch, into sink: any PromptSink) throws {
    let (measures, longest) = (NormStatistic.allCases.count, axes.longest)
    for prompt in 0..<batch.count {
      let length = batch.length(prompt)
      let admitted = [samples[0].admit(0..<1), samples[1].admit(1..<length)]
      var values = formulas.map { _ in [Float](repeating: .nan, count: sites.count * longest) }
      for (place, site) in sites.enumerated() {
        let x = try batch.cache.tensor(site.input, prompt: prompt)
        let statistics = normGeometry(
          x, site.norm?.normalization, epsilon: site.norm?.epsilon ?? 0, gain: site.norm?.gain,
          bias: site.norm?.bias)
        let span = statistics.span
        let norms = NormStatistic.norm.rawValue * length
        if let bad = (0..<length).first(where: { !span[norms + $0].isFinite }) {
          throw AnalysisError.nonFinite(
            analysis: "geometry",
            what: "the stream before \(site.label) of prompt \(batch.firstPrompt + prompt) at "
              + "position \(bad)")
        }
        for measure in 0..<measures {
          let from = measure * length
          for position in 0..<length {
            values[measure][place * longest + position] = span[from + position]
          }
          for group in 0..<2 {
            samples[group].put(place * measures + measure, span, from: from, admitted[group])
          }
        }
      }
      for (formula, values) in zip(formulas, values) {
        try sink.take("ln_geometry", formula.name, prompt: batch.firstPrompt + prompt, values)
      }
    }
  }

  func findings() -> [ResultGroup] {
    let measures = formulas.count
    var variables: [ResultVariable] = []
    for (measure, formula) in formulas.enumerated() {
      let values = samples.flatMap { sample in
        sites.indices.flatMap {
          sample.quantiles($0 * measures + measure, Self.quantiles.map(\.share))
        }
      }
      variables.append(formula.variable(["position_class", "ln", "quantile"], values))
    }
    variables.append(
      ResultVariable(
        "count", ["position_class"], .integers(samples.map(\.count)), longName: "tokens", units: "1"
      ))
    let isSampled = samples.contains(where: \.isSampled)
    var attributes: OrderedDictionary<String, AttributeValue> = [
      "position_class": .string("first = position 0; rest = all others"),
      "quantiles": .string(
        isSampled
          ? "of a uniform sample of \(QuantileSample.capacity) tokens where a class has more; "
            + "interpolated linearly" : "exact; interpolated linearly"),
    ]
    if isSampled { attributes["sample_seed"] = .integer(Int(truncatingIfNeeded: seed)) }
    return [
      ResultGroup(
        path: "ln_geometry/summary",
        dimensions: [
          Dimension("position_class", .labels(Self.classes)),
          Dimension("ln", .labels(sites.map(\.label))),
          Dimension("quantile", .labels(Self.quantiles.map(\.name))),
        ], variables: variables, attributes: attributes)
    ]
  }
}

/// How a statistic is called, and what it is for a model's kind of norm.
private struct Formula {
  let name: String
  let longName: String
  let units: String
  let sign: String
  let formula: String
  let reference: String

  init(_ statistic: NormStatistic, _ normalization: Normalization) {
    let isFolded = normalization == .none
    let isRMS = normalization == .rmsNorm
    var sign = "not signed"
    var reference = "arXiv:2305.02582"
    switch statistic {
    case .mean:
      (name, longName, units) = ("mean", "mean of the stream's coordinates", "1")
      formula = "mean(x)"
      sign = "the sign of the mean"
    case .std:
      (name, longName, units) = ("std", "standard deviation of the stream's coordinates", "1")
      formula = "sqrt(mean((x - mean(x))^2))"
    case .norm:
      (name, longName, units) = ("norm", "length of the stream", "1")
      formula = "|x| = sqrt(d*(mean^2 + std^2))"
    case .meanShare:
      (name, longName, units) = ("mean_share", "share of |x|^2 along the ones vector", "1")
      formula = "mean^2/(mean^2 + std^2); 1/d for a random direction"
      reference = "arXiv:2305.02582, arXiv:2409.12951"
    case .angleToOnes:
      (name, longName, units) = ("angle_to_ones", "angle between x and the ones vector", "degree")
      formula = "acos(sqrt(d)*mean/|x|); folded: 90 - |90 - angle|"
      sign = "below 90 = positive mean"
    case .angleProjection:
      (name, longName, units) = (
        "angle_projection", "angle that the projection turns the stream by", "degree"
      )
      formula = isRMS ? "0: RMSNorm does not project" : "angle(x, x - mean(x))"
    case .angleGain:
      (name, longName, units) = ("angle_gain", "angle that the gain turns z by", "degree")
      formula = isFolded ? "0: the gain is folded into the weights" : "angle(z, g*z)"
    case .angleBias:
      (name, longName, units) = ("angle_bias", "angle that the bias turns g*z by", "degree")
      formula = isFolded ? "0: the bias is folded into the weights" : "angle(g*z, g*z + b)"
    case .angleTotal:
      (name, longName, units) = ("angle_total", "angle between the stream and LN(x)", "degree")
      formula = isFolded ? "angle(x, x - mean(x)): gain and bias are folded" : "angle(x, g*z + b)"
    case .radiusRatio:
      (name, longName, units) = ("radius_ratio", "length of z over sqrt(d)", "1")
      formula =
        isFolded
        ? "|x - mean(x)|/sqrt(d) = std: the norm's fixed divisor is folded into the weights and not "
          + "known"
        : isRMS ? "|z|/sqrt(d) = rms/sqrt(rms^2 + eps)" : "|z|/sqrt(d) = std/sqrt(std^2 + eps)"
    case .saturation:
      (name, longName, units) = (
        "saturation", "largest coordinate of z over the most that it can be", "1"
      )
      formula =
        isFolded
        ? "max|x - mean(x)|/(std*sqrt(d - 1))" : isRMS ? "max|z|/sqrt(d)" : "max|z|/sqrt(d - 1)"
    case .kurtosis:
      (name, longName, units) = ("kurtosis", "excess kurtosis of the stream's coordinates", "1")
      formula = "mean((x - mean)^4)/std^4 - 3; 0 for a normal distribution"
      sign = "positive = heavier tails than normal"
    case .participation:
      (name, longName, units) = (
        "participation", "number of coordinates that carry the stream", "1"
      )
      formula = "(sum x^2)^2/sum x^4; d/3 for a normal distribution, 1 for a single coordinate"
    case .topThirdShare:
      (name, longName, units) = (
        "top_third_share", "share of |x|^2 in the third of the coordinates of largest |x|", "1"
      )
      formula = "sum of the floor(d/3) largest x^2 over |x|^2"
    }
    self.sign = sign
    self.reference = reference
  }

  func variable(_ dimensions: [String], _ values: [Float]) -> ResultVariable {
    ResultVariable(
      name, dimensions, .float32(values), longName: longName, units: units, sign: sign,
      attributes: ["formula": .string(formula), "references": .string(reference)])
  }
}
