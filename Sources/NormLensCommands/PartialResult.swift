import Foundation
import NormLens

/// `<out>.partial`: what is known of a long computation before it is finished.
///
/// The file is replaced atomically, so that at any moment it is whole or not there; a killed process
/// leaves the one before. Writing it takes at most a twentieth of the time.
struct PartialResult {
  /// Its path; nil where no output was asked for.
  let path: String?
  private let output: String
  private var written = ContinuousClock.now
  private var cost = Duration.zero

  init(_ output: String?) {
    path = output.map { $0 + ".partial" }
    self.output = output ?? ""
  }

  /// What an interrupted run left.
  ///
  /// - Parameter resume: whether it is to be taken up.
  /// - Throws: `CommandError` where there is something and it is not to be taken up, or the other way
  ///   round; `HDF5Error` for a damaged file.
  func read(resume: Bool) throws -> ResultSet? {
    guard let path else { return nil }
    let exists = PathKind(path) != .missing
    if !resume {
      if exists {
        throw CommandError(
          "\(path): an interrupted run left it, or another is at work on it; go on with --resume, or remove it",
          status: .cannotCreate)
      }
      return nil
    }
    guard exists else {
      throw CommandError(
        PathKind(output) == .file
          ? "\(path): nothing to resume: no such file, and \(output) is there"
          : "\(path): nothing to resume: no such file; leave out --resume to start",
        status: .noInput)
    }
    let result = try ResultFile.read(path)
    // Another version may round otherwise, and the result would be neither's.
    let version = AttributeValue.string("normlens \(normLensVersion)")
    if let found = result.provenance.facts["tool_version"], found != version {
      throw CommandError(
        "\(path): written by \(found), this is \(version); remove it and start anew", status: .data)
    }
    return result
  }

  /// Keeps what is known so far, unless that was done a moment ago.
  mutating func keep(_ result: () -> ResultSet) throws {
    guard let path, ContinuousClock.now - written >= cost * 20 else { return }
    let start = ContinuousClock.now
    try ResultFile.write(result(), to: path)
    written = ContinuousClock.now
    cost = written - start
  }

  /// Removes the file once the result is there.
  func remove() {
    if let path { try? FileManager.default.removeItem(atPath: path) }
  }
}
