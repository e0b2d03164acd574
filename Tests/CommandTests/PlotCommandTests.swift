import Foundation
import TestSupport
import Testing

/// `normlens plot`, run as a user runs it.
@Suite struct PlotCommandTests {
  private static let results = ["relp-mini", "ln-geometry-mini", "layernorm-questions-mini"].map {
    "\(Fixtures.data)/results/\($0).h5"
  }

  /// A small result of two prompts in a new directory.
  private static func attribution() throws -> TemporaryDirectory {
    let directory = try TemporaryDirectory()
    try Command.succeed(
      [
        "dla", "mini", "--prompt", "When Mary and John went to the store, John gave a drink to",
        "--prompt", "When Tom and James went to the park, James gave a ball to",
        "--answer", " Mary", "--wrong", " John", "-o", "dla.h5", "--quiet",
      ], in: directory)
    return directory
  }

  @Test func everyBundledResultIsDrawn() throws {
    let directory = try TemporaryDirectory()
    for (number, path) in Self.results.enumerated() {
      let output = try Command.succeed(["plot", path, "-o", "p\(number)"], in: directory)
      let files = try directory.contents().filter { $0.hasPrefix("p\(number)/") }
      #expect(!files.isEmpty && files.allSatisfy { $0.hasSuffix(".svg") })
      #expect(output.contains("wrote \(files.count) pictures to p\(number)"))
      for file in files {
        let text = try String(contentsOfFile: directory.file(file), encoding: .utf8)
        #expect(text.hasPrefix("<svg xmlns=") && text.hasSuffix("</svg>\n"), "\(file)")
        #expect(output.contains(file.split(separator: "/")[1]), "\(file)")
      }
    }
    print(
      "\(try directory.contents().filter { $0.hasSuffix(".svg") }.count) pictures of \(Self.results.count) files"
    )
  }

  @Test func picturesAreChosen() throws {
    let directory = try Self.attribution()
    try Command.succeed(["plot", "dla.h5", "-o", "all", "--quiet"], in: directory)
    let all = try directory.contents().filter { $0.hasPrefix("all/") }
    let some = try Command.succeed(
      ["plot", "dla.h5", "-o", "some", "--only", "components", "--only", "heads", "--json"],
      in: directory)
    let chosen = try directory.contents().filter { $0.hasPrefix("some/") }
    #expect(!chosen.isEmpty && chosen.count < all.count)
    #expect(chosen.allSatisfy { $0.contains("components") || $0.contains("heads") })
    let json = try #require(
      try JSONSerialization.jsonObject(with: Data(some.utf8)) as? [String: [[String: Any]]])
    #expect(json["files"]?.compactMap { $0["file"] as? String }.sorted() == chosen)
    #expect(json["files"]?.allSatisfy { ($0["bytes"] as? Int ?? 0) > 500 } == true)

    let list = try Command.succeed(["plot", "dla.h5", "--list"], in: directory)
    for file in all { #expect(list.contains(file.dropFirst(4).dropLast(4)), "\(file)") }
    #expect(try directory.contents().count == all.count + chosen.count + 3)
  }

  @Test func promptsAreChosen() throws {
    let directory = try Self.attribution()
    func text(_ arguments: [String], _ name: String) throws -> String {
      try Command.succeed(
        ["plot", "dla.h5", "-o", name, "--only", "components", "--quiet"] + arguments,
        in: directory)
      return try String(
        contentsOfFile: directory.file("\(name)/dla-components.svg"), encoding: .utf8)
    }
    #expect(try text([], "mean").contains("mean over 2 prompts"))
    let second = try text(["--prompt", "1"], "second")
    #expect(second.contains("prompt 1: ") && second.contains("Tom"))
    #expect(try text(["--width", "340"], "narrow").contains("width=\"340\""))
    try Command.succeed(
      ["plot", "dla.h5", "-o", "each", "--only", "components", "--all-prompts", "--quiet"],
      in: directory)
    let each = try directory.contents().filter { $0.hasPrefix("each/") }
    #expect(
      each == [
        "each/dla-components-mean_over_2_prompts.svg", "each/dla-components-prompt_0.svg",
        "each/dla-components-prompt_1.svg",
      ])
    // A second run replaces what the first has written, with the same bytes.
    #expect(try text([], "mean") == text([], "mean"))
  }

  @Test func errorsSayWhatIsWrong() throws {
    let directory = try Self.attribution()
    try directory.write("text", as: "in-the-way")
    func fail(_ arguments: [String], _ status: Int32, _ parts: [String], usage: Bool = false) throws
    {
      try Command.fail(["plot"] + arguments, status, saying: parts, usage: usage, in: directory)
    }
    try fail(["dla.h5"], 64, ["-o", "--list"], usage: true)
    try fail(["none.h5", "-o", "x"], 66, ["none.h5"])
    try fail([Fixtures.bundled("mini"), "-o", "x"], 65, ["mini.h5"])
    try fail(["in-the-way", "-o", "x"], 65, ["in-the-way"])
    try fail(["dla.h5", "-o", "in-the-way"], 73, ["in-the-way", "in the way"])
    try fail(["dla.h5", "-o", "no/where"], 73, ["no directory"])
    try fail(["dla.h5", "-o", ""], 64, ["-o ''"])
    try fail(
      ["dla.h5", "-o", "x", "--only", "dla-compnents"], 64,
      ["did you mean 'dla-components'", "--list"])
    try fail(["dla.h5", "-o", "x", "--only", ""], 64, ["--only ''"], usage: true)
    try fail(["dla.h5", "-o", "x", "--prompt", "7"], 64, ["--prompt 7", "prompts 0 to 1"])
    try fail(["dla.h5", "-o", "x", "--prompt=-1"], 64, ["0 or more"], usage: true)
    try fail(
      ["dla.h5", "-o", "x", "--prompt", "0", "--prompt", "1"], 64, ["--prompt was given twice"])
    try fail(["dla.h5", "-o", "x", "--prompt", "0", "--all-prompts"], 64, ["exclude"], usage: true)
    for width in ["0", "199", "4001", "-5", "nan"] {
      try fail(["dla.h5", "-o", "x", "--width=\(width)"], 64, ["--width"], usage: true)
    }
  }

  /// A picture that cannot be written leaves nothing half written.
  @Test func fullDiskLeavesNoPart() throws {
    let directory = try Self.attribution()
    let outcome = try Command.run(
      ["plot", "dla.h5", "-o", "full"], in: directory, limit: "ulimit -f 0")
    #expect(outcome.status == 74 || outcome.status == 73, "\(outcome.errors)")
    #expect(try directory.contents().filter { $0.hasPrefix("full/") }.isEmpty)
  }
}
