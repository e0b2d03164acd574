import HookedGPT2

/// Decides which of a stream of items are kept: all of the first `capacity`, then a uniform sample of
/// that size (reservoir sampling, Vitter 1985, algorithm R).
struct Reservoir {
  /// The most items that are kept.
  let capacity: Int
  /// The items that were seen.
  private(set) var count = 0
  private var random: SeededGenerator

  /// A reservoir that has seen nothing.
  init(capacity: Int, seed: UInt64) {
    self.capacity = capacity
    random = SeededGenerator(seed: seed)
  }

  /// Whether some items are not kept.
  var isSampled: Bool { count > capacity }

  /// Draws which of the next items are kept, and where; a slot may be given twice, to the later item
  /// for good.
  mutating func admit(_ items: Range<Int>) -> [(item: Int, slot: Int)] {
    var admitted: [(item: Int, slot: Int)] = []
    for item in items {
      let slot = count < capacity ? count : Int.random(in: 0...count, using: &random)
      count += 1
      if slot < capacity { admitted.append((item, slot)) }
    }
    return admitted
  }
}
