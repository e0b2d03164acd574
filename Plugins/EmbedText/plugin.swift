import Foundation
import PackagePlugin

/// Makes a target's `.js`, `.css`, `.html` and `.txt` files Swift strings, so that the program needs no file
/// beside it.
@main
struct EmbedText: BuildToolPlugin {
  func createBuildCommands(context: PluginContext, target: any Target) async throws -> [Command] {
    guard let target = target as? any SourceModuleTarget else { return [] }
    let files = target.sourceFiles.map(\.url)
      .filter { ["js", "css", "html", "txt"].contains($0.pathExtension) }
      .sorted { $0.path < $1.path }
    let output = context.pluginWorkDirectoryURL.appending(path: "EmbeddedText.swift")
    return [
      .buildCommand(
        displayName: "Embedding \(files.map(\.lastPathComponent).joined(separator: ", "))",
        executable: try context.tool(named: "EmbedTextTool").url,
        arguments: [output.path] + files.map(\.path), inputFiles: files, outputFiles: [output])
    ]
  }
}
