import HDF5Store
import Results
import Testing

@Suite struct JSONTests {
  @Test func readsEveryKindOfValue() throws {
    let text = #"""
      {"a": [1, -2.5e3, true, false, null], "b": {"c": "x\n\u00e9\ud83d\ude00\/é😀"},
       "": [], "eps": 1e12, "big": 9223372036854775807, "low": -9223372036854775808,
       "over": 9223372036854775808, "minus": -0}
      """#
    let value = try JSONScanner.parse(text)
    #expect(value.keys == ["a", "b", "", "eps", "big", "low", "over", "minus"])
    #expect(value["a"]?.array?.map(\.double) == [1, -2500, nil, nil, nil])
    #expect(value["a"]?.array?[2].bool == true)
    #expect(value["a"]?.array?[4] == .null)
    #expect(value["b"]?["c"]?.string == "x\né😀/é😀")
    #expect(value["eps"]?.integer == 1_000_000_000_000)
    #expect(value["big"]?.integer == Int.max)
    #expect(value["low"]?.integer == Int.min)
    #expect(value["over"]?.integer == nil)
    #expect(value["over"]?.double == 0x1p63)
    #expect(value["minus"]?.double?.sign == .minus)
  }

  @Test(arguments: [
    "", " ", "{", "[", "[1,]", "{\"a\":1,}", "{\"a\" 1}", "{a: 1}", "[1 2]", "01", "-", "1.", ".5",
    "1e", "+1", "nul", "truex", "1 2", "\"", "\"\\x\"", "\"\\u12g4\"", "\"\\ud800\"",
    "\"\\ud800\\u0041\"", "\"\\udc00\"", "\"a\nb\"", "1e999", "NaN", "Infinity", "[,1]", "{,}",
    "\u{feff}1", "'a'", "[1}", "{\"a\":}", "// x\n1", "\"\\", "[\"", "{\"a", "-a", "\"\\u",
  ])
  func refuses(text: String) {
    #expect(throws: JSONError.self) { try JSONScanner.parse(text) }
  }

  @Test func refusesWhatIsNotUTF8() {
    let texts: [[UInt8]] = [
      [0xff], [0xc0, 0xaf], [0xed, 0xa0, 0x80], [0xe2, 0x82], [0xf4, 0x90, 0x80, 0x80], [0x80],
    ]
    for text in texts {
      #expect(throws: JSONError.self) { try JSONScanner.parse([0x22] + text + [0x22]) }
      #expect(throws: JSONError.self) { try JSONScanner.parse([0x22] + text) }
    }
  }

  @Test func namesADuplicateKeyAndItsLine() {
    let error = #expect(throws: JSONError.self) {
      try JSONScanner.parse("{\n \"n_layer\": 1,\n \"n_layer\": 2}")
    }
    #expect(
      error == .duplicateKey(at: JSONError.Position(offset: 18, line: 3), key: "n_layer"))
    // The same key, spelled differently; and among many.
    #expect(throws: JSONError.self) { try JSONScanner.parse(#"{"a": 1, "\u0061": 2}"#) }
    let many = (0..<100).map { "\"k\($0)\": \($0)" }.joined(separator: ",")
    #expect(throws: JSONError.self) { try JSONScanner.parse("{\(many), \"k7\": 0}") }
    #expect(throws: Never.self) { try JSONScanner.parse("{\(many)}") }
  }

  @Test func endsDeepNesting() throws {
    let deep = String(repeating: "[", count: 64) + String(repeating: "]", count: 64)
    #expect(throws: Never.self) { try JSONScanner.parse(deep) }
    let error = #expect(throws: JSONError.self) {
      try JSONScanner.parse(String(repeating: "[", count: 1_000_000))
    }
    #expect(error == .tooDeep(at: JSONError.Position(offset: 64, line: 1), limit: 64))
    #expect(throws: JSONError.tooLong(bytes: 5, limit: 4)) {
      try JSONScanner.parse("[1,2]", limit: 4)
    }
  }

  @Test func everyPrefixOfATextIsAnError() {
    let text = Array(#"{"a": [1.5, "x\u00e9", {"b": null}], "c": true}"#.utf8)
    for count in 0..<text.count {
      #expect(throws: JSONError.self) { try JSONScanner.parse(Array(text[..<count])) }
    }
  }

  @Test func readsAVocabularyFast() throws {
    let members = (0..<50_000).map { "\"\\u0120tok\($0)\": \($0)" }
    let text = Array(("{" + members.joined(separator: ", ") + "}").utf8)
    var sum = 0
    var length = 0
    let clock = ContinuousClock()
    let time = try clock.measure {
      try JSONScanner.forEachMember(of: text.span) { key, value in
        sum += value
        length += key.count
      }
    }
    #expect(sum == 50_000 * 49_999 / 2)
    // A key decodes to "Ġtok" (5 bytes) and its digits.
    var expected = 0
    for index in 0..<50_000 { expected += 5 + String(index).utf8.count }
    #expect(length == expected)
    print("vocabulary of \(text.count) bytes: \(time)")

    let twice = Array(("{" + members.joined(separator: ",") + ", \"\\u0120tok77\": 1}").utf8)
    let error = #expect(throws: JSONError.self) {
      try JSONScanner.forEachMember(of: twice.span) { _, _ in }
    }
    #expect(error?.description.contains("'Ġtok77'") == true)
    #expect(throws: JSONError.self) {
      try JSONScanner.forEachMember(of: Array("{\"a\": 1.5}".utf8).span) { _, _ in }
    }
  }

  @Test func aFileInErrorNamesItsLine() throws {
    let scratch = try Scratch()
    try scratch.put("config.json", Array("{\"a\": 1,\n \"b\" 2}".utf8))
    let error = failure { _ = try JSONScanner.parseFile(scratch.path("config.json")) }
    #expect(error?.kind == .damaged)
    #expect(error?.description.contains("line 2") == true)
    #expect(failure { _ = try JSONScanner.parseFile(scratch.path("no.json")) }?.kind == .unreadable)
    #expect(failure { _ = try JSONScanner.parseFile(scratch.directory) }?.kind == .unreadable)
  }

  @Test func numbersOfValuesAreLimited() throws {
    let many = "[" + String(repeating: "0,", count: JSONScanner.treeLimit - 1) + "0]"
    #expect(try JSONScanner.parse(many).array?.count == JSONScanner.treeLimit)
    let tooMany = "[" + String(repeating: "0,", count: JSONScanner.treeLimit) + "0]"
    let error = #expect(throws: JSONError.self) { try JSONScanner.parse(tooMany) }
    #expect(error?.description.contains("at most 400000 values, found more") == true)
    // Nested ones count as well.
    let nested = "[" + String(repeating: "[[]],", count: 200_000) + "0]"
    #expect(throws: JSONError.self) { try JSONScanner.parse(nested) }
  }

  @Test func lengthsOfTextsAreLimited() throws {
    let key = String(repeating: "k", count: JSONScanner.keyLimit + 1)
    let keys = #expect(throws: JSONError.self) { try JSONScanner.parse("{\"\(key)\": 1}") }
    #expect(
      keys?.description == "JSON line 1, byte 1: expected at most 65536 bytes in a key, found more")
    let text = String(repeating: "t", count: JSONScanner.textLimit + 1)
    let texts = #expect(throws: JSONError.self) { try JSONScanner.parse("[\"\(text)\"]") }
    #expect(texts?.description.contains("at most 8388608 bytes in text") == true)
    #expect(throws: Never.self) { try JSONScanner.parse("[\"\(text.dropFirst(10))\"]") }
  }

  @Test func aKeyInEscapesIsTheSameKey() throws {
    // Among many, where keys are found by their hashes.
    let many = (0..<5000).map { "\"k\($0)é\": \($0)" }.joined(separator: ",")
    let error = #expect(throws: JSONError.self) {
      try JSONScanner.parse("{\(many), \"\\u006b77\\u00e9\": 0}")
    }
    #expect(error?.description.contains("'k77é' again") == true)
    // Equal to a reader, but not the same bytes.
    #expect(throws: Never.self) { try JSONScanner.parse("{\"é\": 1, \"e\u{301}\": 2}") }
  }

  @Test func messagesAreOneShortLine() throws {
    let key = String(repeating: "long", count: 100) + "\\n\\u0007\\u2028"
    let error = #expect(throws: JSONError.self) {
      try JSONScanner.parse("{\"a\\nb\\u2028\": 1, \"a\\nb\\u2028\": 2}")
    }
    #expect(error?.description.hasSuffix("found 'a\\u{a}b\\u{2028}' again") == true)
    let long = #expect(throws: JSONError.self) {
      try JSONScanner.parse("{\"\(key)\": 1, \"\(key)\": 2}")
    }
    #expect((long?.description.utf8.count ?? 1000) < 250)
  }
}
