import Foundation

/// Where the tests find their files, relative to this source file: no path of any machine is written
/// down.
public enum Fixtures {
  /// The package's directory.
  public static let repository = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent().path

  /// The random checkpoints with golden values.
  public static let checkpoints = [
    "tiny-ln", "tiny-lnfree", "tiny-apollo", "tiny-1x1", "tiny-relu-untied", "tiny-gelu-erf",
  ]

  /// The Hugging Face directory of a random checkpoint.
  public static func checkpoint(_ name: String) -> String {
    "\(repository)/Tests/Fixtures/golden/\(name)"
  }

  /// The directory that `NORMLENS_DATA` would name.
  public static let data = "\(repository)/notebooks-data"

  /// The file of a bundled model, found whatever the working directory is.
  public static func bundled(_ name: String) -> String { "\(data)/models/\(name).h5" }
}

/// A directory that exists as long as the test needs it.
public final class TemporaryDirectory {
  /// Its path.
  public let path: String

  /// Makes an empty directory.
  public init() throws {
    let url = FileManager.default.temporaryDirectory
      .appendingPathComponent("normlens-test-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
    path = url.path
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }

  /// The path of `name` inside.
  public func file(_ name: String) -> String { "\(path)/\(name)" }

  /// The names of everything inside, hidden files and those of subdirectories too.
  public func contents() throws -> [String] {
    try FileManager.default.subpathsOfDirectory(atPath: path).sorted()
  }

  /// Copies the file or directory at `source` inside and returns the copy's path.
  @discardableResult
  public func copy(_ source: String, as name: String) throws -> String {
    try FileManager.default.copyItem(atPath: source, toPath: file(name))
    return file(name)
  }

  /// Writes a text file and returns its path.
  @discardableResult
  public func write(_ text: String, as name: String) throws -> String {
    try Data(text.utf8).write(to: URL(fileURLWithPath: file(name)))
    return file(name)
  }
}
