/// Small files as bytes: read within a limit, written atomically.
public enum FileBytes {
  /// The bytes of the file at `path`.
  ///
  /// - Throws: `missing`, `unreadable`, or `tooLarge` beyond `limit` bytes.
  public static func read(_ path: String, limit: Int = 1 << 30) throws(HDF5Error) -> [UInt8] {
    let file = try MappedFile(path: path)
    guard file.bytes.count <= limit else {
      throw .tooLarge(
        path: path, object: "file", bytes: "\(file.bytes.count) bytes", limit: "\(limit) bytes")
    }
    return file.withBytes { Array($0) }
  }

  /// The first bytes of the file at `path`, at most `count` of them.
  ///
  /// - Throws: `missing` or `unreadable`.
  public static func prefix(_ path: String, count: Int) throws(HDF5Error) -> [UInt8] {
    let file = try MappedFile(path: path)
    return file.withBytes { Array($0.prefix(count)) }
  }

  /// The SHA-256 of the file at `path` in lower-case hexadecimal.
  ///
  /// - Throws: `missing` or `unreadable`.
  public static func sha256(_ path: String) throws(HDF5Error) -> String {
    let file = try MappedFile(path: path)
    return file.withBytes { bytes in
      var hash = SHA256()
      hash.update(bytes)
      return hash.hexDigest()
    }
  }

  /// Writes `bytes` to `path`; the file appears complete, or not at all.
  ///
  /// - Throws: `cannotCreate` or `ioFailed`.
  public static func write(_ bytes: [UInt8], to path: String) throws(HDF5Error) {
    try write(to: path) { (put) throws(HDF5Error) in try put(bytes) }
  }

  /// Writes what `body` puts, piece after piece, to `path`; the file appears complete, or not at all.
  ///
  /// - Throws: `cannotCreate`, `ioFailed` or what `body` throws.
  public static func write(
    to path: String,
    _ body: (_ put: ([UInt8]) throws(HDF5Error) -> Void) throws(HDF5Error) -> Void
  ) throws(HDF5Error) {
    let output = try AtomicFile(path: path)
    try body { (bytes) throws(HDF5Error) in try output.append(bytes) }
    try output.commit()
  }
}
