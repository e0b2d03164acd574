import ArgumentParser
import NormLens

/// `normlens show`: prints any result file.
struct ShowCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "show", abstract: "Print a result file.",
    discussion: "A file with many tables is listed; name a group or a variable to see its numbers.")

  @Argument(help: "A result file.", completion: .file()) var file: String
  @Argument(help: "Only this group (dla) or variable (dla/head_contribution).") var what: String?
  @Option(help: "The most rows of a table.") var rows = 24
  @Option(help: "The most columns of a table.") var columns = 12
  @Flag(help: "Print JSON instead of tables.") var json = false

  /// A file of more tables than this is only listed unless a part of it is named.
  private static let tableLimit = 24

  func validate() throws {
    if rows < 1 || columns < 1 { throw ValidationError("--rows and --columns: expected 1 or more") }
  }

  func run() throws {
    let result = try ResultFile.read(file)
    let chosen = try select(result)
    let findings = chosen.result.groups.flatMap(\.variables).filter { !$0.isCoordinate }.count
    if json {
      Terminal.print(JSONText.text(chosen.result))
    } else if what == nil && findings > Self.tableLimit {
      Terminal.print(ResultText().contents(chosen.result))
      let paths = chosen.result.groups.filter { !$0.variables.isEmpty }.map(\.path)
      Terminal.print("\n\(findings) tables of numbers: normlens show \(file) \(paths.last ?? "")")
    } else {
      Terminal.print(
        ResultText(rowLimit: rows, columnLimit: columns)
          .text(chosen.result, variable: chosen.variable))
    }
  }

  /// The part that was asked for.
  private func select(_ result: ResultSet) throws -> (result: ResultSet, variable: String?) {
    guard let what else { return (result, nil) }
    var part = result
    if let group = result[group: what] {
      part.groups = [group]
      return (part, nil)
    }
    let path = what.split(separator: "/").dropLast().joined(separator: "/")
    let name = String(what.split(separator: "/").last ?? "")
    if var group = result[group: path], let variable = group[variable: name] {
      group.variables = [variable]
      part.groups = [group]
      return (part, name)
    }
    let names = result.groups.flatMap { group in
      [group.path] + group.variables.map { "\(group.path)/\($0.name)" }
    }
    func last(_ path: String) -> String { path.split(separator: "/").last.map(String.init) ?? "" }
    // By the last part, which may stand in another group; by the beginning; by the whole.
    let nearest =
      nearestText(to: name, among: names.map(last)).flatMap { end in
        names.first { last($0) == end }
      } ?? names.first { $0.hasPrefix(what) } ?? nearestText(to: what, among: names)
    let near = nearest.map { "; did you mean '\($0)'?" } ?? ""
    throw CommandError(
      "\(file): no group or variable '\(what)'\(near); "
        + "groups: \(result.groups.map(\.path).joined(separator: ", "))")
  }
}
