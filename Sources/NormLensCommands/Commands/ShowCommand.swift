import ArgumentParser
import Foundation
import NormLens

/// `normlens show`: prints any result file, draws its heat maps, exports its numbers.
struct ShowCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "show", abstract: "Print a result file, or export its numbers.",
    discussion: """
      A file with many tables is listed; name a group or a variable to see its numbers. On a terminal \
      with colours a variable's heat map stands above them. Of a file that is larger than memory \
      should be, the first prompts are read; --prompt chooses one.
      """)

  @Argument(help: "A result file.", completion: .file()) var file: String
  @Argument(
    help: """
      Only this group (dla) or variable (dla/head_contribution); several with commas between them.
      """)
  var what: String?
  @Option(help: "Only this prompt, by its number on the axis prompt.") var prompt: Int?
  @Option(help: "The most rows of a table (default: 24) or a map (default: 64).") var rows: Int?
  @Option(help: "The most columns of a table.") var columns = 12
  @Flag(
    inversion: .prefixedNo, exclusivity: .exclusive,
    help: ArgumentHelp(
      "Draw heat maps, or do not.",
      discussion:
        "Without colours, characters show sign and size. A map is as wide as COLUMNS says."))
  var map: Bool?
  @Option(help: "Colours: auto (NO_COLOR, COLORTERM, TERM), always (24 bits), 256, never.")
  var color = ColourChoice.auto
  @Flag(help: "Print JSON instead of tables.") var json = false
  @Flag(
    help: ArgumentHelp(
      "Print variables of the same axes as CSV, a row for each cell.",
      discussion: "NaN is empty. Every number reads back as it is in the file."))
  var csv = false
  @Flag(
    help: ArgumentHelp(
      "Print attention patterns as JSON for CircuitsVis' AttentionHeads.",
      discussion: "Of one prompt; heads that were not recorded are left out."))
  var circuitsvis = false
  @Option(
    name: .shortAndLong,
    help: ArgumentHelp("Write the CSV or the patterns to this file.", valueName: "file"),
    completion: .file())
  var output: String?

  enum ColourChoice: String, ExpressibleByArgument, CaseIterable {
    case auto, always
    case palette = "256"
    case never
  }

  /// A file of more tables than this is only listed unless a part of it is named.
  private static let tableLimit = 24
  /// Bytes of values that are read at once: of larger files the first prompts.
  static let maximumBytes = 256 << 20

  func validate() throws {
    if (rows ?? 1) < 1 || columns < 1 {
      throw ValidationError("--rows and --columns: expected 1 or more")
    }
    if (prompt ?? 0) < 0 { throw ValidationError("--prompt: expected 0 or more") }
    let forms = [("--json", json), ("--csv", csv), ("--circuitsvis", circuitsvis)]
      .filter(\.1).map(\.0)
    if forms.count > 1 { throw ValidationError("\(forms.joined(separator: " and ")): choose one") }
    if map == true, let form = forms.first {
      throw ValidationError("--map and \(form): choose one")
    }
    if output != nil && !csv && !circuitsvis {
      throw ValidationError("-o writes --csv or --circuitsvis; name one of them")
    }
  }

  func run() throws {
    var destination = OutputOptions()
    destination.output = output
    try destination.check(inputs: [file])
    Interruption.install()
    let reader = try ResultFileReader(path: file)
    let selection = try select(reader.groups)
    if let prompt {
      let counts = selection.parts.compactMap { part in
        part.dimensions.first { $0.name == "prompt" }?.count
      }
      guard let least = counts.min(), prompt < least else {
        throw CommandError(
          "\(file): --prompt \(prompt): expected "
            + (counts.isEmpty ? "an axis prompt, found none" : "0 … \((counts.min() ?? 1) - 1)"))
      }
    }
    if csv { return try exportCSV(reader, selection) }
    if circuitsvis { return try exportAttention(reader, selection) }
    let result = try reader.result(
      of: selection.parts, maximumBytes: Self.maximumBytes, prompt: prompt)
    if json { return try printJSON(result, selection) }
    try print(result, selection)
  }

  // MARK: Text

  private func printJSON(_ result: ResultSet, _ selection: Selection) throws {
    if let all = result.groups.compactMap(\.promptsInFile).max() {
      throw CommandError(
        "\(file): --json holds all numbers in memory, and those of \(all) prompts are more than "
          + "\(bytes(Self.maximumBytes)); name a variable, choose a --prompt, or take --csv",
        status: .data)
    }
    Terminal.print(JSONText.text(selection.named(in: result)))
  }

  private func print(_ whole: ResultSet, _ selection: Selection) throws {
    let result = selection.named(in: whole)
    let colours: TerminalColours =
      switch color {
      case .auto:
        .supported(
          by: ProcessInfo.processInfo.environment, isTerminal: Terminal.isInteractive)
      case .always: .full
      case .palette: .palette
      case .never: .none
      }
    if map ?? (selection.isOfVariables && colours != .none) {
      let maps = TerminalMap(
        colours: colours, width: Terminal.columns, rowLimit: rows ?? 64)
      // A map is of the first view.
      var limits = PictureLimits()
      limits.prompts = 1
      let pictures = PictureBook(limits: limits).pictures(of: whole)
      let texts = pictures.compactMap(maps.text)
      for text in texts { Terminal.print(text + "\n") }
      if texts.isEmpty && map == true {
        Terminal.print(
          pictures.isEmpty
            ? "no heat map: there are no axes to draw over\n"
            : "no heat map: normlens plot \(file) -o DIR draws this as curves, bars or tables\n")
      }
      if !selection.isOfVariables { return notePart(result) }
    }
    let text = ResultText(rowLimit: rows ?? 24, columnLimit: columns)
    let findings = result.groups.flatMap(\.variables).filter { !$0.isCoordinate }.count
    if selection.isOfVariables {
      let numbers = result.groups.flatMap { group in
        group.variables.map { text.numbers($0, in: group) }
      }
      Terminal.print(numbers.joined(separator: "\n\n"))
    } else if what == nil && findings > Self.tableLimit {
      Terminal.print(text.contents(result))
      let paths = result.groups.filter { !$0.variables.isEmpty }.map(\.path)
      Terminal.print("\n\(findings) tables of numbers: normlens show \(file) \(paths.last ?? "")")
    } else {
      Terminal.print(text.text(result))
    }
    notePart(result)
  }

  /// Says what was not read.
  private func notePart(_ result: ResultSet) {
    let parts = result.groups.compactMap { group in
      group.promptsInFile.map { ($0, group[dimension: "prompt"]?.count ?? 0) }
    }
    guard let (all, first) = parts.max(by: { $0.0 < $1.0 }) else { return }
    Terminal.print("\nread the first \(first) of \(all) prompts; --prompt N shows another")
  }

  // MARK: What was asked for

  /// The part of a file that was asked for.
  struct Selection {
    /// Each group with what is named of it, and with its secondary coordinates.
    var parts: [ResultFileWriter.Group]
    /// The variables that are named; nil for whole groups.
    var variables: [String: [String]]?

    /// Whether variables were named.
    var isOfVariables: Bool { variables != nil }

    /// What is named, without the coordinates that were read for its sake.
    func named(in result: ResultSet) -> ResultSet {
      guard let variables else { return result }
      var result = result
      for index in result.groups.indices {
        let names = variables[result.groups[index].path] ?? []
        result.groups[index].variables = names.compactMap { result.groups[index][variable: $0] }
      }
      return result
    }
  }

  private func select(_ groups: [ResultFileWriter.Group]) throws -> Selection {
    guard let what else { return Selection(parts: groups) }
    var parts: [ResultFileWriter.Group] = []
    var variables: [String: [String]] = [:]
    for word in what.split(separator: ",", omittingEmptySubsequences: false).map(String.init) {
      if let group = groups.first(where: { $0.path == word }) {
        parts.append(group)
        continue
      }
      let path = word.split(separator: "/").dropLast().joined(separator: "/")
      let name = word.split(separator: "/").last.map(String.init) ?? ""
      guard var group = groups.first(where: { $0.path == path }),
        group.variables.contains(where: { $0.name == name })
      else { throw unknown(word, groups) }
      variables[path, default: []].append(name)
      let names = variables[path] ?? []
      group.variables = group.variables.filter { $0.isCoordinate || names.contains($0.name) }
      if let known = parts.firstIndex(where: { $0.path == path }) {
        parts[known] = group
      } else {
        parts.append(group)
      }
    }
    let named = variables.values.reduce(0) { $0 + Set($1).count }
    guard Set(parts.map(\.path)).count == parts.count,
      named == variables.values.reduce(0, { $0 + $1.count }),
      variables.isEmpty || variables.count == parts.count
    else { throw CommandError("'\(what)': expected groups or variables, each once") }
    return Selection(parts: parts, variables: variables.isEmpty ? nil : variables)
  }

  private func unknown(_ word: String, _ groups: [ResultFileWriter.Group]) -> CommandError {
    let names = groups.flatMap { group in
      [group.path] + group.variables.map { "\(group.path)/\($0.name)" }
    }
    func last(_ path: String) -> String { path.split(separator: "/").last.map(String.init) ?? "" }
    // By the last part, which may stand in another group; by the beginning; by the whole.
    let nearest =
      nearestText(to: last(word), among: names.map(last)).flatMap { end in
        names.first { last($0) == end }
      } ?? names.first { $0.hasPrefix(word) } ?? nearestText(to: word, among: names)
    let near = nearest.map { "; did you mean '\($0)'?" } ?? ""
    return CommandError(
      "\(file): no group or variable '\(word)'\(near); "
        + "groups: \(groups.map(\.path).joined(separator: ", "))")
  }
}
