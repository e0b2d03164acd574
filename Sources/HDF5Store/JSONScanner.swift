import OrderedCollections

/// A strict streaming JSON parser with limits.
///
/// It accepts exactly the JSON of RFC 8259, in UTF-8 without a byte order mark; a duplicate key, a
/// lone surrogate or anything after the value is an error. Memory stays below twice the text and
/// 64 MB, because the number of values and the length of each text are limited, and nesting is
/// limited to ``depthLimit``. The members of an object are handed over one by one, so a caller that
/// knows what it wants builds no tree.
public struct JSONScanner {
  /// The most levels of arrays and objects.
  public static let depthLimit = 64
  /// The most bytes that are read where the caller names no other limit.
  public static let defaultLimit = 64 << 20
  /// The most elements and members of all arrays and objects together.
  public static let valueLimit = 1_000_000
  /// The most of them where a tree is made, which takes up to 150 bytes for each.
  public static let treeLimit = 400_000
  /// The most bytes of a key.
  public static let keyLimit = 64 << 10
  /// The most bytes of a text.
  public static let textLimit = 8 << 20

  private let base: UnsafePointer<UInt8>?
  private let count: Int
  private var position = 0
  private var depth = 0
  /// The most bytes of one string, where a caller expects shorter ones than the limits above allow.
  public var stringLimit = Int.max
  /// How many more elements and members there may be, and how many there may be at all.
  private var valuesLeft: Int
  private let values: Int
  /// The decoded bytes of the string read last, reused.
  private var scratch: [UInt8] = []

  // MARK: Entry points

  /// Parses a whole text into a tree.
  ///
  /// - Parameters:
  ///   - bytes: the text in UTF-8.
  ///   - limit: the most bytes that are accepted.
  /// - Throws: ``JSONError`` with the place of the first fault.
  public static func parse(
    _ bytes: Span<UInt8>, limit: Int = defaultLimit
  ) throws(JSONError) -> JSONValue {
    try scan(bytes, limit: limit, values: treeLimit) {
      (scanner: inout JSONScanner) throws(JSONError) -> JSONValue in
      try scanner.value()
    }
  }

  /// Parses a whole text into a tree.
  public static func parse(
    _ bytes: [UInt8], limit: Int = defaultLimit
  ) throws(JSONError) -> JSONValue {
    try parse(bytes.span, limit: limit)
  }

  /// Parses a whole text into a tree.
  public static func parse(
    _ text: String, limit: Int = defaultLimit
  ) throws(JSONError) -> JSONValue {
    try parse(Array(text.utf8), limit: limit)
  }

  /// Parses the file at `path` into a tree.
  ///
  /// - Throws: ``HDF5Error``; a fault in the text is `damaged`, with its line.
  public static func parseFile(
    _ path: String, limit: Int = defaultLimit
  ) throws(HDF5Error) -> JSONValue {
    let file = try MappedFile(path: path)
    do throws(JSONError) {
      return try file.withBytes { (bytes: UnsafeRawBufferPointer) throws(JSONError) -> JSONValue in
        try parse(bytes.bindMemory(to: UInt8.self).span, limit: limit)
      }
    } catch {
      throw .damaged(
        path: path, object: error.place, expected: error.expected, found: error.found)
    }
  }

  /// Reads one value with a scanner and checks that nothing follows it.
  ///
  /// - Parameters:
  ///   - bytes: the text in UTF-8.
  ///   - limit: the most bytes that are accepted.
  ///   - values: the most elements and members of all arrays and objects together.
  public static func scan<R>(
    _ bytes: Span<UInt8>, limit: Int = defaultLimit, values: Int = valueLimit,
    _ body: (inout JSONScanner) throws(JSONError) -> R
  ) throws(JSONError) -> R {
    let limit = min(limit, JSONKeys.textLimit)
    guard bytes.count <= limit else { throw .tooLong(bytes: bytes.count, limit: limit) }
    return try bytes.withUnsafeBufferPointer {
      (buffer: UnsafeBufferPointer<UInt8>) throws(JSONError) -> R in
      var scanner = JSONScanner(base: buffer.baseAddress, count: buffer.count, values: values)
      let result = try body(&scanner)
      try scanner.finish()
      return result
    }
  }

  /// Calls `body` with each member of an object whose values are all whole numbers, such as a
  /// vocabulary, in order. The key arrives as decoded UTF-8 bytes, valid during the call.
  ///
  /// - Complexity: O(bytes); a vocabulary of 50,000 tokens takes a few milliseconds.
  public static func forEachMember(
    of bytes: Span<UInt8>, limit: Int = defaultLimit, _ body: (Span<UInt8>, Int) -> Void
  ) throws(JSONError) {
    try scan(bytes, limit: limit) { (scanner: inout JSONScanner) throws(JSONError) in
      try scanner.flatObject(body)
    }
  }

  private init(base: UnsafePointer<UInt8>?, count: Int, values: Int) {
    self.base = base
    self.count = count
    self.values = values
    self.valuesLeft = values
  }

  // MARK: Values

  /// Reads any value as a tree.
  public mutating func value() throws(JSONError) -> JSONValue {
    switch next() {
    case UInt8(ascii: "{"):
      var members: OrderedDictionary<String, JSONValue> = [:]
      try object { (scanner: inout JSONScanner, key: String) throws(JSONError) in
        members[key] = try scanner.value()
      }
      return .object(members)
    case UInt8(ascii: "["):
      var elements: [JSONValue] = []
      try array { (scanner: inout JSONScanner) throws(JSONError) in
        elements.append(try scanner.value())
      }
      return .array(elements)
    case UInt8(ascii: "\""): return .string(try string())
    case UInt8(ascii: "t"):
      try word("true")
      return .bool(true)
    case UInt8(ascii: "f"):
      try word("false")
      return .bool(false)
    case UInt8(ascii: "n"):
      try word("null")
      return .null
    case UInt8(ascii: "-"), .some(0x30...0x39): return .number(try number())
    default: throw unexpected("a value")
    }
  }

  /// Reads an object; `member` is called after each key and must read its value.
  ///
  /// - Parameter distinct: whether a key that occurs twice is an error. A caller that finds such
  ///   keys itself saves the memory for them.
  public mutating func object(
    distinct: Bool = true, _ member: (inout JSONScanner, String) throws(JSONError) -> Void
  ) throws(JSONError) {
    try enter("{", "an object")
    var keys: JSONKeys? = distinct ? JSONKeys() : nil
    var isFirst = true
    while try element(before: "}", isFirst: &isFirst, expected: "a key or '}'") {
      let start = position
      try key(into: &keys, start: start)
      try member(&self, String(decoding: scratch, as: UTF8.self))
    }
  }

  /// Reads an array; `element` is called before each element and must read it.
  public mutating func array(
    _ element: (inout JSONScanner) throws(JSONError) -> Void
  ) throws(JSONError) {
    try enter("[", "an array")
    var isFirst = true
    while try self.element(before: "]", isFirst: &isFirst, expected: "a value or ']'") {
      try element(&self)
    }
  }

  /// The error of a caller that finds, at this place, more than `limit` of what it looks for.
  public func tooMany(_ what: String, limit: Int) -> JSONError {
    .tooMany(at: place(position), what: what, limit: limit)
  }

  /// Reads text.
  public mutating func string() throws(JSONError) -> String {
    try stringBytes("text")
    return String(decoding: scratch, as: UTF8.self)
  }

  /// Reads a whole number.
  public mutating func integer() throws(JSONError) -> Int {
    _ = next()
    let start = position
    guard let integer = try number().integer else {
      throw .unexpected(
        at: place(start), expected: "a whole number of at most 64 bits", found: "another number")
    }
    return integer
  }

  /// Reads a number.
  public mutating func number() throws(JSONError) -> JSONNumber {
    let first = next()
    let start = position
    let isNegative = first == UInt8(ascii: "-")
    if isNegative { position += 1 }
    let digitsStart = position
    var magnitude: UInt64 = 0
    var fits = true
    while let digit = digit() {
      let (tens, overflow) = magnitude.multipliedReportingOverflow(by: 10)
      let (sum, carry) = tens.addingReportingOverflow(UInt64(digit))
      fits = fits && !overflow && !carry
      magnitude = sum
      position += 1
    }
    let digits = position - digitsStart
    guard digits > 0 else { throw unexpected(isNegative ? "a digit" : "a number") }
    guard digits == 1 || base?[digitsStart] != UInt8(ascii: "0") else {
      throw .unexpected(
        at: place(start), expected: "a number", found: "one with a leading zero")
    }
    var isInteger = true
    if peek == UInt8(ascii: ".") {
      isInteger = false
      position += 1
      guard digit() != nil else { throw unexpected("a digit") }
      while digit() != nil { position += 1 }
    }
    if peek == UInt8(ascii: "e") || peek == UInt8(ascii: "E") {
      isInteger = false
      position += 1
      if peek == UInt8(ascii: "+") || peek == UInt8(ascii: "-") { position += 1 }
      guard digit() != nil else { throw unexpected("a digit") }
      while digit() != nil { position += 1 }
    }
    if isInteger, fits, let integer = Int(exactly: magnitude) {
      let signed = isNegative ? -integer : integer
      // -0 is a number, but the integer 0 has lost its sign: both are kept.
      let double = isNegative && integer == 0 ? -0.0 : Double(signed)
      return JSONNumber(double: double, integer: signed)
    }
    // 1,000 digits say more than any Double holds.
    guard position - start <= 1000 else {
      throw .unexpected(
        at: place(start), expected: "a number of at most 1000 characters", found: "a longer one")
    }
    let text = String(
      decoding: UnsafeBufferPointer(rebasing: buffer[start..<position]), as: UTF8.self)
    guard let double = Double(text), double.isFinite else {
      throw .unexpected(at: place(start), expected: "a number within Double's range", found: text)
    }
    let isMinimum = isInteger && fits && isNegative && magnitude == UInt64(Int.max) + 1
    let whole = double.magnitude <= 0x1p53 ? Int(exactly: double) : nil
    return JSONNumber(
      double: double, integer: isMinimum ? Int.min : isInteger ? nil : whole,
      isFractional: !isInteger)
  }

  /// Reads `true` or `false`.
  public mutating func bool() throws(JSONError) -> Bool {
    guard case .bool(let value) = try value() else { throw unexpected("true or false before this") }
    return value
  }

  /// Reads any value and forgets it; it must be valid all the same.
  public mutating func skip() throws(JSONError) {
    switch next() {
    case UInt8(ascii: "{"):
      try object { (scanner: inout JSONScanner, _) throws(JSONError) in try scanner.skip() }
    case UInt8(ascii: "["):
      try array { (scanner: inout JSONScanner) throws(JSONError) in try scanner.skip() }
    case UInt8(ascii: "\""): try stringBytes("text")
    default: _ = try value()
    }
  }

  private mutating func flatObject(
    _ body: (Span<UInt8>, Int) -> Void
  ) throws(JSONError) {
    try enter("{", "an object")
    var keys: JSONKeys? = JSONKeys()
    var isFirst = true
    var name: [UInt8] = []
    while try element(before: "}", isFirst: &isFirst, expected: "a key or '}'") {
      let start = position
      try key(into: &keys, start: start)
      // The value's own text must not overwrite the key's bytes.
      swap(&name, &scratch)
      let value = try integer()
      body(name.span, value)
    }
  }

  /// The byte that the next value starts with; nil at the end of the text.
  public var upcoming: UInt8? { mutating get { next() } }

  /// What a caller throws that reads something else than it expects: an error at this place.
  public func fault(expected: String, found: String) -> JSONError {
    .unexpected(at: place(position), expected: expected, found: found)
  }

  // MARK: Structure

  private mutating func enter(_ bracket: Unicode.Scalar, _ what: String) throws(JSONError) {
    guard next() == UInt8(ascii: bracket) else { throw unexpected(what) }
    depth += 1
    guard depth <= JSONScanner.depthLimit else {
      throw .tooDeep(at: place(position), limit: JSONScanner.depthLimit)
    }
    position += 1
  }

  /// Moves to the next element; false at the end of the array or object, which it steps over.
  private mutating func element(
    before bracket: Unicode.Scalar, isFirst: inout Bool, expected: String
  ) throws(JSONError) -> Bool {
    let byte = next()
    if byte == UInt8(ascii: bracket) {
      position += 1
      depth -= 1
      return false
    }
    guard valuesLeft > 0 else { throw tooMany("values", limit: values) }
    valuesLeft -= 1
    if isFirst {
      isFirst = false
      guard byte != nil, byte != UInt8(ascii: ",") else { throw unexpected(expected) }
      return true
    }
    guard byte == UInt8(ascii: ",") else { throw unexpected("',' or '\(bracket)'") }
    position += 1
    // A comma promises another element.
    let following = next()
    guard following != nil, following != UInt8(ascii: bracket) else {
      throw unexpected("an element after ','")
    }
    return true
  }

  /// Reads a key and its colon; the key is in `scratch`.
  private mutating func key(into keys: inout JSONKeys?, start: Int) throws(JSONError) {
    try stringBytes("a key", limit: JSONScanner.keyLimit)
    if keys != nil {
      let (text, key) = (self, scratch)
      let isNew = keys?.insert(key, at: start) { other in text.hasString(key, at: other) } ?? true
      guard isNew else {
        throw .duplicateKey(at: place(start), key: String(decoding: scratch, as: UTF8.self))
      }
    }
    guard next() == UInt8(ascii: ":") else { throw unexpected("':'") }
    position += 1
  }

  /// Whether the text at `place`, which has been read before, is `string` once it is decoded.
  private func hasString(_ string: [UInt8], at place: Int) -> Bool {
    var scanner = JSONScanner(base: base, count: count, values: 0)
    scanner.position = place
    do throws(JSONError) {
      try scanner.stringBytes("a key")
    } catch {
      return false
    }
    return scanner.scratch == string
  }

  private mutating func word(_ word: StaticString) throws(JSONError) {
    let text = word.description
    for byte in text.utf8 {
      guard peek == byte else { throw unexpected("'\(text)'") }
      position += 1
    }
  }

  private mutating func finish() throws(JSONError) {
    guard next() == nil else { throw unexpected("the end of the text") }
  }

  // MARK: Text

  /// Reads a string into `scratch`, decoded.
  private mutating func stringBytes(
    _ what: String, limit: Int = textLimit
  ) throws(JSONError) {
    guard next() == UInt8(ascii: "\""), let base else { throw unexpected(what) }
    let (start, limit) = (position, min(limit, stringLimit))
    position += 1
    scratch.removeAll(keepingCapacity: true)
    while true {
      // The longest run of plain ASCII, in one go.
      let runStart = position
      while position < count {
        let byte = base[position]
        if byte < 0x20 || byte >= 0x80 || byte == 0x22 || byte == 0x5c { break }
        position += 1
      }
      guard position - start <= limit else {
        throw .tooMany(at: place(start), what: "bytes in \(what)", limit: limit)
      }
      if position > runStart {
        scratch.append(contentsOf: UnsafeBufferPointer(rebasing: buffer[runStart..<position]))
      }
      guard position < count else {
        throw .unexpected(
          at: place(start), expected: "text that ends with '\"'", found: "the end of the text")
      }
      switch base[position] {
      case 0x22:
        position += 1
        return
      case 0x5c: try escape()
      case 0x80...: try multibyte()
      default: throw unexpected("a character or an escape, not a control character")
      }
    }
  }

  private mutating func escape() throws(JSONError) {
    let start = position
    position += 1
    guard let kind = peek else { throw unexpected("an escape") }
    position += 1
    switch kind {
    case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): scratch.append(kind)
    case UInt8(ascii: "b"): scratch.append(0x08)
    case UInt8(ascii: "f"): scratch.append(0x0c)
    case UInt8(ascii: "n"): scratch.append(0x0a)
    case UInt8(ascii: "r"): scratch.append(0x0d)
    case UInt8(ascii: "t"): scratch.append(0x09)
    case UInt8(ascii: "u"):
      var code = try hexadecimal()
      if (0xd800..<0xdc00).contains(code) {
        guard peek == UInt8(ascii: "\\"), position + 1 < count,
          base?[position + 1] == UInt8(ascii: "u")
        else { throw lone(start) }
        position += 2
        let low = try hexadecimal()
        guard (0xdc00..<0xe000).contains(low) else { throw lone(start) }
        code = 0x10000 + (code - 0xd800) << 10 + (low - 0xdc00)
      }
      guard let scalar = Unicode.Scalar(code) else { throw lone(start) }
      UTF8.encode(scalar).map { scratch.append(contentsOf: $0) }
    default:
      position -= 1
      throw unexpected("one of \" \\ / b f n r t u")
    }
  }

  private func lone(_ start: Int) -> JSONError {
    .unexpected(
      at: place(start), expected: "a pair of surrogates", found: "one surrogate alone")
  }

  private mutating func hexadecimal() throws(JSONError) -> UInt32 {
    var code: UInt32 = 0
    for _ in 0..<4 {
      guard let byte = peek else { throw unexpected("four hexadecimal digits") }
      let digit: UInt8
      switch byte {
      case 0x30...0x39: digit = byte - 0x30
      case 0x41...0x46: digit = byte - 0x41 + 10
      case 0x61...0x66: digit = byte - 0x61 + 10
      default: throw unexpected("four hexadecimal digits")
      }
      code = code << 4 | UInt32(digit)
      position += 1
    }
    return code
  }

  /// Copies one character of two to four bytes, checking that it is well-formed (Unicode, table
  /// 3-7): no overlong forms, no surrogates, nothing above U+10FFFF.
  private mutating func multibyte() throws(JSONError) {
    guard let base else { return }
    let lead = base[position]
    let length: Int
    var second: ClosedRange<UInt8> = 0x80...0xbf
    switch lead {
    case 0xc2...0xdf: length = 2
    case 0xe0...0xef:
      length = 3
      if lead == 0xe0 { second = 0xa0...0xbf }
      if lead == 0xed { second = 0x80...0x9f }
    case 0xf0...0xf4:
      length = 4
      if lead == 0xf0 { second = 0x90...0xbf }
      if lead == 0xf4 { second = 0x80...0x8f }
    default: throw unexpected("UTF-8")
    }
    guard position + length <= count, second.contains(base[position + 1]) else {
      throw unexpected("UTF-8")
    }
    for index in 2..<max(length, 2) where base[position + index] & 0xc0 != 0x80 {
      throw unexpected("UTF-8")
    }
    for index in 0..<length { scratch.append(base[position + index]) }
    position += length
  }

  // MARK: Bytes

  private var buffer: UnsafeBufferPointer<UInt8> { UnsafeBufferPointer(start: base, count: count) }

  private var peek: UInt8? { position < count ? base?[position] : nil }

  private func digit() -> UInt8? {
    guard let byte = peek, byte >= 0x30, byte <= 0x39 else { return nil }
    return byte - 0x30
  }

  /// The next byte that is not white space, without stepping over it.
  private mutating func next() -> UInt8? {
    while let byte = peek {
      guard byte == 0x20 || byte == 0x0a || byte == 0x0d || byte == 0x09 else { return byte }
      position += 1
    }
    return nil
  }

  private func place(_ offset: Int) -> JSONError.Position {
    var line = 1
    for index in 0..<min(offset, count) where base?[index] == 0x0a { line += 1 }
    return JSONError.Position(offset: offset, line: line)
  }

  private func unexpected(_ expected: String) -> JSONError {
    let found: String
    if let byte = peek {
      found =
        byte > 0x20 && byte < 0x7f
        ? "'\(Unicode.Scalar(byte))'" : "byte 0x" + String(byte, radix: 16)
    } else {
      found = "the end of the text"
    }
    return .unexpected(at: place(position), expected: expected, found: found)
  }
}
