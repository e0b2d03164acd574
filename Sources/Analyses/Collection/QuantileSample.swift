import Tensors

/// Quantiles of several measures over tokens, in memory that does not grow with their number.
///
/// Up to ``capacity`` tokens all values are kept and the quantiles are exact; of more tokens a
/// uniform sample of that size is kept (``Reservoir``), the same tokens for every measure.
struct QuantileSample {
  /// The most tokens that are kept.
  static let capacity = 8192

  /// Which tokens are kept.
  private var reservoir: Reservoir
  /// The kept values of each measure.
  private var values: [[Float]]

  /// A sample of nothing yet.
  init(measures: Int, seed: UInt64) {
    reservoir = Reservoir(capacity: Self.capacity, seed: seed)
    values = Array(repeating: [], count: measures)
  }

  /// The tokens that were seen.
  var count: Int { reservoir.count }

  /// Whether some tokens are not in the sample.
  var isSampled: Bool { reservoir.isSampled }

  /// Draws which of the next `tokens` tokens are kept, and where.
  mutating func admit(_ tokens: Range<Int>) -> [(token: Int, slot: Int)] {
    reservoir.admit(tokens)
  }

  /// Puts one measure of the admitted tokens into their slots; `span[start + token]` is a token's.
  mutating func put(
    _ measure: Int, _ span: Span<Float>, from start: Int, _ admitted: [(token: Int, slot: Int)]
  ) {
    for (token, slot) in admitted {
      let value = span[start + token]
      if slot < values[measure].count {
        values[measure][slot] = value
      } else {
        values[measure].append(value)
      }
    }
  }

  /// Quantiles of a measure over the tokens that have it, interpolated linearly between neighbours;
  /// NaN where none has it.
  func quantiles(_ measure: Int, _ shares: [Double]) -> [Float] {
    let sorted = values[measure].lazy.filter { !$0.isNaN }.map(Double.init).sorted()
    return shares.map { Float(quantile(ofSorted: sorted, $0)) }
  }
}
