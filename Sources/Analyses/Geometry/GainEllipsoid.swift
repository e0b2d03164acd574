public import HookedGPT2
import RealModule
import Results
import Tensors

/// The surface that a norm's outputs lie on: an ellipsoid, known from its gain and bias alone.
///
/// A LayerNorm's z has length √d (but for ε) and is perpendicular to the ones vector, so
/// y = g ⊙ z + b lies on the image of a sphere: centre b, in the hyperplane
/// `Σ (y_i − b_i)/g_i = 0`, with semi-axes √d·s_i, s_i the singular values of diag(g)·P and P the
/// projection across the ones vector. Coordinates with gain 0 are flat: y_i = b_i. With ε the points
/// are inside, at radius `σ/√(σ² + ε)`. An RMSNorm's sphere is whole: s_i = |g_i|.
///
/// Riechers 2024, arXiv:2405.04134; Brody et al. 2023, arXiv:2305.02582.
public struct GainEllipsoid: Sendable {
  /// |g|, largest first.
  public let sortedGain: [Double]
  /// The semi-axes √d·s, largest first, one for each coordinate: 0 in the directions in which the
  /// surface is flat.
  public let semiAxes: [Double]
  private let gain: [Double]
  private let bias: [Double]

  /// The ellipsoid of a gain and a bias.
  ///
  /// - Parameters:
  ///   - gain: g, d numbers.
  ///   - bias: b, d numbers.
  ///   - isCentred: whether z has no mean: LayerNorm, not RMSNorm.
  /// - Precondition: as many numbers in both, at least one.
  /// - Complexity: O(d²).
  public init(gain: [Double], bias: [Double], isCentred: Bool) {
    precondition(
      gain.count == bias.count && !gain.isEmpty,
      "GainEllipsoid: \(gain.count) gains and \(bias.count) biases")
    (self.gain, self.bias) = (gain, bias)
    sortedGain = gain.map { Swift.abs($0) }.sorted(by: >)
    let scale = Double(gain.count).squareRoot()
    semiAxes =
      isCentred
      ? Self.singularValues(sortedGain).map { $0 * scale } : sortedGain.map { $0 * scale }
  }

  /// The ellipsoid of a model's norm.
  public init(_ norm: GPT2Weights.Norm) {
    self.init(
      gain: norm.gain.scalars.map(Double.init), bias: norm.bias.scalars.map(Double.init),
      isCentred: norm.normalization == .layerNorm)
  }

  /// The longest semi-axis over the shortest that is not 0.
  public var condition: Double {
    guard let longest = semiAxes.first, longest > 0, let shortest = semiAxes.last(where: { $0 > 0 })
    else { return .nan }
    return longest / shortest
  }

  /// exp of the entropy of the squared semi-axes' shares.
  public var effectiveRank: Double {
    let squares = semiAxes.map { $0 * $0 }
    let total = squares.reduce(0, +)
    if total == 0 { return .nan }
    return Double.exp(
      -squares.reduce(0) { $1 > 0 ? $0 + $1 / total * Double.log($1 / total) : $0 })
  }

  /// How far the centre is from 0 for the size of the gain, ‖b‖/(√d·rms g).
  public var biasRatio: Double { Self.length(bias) / Self.length(gain) }

  /// The cosine of the gain with the ones vector.
  public var gainOnesCosine: Double { Self.onesCosine(gain) }

  /// The cosine of the bias with the ones vector.
  public var biasOnesCosine: Double { Self.onesCosine(bias) }

  /// How many |g| are further from their median than three times the median distance from it.
  public var outliers: Int {
    let middle = quantile(sortedGain, 0.5)
    let distances = sortedGain.map { Swift.abs($0 - middle) }
    let limit = 3 * quantile(distances, 0.5)
    return distances.count { $0 > limit }
  }

  /// How many gains are negative.
  public var signFlips: Int { gain.count { $0 < 0 } }

  /// The singular values of diag(g)·P for |g| sorted, largest first.
  ///
  /// Their squares are the eigenvalues of D − g·gᵀ/d with D = diag(g²): a diagonal matrix less one of
  /// rank one. With δ_i the squares of the gains that are not 0 and m the number of those that are,
  /// the eigenvalues are the zeros of the secular function `Σ_i λ/(δ_i − λ) − m`: one between any two
  /// neighbours δ, equal to them where they are equal, and the last between 0 and the smallest δ, at
  /// 0 where no gain is 0. (Golub 1973, "Some modified matrix eigenvalue problems".)
  private static func singularValues(_ sortedGain: [Double]) -> [Double] {
    let poles = sortedGain.map { $0 * $0 }.filter { $0 > 0 }
    let missing = sortedGain.count - poles.count
    let values = poles.indices.map { index in
      let low = index + 1 < poles.count ? poles[index + 1] : 0
      return low == 0 && missing == 0
        ? 0 : secularZero(between: low, and: poles[index], poles, missing: missing).squareRoot()
    }
    return values + Array(repeating: 0, count: missing)
  }

  /// The zero of the secular function between two neighbouring poles, or between 0 and the smallest.
  ///
  /// Times (λ − low)·(high − λ) the function is smooth there and changes its sign from end to end. Its
  /// zero is found by regula falsi (Illinois variant) with every fourth step a bisection.
  private static func secularZero(
    between low: Double, and high: Double, _ poles: [Double], missing: Int
  ) -> Double {
    if low == high { return low }
    let lowIsPole = low > 0
    func value(_ x: Double) -> Double {
      // Eight at a time: this loop is nearly all the work.
      var parts = SIMD8<Double>.zero
      let whole = poles.count / 8 * 8
      for start in stride(from: 0, to: whole, by: 8) {
        var block = SIMD8<Double>.zero
        for i in 0..<8 { block[i] = poles[start + i] }
        parts += x / (block - x)
      }
      var sum = parts.sum() - Double(missing)
      for pole in poles[whole...] { sum += x / (pole - x) }
      return sum * (high - x) * (lowIsPole ? x - low : 1)
    }
    // At a pole only its own terms are left.
    func copies(_ pole: Double) -> Double { Double(poles.count { $0 == pole }) }
    var (a, b) = (low, high)
    var atA = lowIsPole ? -copies(low) * low * (high - low) : -Double(missing) * high
    var atB = copies(high) * high * (lowIsPole ? high - low : 1)
    for step in 1...200 where b - a > 4e-16 * b {
      var x = step % 4 == 0 ? (a + b) / 2 : (a * atB - b * atA) / (atB - atA)
      if !(x > a && x < b) { x = (a + b) / 2 }
      // Neighbouring numbers.
      if x <= a || x >= b { break }
      let f = value(x)
      if f == 0 { return x }
      if f < 0 {
        (a, atA, atB) = (x, f, atB / 2)
      } else {
        (b, atB, atA) = (x, f, atA / 2)
      }
    }
    return (a + b) / 2
  }

  private static func length(_ vector: [Double]) -> Double {
    vector.reduce(0) { $0 + $1 * $1 }.squareRoot()
  }

  private static func onesCosine(_ vector: [Double]) -> Double {
    vector.reduce(0, +) / (Double(vector.count).squareRoot() * length(vector))
  }
}

extension GainEllipsoid {
  /// The axis and the variables of the ellipsoids of a model's norms, for group `ln_geometry`; none
  /// without norms: their gains are folded into the weights.
  static func variables(of model: GPT2) -> (dimensions: [Dimension], variables: [ResultVariable]) {
    let norms = model.normSites.compactMap(\.norm)
    if norms.isEmpty { return ([], []) }
    let ellipsoids = parallelMap(norms.count) { GainEllipsoid(norms[$0]) }
    let isCentred = model.config.normalization == .layerNorm
    func variable(
      _ name: String, _ values: [Double], longName: String, formula: String, sign: String? = nil,
      reference: String = "arXiv:2405.04134", ranked: Bool = false
    ) -> ResultVariable {
      ResultVariable(
        name, ranked ? ["ln", "rank"] : ["ln"], .float32(values.map { Float($0) }),
        longName: longName, units: "1", sign: sign ?? "not signed",
        attributes: ["formula": .string(formula), "references": .string(reference)])
    }
    func count(
      _ name: String, _ values: [Int], longName: String, formula: String
    ) -> ResultVariable {
      ResultVariable(
        name, ["ln"], .integers(values), longName: longName, units: "1",
        attributes: ["formula": .string(formula)])
    }
    let matrix = isCentred ? "diag(g)(I - 11^T/d)" : "diag(g)"
    return (
      [Dimension("rank", count: model.config.dModel)],
      [
        variable(
          "semi_axis", ellipsoids.flatMap(\.semiAxes),
          longName: "semi-axes of the ellipsoid of outputs, largest first",
          formula: "sqrt(d) times the singular values of \(matrix); 0 = flat", ranked: true),
        variable(
          "condition", ellipsoids.map(\.condition),
          longName: "longest semi-axis over the shortest that is not 0", formula: "s_max/s_min"),
        variable(
          "gain_effective_rank", ellipsoids.map(\.effectiveRank),
          longName: "effective rank of the ellipsoid",
          formula: "exp(-sum p ln p) with p = s^2/sum s^2"),
        variable(
          "bias_ratio", ellipsoids.map(\.biasRatio),
          longName: "distance of the ellipsoid's centre from 0 for the size of the gain",
          formula: "|b|/(sqrt(d) rms(g))"),
        variable(
          "gain_ones_cosine", ellipsoids.map(\.gainOnesCosine),
          longName: "cosine of the gain with the ones vector", formula: "sum g/(sqrt(d) |g|)",
          sign: "positive = most of the gain is positive", reference: "arXiv:2305.02582"),
        variable(
          "bias_ones_cosine", ellipsoids.map(\.biasOnesCosine),
          longName: "cosine of the bias with the ones vector", formula: "sum b/(sqrt(d) |b|)",
          sign: "positive = most of the bias is positive", reference: "arXiv:2305.02582"),
        count(
          "gain_outliers", ellipsoids.map(\.outliers), longName: "outlying gains",
          formula: "count of ||g_i| - median|g|| > 3 MAD, MAD = median of ||g_i| - median|g||"),
        count(
          "gain_sign_flips", ellipsoids.map(\.signFlips), longName: "negative gains",
          formula: "count of g_i < 0"),
        variable(
          "sorted_gain", ellipsoids.flatMap(\.sortedGain),
          longName: "magnitudes of the gains, largest first",
          formula: "|g| sorted; each semi-axis over sqrt(d) lies between two neighbours",
          ranked: true),
      ]
    )
  }
}
