import NormLens
import TestSupport
import Testing

/// `normlens geometry --selectability` as a person meets it.
@Suite struct SelectabilityCommandTests {
  private static let prompts = [
    "--prompt", "When Mary and John went to the store, John gave a drink to", "--tokens", "5,6",
  ]

  @Test(arguments: ["mini", "mini-lnfree"])
  func tables(_ model: String) throws {
    try Snapshot.expect(
      String(
        try Command.succeed(
          ["geometry", model, "--selectability"] + Self.prompts, in: TemporaryDirectory()
        ).split(separator: "keys that no query", maxSplits: 1).last ?? ""),
      "selectability-\(model)", columnsMayMove: true)
  }

  @Test func file() throws {
    let directory = try TemporaryDirectory()
    try Command.succeed(
      ["geometry", "mini", "--selectability", "--keys", "3", "--key-margins", "-o", "s.h5"]
        + Self.prompts, in: directory)
    let result = try ResultFile.read(directory.file("s.h5"))
    for path in ["selectability", "selectability/space", "query_alignment"] {
      #expect(result[group: path] != nil && result[group: "\(path)/summary"] != nil)
    }
    let margins = try result.doubles("selectability", "margin")
    // Position 0 and three keys of the first prompt, both tokens of the second.
    #expect(margins.count { !$0.isNaN } == 24 * (4 + 2))
    let labels = try #require(result[group: "selectability", variable: "label"])
    #expect(labels.attributes["flag_meanings"] == .string("selectable tied unselectable unsolved"))
    #expect(labels.values.doubles?.map(\.isNaN) == margins.map(\.isNaN))
  }

  @Test func mistakes() throws {
    let directory = try TemporaryDirectory()
    let arguments = ["geometry", "mini", "--tokens", "1,2,3"]
    try Command.fail(
      arguments + ["--keys", "5"], 64, saying: ["--keys", "--selectability"], usage: true,
      in: directory)
    try Command.fail(
      arguments + ["--key-margins"], 64, saying: ["--selectability"], usage: true, in: directory)
    try Command.fail(
      arguments + ["--selectability", "--key-margins"], 64,
      saying: ["--key-margins", "-o", "--json"],
      usage: true, in: directory)
    for keys in ["0", "-1", "some"] {
      try Command.fail(
        arguments + ["--selectability", "--keys", keys], 64, saying: ["--keys '\(keys)'", "all"],
        in: directory)
    }
  }
}
