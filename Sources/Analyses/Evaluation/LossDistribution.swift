import HookedGPT2
import Tensors

/// The distribution of a number over many tokens in fixed memory: mean, quantiles, and the largest with
/// the tokens that they belong to.
///
/// Quantiles are exact up to ``capacity`` tokens, and those of a uniform sample of that size beyond.
struct LossDistribution {
  /// The most tokens whose values are kept: 4 MB.
  static let capacity = 1 << 20
  /// The quantiles that are told, among them the bounds of the published 95 and 99.9 percent ranges.
  static let quantiles: [(name: String, share: Double)] = [
    ("p00.05", 0.0005), ("p02.5", 0.025), ("p05", 0.05), ("p25", 0.25), ("p50", 0.5),
    ("p75", 0.75), ("p95", 0.95), ("p97.5", 0.975), ("p99", 0.99), ("p99.9", 0.999),
    ("p99.95", 0.9995),
  ]

  private(set) var count = 0
  private(set) var sum = 0.0
  /// The largest values and their tokens.
  private(set) var largest: LargestTokens
  private var reservoir: Reservoir
  private var values: [Float] = []

  init(seed: UInt64) {
    reservoir = Reservoir(capacity: Self.capacity, seed: seed)
    largest = LargestTokens(limit: 1000)
  }

  var mean: Double { count == 0 ? .nan : sum / Double(count) }

  mutating func add(_ value: Double, _ token: TokenPlace) {
    count += 1
    sum += value
    largest.add(value, token)
    for (_, slot) in reservoir.admit(0..<1) {
      if slot < values.count { values[slot] = Float(value) } else { values.append(Float(value)) }
    }
  }

  /// Quantiles, interpolated linearly between neighbours.
  func quantiles(_ shares: [Double]) -> [Double] {
    let sorted = values.sorted().map(Double.init)
    return shares.map { quantile(ofSorted: sorted, $0) }
  }

  /// How much of the sum the worst `number` tokens carry.
  func share(ofWorst number: Int) -> Double {
    largest.sorted.prefix(number).reduce(0) { $0 + $1.value } / sum
  }

  /// What a reader of the mean must know: few tokens carry much of it. Those of the 1, 10, 100 and 1,000
  /// worst are told that carry more than 5 percent of the sum and more than ten times their share of the
  /// tokens.
  var warning: String? {
    for number in [1, 10, 100, 1000] where number < count {
      let share = share(ofWorst: number)
      if share > 0.05 && share > 10 * Double(number) / Double(count) {
        let words = number == 1 ? "the worst token carries" : "the worst \(number) tokens carry"
        let percent = (1000 * share).rounded() / 10
        return
          "\(words) \(percent) % of the summed loss of \(count) tokens (told above 5 % and ten "
          + "times their share of tokens); the median is the better summary"
      }
    }
    return nil
  }
}

/// A token that is predicted: its prompt, the position that it is predicted from, and its id.
struct TokenPlace: Sendable, Equatable {
  var prompt: Int
  var position: Int
  var token: Int
}

/// The tokens of the largest values.
struct LargestTokens {
  /// The most that are kept.
  let limit: Int
  private var entries: [(value: Double, token: TokenPlace)] = []
  private var bound = -Double.infinity

  init(limit: Int) { self.limit = limit }

  mutating func add(_ value: Double, _ token: TokenPlace) {
    if entries.count >= limit && value <= bound { return }
    entries.append((value, token))
    // Sorting now and then costs less than order all the time.
    if entries.count >= 2 * limit {
      entries = Array(sorted.prefix(limit))
      bound = entries[limit - 1].value
    }
  }

  /// The largest first, the earlier of equals first.
  var sorted: [(value: Double, token: TokenPlace)] {
    Array(
      entries.enumerated().sorted {
        ($0.element.value, $1.offset) > ($1.element.value, $0.offset)
      }.map(\.element).prefix(limit))
  }
}
