import Synchronization

#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

/// A file that appears under its name complete, or not at all.
///
/// It is written under a temporary name in the same directory, synchronised, and renamed. Until
/// ``commit()`` an older file of the name stays as it was; a failure leaves no temporary behind.
final class AtomicFile {
  /// The path that the caller gave, for messages.
  let path: String
  /// Where to write.
  let temporary: String
  private let destination: String
  private var isPending = true
  private let slot: TemporaryFiles.Slot?
  private static let serial = Atomic<Int>(0)

  /// Creates the temporary file, empty.
  init(path: String) throws(HDF5Error) {
    self.path = path
    self.destination = try AtomicFile.resolved(path)
    let number = AtomicFile.serial.add(1, ordering: .relaxed).newValue
    self.temporary = "\(destination).\(getpid())-\(number).tmp"
    let descriptor = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o666)
    guard descriptor >= 0 else { throw .cannotCreate(path: path, reason: systemReason()) }
    close(descriptor)
    self.slot = TemporaryFiles.register(temporary)
  }

  deinit {
    discard()
    TemporaryFiles.forget(slot)
  }

  /// Where a file given as `path` really goes: through symbolic links, which stay links.
  private static func resolved(_ path: String) throws(HDF5Error) -> String {
    guard !path.isEmpty, path.utf8.last != UInt8(ascii: "/") else {
      throw .cannotCreate(path: path, reason: "the path names no file")
    }
    var status = stat()
    guard stat(path, &status) == 0 else { return path }
    // Renaming over /dev/null or a directory would destroy it or fail late.
    guard status.st_mode & S_IFMT == S_IFREG else {
      let isDirectory = status.st_mode & S_IFMT == S_IFDIR
      throw .cannotCreate(
        path: path, reason: isDirectory ? "is a directory" : "is not a regular file")
    }
    guard let real = realpath(path, nil) else { return path }
    defer { free(real) }
    return String(cString: real)
  }

  /// Appends bytes to the file that is being filled.
  typealias Put = (UnsafeRawBufferPointer) throws(HDF5Error) -> Void

  /// Writes the temporary file from its beginning: whatever `body` puts, in order.
  func fill(_ body: (Put) throws(HDF5Error) -> Void) throws(HDF5Error) {
    try put(O_TRUNC, body)
  }

  /// Adds bytes to the end of the temporary file.
  func append(_ bytes: [UInt8]) throws(HDF5Error) {
    try put(O_APPEND) { (put: Put) throws(HDF5Error) in try bytes.span.withUnsafeBytes(put) }
  }

  private func put(
    _ mode: Int32, _ body: (Put) throws(HDF5Error) -> Void
  ) throws(HDF5Error) {
    let descriptor = open(temporary, O_WRONLY | O_CLOEXEC | mode)
    guard descriptor >= 0 else { throw .cannotCreate(path: path, reason: systemReason()) }
    var isOpen = true
    defer { if isOpen { close(descriptor) } }
    try body { (bytes: UnsafeRawBufferPointer) throws(HDF5Error) in
      var position = 0
      while position < bytes.count {
        // Linux writes at most 2 GiB at once.
        let end = min(bytes.count, position + (1 << 30))
        let part = UnsafeRawBufferPointer(rebasing: bytes[position..<end])
        let written = write(descriptor, part.baseAddress, part.count)
        guard written >= 0 || errno == EINTR else { throw failure("writing") }
        position += max(written, 0)
      }
    }
    isOpen = false
    guard close(descriptor) == 0 else { throw failure("closing") }
  }

  /// Gives the file its name, after its bytes have reached the disk.
  func commit() throws(HDF5Error) {
    let descriptor = open(temporary, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw failure("opening it again") }
    let synchronised = fsync(descriptor) == 0
    let problem = synchronised ? nil : failure("synchronising")
    close(descriptor)
    if let problem { throw problem }
    guard rename(temporary, destination) == 0 else { throw failure("renaming") }
    isPending = false
    // The new name itself must survive a power cut; some file systems cannot do this, and then
    // there is nothing better to do.
    let directory = open(parent, O_RDONLY | O_CLOEXEC)
    if directory >= 0 {
      _ = fsync(directory)
      close(directory)
    }
  }

  /// Removes the temporary file, if it is still there.
  func discard() {
    guard isPending else { return }
    isPending = false
    unlink(temporary)
  }

  private var parent: String {
    guard let slash = destination.lastIndex(of: "/") else { return "." }
    return slash == destination.startIndex ? "/" : String(destination[..<slash])
  }

  private func failure(_ action: String) -> HDF5Error {
    .ioFailed(path: path, object: action, reason: systemReason())
  }
}
