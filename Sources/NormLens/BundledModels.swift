import Foundation

/// The small trained models that come with the project.
public enum BundledModels {
  /// Their names.
  public static let names = ["mini", "mini-vanilla", "mini-lnfree"]

  /// Where the bundled data lie: the directory in `NORMLENS_DATA`, or `notebooks-data` in the
  /// working directory, in the executable's directory or in one above either.
  public static func dataDirectory() -> String? {
    let environment = ProcessInfo.processInfo.environment
    if let named = environment["NORMLENS_DATA"], !named.isEmpty { return named }
    var starts = [URL(fileURLWithPath: FileManager.default.currentDirectoryPath)]
    if let executable = Bundle.main.executableURL {
      starts.append(executable.resolvingSymlinksInPath().deletingLastPathComponent())
    }
    for start in starts {
      var directory = start
      while true {
        let candidate = directory.appendingPathComponent("notebooks-data")
        if FileManager.default.fileExists(
          atPath: candidate.appendingPathComponent("models").path)
        {
          return candidate.path
        }
        let above = directory.deletingLastPathComponent()
        if above.path == directory.path { break }
        directory = above
      }
    }
    return nil
  }

  /// The file of the bundled model `name`.
  ///
  /// - Throws: `ModelSourceError.unreadable` where the data directory is not found or lacks it.
  static func path(_ name: String) throws(ModelSourceError) -> String {
    guard let directory = dataDirectory() else {
      throw .unreadable(
        path: "bundled model '\(name)'",
        reason: "no notebooks-data directory here or above; set NORMLENS_DATA to it")
    }
    let path = "\(directory)/models/\(name).h5"
    guard FileManager.default.fileExists(atPath: path) else {
      throw .unreadable(
        path: path, reason: "no such file; NORMLENS_DATA must name the notebooks-data directory")
    }
    return path
  }
}
