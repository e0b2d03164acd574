import OrderedCollections
import Results

/// Quantiles of measures over tokens, position 0 apart from the others, in memory that does not grow with
/// their number (``QuantileSample``).
///
/// Measures belong to places of the model (norms, streams): measure `m` of place `p` has the index
/// `p·measures + m`.
struct ClassQuantiles {
  static let classes = ["first", "rest"]
  static let quantiles: [(name: String, share: Double)] = [
    ("p05", 0.05), ("p50", 0.5), ("p95", 0.95),
  ]
  /// The axis of ``classes``.
  static var classAxis: Dimension { Dimension("position_class", .labels(classes)) }

  private let measures: Int
  private let places: Int
  private let seed: UInt64
  /// Position 0, and the others.
  private var samples: [QuantileSample]

  /// Samples of nothing yet.
  init(measures: Int, places: Int, seed: UInt64) {
    (self.measures, self.places, self.seed) = (measures, places, seed)
    samples = (0..<2).map { QuantileSample(measures: measures * places, seed: seed &+ $0) }
  }

  /// The tokens of each class.
  var counts: [Int] { samples.map(\.count) }

  /// Draws which of the next prompt's tokens are kept: of each class.
  mutating func admit(length: Int) -> [[(token: Int, slot: Int)]] {
    [samples[0].admit(0..<1), samples[1].admit(1..<length)]
  }

  /// Puts a measure of the admitted tokens into their slots; `span[start + position]` is a token's.
  mutating func put(
    _ measure: Int, of place: Int, _ span: Span<Float>, from start: Int,
    _ admitted: [[(token: Int, slot: Int)]]
  ) {
    for group in 0..<2 {
      samples[group].put(place * measures + measure, span, from: start, admitted[group])
    }
  }

  /// Quantiles of a measure: shape `[class, place, share]`.
  func values(_ measure: Int, _ shares: [Double]) -> [Float] {
    samples.flatMap { sample in
      (0..<places).flatMap { sample.quantiles($0 * measures + measure, shares) }
    }
  }

  /// The group of all quantiles, and `count(position_class)`.
  ///
  /// - Parameters:
  ///   - path: the group's path.
  ///   - axis: the places.
  ///   - variables: the measures in order; their axes and values are set here.
  func summary(_ path: String, _ axis: Dimension, _ variables: [ResultVariable]) -> ResultGroup {
    var summaries = variables
    for measure in summaries.indices {
      summaries[measure].dimensions = ["position_class", axis.name, "quantile"]
      summaries[measure].values = .float32(values(measure, Self.quantiles.map(\.share)))
    }
    summaries.append(
      ResultVariable(
        "count", ["position_class"], .integers(counts), longName: "tokens", units: "1"))
    let isSampled = samples.contains(where: \.isSampled)
    var attributes: OrderedDictionary<String, AttributeValue> = [
      "position_class": .string("first = position 0; rest = all others"),
      "quantiles": .string(
        isSampled
          ? "of a uniform sample of \(QuantileSample.capacity) tokens where a class has more; "
            + "interpolated linearly" : "exact; interpolated linearly"),
    ]
    if isSampled { attributes["sample_seed"] = .integer(Int(truncatingIfNeeded: seed)) }
    return ResultGroup(
      path: path,
      dimensions: [
        Self.classAxis, axis, Dimension("quantile", .labels(Self.quantiles.map(\.name))),
      ], variables: summaries, attributes: attributes)
  }
}
