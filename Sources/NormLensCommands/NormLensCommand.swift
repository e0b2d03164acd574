public import ArgumentParser
import Foundation
import NormLens

/// The command `normlens`: a list of subcommands.
public struct NormLensCommand: ParsableCommand {
  /// The subcommands, in the order of the help.
  public static let configuration = CommandConfiguration(
    commandName: "normlens",
    abstract: "Look inside GPT-2 style transformers, with LayerNorm and without.",
    discussion: """
      MODEL is a NormLens model file (.h5), a Hugging Face directory or the weight file in one, or a \
      bundled model: mini, mini-vanilla, mini-lnfree.
      """,
    version: normLensVersion,
    subcommands: [
      DemoCommand.self, InspectCommand.self, ConvertCommand.self, InitCommand.self,
      RunCommand.self, TokenizeCommand.self, CacheCommand.self, LensCommand.self,
      DLACommand.self, GeometryCommand.self,
      StreamCommand.self,
      HeadsCommand.self,
      EvaluateCommand.self,
      NeuronsCommand.self,
      PatchCommand.self, PathsCommand.self,
      PromptsCommand.self, PlotCommand.self, ReportCommand.self, ShowCommand.self,
      BenchCommand.self,
    ])

  /// The command.
  public init() {}

  /// Runs the process' command line and leaves with its exit status.
  public static func runProcess() -> Never {
    Terminal.occupyClosedStreams()
    do {
      try CommandWords(Array(CommandLine.arguments.dropFirst())).check()
      var command = try parseAsRoot()
      try command.run()
      leave(with: 0)
    } catch {
      // Help and version arrive as errors of status 0.
      let usage = exitCode(for: error)
      let status = ExitStatus(error)
      if usage == .success {
        Terminal.print(message(for: error))
        leave(with: 0)
      }
      if let status {
        Terminal.complain(describe(error))
        leave(with: status.rawValue)
      }
      // The parser's message, its usage lines included, under the same heading as every other error.
      var text = fullMessage(for: error)
      if text.hasPrefix("Error: ") { text = "normlens: error: " + text.dropFirst(7) }
      Terminal.writeError(text + "\n")
      leave(with: usage.rawValue)
    }
  }

  private static func leave(with status: Int32) -> Never {
    fflush(nil)
    Foundation.exit(status)
  }

  /// The one line of an error. Names in it may come from a file: they do not steer the terminal.
  private static func describe(_ error: any Error) -> String {
    let lines = String(describing: error).split(whereSeparator: \.isNewline)
    return OneLine.escaped(lines.joined(separator: " "))
  }
}
