import HookedGPT2
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
  /// What the weights alone say.
  private let ellipsoids: (dimensions: [Dimension], variables: [ResultVariable])
  private var quantiles: ClassQuantiles

  init(_ model: GPT2, _ axes: PromptAxes, seed: UInt64) {
    sites = model.normSites
    self.axes = axes
    ellipsoids = GainEllipsoid.variables(of: model)
    formulas = NormStatistic.allCases.map { Formula($0, model.config.normalization) }
    quantiles = ClassQuantiles(
      measures: formulas.count, places: sites.count, seed: seed)
  }

  var hooks: [HookFilter] { sites.map { HookFilter($0.input) } }

  var tables: [PromptTable] {
    let group = ResultGroup(
      path: "ln_geometry",
      dimensions: [axes.prompt, axis, axes.position]
        + ellipsoids.dimensions,
      variables: axes.tokenCoordinates + ellipsoids.variables,
      attributes: [
        "references": .string("arXiv:2305.02582 (projection and scaling), arXiv:2409.12951"),
        "input": .string("x is the residual stream before the norm; z, g, b as in LN(x) = z*g + b"),
      ])
    return [PromptTable(group, variables: variables)]
  }

  mutating func collect(_ batch: CollectedBatch, into sink: any PromptSink) throws {
    let (measures, longest) = (NormStatistic.allCases.count, axes.longest)
    for prompt in 0..<batch.count {
      let length = batch.length(prompt)
      let admitted = quantiles.admit(length: length)
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
          quantiles.put(measure, of: place, span, from: from, admitted)
        }
      }
      for (formula, values) in zip(formulas, values) {
        try sink.take("ln_geometry", formula.name, prompt: batch.firstPrompt + prompt, values)
      }
    }
  }

  func findings() -> [ResultGroup] {
    [quantiles.summary("ln_geometry/summary", axis, variables)]
  }

  private var axis: Dimension { Dimension("ln", .labels(sites.map(\.label))) }

  private var variables: [ResultVariable] {
    formulas.map { $0.variable(["prompt", "ln", "pos"], []) }
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
