/// The keys of one JSON object, to find those that occur twice.
///
/// Keys are compared as decoded bytes: `String` would compare them up to Unicode equivalence. An
/// open-addressing table of hashes and places in the text, which keeps no key: 16 to 32 bytes a key,
/// whatever its length. The hash is seeded, so that a hostile text cannot make it slow.
struct JSONKeys {
  /// The hash in the upper half; in the lower, one more than the key's place. 0 where free. The size
  /// is a power of two, at most half of it used.
  private var slots: [UInt64] = []
  private var count = 0
  private let seed = UInt64.random(in: 0...UInt64.max)

  /// The longest text whose places fit.
  static let textLimit = Int(UInt32.max) - 1

  /// Adds a key that stands at `position` of the text; false if it is there already.
  ///
  /// - Parameter isEqual: whether the key at another position is the same; asked where hashes agree.
  mutating func insert(_ key: [UInt8], at position: Int, isEqual: (Int) -> Bool) -> Bool {
    if count * 2 >= slots.count { grow() }
    let hash = hash(key)
    var slot = Int(hash) & (slots.count - 1)
    while slots[slot] != 0 {
      if slots[slot] >> 32 == UInt64(hash), isEqual(Int(slots[slot] & 0xffff_ffff) - 1) {
        return false
      }
      slot = (slot + 1) & (slots.count - 1)
    }
    slots[slot] = UInt64(hash) << 32 | UInt64(position + 1)
    count += 1
    return true
  }

  private mutating func grow() {
    var larger = [UInt64](repeating: 0, count: max(16, slots.count * 2))
    for entry in slots where entry != 0 {
      var slot = Int(entry >> 32) & (larger.count - 1)
      while larger[slot] != 0 { slot = (slot + 1) & (larger.count - 1) }
      larger[slot] = entry
    }
    slots = larger
  }

  private func hash(_ key: [UInt8]) -> UInt32 {
    var hash = seed
    for byte in key {
      hash = (hash ^ UInt64(byte)) &* 0x9E37_79B9_7F4A_7C15
      hash ^= hash >> 29
    }
    return UInt32(truncatingIfNeeded: hash ^ hash >> 32)
  }
}
