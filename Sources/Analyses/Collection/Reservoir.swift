import HookedGPT2

/// Decides which of a stream of tokens are kept: all of the first `capacity`, of more a uniform sample of
/// that size (reservoir sampling, Vitter 1985, algorithm R).
struct Reservoir {
  /// The most tokens that are kept.
  let capacity: Int
  /// The tokens that were seen.
  private(set) var count = 0
  private var random: SeededGenerator

  /// A reservoir that has seen nothing.
  init(capacity: Int, seed: UInt64) {
    self.capacity = capacity
    random = SeededGenerator(seed: seed)
  }

  /// Whether some tokens are not kept.
  var isSampled: Bool { count > capacity }

  /// Draws which of the next tokens are kept, and where; of two tokens in one slot the later stays.
  mutating func admit(_ tokens: Range<Int>) -> [(token: Int, slot: Int)] {
    var admitted: [(token: Int, slot: Int)] = []
    for token in tokens {
      let slot = count < capacity ? count : Int.random(in: 0...count, using: &random)
      count += 1
      if slot < capacity { admitted.append((token, slot)) }
    }
    return admitted
  }
}
