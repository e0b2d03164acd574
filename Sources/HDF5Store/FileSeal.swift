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
  /// Larger files are not sealed: reading them back would take longer than writing them has.
  static let limit = 1 << 30
  private static let magic = Array("NLSEAL01".utf8)

  /// Seals the file that has just been written and closed.
  static func put(on output: AtomicFile) throws(HDF5Error) {
    let file = try MappedFile(path: output.temporary)
    guard file.bytes.count <= limit else { return }
    try output.append(file.withBytes { seal(of: $0) })
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
    let file = try MappedFile(path: path, descriptor: descriptor)
    let expected = file.withBytes { seal(of: UnsafeRawBufferPointer(rebasing: $0.prefix(end))) }
    guard found == expected else {
      throw .damaged(
        path: path, object: "file", expected: "the checksum that was stored with it",
        found: "another")
    }
    return true
  }

  private static func seal(of bytes: UnsafeRawBufferPointer) -> [UInt8] {
    let sum = ParallelChecksums.crc32c(of: [bytes])[0]
    var seal = magic
    withUnsafeBytes(of: sum.littleEndian) { seal.append(contentsOf: $0) }
    withUnsafeBytes(of: UInt64(bytes.count).littleEndian) { seal.append(contentsOf: $0) }
    return seal
  }
}
