import ArgumentParser
import Foundation
import NormLens

/// Where results go.
struct OutputOptions: ParsableArguments {
  @Option(
    name: .shortAndLong,
    help: ArgumentHelp("Write the result to this HDF5 file.", valueName: "file.h5"),
    completion: .file())
  var output: String?

  @Flag(help: "Print JSON instead of tables.")
  var json = false

  @Flag(help: "Print nothing but errors.")
  var quiet = false

  /// Whether anything but tables comes out.
  var keepsValues: Bool { output != nil || json }

  /// Prints a result as JSON, or what `table` says, and writes the file if one was named.
  func deliver(_ result: ResultSet, table: () throws -> String) throws {
    if let output { try ResultFile.write(result, to: output) }
    if quiet { return }
    if json {
      Terminal.print(JSONText.text(result))
    } else {
      Terminal.print(try table())
      if let output { Terminal.print("wrote \(output)") }
    }
  }

  /// Fails before anything is computed where the output could not be written or would replace one
  /// of the files that are read.
  func check(inputs: [String] = []) throws {
    guard let output else { return }
    if output.isEmpty { throw CommandError("-o '': expected a path, found an empty text") }
    if let identity = FileIdentity(output),
      let input = inputs.first(where: { FileIdentity($0) == identity })
    {
      throw CommandError("-o \(output): would replace the input '\(input)'; name another file")
    }
    let directory = URL(fileURLWithPath: output).deletingLastPathComponent().path
    guard PathKind(directory) == .directory else {
      throw CommandError(
        "\(output): cannot be created: no directory '\(directory)'", status: .cannotCreate)
    }
    if PathKind(output) == .directory {
      throw CommandError("\(output): cannot be created: it is a directory", status: .cannotCreate)
    }
    // Renaming over a device or a pipe would destroy it.
    if PathKind(output) == .file && !PathKind.isRegularFile(output) {
      throw CommandError(
        "\(output): cannot be created: is not a regular file; choose another output",
        status: .cannotCreate)
    }
    if !FileManager.default.isWritableFile(atPath: directory) {
      throw CommandError(
        "\(output): cannot be created: no permission to write to '\(directory)'",
        status: .cannotCreate)
    }
  }
}

/// What every result says of the run that made it.
func runProvenance(prependBOS: Bool?, seed: UInt64? = nil) -> Provenance {
  let format = ISO8601DateFormatter()
  var facts = Provenance([
    "tool_version": .string("normlens \(normLensVersion)"),
    "command_line": .string(commandLine()),
    "created": .string(format.string(from: Date())),
  ])
  if let prependBOS { facts.facts["prepend_bos"] = .integer(prependBOS ? 1 : 0) }
  if let seed { facts.facts["seed"] = .integer(Int(truncatingIfNeeded: seed)) }
  facts.facts["threads"] = .integer(Threads.count)
  facts.facts["blas"] = .string("OpenBLAS \(BLAS.coreName)")
  return facts
}

/// The command line, quoted where a shell would need it.
private func commandLine() -> String {
  let plain = CharacterSet.alphanumerics.union(CharacterSet(charactersIn: "-_./,=:@+%"))
  let words = CommandLine.arguments.enumerated().map { index, word in
    let word = index == 0 ? URL(fileURLWithPath: word).lastPathComponent : word
    if !word.isEmpty && word.unicodeScalars.allSatisfy(plain.contains) { return word }
    return "'" + word.replacingOccurrences(of: "'", with: "'\\''") + "'"
  }
  return words.joined(separator: " ")
}
