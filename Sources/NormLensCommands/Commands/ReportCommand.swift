import ArgumentParser
import Foundation
import NormLens

/// `normlens report`: one page for a study.
struct ReportCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "report", abstract: "Write one self-contained HTML page about result files.",
    discussion: """
      Pictures with their values, tables, attention patterns and the numbers as CSV in one file that \
      needs no network.
      """)

  @Argument(help: "Result files.", completion: .file()) var files: [String]
  @Option(name: .shortAndLong, help: "The page to write.", completion: .file()) var output: String
  @Option(
    help: "The page's heading; without it the title of the only result, or 'NormLens report'.")
  var title: String?
  @Flag(help: "Do not print where the page went.") var quiet = false

  func validate() throws {
    for (place, path) in files.enumerated() where files[..<place].contains(path) {
      throw ValidationError("\(path): given twice")
    }
  }

  func run() throws {
    var destination = OutputOptions()
    destination.output = output
    try destination.check(inputs: files)
    Interruption.install()
    let sources = try zip(files, Self.names(of: files)).map { path, name in
      Report.Source(
        name: name, checksum: try FileBytes.sha256(path),
        result: try ResultFile.read(path, maximumBytes: ShowCommand.maximumBytes))
    }
    let own = sources.count == 1 ? sources.first?.result.title : nil
    let heading = title ?? own.flatMap { $0.isEmpty ? nil : $0 } ?? "NormLens report"
    let page = Array(Report(title: heading, sources: sources).html.utf8)
    try FileBytes.write(page, to: output)
    if !quiet { Terminal.print("\(output): \(bytes(page.count))") }
  }

  /// The names of files without folders, with as many folders as tell two of one name apart.
  static func names(of paths: [String]) -> [String] {
    let parts = paths.map { $0.split(separator: "/").map(String.init) }
    func name(_ place: Int, _ depth: Int) -> String {
      parts[place].suffix(depth).joined(separator: "/")
    }
    return paths.indices.map { place in
      let others = paths.indices.filter { $0 != place }
      let depths = 1...max(1, parts[place].count)
      let depth = depths.first { depth in
        !others.contains { name($0, depth) == name(place, depth) }
      }
      return depth.map { name(place, $0) } ?? paths[place]
    }
  }
}
