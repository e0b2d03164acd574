#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

/// A whole file mapped read-only, unmapped when the last reference goes.
///
/// Files of this module are replaced by renaming, never rewritten in place, so a mapping keeps
/// seeing the file it was made from. A file that another program cuts short while it is mapped ends
/// this process at the first byte that is gone (SIGBUS), as with every mapped file: sizes are taken
/// from the open descriptor, but no check can hold for what happens after it.
final class MappedFile: @unchecked Sendable {
  // Sendable: the mapping is never written.
  let path: String
  /// The bytes, valid as long as the object: a local variable must use ``withBytes(_:)``, because
  /// Swift may release an object after its last use, even while its bytes are still being read.
  let bytes: UnsafeRawBufferPointer

  /// Maps the file at `path`.
  convenience init(path: String) throws(HDF5Error) {
    let descriptor = try MappedFile.openForReading(path)
    defer { close(descriptor) }
    try self.init(path: path, descriptor: descriptor)
  }

  /// Maps the file behind an open descriptor, which may be closed afterwards.
  init(path: String, descriptor: Int32) throws(HDF5Error) {
    self.path = path
    var status = stat()
    guard fstat(descriptor, &status) == 0 else {
      throw .unreadable(path: path, reason: systemReason())
    }
    let size = Int(status.st_size)
    guard size > 0 else {
      self.bytes = UnsafeRawBufferPointer(start: nil, count: 0)
      return
    }
    let base = mmap(nil, size, PROT_READ, MAP_PRIVATE, descriptor, 0)
    guard let base, base != MAP_FAILED else {
      throw .unreadable(path: path, reason: "mapping \(size) bytes: \(systemReason())")
    }
    self.bytes = UnsafeRawBufferPointer(start: base, count: size)
  }

  deinit {
    if let base = bytes.baseAddress {
      munmap(UnsafeMutableRawPointer(mutating: base), bytes.count)
    }
  }

  /// Calls `body` with the bytes, which stay mapped until it returns.
  func withBytes<R, E: Error>(
    _ body: (UnsafeRawBufferPointer) throws(E) -> R
  ) throws(E) -> R {
    defer { withExtendedLifetime(self) {} }
    return try body(bytes)
  }

  /// Opens a regular file for reading, or says why that is not possible.
  static func openForReading(_ path: String) throws(HDF5Error) -> Int32 {
    // Without O_NONBLOCK, opening a named pipe would wait for a writer for ever.
    let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard descriptor >= 0 else {
      if errno == ENOENT || errno == ENOTDIR { throw .missing(path: path) }
      throw .unreadable(path: path, reason: systemReason())
    }
    var status = stat()
    guard fstat(descriptor, &status) == 0 else {
      let reason = systemReason()
      close(descriptor)
      throw .unreadable(path: path, reason: reason)
    }
    guard status.st_mode & S_IFMT == S_IFREG else {
      close(descriptor)
      let isDirectory = status.st_mode & S_IFMT == S_IFDIR
      throw .unreadable(
        path: path, reason: isDirectory ? "is a directory" : "is not a regular file")
    }
    return descriptor
  }
}

/// The system's words for the last failed call.
func systemReason() -> String { String(cString: strerror(errno)) }
