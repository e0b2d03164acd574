import Foundation
import NormLens
import TestSupport
import Testing

/// `show`: heat maps to the byte, CSV and attention patterns that read back, files in parts.
@Suite struct ShowCommandTests {
  /// A result whose every number is known: three prompts of unequal length with hostile tokens.
  static let sample: ResultSet = {
    let prompt = Dimension("prompt", count: 3)
    let pos = Dimension("pos", count: 4)
    let layer = Dimension("layer", .integers([2, 5]))
    let head = Dimension("head", count: 3)
    let tokens = [
      "<|endoftext|>", " a,b", "\"q\"", "\n", "<|endoftext|>", " x\r\n", "é", "", "<|endoftext|>",
      "\u{1B}[31m", " 日本", "=1+1",
    ]
    let coordinates = [
      ResultVariable(
        "token", ["prompt", "pos"], .strings(tokens), longName: "token text", units: "1",
        isCoordinate: true),
      ResultVariable(
        "token_id", ["prompt", "pos"], .integers([0, 5, 6, 7, 0, 8, 9, -1, 0, 1, 2, 3]),
        longName: "token id", units: "1", isCoordinate: true),
    ]
    let effects: [Double] = [
      -0.4, 0.1, 0.25, .nan, 0.4, 0, -0.4, 0.3, .nan, 1e-17, 0.1, -0.05, 0.2, 0.1, 0.3, 0.1,
      -0.25, 0.4,
    ]
    let third = (0..<12).map { Float($0) / 3 }
    let pattern = (0..<3 * 2 * 3 * 16).map { index -> Float in
      let (prompt, layer, query, key) = (index / 96, index / 48 % 2, index / 4 % 4, index % 4)
      let length = prompt == 1 ? 3 : 4
      if query >= length || key >= length || layer == 1 && prompt == 2 { return .nan }
      return key > query ? 0 : 1 / Float(query + 1)
    }
    return ResultSet(
      title: "A sample",
      groups: [
        ResultGroup(
          path: "patch/activation", dimensions: [prompt, pos, layer, head],
          variables: coordinates + [
            ResultVariable(
              "head_z", ["prompt", "layer", "head"], .float64(effects), longName: "effect",
              units: "logit", sign: "positive: restores the answer"),
            ResultVariable(
              "resid", ["prompt", "pos"], .float32(third), longName: "effect", units: "logit",
              sign: "positive: restores the answer"),
            ResultVariable("most", [], .float64([.infinity]), longName: "a scalar", units: "1"),
          ]),
        ResultGroup(
          path: "activations",
          dimensions: [
            prompt, pos, layer, head, Dimension("query_pos", count: 4),
            Dimension("key_pos", count: 4),
          ],
          variables: coordinates + [
            ResultVariable(
              "pattern", ["prompt", "layer", "head", "query_pos", "key_pos"], .float32(pattern),
              longName: "attention", units: "1")
          ]),
        ResultGroup(
          path: "norms", dimensions: [layer, head],
          variables: [
            ResultVariable(
              "size", ["layer", "head"], .float32([0, 1, 2, 3, .nan, 5]), longName: "size",
              units: "1"),
            ResultVariable(
              "change", ["layer", "head"], .float32([-1, 0, 0.5, .nan, 0.25, 1]),
              longName: "change", units: "logit", sign: "positive: larger"),
            ResultVariable(
              "none", ["layer", "head"], .float32(Array(repeating: .nan, count: 6)),
              longName: "nothing", units: "1"),
          ]),
      ], provenance: Provenance(["model_name": .string("m")]))
  }()

  let directory: TemporaryDirectory

  init() throws {
    directory = try TemporaryDirectory()
    try ResultFile.write(Self.sample, to: directory.file("s.h5"))
  }

  private func show(_ arguments: [String], environment: [String: String] = [:]) throws -> String {
    let outcome = try Command.run(
      ["show", "s.h5"] + arguments, in: directory, environment: environment)
    #expect(outcome.status == 0 && outcome.errors.isEmpty, "\(arguments): \(outcome.errors)")
    return outcome.output
  }

  // MARK: heat maps

  @Test(arguments: [
    ("show-map-plain", ["norms", "--map"]), ("show-map-256", ["norms", "--map", "--color", "256"]),
    ("show-map-full", ["norms/change", "--color", "always"]),
    ("show-map-pattern", ["activations/pattern", "--map", "--prompt", "0", "--rows", "8"]),
    (
      "show-map-pattern-full",
      ["activations/pattern", "--color", "always", "--prompt", "2", "--rows", "8"]
    ),
  ])
  func maps(_ name: String, _ arguments: [String]) throws {
    let text = try show(arguments, environment: ["COLUMNS": "60"])
    if Snapshot.isRecording { return try Snapshot.expect(text, name) }
    let path = "\(Fixtures.repository)/Tests/CommandTests/Snapshots/\(name).txt"
    #expect(text == (try String(contentsOfFile: path, encoding: .utf8)), "\(name)")
    let isColoured = name.hasSuffix("full") || name.hasSuffix("256")
    #expect(text.contains("\u{1B}[") == isColoured)
  }

  /// Piped, nothing but text: no environment makes colours of it, and no token of a file does.
  @Test func pipedTextHasNoCodes() throws {
    for environment in [["COLORTERM": "truecolor"], ["TERM": "xterm-256color"]] {
      for what in [["norms/change"], ["patch/activation"], []] {
        let text = try show(what, environment: environment)
        #expect(!text.contains("\u{1B}"))
      }
      #expect(
        try show(["norms/change"], environment: environment)
          == show(["norms/change", "--color", "never"]))
    }
    #expect(try show(["norms/change", "--color", "always", "--no-map"]) == show(["norms/change"]))
  }

  @Test func aTerminalsColours() {
    func supported(_ environment: [String: String], _ isTerminal: Bool = true) -> TerminalColours {
      .supported(by: environment, isTerminal: isTerminal)
    }
    #expect(supported(["COLORTERM": "truecolor"]) == .full)
    #expect(supported(["COLORTERM": "24bit", "TERM": "xterm-256color"]) == .full)
    #expect(supported(["TERM": "screen-256color"]) == .palette)
    #expect(supported(["TERM": "dumb"]) == .none && supported([:]) == .none)
    #expect(supported(["COLORTERM": "truecolor", "NO_COLOR": "1"]) == .none)
    #expect(supported(["COLORTERM": "truecolor", "NO_COLOR": ""]) == .full)
    #expect(supported(["COLORTERM": "truecolor"], false) == .none)
  }

  /// No line of a map is wider than the terminal, however narrow.
  @Test(arguments: [40, 60, 80, 200])
  func mapsFitTheWidth(_ width: Int) throws {
    for color in ["never", "256", "always"] {
      for what in ["activations/pattern", "norms/change", "patch/activation/head_z"] {
        let text = try show(
          [what, "--map", "--color", color], environment: ["COLUMNS": "\(width)"])
        let map = text.replacing(#/\u{1B}\[[0-9;]*m/#, with: "").components(
          separatedBy: "\n\(what) [")[0]
        for line in map.split(separator: "\n") {
          // The scale of colours is as long as it is, as are single words and remarks.
          let isLong =
            ["..::", "+.+:", " 0 ", "not computed", "normlens plot"].contains { line.contains($0) }
            || !line.contains("  ")
          #expect(line.count <= max(width, 20) || isLong, "\(width): \(line)")
        }
      }
    }
  }

  // MARK: CSV

  /// RFC 4180 by hand: fields between commas, quoted ones with doubled quotes.
  private func parse(_ text: String) -> [[String]] {
    var rows: [[String]] = [[]]
    var (field, isQuoted, wasQuote) = ("", false, false)
    for scalar in text.unicodeScalars {
      if isQuoted {
        if wasQuote {
          wasQuote = false
          if scalar == "\"" {
            field.unicodeScalars.append(scalar)
            continue
          }
          isQuoted = false
        } else {
          if scalar == "\"" { wasQuote = true } else { field.unicodeScalars.append(scalar) }
          continue
        }
      }
      switch scalar {
      case "\"": isQuoted = true
      case ",":
        rows[rows.count - 1].append(field)
        field = ""
      case "\n":
        rows[rows.count - 1].append(field)
        field = ""
        rows.append([])
      default: field.unicodeScalars.append(scalar)
      }
    }
    return rows.dropLast()
  }

  @Test func csvReadsBackAsTheFilesNumbers() throws {
    let group = try #require(Self.sample[group: "patch/activation"])
    let effects = parse(try show(["patch/activation/head_z", "--csv"]))
    #expect(effects[0] == ["prompt", "layer", "head", "head_z"])
    let expected = try #require(group[variable: "head_z"]?.values.doubles)
    #expect(effects.count == 19)
    for (row, value) in zip(effects.dropFirst(), expected) {
      #expect(value.isNaN ? row[3].isEmpty : Double(row[3])?.bitPattern == value.bitPattern)
    }
    #expect(effects[8].prefix(3) == ["1", "2", "1"])

    // Tokens with commas, quotes and line ends come back as they are.
    let resid = parse(try show(["patch/activation/resid", "--csv"]))
    #expect(resid[0] == ["prompt", "pos", "token", "token_id", "resid"])
    guard case .strings(let tokens)? = group[variable: "token"]?.values,
      case .float32(let numbers)? = group[variable: "resid"]?.values
    else {
      Issue.record("other types")
      return
    }
    #expect(resid.dropFirst().map { $0[2] } == tokens)
    #expect(resid.dropFirst().map { Float($0[4]) } == numbers)
    #expect(resid.allSatisfy { $0.count == 5 })

    // One prompt, several variables, a coordinate, a scalar.
    #expect(
      parse(try show(["patch/activation/resid", "--csv", "--prompt", "1"])).dropFirst()
        == resid[5...8])
    let both = parse(try show(["norms", "--csv"]))
    #expect(both[0] == ["layer", "head", "size", "change", "none"])
    #expect(both[1] == ["2", "0", "0.0", "-1.0", ""] && both[4] == ["5", "0", "3.0", "", ""])
    #expect(
      parse(try show(["norms/change,norms/size", "--csv"])).map { [$0[3], $0[2]] }
        == both.map { [$0[2], $0[3]] })
    #expect(try show(["patch/activation/most", "--csv"]) == "most\ninf\n")
    let token = parse(try show(["patch/activation/token", "--csv"]))
    #expect(token[0] == ["prompt", "pos", "token_id", "token"])
    #expect(token.dropFirst().map { $0[3] } == tokens)
  }

  /// Pieces follow each other in row-major order and cover the array once.
  @Test func piecesCoverAnArray() {
    for shape in [[], [7], [1, 5], [3, 4, 5], [2, 1, 7, 1, 3], [4, 0, 2]] {
      for count in [1, 2, 3, 5, 8, 20, 1000] {
        var indices: [Int] = []
        for piece in ArrayPieces(shape: shape, maximumCount: count) {
          #expect(piece.reduce(1) { $0 * $1.count } <= count)
          var places = [0]
          for (range, extent) in zip(piece, shape) {
            places = places.flatMap { place in range.map { place * extent + $0 } }
          }
          indices += places
        }
        #expect(indices == Array(0..<shape.reduce(1, *)), "\(shape) by \(count)")
      }
    }
  }

  @Test func exportsAreWrittenWholeOrNotAtAll() throws {
    let csv = try show(["norms", "--csv"])
    #expect(try show(["norms", "--csv", "-o", "n.csv"]) == "wrote n.csv\n")
    #expect(try String(contentsOfFile: directory.file("n.csv"), encoding: .utf8) == csv)
    try FileManager.default.removeItem(atPath: directory.file("n.csv"))
    try Command.fail(
      ["show", "s.h5", "norms", "--csv", "-o", "no/where.csv"], 73, saying: ["no/where.csv"],
      in: directory)
    try Command.fail(
      ["show", "s.h5", "norms", "--csv", "-o", "s.h5"], 64, saying: ["would replace the input"],
      in: directory)
    #expect(try directory.contents() == ["s.h5"])
  }

  // MARK: attention patterns

  @Test(arguments: 0..<3)
  func patternsForCircuitsVis(_ prompt: Int) throws {
    let text = try show(["--circuitsvis", "--prompt", "\(prompt)"])
    let props = try #require(
      try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
    #expect(
      Set(props.keys) == ["tokens", "attention", "attentionHeadNames", "minValue", "maxValue"])
    let length = prompt == 1 ? 3 : 4
    guard case .strings(let tokens)? = Self.sample[group: "activations", variable: "token"]?.values,
      case .float32(let pattern)? = Self.sample[group: "activations", variable: "pattern"]?.values
    else {
      Issue.record("other types")
      return
    }
    #expect(props["tokens"] as? [String] == Array(tokens[4 * prompt..<4 * prompt + length]))
    let names = ["L2H0", "L2H1", "L2H2"] + (prompt == 2 ? [] : ["L5H0", "L5H1", "L5H2"])
    #expect(props["attentionHeadNames"] as? [String] == names)
    let attention = try #require(props["attention"] as? [[[Double]]])
    #expect(attention.count == names.count)
    for (head, rows) in attention.enumerated() {
      #expect(rows.count == length)
      for (query, row) in rows.enumerated() {
        let start = prompt * 96 + head * 16 + query * 4
        #expect(row.map { Float($0) } == Array(pattern[start..<start + length]))
      }
    }
    #expect(props["minValue"] as? Double == -1 && props["maxValue"] as? Double == 1)
  }

  // MARK: parts of files

  @Test func onePrompt() throws {
    let text = try show(["patch/activation/head_z", "--prompt", "2"])
    #expect(text.hasPrefix("patch/activation/head_z [logit], prompt 2\n"))
    #expect(!text.contains("prompt 0") && !text.contains("more tables"))
    let json = try show(["patch/activation/resid", "--prompt", "1", "--json"])
    #expect(json.contains("\"values\": [[1.3333334, 1.6666666, 2.0, 2.3333333]]"))
  }

  /// Of a large file the first prompts are read, and what the whole file has is said.
  @Test func theFirstPrompts() throws {
    let path = directory.file("s.h5")
    let whole = try ResultFile.read(path)
    #expect(whole.groups.allSatisfy { $0.promptsInFile == nil })
    // One prompt takes 4·(32 + 8) + 6·8 + 4·4 bytes in one group, 4·(32 + 8) + 96·4 in the other.
    let part = try ResultFile.read(path, maximumBytes: 2 * (224 + 544) + 100)
    for group in part.groups {
      let full = try #require(whole[group: group.path])
      let hasPrompts = full[dimension: "prompt"] != nil
      #expect(group.promptsInFile == (hasPrompts ? 3 : nil))
      if !hasPrompts { #expect(group.dimensions == full.dimensions) }
      for variable in group.variables where variable.dimensions.first == "prompt" {
        let all = try #require(full[variable: variable.name])
        let count = all.values.count * 2 / 3
        #expect(group.shape(of: variable).first == 2 && variable.values.count == count)
        switch (variable.values, all.values) {
        case (.float32(let a), .float32(let b)):
          #expect(a.map(\.bitPattern) == b.prefix(count).map(\.bitPattern))
        case (.float64(let a), .float64(let b)):
          #expect(a.map(\.bitPattern) == b.prefix(count).map(\.bitPattern))
        case (.integers(let a), .integers(let b)): #expect(a == Array(b.prefix(count)))
        case (.strings(let a), .strings(let b)): #expect(a == Array(b.prefix(count)))
        default: Issue.record("\(variable.name): other types")
        }
      }
    }
    // At least one prompt, and the number of all in what is printed.
    let least = try ResultFile.read(path, maximumBytes: 1)
    #expect(least[group: "activations"]?[dimension: "prompt"]?.count == 1)
    let text = ResultText().contents(least)
    #expect(text.contains("prompt=3, layer=2, head=3") && text.contains("prompts_in_file: 3"))
    let group = try #require(least[group: "patch/activation"])
    let numbers = ResultText().numbers(try #require(group[variable: "resid"]), in: group)
    #expect(numbers.hasSuffix("… 2 more rows"))
  }

  // MARK: mistakes

  @Test(arguments: [
    (["--csv"], ["--csv needs a group or a variable", "norms"]),
    (["patch/activation", "--csv"], ["the same axes", "(prompt, layer, head): head_z"]),
    (["norms,activations", "--csv"], ["one group"]),
    (["norms/size,norms/size", "--csv"], ["each once"]),
    (["norms/siz"], ["did you mean 'norms/size'?"]),
    (["norms/size,", "--csv"], ["no group or variable ''"]),
    (["--circuitsvis"], ["has 3 prompts", "--prompt 0 … 2"]),
    (["norms", "--circuitsvis"], ["query_pos and key_pos", "activations/pattern"]),
    (["--circuitsvis", "--prompt", "3"], ["--prompt 3", "0 … 2"]),
    (["norms", "--prompt", "0"], ["an axis prompt"]),
  ])
  func mistakes(_ arguments: [String], _ parts: [String]) throws {
    try Command.fail(["show", "s.h5"] + arguments, 64, saying: parts, in: directory)
  }

  @Test(arguments: [
    ["--csv", "--json"], ["norms", "--csv", "--circuitsvis"], ["norms", "--map", "--csv"],
    ["norms", "-o", "x.csv"], ["norms", "--color", "red"], ["norms", "--prompt", "-1"],
    ["norms", "--prompt", "x"], ["norms", "--rows", "0"],
    ["norms", "--prompt", "0", "--prompt", "1"], ["norms", "--map", "--no-map"],
  ])
  func contradictions(_ arguments: [String]) throws {
    let single = arguments.filter { $0 == "--prompt" }.count == 2
    try Command.fail(["show", "s.h5"] + arguments, 64, usage: !single, in: directory)
  }
}
