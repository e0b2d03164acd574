import Foundation
import NormLens
import TestSupport
import Testing

/// The page that `normlens report` writes; Tests/check_report.py uses it in a browser.
@Suite struct ReportCommandTests {
  /// What the page's script reads.
  private func data(of html: String) throws -> [String: Any] {
    let start = try #require(html.range(of: "<script type=\"application/json\" id=\"data\">"))
    let end = try #require(html[start.upperBound...].range(of: "</script>"))
    let json = Data(html[start.upperBound..<end.lowerBound].utf8)
    return try #require(try JSONSerialization.jsonObject(with: json) as? [String: Any])
  }

  /// A field of a JSON object that holds objects.
  private func objects(_ object: [String: Any], _ key: String) throws -> [[String: Any]] {
    try #require(object[key] as? [[String: Any]])
  }

  /// How often a text occurs.
  private func count(_ text: String, in html: String) -> Int {
    html.components(separatedBy: text).count - 1
  }

  /// A result of one map per prompt with these tokens.
  private func result(
    tokens: [String], values: [Double]? = nil, prompts: Int = 1, provenance: Provenance
  ) -> ResultSet {
    let places = tokens.count
    let count = prompts * 2 * places
    let group = ResultGroup(
      path: "logit_lens",
      dimensions: [
        Dimension("prompt", count: prompts), Dimension("stream", .labels(["0_pre", "final_post"])),
        Dimension("pos", count: places),
      ],
      variables: [
        ResultVariable(
          "token", ["prompt", "pos"],
          .strings(Array(repeating: tokens, count: prompts).flatMap(\.self)), longName: "token",
          units: "1", isCoordinate: true),
        ResultVariable(
          "logit", ["prompt", "stream", "pos"],
          .float64(values ?? (0..<count).map { Double($0) / 3 }), longName: "logit",
          units: "logit", sign: "positive = likelier"),
      ])
    return ResultSet(title: tokens[0], groups: [group], provenance: provenance)
  }

  @Test func oneFileWithoutNetwork() throws {
    let directory = try TemporaryDirectory()
    let prompt = "When Mary and John went to the store, John gave a drink to"
    for folder in ["a", "b"] {
      try FileManager.default.createDirectory(
        atPath: directory.file(folder), withIntermediateDirectories: true)
      try Command.succeed(
        [
          "dla", "mini", "--model", "mini-lnfree", "--prompt", prompt, "--answer", " Mary",
          "--quiet", "-o", "\(folder)/dla.h5",
        ], in: directory)
    }
    let printed = try Command.succeed(
      ["report", "a/dla.h5", "b/dla.h5", "-o", "r.html", "--title", "Two & <two>"], in: directory)
    let html = try String(contentsOfFile: directory.file("r.html"), encoding: .utf8)
    #expect(printed == "r.html: \(bytes(html.utf8.count))\n")
    #expect(html.hasPrefix("<!doctype html>"))
    #expect(html.contains("<title>Two &amp; &lt;two&gt;</title>"))
    #expect(html.contains("default-src 'none'") && !html.contains("src=\"http"))
    #expect(html.contains("Copyright 2010-2017, Mike Bostock"))
    #expect(html.utf8.count < 1_000_000)
    let sources = try objects(try data(of: html), "sources")
    #expect(sources.map { $0["name"] as? String } == ["a/dla.h5", "b/dla.h5"])
    let sum = try FileBytes.sha256(directory.file("a/dla.h5"))
    #expect(sources[0]["sha256"] as? String == sum && sum.count == 64)
    let models = sources[0]["models"] as? [[String]]
    #expect(models?.map(\.[0]) == ["mini", "mini-lnfree"])
    #expect(models?.map(\.[1]) == ["layernorm", "none"])
    #expect((sources[0]["commands"] as? [String])?.first?.hasPrefix("normlens dla mini") == true)
    let prompts = sources[0]["prompts"] as? [String: Any]
    #expect(prompts?["first"] as? [String] == [prompt])
    #expect(
      try Command.succeed(["report", "a/dla.h5", "-o", "r.html", "--quiet"], in: directory) == "")
  }

  @Test func checksumOfAKnownText() throws {
    let directory = try TemporaryDirectory()
    try directory.write("abc", as: "abc")
    #expect(
      try FileBytes.sha256(directory.file("abc"))
        == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
  }

  @Test func hostileTextStaysText() throws {
    let hostile = [
      "</script><script>alert(1)</script>", "<!--", "\"'&\\", "\u{2028}\u{2029}\u{0}\u{7f}", "שלום",
    ]
    func page(_ words: [String]) -> String {
      let facts: [String] = [words[0], words[1]]
      let provenance = Provenance([
        "model_name": .string(facts[0]), "command_line": .string(facts[1]),
      ])
      return Report(
        title: words[0],
        sources: [
          Report.Source(name: words[2], result: result(tokens: words, provenance: provenance))
        ]
      ).html
    }
    let (plain, html) = (page(["a", "b", "c", "d", "e"]), page(hostile))
    for mark in ["<script", "</script", "<!--", "<title"] {
      #expect(count(mark, in: html) == count(mark, in: plain), "\(mark)")
    }
    let page = try data(of: html)
    let source = try #require(try objects(page, "sources").first)
    #expect(source["name"] as? String == hostile[2])
    #expect(source["title"] as? String == hostile[0])
    let first = (source["prompts"] as? [String: Any])?["first"] as? [String]
    #expect(first == [hostile.joined()])
    #expect(!html.contains("\u{2028}"))
  }

  @Test func numbersKeepEveryBit() throws {
    let values = [1 / 3, -0.0, .nan, 1e300, .infinity, 0.1, -2, 5e-324, 7, 8]
    let set = result(tokens: ["a", "b", "c", "d", "e"], values: values, provenance: Provenance())
    let page = try data(
      of: Report(title: "t", sources: [Report.Source(name: "f", result: set)]).html)
    let groups = try objects(try objects(page, "sources")[0], "groups")
    var found: [[Double]] = []
    for picture in try groups.flatMap({ try objects($0, "pictures") }) {
      for panel in try objects(picture, "views").flatMap({ try objects($0, "panels") }) {
        guard let stored = (panel["values"] as? [String: String])?["f8"],
          let raw = Data(base64Encoded: stored)
        else { continue }
        let bytes = [UInt8](raw)
        found.append(
          stride(from: 0, to: bytes.count, by: 8).map { start in
            Double(
              bitPattern: (0..<8).reduce(UInt64(0)) {
                $0 | UInt64(bytes[start + $1]) << UInt64(8 * $1)
              })
          })
      }
    }
    let bits = values.map { $0.isNaN ? 0 : $0.bitPattern }
    #expect(found.contains { $0.map { $0.isNaN ? 0 : $0.bitPattern } == bits })
  }

  @Test func emptyResultsAndNoProvenance() throws {
    let empty = ResultSet(title: "nothing", groups: [])
    let html = Report(title: "", sources: [Report.Source(name: "e.h5", result: empty)]).html
    let source = try objects(try data(of: html), "sources")[0]
    #expect((source["groups"] as? [Any])?.isEmpty == true)
    #expect((source["models"] as? [Any])?.isEmpty == true)
    #expect(source["prompts"] is NSNull && source["sha256"] is NSNull)
  }

  @Test func beyondTheBudgetThePageSaysSo() throws {
    let set = result(
      tokens: (0..<200).map { "t\($0)" }, prompts: 6, provenance: Provenance())
    func page(_ budget: Int) throws -> [String: Any] {
      try data(
        of: Report(title: "t", sources: [Report.Source(name: "f", result: set)], budget: budget)
          .html)
    }
    let (whole, cut, least) = (try page(1_000_000), try page(20_000), try page(1000))
    #expect((whole["notes"] as? [String])?.isEmpty == true)
    let notes = try #require(cut["notes"] as? [String])
    #expect(notes.count == 1 && notes[0].contains("single prompts are left out"))
    #expect((least["notes"] as? [String])?.contains { $0.contains("large pictures") } == true)
  }

  @Test func errors() throws {
    let directory = try TemporaryDirectory()
    try ResultFile.write(
      result(tokens: ["a"], provenance: Provenance()), to: directory.file("r.h5"))
    try directory.write("text", as: "text")
    try Command.fail(
      ["report", "-o", "r.html"], 64, saying: ["<files>"], usage: true, in: directory)
    try Command.fail(
      ["report", "r.h5", "r.h5", "-o", "r.html"], 64, saying: ["r.h5: given twice"], usage: true,
      in: directory)
    try Command.fail(
      ["report", "r.h5", "-o", "./r.h5"], 64, saying: ["is one of the result files"], in: directory)
    try Command.fail(["report", "no.h5", "-o", "r.html"], 66, saying: ["no.h5"], in: directory)
    try Command.fail(["report", "text", "-o", "r.html"], 65, saying: ["text"], in: directory)
    try Command.fail(
      ["report", "r.h5", "-o", "no/r.html"], 73, saying: ["no/r.html"], in: directory)
    #expect(!FileManager.default.fileExists(atPath: directory.file("r.html")))
  }
}
