import NormLens
import TestSupport
import Testing

/// `normlens paths` as a person meets it.
@Suite struct PathsCommandTests {
  private static let pair = [
    "--clean", "When Mary and John went to the store, John gave a drink to", "--corrupted",
    "When Mary and John went to the store, Mary gave a drink to", "--answer", " Mary", "--wrong",
    " John",
  ]

  @Test func tablesAndFiles() throws {
    let directory = try TemporaryDirectory()
    for options in [[], ["--frozen"], ["--jointly"], ["--jointly", "--through-mlps"]] {
      let text = try Command.succeed(
        ["paths", "mini", "--senders", "all", "--receivers", "L2.q", "--top", "3", "--noising"]
          + Self.pair + options + ["-o", "paths.h5"], in: directory)
      #expect(text.contains("noising: paths into the clean run") && text.contains("wrote paths.h5"))
      let group = try ResultFile.read(directory.file("paths.h5")).group("path")
      let isJoint = options.contains("--jointly")
      #expect(group[dimension: "receiver"]?.count == (isJoint ? 1 : 6))
      #expect(try group.doubles("effect").contains { abs($0) > 0.01 })
      #expect(group.attributes["direction"]?.description == "noising")
    }
  }

  @Test func mistakes() throws {
    let directory = try TemporaryDirectory()
    func fail(
      _ senders: String, _ receivers: String, _ more: [String] = [], status: Int32 = 64,
      usage: Bool = false, saying: String...
    ) throws {
      try Command.fail(
        ["paths", "mini", "--senders", senders, "--receivers", receivers, "-o", "paths.h5"]
          + Self.pair + more, status, saying: saying, usage: usage, in: directory)
      #expect(try directory.contents() == [])
    }
    try fail("L2H2", "L3H0.w", saying: "unknown receiver 'L3H0.w'", "did you mean 'L3H0.")
    try fail("embd", "final", saying: "unknown sender 'embd'; did you mean 'embed'?")
    try fail("L9H0", "final", saying: "'L9H0' matches nothing: the model has layers 0 to 3")
    try fail("L2H2", "L2.q,L1.k", saying: "none of the 1 senders writes before")
    try fail("L2H2", "final,3_mlp_in", ["--jointly"], saying: "'final' patched jointly")
    try fail(
      "L2H2", "final", ["--frozen", "--jointly"], usage: true, saying: "--frozen and --jointly")
    try fail(
      "L2H2", "final", ["--through-mlps"], usage: true, saying: "--through-mlps needs --jointly")
    try fail("L2H2", "final", ["--metric", "logit-diference"], saying: "'logit-difference'")
    try Command.fail(
      [
        "paths", "mini", "--senders", "L2H2", "--receivers", "final", "--clean", "When Mary and",
        "--corrupted", "When John and", "--answer", " Mary",
      ], 65,
      saying: ["expected an answer token and a wrong one"], in: directory)
  }
}
