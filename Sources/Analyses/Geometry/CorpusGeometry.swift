public import HookedGPT2
import OrderedCollections
import RealModule
public import Results
import Tensors

/// The shape of the cloud of all tokens before, inside and behind each norm (group
/// `ln_geometry/corpus`).
///
/// **What it shows.** For the stream x, the normalised z and the output y = z ⊙ g + b of every norm,
/// over the positions from 1 on: how much lies along the ones vector, how much along the common mean,
/// how similar two tokens are, and in how many directions they differ.
///
/// **What it does not.** Fewer tokens than dimensions cannot span them: N tokens have a covariance of
/// rank N − 1 at most, and spectra settle only from about ten tokens a dimension on. The ranks are
/// those of the covariance's eigenvalues λ: other authors take singular values, their roots.
///
/// Nothing but sums is kept (``SecondMoments``: 8·d² bytes a norm) and a bounded sample for the intrinsic
/// dimension, 1,000 tokens or 4,000·d bytes a norm.
///
/// Gupta et al. 2024, arXiv:2409.12951 (shares); Ethayarajh 2019, arXiv:1909.00512 (mean cosine);
/// Razzhigaev et al. 2023, arXiv:2311.05928 (anisotropy); Skean et al. 2025, arXiv:2502.02013
/// (spectra); Facco et al. 2017, arXiv:1803.06992 (intrinsic dimension).
public struct CorpusGeometry: Collector {
  private let width: Int
  private let seed: UInt64
  private var clouds: [NormClouds]
  /// The tokens whose streams are kept for the intrinsic dimension, the same at every norm.
  private var reservoir: Reservoir

  static let cloudNames = ["input", "normalized", "output"]

  /// A collector that has seen no tokens.
  ///
  /// - Parameters:
  ///   - model: the model whose norms are meant.
  ///   - seed: decides which tokens the intrinsic dimension is estimated from.
  ///   - points: the most tokens that it is estimated from.
  public init(_ model: GPT2, seed: UInt64 = 0, points: Int = 1000) {
    width = model.config.dModel
    self.seed = seed
    clouds = model.normSites.map { NormClouds($0, width: model.config.dModel) }
    reservoir = Reservoir(capacity: points, seed: seed)
  }

  /// The stream before every norm.
  public var hooks: [HookFilter] { clouds.map { HookFilter($0.site.input) } }

  /// What a reader of the spectra must know before believing them; nil with enough tokens.
  public var warning: String? {
    let count = reservoir.count
    if count >= 10 * width { return nil }
    let bound = count > width ? "" : ", and no rank can exceed \(max(count - 1, 0))"
    return
      "\(count) tokens in \(width) dimensions: spectra and ranks settle only from \(10 * width) tokens "
      + "on\(bound); give more text"
  }

  /// Takes the positions from 1 on.
  public mutating func collect(_ batch: CollectedBatch, into sink: any PromptSink) throws {
    let tokens = (0..<batch.count).reduce(0) { $0 + batch.length($1) - 1 }
    if tokens == 0 { return }
    let admitted = reservoir.admit(0..<tokens)
    for index in clouds.indices {
      let rows = try batch.rows(clouds[index].site.input, from: 1)
      clouds[index].add(rows, admitted)
    }
  }

  /// The group `ln_geometry/corpus`.
  ///
  /// - Throws: `AnalysisError.nonFinite`.
  public func findings() throws -> [ResultGroup] {
    let shapes = try Self.shapes(clouds, count: reservoir.count)
    var variables = Measure.all.map { measure in
      ResultVariable(
        measure.name, ["ln", "cloud"], .float32(shapes.map { Float(measure.value($0)) }),
        longName: measure.longName, units: "1",
        attributes: ["formula": .string(measure.formula), "references": .string(measure.reference)])
    }
    for (name, longName, value) in [
      ("intrinsic_dimension_points", "different points of the estimate", \Shape.points),
      ("intrinsic_dimension_duplicates", "points left out as equal to another", \.duplicates),
    ] {
      variables.append(
        ResultVariable(
          name, ["ln", "cloud"], .integers(shapes.map { $0[keyPath: value] }), longName: longName,
          units: "1"))
    }
    variables.append(
      ResultVariable(
        "count", [], .integers([reservoir.count]), longName: "tokens at positions from 1 on",
        units: "1"))
    var attributes: OrderedDictionary<String, AttributeValue> = [
      "cloud": .string(
        clouds.first?.site.norm == nil
          ? "input = x, the stream; normalized = output = z = x - mean(x): gain, bias and the fixed "
            + "divisor are folded into the weights"
          : "input = x, the stream; normalized = z; output = z*g + b"),
      "positions": .string("all but position 0"),
      "spectrum": .string(
        "eigenvalues l of the covariance over tokens, not the tokens' singular values (their roots)"
      ),
      "intrinsic_dimension_sample": .string(
        reservoir.isSampled
          ? "a uniform sample of \(reservoir.capacity) of the tokens" : "all tokens"),
    ]
    if reservoir.isSampled { attributes["sample_seed"] = .integer(Int(truncatingIfNeeded: seed)) }
    if let warning { attributes["warning"] = .string(warning) }
    return [
      ResultGroup(
        path: "ln_geometry/corpus",
        dimensions: [
          Dimension("ln", .labels(clouds.map(\.site.label))),
          Dimension("cloud", .labels(Self.cloudNames)),
        ], variables: variables, attributes: attributes)
    ]
  }

  /// Of every norm the shapes of its three clouds.
  private static func shapes(_ clouds: [NormClouds], count: Int) throws -> [Shape] {
    guard count >= 2, let width = clouds.first?.width else {
      return clouds.flatMap { _ in cloudNames.map { _ in Shape() } }
    }
    // Where the output is z itself it is not worked out again.
    let views = clouds.flatMap { norm in
      [norm.input, norm.normalized] + (norm.site.norm == nil ? [] : [norm.output])
    }
    let spectra = symmetricEigenvalues(count: views.count, order: width) { views[$0].covariance() }
    var shapes: [Shape] = []
    var next = 0
    for norm in clouds {
      let own = norm.site.norm == nil ? 2 : 3
      for cloud in 0..<own {
        guard let spectrum = spectra[next] else {
          throw AnalysisError.nonFinite(
            analysis: "geometry",
            what: "the covariance of \(norm.site.label), \(cloudNames[cloud])")
        }
        shapes.append(
          Shape(
            views[next], spectrum, count: count,
            dimension: IntrinsicDimension(norm.points(cloud))))
        next += 1
      }
      if own == 2, let same = shapes.last { shapes.append(same) }
    }
    return shapes
  }
}

/// What is added up of one norm's three clouds.
private struct NormClouds {
  let site: NormSite
  let width: Int
  /// The moments of the stream.
  private var stream: SecondMoments
  /// Those of z; without a norm they follow from the stream's.
  private var normal: SecondMoments
  /// The sums of the unit vectors of x, z and y, and how many there are.
  private var directions: [(sum: [Double], count: Int)]
  /// The streams of the sampled tokens.
  private var sample: [Float] = []

  init(_ site: NormSite, width: Int) {
    self.site = site
    self.width = width
    stream = SecondMoments(width: width)
    normal = SecondMoments(width: site.norm == nil ? 0 : width)
    directions = Array(repeating: (Array(repeating: 0, count: width), 0), count: 3)
  }

  mutating func add(_ rows: Tensor, _ admitted: [(token: Int, slot: Int)]) {
    let normalized = Self.normalized(rows, site.norm)
    stream.add(rows)
    if let norm = site.norm {
      normal.add(normalized)
      addDirections(2, normalized.sumOfDirections(gain: norm.gain, bias: norm.bias))
    }
    addDirections(0, rows.sumOfDirections())
    addDirections(1, normalized.sumOfDirections())
    for (row, slot) in admitted {
      let values = rows.row(row).scalars
      if slot * width < sample.count {
        sample.replaceSubrange(slot * width..<(slot + 1) * width, with: values)
      } else {
        sample += values
      }
    }
  }

  private mutating func addDirections(_ cloud: Int, _ more: (sum: [Double], count: Int)) {
    for i in 0..<width { directions[cloud].sum[i] += more.sum[i] }
    directions[cloud].count += more.count
  }

  /// z: centred and scaled by a LayerNorm, scaled by an RMSNorm, centred without a norm.
  private static func normalized(_ rows: Tensor, _ norm: GPT2Weights.Norm?) -> Tensor {
    guard let norm else { return rows.centeringRows() }
    let width = rows.rowCount
    return norm.normalization(
      rows, epsilon: norm.epsilon, gain: Tensor(repeating: 1, shape: [width]),
      bias: Tensor(zeros: [width]))
  }

  var input: CloudView { CloudView(stream, directions[0]) }

  var normalized: CloudView {
    site.norm == nil
      ? CloudView(stream, directions[1], isProjected: true) : CloudView(normal, directions[1])
  }

  var output: CloudView {
    guard let norm = site.norm else { return normalized }
    return CloudView(
      normal, directions[2], gain: norm.gain.scalars.map(Double.init),
      bias: norm.bias.scalars.map(Double.init))
  }

  /// The sampled tokens' points in a cloud, `[points, d]`.
  func points(_ cloud: Int) -> Tensor {
    let rows = Tensor(sample, shape: [sample.count / width, width])
    if cloud == 0 { return rows }
    let normalized = Self.normalized(rows, site.norm)
    guard cloud == 2, let norm = site.norm else { return normalized }
    return normalized.multiplyingRows(norm.gain).addingToRows(norm.bias)
  }
}

/// A cloud whose moments follow exactly from those of another: `v ⊙ gain + bias`, or v − mean v.
private struct CloudView {
  private let moments: SecondMoments
  private let gain: [Double]?
  private let isProjected: Bool
  /// E y.
  let mean: [Double]
  /// The mean cosine between two tokens.
  let meanCosine: Double

  init(
    _ moments: SecondMoments, _ directions: (sum: [Double], count: Int), gain: [Double]? = nil,
    bias: [Double]? = nil, isProjected: Bool = false
  ) {
    self.moments = moments
    self.gain = gain
    self.isProjected = isProjected
    var mean = moments.mean
    if let gain, let bias {
      for i in mean.indices { mean[i] = mean[i] * gain[i] + bias[i] }
    }
    if isProjected {
      let common = mean.reduce(0, +) / Double(mean.count)
      for i in mean.indices { mean[i] -= common }
    }
    self.mean = mean
    // Of the N² pairs of unit vectors N are a vector with itself, cosine 1.
    let count = Double(directions.count)
    let total = directions.sum.reduce(0) { $0 + $1 * $1 }
    meanCosine = count < 2 ? .nan : (total - count) / (count * (count - 1))
  }

  /// The covariance, shape `[d, d]`.
  func covariance() -> [Double] {
    var matrix = moments.covariance
    let width = moments.width
    if let gain {
      for i in 0..<width {
        for j in 0..<width { matrix[i * width + j] *= gain[i] * gain[j] }
      }
    }
    if isProjected {
      let means = (0..<width).map { i in
        matrix[i * width..<(i + 1) * width].reduce(0, +) / Double(width)
      }
      let total = means.reduce(0, +) / Double(width)
      for i in 0..<width {
        for j in 0..<width { matrix[i * width + j] += total - means[i] - means[j] }
      }
    }
    return matrix
  }

  /// The variance along û = 1/√d.
  var varianceAlongOnes: Double {
    if isProjected { return 0 }
    let width = moments.width
    let scale = 1 / Double(width).squareRoot()
    let ones = gain ?? Array(repeating: 1, count: width)
    // Rounding may leave a zero below 0.
    return max(0, moments.variance(along: ones.map { $0 * scale }))
  }
}

/// The numbers that describe a cloud; NaN where they do not exist.
private struct Shape {
  var onesShare = Double.nan
  var onesVarianceShare = Double.nan
  var meanVectorShare = Double.nan
  var meanCosine = Double.nan
  var topComponentShare = Double.nan
  var effectiveRank = Double.nan
  var stableRank = Double.nan
  var participationRatio = Double.nan
  var intrinsicDimension = Double.nan
  var points = 0
  var duplicates = 0

  /// The shape of no cloud.
  init() {}

  /// The shape of a cloud with the eigenvalues of its covariance, largest first.
  init(_ cloud: CloudView, _ spectrum: [Double], count: Int, dimension: IntrinsicDimension) {
    // Rounding leaves zeros on either side of 0.
    let values = spectrum.map { max($0, 0) }
    let variance = values.reduce(0, +)
    let meanSquare = cloud.mean.reduce(0) { $0 + $1 * $1 }
    let energy = meanSquare + variance
    let along = cloud.mean.reduce(0, +) / Double(cloud.mean.count).squareRoot()
    let alongVariance = cloud.varianceAlongOnes
    if energy > 0 {
      onesShare = (along * along + alongVariance) / energy
      meanVectorShare = meanSquare / energy
    }
    meanCosine = cloud.meanCosine
    if variance > 0 {
      onesVarianceShare = alongVariance / variance
      topComponentShare = values[0] / variance
      stableRank = variance / values[0]
      let shares = values.map { $0 / variance }
      effectiveRank = Double.exp(-shares.reduce(0) { $0 + ($1 > 0 ? $1 * Double.log($1) : 0) })
      participationRatio = 1 / shares.reduce(0) { $0 + $1 * $1 }
    }
    intrinsicDimension = dimension.dimension
    points = dimension.points
    duplicates = dimension.duplicates
  }
}

/// A number of a cloud as a variable.
private struct Measure {
  let name: String
  let longName: String
  let formula: String
  let reference: String
  let value: (Shape) -> Double

  static var all: [Measure] {
    [
      Measure(
        name: "ones_share", longName: "share of the mean square along the ones vector",
        formula: "E (x.u)^2 / E |x|^2 with u = 1/sqrt(d); 1/d for random directions",
        reference: "arXiv:2409.12951", value: \.onesShare),
      Measure(
        name: "ones_variance_share", longName: "share of the variance along the ones vector",
        formula: "Var(x.u) / tr Cov", reference: "arXiv:2409.12951", value: \.onesVarianceShare),
      Measure(
        name: "mean_vector_share", longName: "share of the mean square in the mean vector",
        formula: "|E x|^2 / E |x|^2", reference: "arXiv:1909.00512", value: \.meanVectorShare),
      Measure(
        name: "mean_cosine", longName: "mean cosine between two tokens",
        formula: "(|sum x/|x||^2 - N)/(N (N - 1)): all pairs, exactly",
        reference: "arXiv:1909.00512", value: \.meanCosine),
      Measure(
        name: "top_component_share", longName: "share of the variance in the first component",
        formula: "l_1 / sum l", reference: "arXiv:2311.05928", value: \.topComponentShare),
      Measure(
        name: "effective_rank", longName: "effective rank of the covariance",
        formula: "exp(-sum p ln p) with p = l / sum l",
        reference: "Roy and Vetterli 2007; arXiv:2502.02013", value: \.effectiveRank),
      Measure(
        name: "stable_rank", longName: "stable rank of the centred tokens",
        formula: "sum l / l_1", reference: "arXiv:math/0503442", value: \.stableRank),
      Measure(
        name: "participation_ratio", longName: "participation ratio of the covariance",
        formula: "(sum l)^2 / sum l^2", reference: "arXiv:2311.05928", value: \.participationRatio),
      Measure(
        name: "intrinsic_dimension", longName: "intrinsic dimension by TwoNN",
        formula:
          "slope of -ln(1 - F) over ln(r2/r1) through the origin, F = i/N, lowest 90 percent; points "
          + "nearer than 1e-5 of the cloud's radius are one point",
        reference: "arXiv:1803.06992", value: \.intrinsicDimension),
    ]
  }
}
