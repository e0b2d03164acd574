import NormLens

/// Damages bytes by chance, repeatably: a seed and a number determine each mutation.
public struct Mutator {
  /// A damaged copy and what was done to it.
  public struct Mutant {
    /// The bytes.
    public var bytes: [UInt8]
    /// What was done, in a few words.
    public var description: String
  }

  /// The seed of a run.
  public let seed: UInt64

  /// A source of mutations.
  public init(seed: UInt64) { self.seed = seed }

  /// Mutation `number` of `bytes`.
  ///
  /// - Parameters:
  ///   - focus: where half of the damage goes: the header of a file that is mostly numbers.
  ///   - isText: whether numbers are digits and some mutations exchange words.
  public func mutant(
    _ number: Int, of bytes: [UInt8], focus: Range<Int>? = nil, isText: Bool = false
  ) -> Mutant {
    var generator = SeededGenerator(seed: seed &+ UInt64(number) &* 0x9e37_79b9_7f4a_7c15)
    var mutant = Mutant(bytes: bytes, description: "")
    // One damage in most cases, a few in others.
    for _ in 0..<(Int.random(in: 0..<4, using: &generator) == 0 ? 3 : 1) {
      Mutation(focus: focus, isText: isText).apply(to: &mutant, &generator)
    }
    return mutant
  }
}

/// One damage.
private struct Mutation {
  let focus: Range<Int>?
  let isText: Bool

  func apply(to mutant: inout Mutator.Mutant, _ generator: inout SeededGenerator) {
    guard !mutant.bytes.isEmpty else { return }
    if !mutant.description.isEmpty { mutant.description += ", " }
    switch Int.random(in: 0..<(isText ? 14 : 11), using: &generator) {
    case 0, 1: flip(&mutant, 1, &generator)
    case 2: flip(&mutant, Int.random(in: 2...8, using: &generator), &generator)
    case 3: overwrite(&mutant, &generator)
    case 4: remove(&mutant, &generator)
    case 5: insert(&mutant, &generator)
    case 6: cut(&mutant, &generator)
    case 7: splice(&mutant, &generator)
    case 8: duplicate(&mutant, &generator)
    case 9, 10: setInteger(&mutant, &generator)
    default: exchangeWord(&mutant, &generator)
    }
  }

  private func place(_ count: Int, _ generator: inout SeededGenerator) -> Int {
    if let focus, Bool.random(using: &generator), focus.lowerBound < count {
      return Int.random(in: focus.lowerBound..<min(focus.upperBound, count), using: &generator)
    }
    return Int.random(in: 0..<count, using: &generator)
  }

  private func block(_ count: Int, _ generator: inout SeededGenerator) -> Range<Int> {
    let start = place(count, &generator)
    // Short blocks and long ones alike.
    let longest = 1 << Int.random(in: 0...12, using: &generator)
    return start..<min(count, start + Int.random(in: 1...longest, using: &generator))
  }

  private func flip(
    _ mutant: inout Mutator.Mutant, _ times: Int, _ generator: inout SeededGenerator
  ) {
    for _ in 0..<times {
      let place = place(mutant.bytes.count, &generator)
      let bit = Int.random(in: 0..<8, using: &generator)
      mutant.bytes[place] ^= 1 << UInt8(bit)
      mutant.description += "bit \(bit) of byte \(place) flipped "
    }
  }

  private func overwrite(_ mutant: inout Mutator.Mutant, _ generator: inout SeededGenerator) {
    let start = place(mutant.bytes.count, &generator)
    let end = min(mutant.bytes.count, start + Int.random(in: 1...16, using: &generator))
    let value: UInt8? = [0, 0xff, nil].randomElement(using: &generator) ?? nil
    for index in start..<end {
      mutant.bytes[index] = value ?? UInt8.random(in: 0...255, using: &generator)
    }
    mutant.description += "bytes \(start)..<\(end) set to \(value.map { "\($0)" } ?? "chance")"
  }

  private func remove(_ mutant: inout Mutator.Mutant, _ generator: inout SeededGenerator) {
    let block = block(mutant.bytes.count, &generator)
    mutant.bytes.removeSubrange(block)
    mutant.description += "bytes \(block) removed"
  }

  private func insert(_ mutant: inout Mutator.Mutant, _ generator: inout SeededGenerator) {
    let place = place(mutant.bytes.count, &generator)
    let count = Int.random(in: 1...64, using: &generator)
    let new = (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) }
    mutant.bytes.insert(contentsOf: new, at: place)
    mutant.description += "\(count) bytes inserted at \(place)"
  }

  private func cut(_ mutant: inout Mutator.Mutant, _ generator: inout SeededGenerator) {
    // Anywhere, or close to the end.
    let count = mutant.bytes.count
    let isClose = Bool.random(using: &generator)
    let kept =
      isClose
      ? count - Int.random(in: 1...min(64, count), using: &generator)
      : Int.random(in: 0..<count, using: &generator)
    mutant.bytes.removeSubrange(kept...)
    mutant.description += "cut to \(kept) bytes"
  }

  private func splice(_ mutant: inout Mutator.Mutant, _ generator: inout SeededGenerator) {
    let source = block(mutant.bytes.count, &generator)
    let copy = Array(mutant.bytes[source])
    let start = place(mutant.bytes.count, &generator)
    let end = min(mutant.bytes.count, start + copy.count)
    mutant.bytes.replaceSubrange(start..<end, with: copy.prefix(end - start))
    mutant.description += "bytes \(source) copied over those at \(start)"
  }

  private func duplicate(_ mutant: inout Mutator.Mutant, _ generator: inout SeededGenerator) {
    let source = block(mutant.bytes.count, &generator)
    mutant.bytes.insert(contentsOf: Array(mutant.bytes[source]), at: source.upperBound)
    mutant.description += "bytes \(source) doubled"
  }

  private func setInteger(_ mutant: inout Mutator.Mutant, _ generator: inout SeededGenerator) {
    let width = [1, 2, 4, 8].randomElement(using: &generator) ?? 8
    let count = mutant.bytes.count
    guard count >= width else { return }
    let start = min(place(count, &generator) / width * width, count - width)
    let size = UInt64(count)
    let values: [UInt64] = [
      0, 1, .max, .max - 1, 1 << 63, 1 << 63 - 1, 1 << 31, 1 << 31 - 1, 1 << 32, 1 << 32 - 1,
      1 << 15, 1 << 40, size, size - 1, size + 1, size / 2, UInt64(start),
    ]
    let value = values.randomElement(using: &generator) ?? 0
    for index in 0..<width {
      mutant.bytes[start + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * index))
    }
    mutant.description += "\(8 * width)-bit integer at \(start) set to \(value)"
  }

  /// Replaces a number, or a structural character, by something else of the kind.
  private func exchangeWord(_ mutant: inout Mutator.Mutant, _ generator: inout SeededGenerator) {
    let limit = min(mutant.bytes.count, focus?.upperBound ?? mutant.bytes.count)
    let start = place(limit, &generator)
    let isDigit = { (byte: UInt8) in (0x30...0x39).contains(byte) }
    guard let first = mutant.bytes[start..<limit].firstIndex(where: isDigit) else { return }
    let end = mutant.bytes[first..<limit].firstIndex { !isDigit($0) } ?? limit
    let words = [
      "0", "-1", "1", "9223372036854775807", "9223372036854775808", "-9223372036854775808",
      "18446744073709551616", "1e999", "1e12", "0.5", "null", "true", "[]", "{}", "\"\"", "NaN",
      "\"\\ud800\"", "\"\\n\\u0000\"", "4294967296", "2147483648", "[[[[[[[[1]]]]]]]]",
    ]
    let word = words.randomElement(using: &generator) ?? "0"
    mutant.bytes.replaceSubrange(first..<end, with: word.utf8)
    mutant.description += "number at \(first) replaced by \(word)"
  }
}
