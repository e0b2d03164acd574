/// GPT-2's pre-tokenisation: cuts a text into the words that merges never cross.
///
/// The same cuts as this pattern, matched again and again from the left:
///
///     's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
///
/// where letters (`\p{L}`), numbers (`\p{N}`) and white space (`\s`) are what the reference
/// tokenizer takes them to be (``UnicodeClasses``).
enum PreTokenizer {
  /// Where the word that starts at `start` ends, in a text that ends at `end`.
  ///
  /// - Precondition: `utf8` is valid UTF-8, and `start < end` lie between two scalars of it.
  @inline(__always)
  static func endOfWord(in utf8: Span<UInt8>, from start: Int, to end: Int) -> Int {
    let first = utf8[start]
    var next = start + 1
    if first == UInt8(ascii: " ") {
      // A single space belongs to the word behind it.
      guard next < end else { return end }
      let kind = classify(utf8, &next)
      if kind != .space { return endOfRun(of: kind, in: utf8, from: next, to: end) }
      return endOfWhiteSpace(in: utf8, from: start, to: end)
    }
    if first == UInt8(ascii: "'"), next < end {
      let length = contraction(in: utf8, from: next, to: end)
      if length > 0 { return next + length }
    }
    next = start
    let kind = classify(utf8, &next)
    if kind != .space { return endOfRun(of: kind, in: utf8, from: next, to: end) }
    return endOfWhiteSpace(in: utf8, from: start, to: end)
  }

  /// Where the run of scalars of class `kind` that goes through `start` ends.
  @inline(__always)
  private static func endOfRun(
    of kind: UnicodeClass, in utf8: Span<UInt8>, from start: Int, to end: Int
  ) -> Int {
    var position = start
    while position < end {
      var next = position
      if classify(utf8, &next) != kind { break }
      position = next
    }
    return position
  }

  /// Where the white space that starts at `start` ends: before its last scalar if a word follows.
  private static func endOfWhiteSpace(in utf8: Span<UInt8>, from start: Int, to end: Int) -> Int {
    var last = start
    var position = start
    while position < end {
      var next = position
      if classify(utf8, &next) != .space { return last > start ? last : position }
      last = position
      position = next
    }
    return end
  }

  /// The length of the contraction `s`, `t`, `m`, `d`, `re`, `ve` or `ll` at `start`, or 0.
  private static func contraction(in utf8: Span<UInt8>, from start: Int, to end: Int) -> Int {
    switch utf8[start] {
    case UInt8(ascii: "s"), UInt8(ascii: "t"), UInt8(ascii: "m"), UInt8(ascii: "d"):
      return 1
    case UInt8(ascii: "r"), UInt8(ascii: "v"):
      return start + 1 < end && utf8[start + 1] == UInt8(ascii: "e") ? 2 : 0
    case UInt8(ascii: "l"):
      return start + 1 < end && utf8[start + 1] == UInt8(ascii: "l") ? 2 : 0
    default:
      return 0
    }
  }

  /// The class of the scalar at `position`, which moves behind it.
  @inline(__always)
  private static func classify(_ utf8: Span<UInt8>, _ position: inout Int) -> UnicodeClass {
    let byte = utf8[position]
    if byte < 0x80 {
      position += 1
      return asciiClass(byte)
    }
    return classifyWide(utf8, &position)
  }

  /// ``classify(_:_:)`` of a scalar of two to four bytes.
  @inline(never)
  private static func classifyWide(_ utf8: Span<UInt8>, _ position: inout Int) -> UnicodeClass {
    let lead = utf8[position]
    var scalar: UInt32
    let length: Int
    if lead < 0xE0 {
      (scalar, length) = (UInt32(lead & 0x1F), 2)
    } else if lead < 0xF0 {
      (scalar, length) = (UInt32(lead & 0x0F), 3)
    } else {
      (scalar, length) = (UInt32(lead & 0x07), 4)
    }
    for index in position + 1..<position + length {
      scalar = scalar << 6 | UInt32(utf8[index] & 0x3F)
    }
    position += length
    return tableClass(scalar)
  }

  /// The class of an ASCII character.
  @inline(__always)
  static func asciiClass(_ byte: UInt8) -> UnicodeClass {
    if (byte | 0x20) &- UInt8(ascii: "a") < 26 { return .letter }
    if byte == UInt8(ascii: " ") || byte &- UInt8(ascii: "\t") < 5 { return .space }
    return byte &- UInt8(ascii: "0") < 10 ? .number : .other
  }

  /// The class of any scalar, by binary search.
  static func tableClass(_ scalar: UInt32) -> UnicodeClass {
    let runs = UnicodeClasses.runs
    let key = scalar << 2 | 3
    // The run at `low` starts at or before the scalar, the one at `high` behind it.
    var (low, high) = (0, runs.count)
    while high - low > 1 {
      let middle = (low + high) / 2
      if runs[middle] <= key { low = middle } else { high = middle }
    }
    return UnicodeClass(rawValue: UInt8(truncatingIfNeeded: runs[low] & 3)) ?? .other
  }
}
