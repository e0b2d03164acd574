import CHDF5
import OrderedCollections
public import Results

/// Result files: a `ResultSet` as self-describing HDF5.
public enum ResultFile {
  /// Numbers up to this many bytes are compressed; larger arrays are activations, which hardly
  /// shrink and would take a hundred times as long to write.
  static let compressedBytes = 16 << 20

  // MARK: Writing

  /// Writes a result; the file appears at `path` complete, or not at all.
  ///
  /// - Throws: `unstorable` for names that the format cannot hold, `cannotCreate`, `ioFailed`.
  public static func write(_ set: ResultSet, to path: String) throws(HDF5Error) {
    let writer = try ResultFileWriter(
      path: path, title: set.title, provenance: set.provenance,
      groups: set.groups.map { ResultFileWriter.Group($0) })
    for group in set.groups { try writer.write(group) }
    try writer.finish()
  }

  // MARK: Reading

  /// Reads a result that ``write(_:to:)`` or ``ResultFileWriter`` has written.
  ///
  /// - Parameters:
  ///   - path: the file.
  ///   - maximumBytes: of a result with more bytes of values, only the first prompts are read, as
  ///     ``ResultFileReader/result(of:maximumBytes:prompt:)`` says.
  /// - Throws: `missing`, `unreadable`; `wrongKind` for another file, a model say; `damaged` naming
  ///   the array; `tooLarge` for arrays that must be read in parts.
  public static func read(
    _ path: String, maximumBytes: Int = .max
  ) throws(HDF5Error) -> ResultSet {
    try ResultFileReader(path: path).result(maximumBytes: maximumBytes)
  }
}
