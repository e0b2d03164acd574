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

  func run() throws {
    let sources = try files.map { path in
      Report.Source(
        name: URL(fileURLWithPath: path).lastPathComponent, result: try ResultFile.read(path))
    }
    try Data(Report(title: "NormLens report", sources: sources).html.utf8)
      .write(to: URL(fileURLWithPath: output))
  }
}
