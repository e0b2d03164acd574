#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

/// A checksum of a whole result file, in 20 bytes after the end of what HDF5 sees.
///
/// netCDF's rules put text into a heap that HDF5 neither checksums nor bounds-checks: a flipped bit
/// there can crash the library. A sealed file is therefore verified before HDF5 looks at it, and one
/// without a seal is read by a child process first (``HDF5Guard``). HDF5 ignores bytes after its own end, and cuts them off when it changes a file: a file that another
/// program has edited has no seal any more and is still a good file.
///
/// The bytes: `NLSEAL01`, the CRC-32C of everything before as 32 bits, and the number of those bytes
/// as 64 bits, little-endian.
enum FileSeal {
  static let byteCount = 20
  /// Larger files are not sealed: they are not in the system's memory any more when they have been
  /// written, and reading them back from the disk would take as long again.
  static let limit = 16 << 30
  private static let magic = Array("NLSEAL01".utf8)

  /// What is read at once.
  private static let pieceBytes = 32 << 20

  /// Seals the file that has just been written and closed.
  static func put(on output: AtomicFile) throws(HDF5Error) {
    let descriptor = try MappedFile.openForReading(output.temporary)
    defer { close(descriptor) }
    var status = stat()
    guard fstat(descriptor, &status) == 0 else {
      throw .unreadable(path: output.temporary, reason: systemReason())
    }
    guard Int(status.st_size) <= limit else { return }
    try output.append(seal(of: Int(status.st_size), output.temporary, descriptor))
  }

  /// Whether the file behind `descriptor` is sealed; fails if it is and has changed since.
  static func check(_ path: String, descriptor: Int32) throws(HDF5Error) -> Bool {
    var status = stat()
    guard fstat(descriptor, &status) == 0 else {
      throw .unreadable(path: path, reason: systemReason())
    }
    let end = Int(status.st_size) - byteCount
    var found = [UInt8](repeating: 0, count: byteCount)
    guard end > 0, end <= limit, pread(descriptor, &found, byteCount, off_t(end)) == byteCount,
      found.starts(with: magic)
    else { return false }
    guard try found == seal(of: end, path, descriptor) else {
      throw .damaged(
        path: path, object: "file", expected: "the checksum that was stored with it",
        found: "another")
    }
    return true
  }

  /// The seal of a file's first `count` bytes, read piece by piece: memory does not grow with the file.
  private static func seal(
    of count: Int, _ path: String, _ descriptor: Int32
  ) throws(HDF5Error) -> [UInt8] {
    var piece = [UInt8](repeating: 0, count: min(count, pieceBytes))
    var (sum, done): (UInt32, Int) = (0, 0)
    while done < count {
      let found = pread(descriptor, &piece, min(piece.count, count - done), off_t(done))
      guard found > 0 else {
        if found < 0 && errno == EINTR { continue }
        let reason = found < 0 ? systemReason() : "ends at byte \(done) of \(count)"
        throw .unreadable(path: path, reason: reason)
      }
      let part = piece.withUnsafeBytes {
        ParallelChecksums.crc32c(of: [UnsafeRawBufferPointer(rebasing: $0.prefix(found))])[0]
      }
      sum = Crc32cShift(bytes: found).combine(sum, part)
      done += found
    }
    var seal = magic
    withUnsafeBytes(of: sum.littleEndian) { seal.append(contentsOf: $0) }
    withUnsafeBytes(of: UInt64(count).littleEndian) { seal.append(contentsOf: $0) }
    return seal
  }
}
