import Foundation
import TestSupport
import Testing

/// Runs the built binary as a user would.
enum Command {
  /// What a process left behind.
  struct Outcome {
    var status: Int32
    var output: String
    var errors: String
  }

  struct NotFound: Error, CustomStringConvertible {
    var description: String
  }

  /// The binary, which is built beside the test bundle.
  static let binary: Result<URL, NotFound> = {
    var starts = Bundle.allBundles.filter { $0.bundlePath.hasSuffix(".xctest") }.map(\.bundleURL)
    if let executable = Bundle.main.executableURL { starts.append(executable) }
    starts.append(URL(fileURLWithPath: CommandLine.arguments[0]))
    for start in starts {
      var directory = start.resolvingSymlinksInPath().deletingLastPathComponent()
      // On macOS the test executable lies inside the bundle.
      for _ in 0..<4 {
        let candidate = directory.appendingPathComponent("normlens")
        var isDirectory: ObjCBool = false
        if FileManager.default.fileExists(atPath: candidate.path, isDirectory: &isDirectory),
          !isDirectory.boolValue
        {
          return .success(candidate)
        }
        directory.deleteLastPathComponent()
      }
    }
    return .failure(NotFound(description: "no normlens beside \(starts.map(\.path))"))
  }()

  /// Runs `normlens` with these arguments in `directory`.
  ///
  /// - Parameters:
  ///   - redirection: what a shell does to its streams, such as `>&-`.
  ///   - limit: what a shell does first, such as `ulimit -f 100`.
  static func run(
    _ arguments: [String], in directory: TemporaryDirectory, environment: [String: String] = [:],
    redirection: String? = nil, limit: String? = nil
  ) throws -> Outcome {
    let process = Process()
    process.executableURL = try binary.get()
    process.arguments = arguments
    if redirection != nil || limit != nil {
      process.executableURL = URL(fileURLWithPath: "/bin/sh")
      process.arguments =
        ["-c", "\(limit ?? ":"); exec \"$0\" \"$@\" \(redirection ?? "")", try binary.get().path]
        + arguments
    }
    process.currentDirectoryURL = URL(fileURLWithPath: directory.path)
    var variables = ProcessInfo.processInfo.environment
    variables["NORMLENS_DATA"] = Fixtures.data
    variables["COLUMNS"] = nil
    for (name, value) in environment { variables[name] = value }
    process.environment = variables
    // Files rather than pipes: nobody has to empty them while the process runs.
    let streams = try TemporaryDirectory()
    func stream(_ name: String) throws -> FileHandle {
      try streams.write("", as: name)
      return try FileHandle(forWritingTo: URL(fileURLWithPath: streams.file(name)))
    }
    process.standardOutput = try stream("out")
    process.standardError = try stream("err")
    process.standardInput = FileHandle.nullDevice
    try process.run()
    process.waitUntilExit()
    func text(_ name: String) throws -> String {
      String(
        decoding: try Data(contentsOf: URL(fileURLWithPath: streams.file(name))), as: UTF8.self)
    }
    return Outcome(
      status: process.terminationReason == .exit
        ? process.terminationStatus : -process.terminationStatus,
      output: try text("out"), errors: try text("err"))
  }

  /// Runs a command that must succeed and say nothing on standard error; returns its output.
  @discardableResult
  static func succeed(
    _ arguments: [String], in directory: TemporaryDirectory,
    sourceLocation: SourceLocation = #_sourceLocation
  ) throws -> String {
    let outcome = try run(arguments, in: directory)
    #expect(outcome.status == 0, "\(arguments): \(outcome.errors)", sourceLocation: sourceLocation)
    #expect(outcome.errors.isEmpty, "\(arguments)", sourceLocation: sourceLocation)
    return outcome.output
  }

  /// Runs a command that must fail by the rules: its status, one line that begins with
  /// `normlens: error:`, nothing on standard output, no file created or left behind.
  ///
  /// - Parameter usage: whether the parser's usage lines may follow.
  static func fail(
    _ arguments: [String], _ status: Int32, saying parts: [String] = [], usage: Bool = false,
    in directory: TemporaryDirectory, sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let before = try directory.contents()
    let outcome = try run(arguments, in: directory)
    let what: Comment = "\(arguments) left \(outcome.status): \(outcome.errors)"
    #expect(outcome.status == status, what, sourceLocation: sourceLocation)
    #expect(outcome.output.isEmpty, what, sourceLocation: sourceLocation)
    #expect(outcome.errors.hasPrefix("normlens: error: "), what, sourceLocation: sourceLocation)
    #expect(outcome.errors.hasSuffix("\n"), what, sourceLocation: sourceLocation)
    let lines = outcome.errors.split(separator: "\n", omittingEmptySubsequences: false).dropLast()
    #expect(
      lines.filter { $0.hasPrefix("normlens: error:") }.count == 1, what,
      sourceLocation: sourceLocation)
    if !usage { #expect(lines.count == 1, what, sourceLocation: sourceLocation) }
    for part in parts {
      #expect(
        lines.first?.contains(part) == true, "lacks '\(part)': \(outcome.errors)",
        sourceLocation: sourceLocation)
    }
    #expect(try directory.contents() == before, what, sourceLocation: sourceLocation)
  }
}
