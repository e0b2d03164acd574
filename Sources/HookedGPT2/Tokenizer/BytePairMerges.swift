/// The merges of a byte-pair encoding: which neighbouring tokens become one, the lowest rank first.
struct BytePairMerges: Sendable {
  /// One slot of the hash table.
  private struct Entry {
    /// The left token in the upper half and the right one in the lower, or `vacant`.
    var pair: UInt64
    var rank: UInt32
    var result: UInt32
  }

  /// The rank of a pair that no merge joins.
  static let noRank = UInt32.max
  /// Below this many tokens a word is merged by scanning, from it on with a heap.
  private static let longWord = 48
  private static let vacant = UInt64.max

  /// Open addressing with linear probing; at most half full.
  private var entries: [Entry]
  private var shift: UInt64
  private var count = 0

  /// An empty table, which grows with the different pairs that it is given.
  init() {
    entries = Self.vacant(bits: 4)
    shift = 60
  }

  private static func vacant(bits: UInt64) -> [Entry] {
    Array(repeating: Entry(pair: vacant, rank: noRank, result: 0), count: 1 << bits)
  }

  /// Adds a merge; as in the reference tokenizer, a later merge of a pair replaces an earlier one.
  mutating func insert(_ left: UInt32, _ right: UInt32, rank: UInt32, result: UInt32) {
    if 2 * count >= entries.count { grow() }
    let isNew = put(
      Entry(pair: UInt64(left) << 32 | UInt64(right), rank: rank, result: result))
    if isNew { count += 1 }
  }

  private mutating func grow() {
    let old = entries
    shift -= 1
    entries = Self.vacant(bits: 64 - shift)
    for entry in old where entry.pair != Self.vacant { _ = put(entry) }
  }

  /// Puts an entry in its slot; false if it replaces one.
  private mutating func put(_ entry: Entry) -> Bool {
    var slot = home(entry.pair)
    while entries[slot].pair != Self.vacant && entries[slot].pair != entry.pair {
      slot = (slot + 1) & (entries.count - 1)
    }
    let isNew = entries[slot].pair == Self.vacant
    entries[slot] = entry
    return isNew
  }

  /// The rank of the merge of two tokens and the token it makes.
  @inline(__always)
  func find(_ left: UInt32, _ right: UInt32) -> (rank: UInt32, result: UInt32) {
    let pair = UInt64(left) << 32 | UInt64(right)
    var slot = home(pair)
    while true {
      let entry = entries[slot]
      if entry.pair == pair || entry.pair == Self.vacant { return (entry.rank, entry.result) }
      slot = (slot + 1) & (entries.count - 1)
    }
  }

  @inline(__always)
  private func home(_ pair: UInt64) -> Int {
    Int(truncatingIfNeeded: (pair &* 0x9E37_79B9_7F4A_7C15) >> shift)
  }

  /// Merges the tokens of `word` until no pair of neighbours can be: always the pair of the lowest
  /// rank, the leftmost of several.
  ///
  /// - Complexity: O(*n*²) with a small constant for short words, O(*n* log *n*) for long ones.
  func merge(_ word: inout BytePairWord) {
    if word.tokens.count < Self.longWord { mergeShort(&word) } else { mergeLong(&word) }
  }

  /// Merges by looking for the lowest rank again before each merge.
  private func mergeShort(_ word: inout BytePairWord) {
    var count = word.tokens.count
    guard count > 1 else { return }
    word.ranks.removeAll(keepingCapacity: true)
    for index in 1..<count {
      word.ranks.append(find(word.tokens[index - 1], word.tokens[index]).rank)
    }
    while count > 1 {
      var (best, lowest) = (0, word.ranks[0])
      for index in 1..<max(count - 1, 1) where word.ranks[index] < lowest {
        (best, lowest) = (index, word.ranks[index])
      }
      if lowest == Self.noRank { break }
      word.tokens[best] = find(word.tokens[best], word.tokens[best + 1]).result
      count -= 1
      for index in best + 1..<max(count, best + 1) { word.tokens[index] = word.tokens[index + 1] }
      for index in best..<max(count - 1, best) { word.ranks[index] = word.ranks[index + 1] }
      if best + 1 < count {
        word.ranks[best] = find(word.tokens[best], word.tokens[best + 1]).rank
      }
      if best > 0 {
        word.ranks[best - 1] = find(word.tokens[best - 1], word.tokens[best]).rank
      }
    }
    word.tokens.removeLast(word.tokens.count - count)
  }

  /// Merges with a linked list of the tokens and a heap of the pairs that can be merged.
  private func mergeLong(_ word: inout BytePairWord) {
    let count = word.tokens.count
    precondition(count <= Int(UInt32.max), "Tokenizer: a word of \(count) bytes")
    var tokens = word.tokens
    var next = Array(1...count)  // `count` behind the last
    var previous = Array(-1..<count - 1)  // -1 before the first
    var heap = MergeHeap()
    /// Offers the pair whose left token is at `left` to the heap.
    func offer(_ left: Int) {
      let right = next[left]
      guard right < count else { return }
      let rank = find(tokens[left], tokens[right]).rank
      if rank != Self.noRank { heap.push(rank: rank, position: left) }
    }
    for left in 0..<count { offer(left) }
    while let (rank, left) = heap.pop() {
      // A pair is stale if one of its tokens was merged meanwhile; merged-away tokens have no next.
      let right = next[left]
      guard right > left, right < count else { continue }
      let merge = find(tokens[left], tokens[right])
      guard merge.rank == rank else { continue }
      tokens[left] = merge.result
      let behind = next[right]
      next[left] = behind
      next[right] = -1
      if behind < count { previous[behind] = left }
      offer(left)
      if previous[left] >= 0 { offer(previous[left]) }
    }
    word.tokens.removeAll(keepingCapacity: true)
    var position = 0
    while position < count {
      word.tokens.append(tokens[position])
      position = next[position]
    }
  }
}

/// The tokens of a word while they are merged, and room to work in.
struct BytePairWord {
  /// The tokens: one for each byte at first.
  var tokens: [UInt32] = []
  /// The ranks of the pairs of neighbours, while a short word is merged.
  fileprivate var ranks: [UInt32] = []

  init() {}
}

/// A binary heap of pairs to merge: the lowest rank first, and the leftmost of equal ranks.
private struct MergeHeap {
  /// The rank in the upper half and the position in the lower.
  private var keys: [UInt64] = []

  mutating func push(rank: UInt32, position: Int) {
    let key = UInt64(rank) << 32 | UInt64(UInt32(truncatingIfNeeded: position))
    var index = keys.count
    keys.append(key)
    while index > 0 {
      let parent = (index - 1) / 2
      if keys[parent] <= key { break }
      keys[index] = keys[parent]
      index = parent
    }
    keys[index] = key
  }

  mutating func pop() -> (rank: UInt32, position: Int)? {
    guard let top = keys.first, let last = keys.popLast() else { return nil }
    if !keys.isEmpty {
      var index = 0
      while true {
        var child = 2 * index + 1
        if child >= keys.count { break }
        if child + 1 < keys.count && keys[child + 1] < keys[child] { child += 1 }
        if keys[child] >= last { break }
        keys[index] = keys[child]
        index = child
      }
      keys[index] = last
    }
    return (UInt32(truncatingIfNeeded: top >> 32), Int(UInt32(truncatingIfNeeded: top)))
  }
}
