/// The keys of one JSON object, to find those that occur twice.
///
/// Keys are compared as bytes: `String` would compare them up to Unicode equivalence, at ten times
/// the cost for the non-ASCII keys of a vocabulary. An open-addressing table over one block of
/// bytes; the hash is seeded, so that a hostile text cannot make it slow.
struct JSONKeys {
  private var bytes: [UInt8] = []
  private var ends: [Int] = []
  /// Indices into `ends`, or -1; the size is a power of two, at most half of it used.
  private var slots: [Int32] = []
  private let seed = UInt64.random(in: 0...UInt64.max)

  /// Adds a key; false if it is there already.
  mutating func insert(_ key: [UInt8]) -> Bool {
    // A few keys are faster compared one by one, and most objects have few.
    if ends.count < 8 {
      for index in ends.indices where equals(index, key) { return false }
      append(key)
      return true
    }
    if ends.count * 2 >= slots.count { grow() }
    var slot = Int(truncatingIfNeeded: hash(key)) & (slots.count - 1)
    while slots[slot] >= 0 {
      if equals(Int(slots[slot]), key) { return false }
      slot = (slot + 1) & (slots.count - 1)
    }
    slots[slot] = Int32(ends.count)
    append(key)
    return true
  }

  private mutating func append(_ key: [UInt8]) {
    bytes.append(contentsOf: key)
    ends.append(bytes.count)
  }

  private func range(_ index: Int) -> Range<Int> {
    (index == 0 ? 0 : ends[index - 1])..<ends[index]
  }

  private func equals(_ index: Int, _ key: [UInt8]) -> Bool {
    let range = range(index)
    return range.count == key.count && bytes[range].elementsEqual(key)
  }

  private mutating func grow() {
    slots = [Int32](repeating: -1, count: max(64, slots.count * 2))
    for index in ends.indices {
      var slot = Int(truncatingIfNeeded: hash(bytes[range(index)])) & (slots.count - 1)
      while slots[slot] >= 0 { slot = (slot + 1) & (slots.count - 1) }
      slots[slot] = Int32(index)
    }
  }

  private func hash(_ key: some Sequence<UInt8>) -> UInt64 {
    var hash = seed
    for byte in key {
      hash = (hash ^ UInt64(byte)) &* 0x9E37_79B9_7F4A_7C15
      hash ^= hash >> 29
    }
    return hash
  }
}
