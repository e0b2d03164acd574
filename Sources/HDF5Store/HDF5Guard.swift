import CHDF5
import CHDF5Guard

#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

/// Reads strange HDF5 files in a child process before this one does.
///
/// HDF5 has checksums for the metadata of its newer formats only, and none for texts in heaps: what
/// Keras writes, and result files without a seal, can crash the library, make it loop or make it ask
/// for all memory when a bit has flipped. The child (`CHDF5Guard`) reads whatever this process may
/// read later, within an address space and a time; only a file that it has read whole is opened here.
///
/// The file must stay as it is in between: both check that the path leads to the same file of the same
/// size, but bytes that somebody overwrites in place at that moment are not noticed.
enum HDF5Guard {
  /// Seconds for a small file.
  static let seconds = 10
  /// Bytes that a slow disk delivers in a second: large files get a second more for each.
  static let slowBytesPerSecond = 100_000_000
  /// Bytes of memory beyond twice the file's size.
  static let memoryBytes = 64 << 20

  /// The reason why a file is not opened that has taken another's place.
  static let replaced = "another file has taken its place while it was opened"

  /// Reads the file in a child process.
  ///
  /// - Parameters:
  ///   - path: the file.
  ///   - status: what `path` is known to lead to.
  ///   - access: the properties that it will be opened with.
  ///   - seconds: the time for a small file.
  /// - Throws: `damaged` naming the object at which HDF5 failed or the child died; `ioFailed` if no
  ///   child can be started; `unreadable` if `path` leads to another file by now.
  static func check(
    _ path: String, _ status: stat, _ access: HDF5Handle, seconds: Int = seconds
  ) throws(HDF5Error) {
    let size = Int(status.st_size)
    var limits = nl_guard_limits()
    limits.seconds = UInt32(clamping: seconds + size / slowBytesPerSecond)
    limits.memory_bytes = UInt64(memoryBytes) + 2 * UInt64(size)
    limits.file_bytes = UInt64(size)
    limits.device = UInt64(truncatingIfNeeded: status.st_dev)
    limits.inode = UInt64(status.st_ino)
    limits.objects = UInt64(HDF5Limits.objects)
    limits.depth = UInt32(HDF5Limits.depth)
    limits.rank = UInt32(HDF5Limits.rank)
    limits.name_bytes = UInt32(HDF5Limits.nameBytes)
    limits.path_bytes = UInt32(HDF5Limits.pathBytes)
    limits.attribute_bytes = UInt64(HDF5Limits.attributeBytes)
    limits.sparse_bytes = UInt64(HDF5Limits.sparseBytes)
    limits.expansion = UInt64(HDF5Limits.expansion)
    // Every text is stored once; links may lead to some of them twice.
    limits.text_bytes = UInt64(2 * size + (1 << 20))

    let report = UnsafeMutablePointer<nl_guard_report>.allocate(capacity: 1)
    defer { report.deallocate() }
    report.initialize(to: nl_guard_report())
    nl_hdf5_guard(path, access.id, &limits, report)

    let object = String(cString: nl_guard_object(report))
    let expected = String(cString: nl_guard_expected(report))
    let reason = String(cString: nl_guard_reason(report))
    func damaged(_ found: String) -> HDF5Error {
      .damaged(
        path: path, object: object.isEmpty ? "file" : object, expected: "readable HDF5",
        found: "damaged HDF5: \(found)")
    }
    switch nl_guard_outcome(report.pointee.outcome) {
    case NL_GUARD_SOUND: return
    case NL_GUARD_REFUSED where expected.isEmpty:
      throw damaged(words(reason))
    case NL_GUARD_REFUSED:
      throw .damaged(
        path: path, object: object, expected: expected, found: "\(reason) (damaged HDF5)")
    case NL_GUARD_REPLACED: throw .unreadable(path: path, reason: replaced)
    case NL_GUARD_SIGNAL where report.pointee.detail == SIGALRM:
      throw damaged("reading it has not ended after \(limits.seconds) s")
    case NL_GUARD_SIGNAL:
      let name = strsignal(report.pointee.detail).map { String(cString: $0) } ?? "unknown"
      throw damaged("HDF5 crashed on it in a trial, signal \(report.pointee.detail) (\(name))")
    case NL_GUARD_NO_CHILD:
      throw .ioFailed(
        path: path, object: "a child process to read it first",
        reason: String(cString: strerror(report.pointee.detail)))
    default: throw damaged("HDF5 ended the process that read it in a trial")
    }
  }

  /// What HDF5 says, and what it may mean: a later release writes what this one cannot read.
  private static func words(_ reason: String) -> String {
    if reason.isEmpty { return "HDF5 gives no reason" }
    guard reason.contains("version") else { return HDF5Library.shortened(reason) }
    var (major, minor, release): (UInt32, UInt32, UInt32) = (0, 0, 0)
    H5get_libversion(&major, &minor, &release)
    return HDF5Library.shortened(reason)
      + " (perhaps a file of a later HDF5 than \(major).\(minor).\(release))"
  }
}

/// Where an HDF5 file begins and which generation of the format it is.
struct Superblock {
  /// Whether superblock and object headers are of the kinds that have checksums, so that the root
  /// group's attributes can be read without danger from damage.
  let hasChecksums: Bool

  private static let signature: [UInt8] = [0x89, 0x48, 0x44, 0x46, 0x0d, 0x0a, 0x1a, 0x0a]

  /// Looks for the signature at the places that the format allows.
  ///
  /// - Throws: `wrongKind` where there is none.
  init(path: String, descriptor: Int32, size: Int) throws(HDF5Error) {
    // Signature, version, sizes and flags, then four addresses, the last that of the root group.
    var bytes = [UInt8](repeating: 0, count: 44)
    var place = 0
    while true {
      let count = pread(descriptor, &bytes, bytes.count, off_t(place))
      guard count >= 0 else { throw .unreadable(path: path, reason: systemReason()) }
      if count >= 8, bytes.starts(with: Superblock.signature) { break }
      place = place == 0 ? 512 : 2 * place
      guard place < size else {
        throw .wrongKind(
          path: path, expected: "an HDF5 file",
          found: size == 0 ? "an empty file" : "a file of another kind", advice: "check the path")
      }
    }
    guard place == 0, bytes[8] >= 2, bytes[9] == 8 else {
      hasChecksums = false
      return
    }
    let root = bytes[36..<44].reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
    var header = [UInt8](repeating: 0, count: 4)
    hasChecksums =
      root <= UInt64(size) && pread(descriptor, &header, 4, off_t(root)) == 4
      && header == Array("OHDR".utf8)
  }
}
