import Foundation
import TestSupport
import Testing

/// Whole outputs held against recorded ones in `Snapshots/`; `RECORD_SNAPSHOTS=1` records them anew.
///
/// Numbers may differ in the last digit from one processor to the next, so numbers with a decimal
/// point or an exponent need only agree within 2e-3 (absolutely or relatively). Everything else,
/// whole numbers included, must be the same to the byte.
enum Snapshot {
  static let tolerance = 2e-3
  static let isRecording = ProcessInfo.processInfo.environment["RECORD_SNAPSHOTS"] == "1"

  /// Compares `text` with the snapshot `name`.
  ///
  /// - Parameter columnsMayMove: whether the width of gaps and rules is ignored, for tables of
  ///   numbers with so many significant digits that another last digit makes another width.
  static func expect(
    _ text: String, _ name: String, columnsMayMove: Bool = false,
    sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let path = "\(Fixtures.repository)/Tests/CommandTests/Snapshots/\(name).txt"
    if isRecording {
      try Data(text.utf8).write(to: URL(fileURLWithPath: path))
      return
    }
    guard let data = FileManager.default.contents(atPath: path) else {
      Issue.record(
        "no snapshot '\(name)'; record it with RECORD_SNAPSHOTS=1", sourceLocation: sourceLocation)
      return
    }
    let expected = String(decoding: data, as: UTF8.self)
    let difference =
      columnsMayMove
      ? difference(narrowed(text), narrowed(expected)) : difference(text, expected)
    if let difference {
      Issue.record("\(name): \(difference)", sourceLocation: sourceLocation)
    }
  }

  /// The text with every gap one blank wide and every rule two dashes.
  private static func narrowed(_ text: String) -> String {
    text.replacing(#/ +/#, with: " ").replacing(#/--+/#, with: "--")
  }

  /// The first line that differs, with both versions; nil if none does.
  static func difference(_ found: String, _ expected: String) -> String? {
    let found = found.split(separator: "\n", omittingEmptySubsequences: false)
    let expected = expected.split(separator: "\n", omittingEmptySubsequences: false)
    for (index, (a, b)) in zip(found, expected).enumerated() where !same(a, b) {
      return "line \(index + 1) is\n  \(a)\nexpected\n  \(b)"
    }
    return found.count == expected.count
      ? nil : "\(found.count) lines, expected \(expected.count)"
  }

  private static func same(_ a: Substring, _ b: Substring) -> Bool {
    if a == b { return true }
    let number = #/[-+]?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?/#
    let (matchesA, matchesB) = (a.matches(of: number), b.matches(of: number))
    guard matchesA.count == matchesB.count else { return false }
    var (endA, endB) = (a.startIndex, b.startIndex)
    for (x, y) in zip(matchesA, matchesB) {
      guard a[endA..<x.range.lowerBound] == b[endB..<y.range.lowerBound] else { return false }
      (endA, endB) = (x.range.upperBound, y.range.upperBound)
      if x.output.0 == y.output.0 { continue }
      let isReal = [x, y].contains { $0.output.1 != nil || $0.output.2 != nil }
      guard isReal, let p = Double(x.output.0), let q = Double(y.output.0),
        abs(p - q) <= tolerance * max(1, abs(q))
      else { return false }
    }
    return a[endA...] == b[endB...]
  }
}

/// The comparer must be able to fail.
@Suite struct SnapshotTests {
  @Test func numbersMayDifferALittle() {
    #expect(Snapshot.difference("Logit: 15.231 |a|\n", "Logit: 15.230 |a|\n") == nil)
    #expect(Snapshot.difference("-0.0001 2.3e-07 0", "+0.0000 8.1e-07 0.0") == nil)
    #expect(Snapshot.difference("12345.6", "12345.9") == nil)
  }

  @Test(arguments: [
    ("15.23", "15.33"), ("rank 3", "rank 4"), ("a 1.0", "b 1.0"), ("1.0", "1.0 "),
    ("1.0  2.0", "1.0 2.0"), ("a\n", "a"), ("", "a"), ("1.0 x", "1.0 y"), ("1000", "1001"),
    ("1.0", "x"), ("1.0 2.0", "1.0"),
  ])
  func everythingElseMayNot(_ found: String, _ expected: String) {
    #expect(Snapshot.difference(found, expected) != nil)
    #expect(Snapshot.difference(expected, found) != nil)
  }
}
