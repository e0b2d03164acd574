import NormLens
import TestSupport
import Testing

/// Long texts cut into windows.
@Suite struct TextWindowsTests {
  @Test func everyTokenOnceAndBOSInFrontOfEach() {
    let cut = TextWindows([9, 1, 2, 3, 4, 5, 6, 7], length: 4, hasBOS: true)
    #expect(cut.windows == [[9, 1, 2, 3], [9, 4, 5, 6], [9, 7]])
    #expect(cut.dropped == 0)
  }

  @Test func aTokenAloneIsDropped() {
    let cut = TextWindows([1, 2, 3, 4, 5], length: 2, hasBOS: false)
    #expect(cut.windows == [[1, 2], [3, 4]])
    #expect(cut.dropped == 1)
    #expect(TextWindows([1, 2, 3, 4], length: 2, hasBOS: false).dropped == 0)
  }

  @Test func whatFitsStaysWhole() {
    for tokens in [[], [1], [1, 2], [1, 2, 3]] {
      for hasBOS in [true, false] {
        let cut = TextWindows(tokens, length: 3, hasBOS: hasBOS)
        #expect(cut.windows == [tokens])
        #expect(cut.dropped == 0)
      }
    }
  }

  /// The shortest windows: BOS and one token each.
  @Test func windowsOfTwo() {
    let cut = TextWindows([9, 1, 2, 3], length: 2, hasBOS: true)
    #expect(cut.windows == [[9, 1], [9, 2], [9, 3]])
  }

  @Test func ofText() throws {
    let model = try GPT2.load(Fixtures.bundled("mini"))
    let text = String(repeating: "The cat sat on the mat. ", count: 60)
    let whole = try model.tokens(text)
    let bos = whole[0]
    for length in [2, 7, 128] {
      let with = try model.windows(of: text, length: length)
      #expect(with.windows.flatMap { $0.dropFirst() } == Array(whole.dropFirst()))
      #expect(with.windows.allSatisfy { $0[0] == bos && (2...length).contains($0.count) })
      let without = try model.windows(of: text, length: length, prependBOS: false)
      #expect(
        without.windows.flatMap { $0 } == Array(whole.dropFirst().dropLast(without.dropped)))
    }
  }
}
