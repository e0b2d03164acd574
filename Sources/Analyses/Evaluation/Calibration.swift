import Results

/// Whether the model is right as often as it is sure: tokens in bins of the likeliest token's
/// probability, of equal width (group `evaluate/calibration`).
///
/// The expected calibration error is `Σ (n_b/N)·|confidence_b − accuracy_b|` (Guo et al. 2017,
/// arXiv:1706.04599). It depends on the bins: a few tokens leave it far above 0 by chance alone.
struct Calibration {
  private(set) var counts: [Int]
  private var confidences: [Double]
  private var hits: [Double]

  init(bins: Int) {
    counts = Array(repeating: 0, count: bins)
    confidences = Array(repeating: 0, count: bins)
    hits = confidences
  }

  /// The bin of a probability: bin b holds `(b/bins, (b + 1)/bins]`.
  static func bin(_ confidence: Double, of bins: Int) -> Int {
    min(max(Int((confidence * Double(bins)).rounded(.up)) - 1, 0), bins - 1)
  }

  /// Takes a token in and returns its bin.
  @discardableResult
  mutating func add(confidence: Double, isCorrect: Bool) -> Int {
    let bin = Self.bin(confidence, of: counts.count)
    counts[bin] += 1
    confidences[bin] += confidence
    hits[bin] += isCorrect ? 1 : 0
    return bin
  }

  /// The expected calibration error; NaN without tokens.
  var error: Double {
    let total = counts.reduce(0, +)
    if total == 0 { return .nan }
    return zip(confidences, hits).reduce(0) { $0 + abs($1.0 - $1.1) } / Double(total)
  }

  var group: ResultGroup {
    let bins = counts.count
    func mean(_ sums: [Double]) -> ResultVariable.Values {
      .float64(zip(sums, counts).map { $1 == 0 ? .nan : $0 / Double($1) })
    }
    return ResultGroup(
      path: "evaluate/calibration",
      dimensions: [
        Dimension(
          "bin",
          .labels(
            (0..<bins).map { bin in
              let bounds = [bin, bin + 1].map {
                ((Double($0) / Double(bins)) * 1e4).rounded() / 1e4
              }
              return "\(bounds[0])-\(bounds[1])"
            }))
      ],
      variables: [
        ResultVariable(
          "confidence", ["bin"], mean(confidences),
          longName: "mean probability of the likeliest token", units: "1",
          attributes: [
            "formula": .string("mean of max p"), "references": .string("arXiv:1706.04599"),
          ]),
        ResultVariable(
          "accuracy", ["bin"], mean(hits),
          longName: "share of tokens that the model finds likeliest", units: "1",
          attributes: [
            "formula": .string("mean of [argmax p == token]"),
            "references": .string("arXiv:1706.04599"),
          ]),
        ResultVariable(
          "count", ["bin"], .integers(counts), longName: "tokens", units: "1",
          attributes: [
            "formula": .string("tokens with lower bound < max p <= upper bound"),
            "references": .string("arXiv:1706.04599"),
          ]),
      ])
  }
}
