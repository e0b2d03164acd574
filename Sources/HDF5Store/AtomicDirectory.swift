import Synchronization

#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

/// A directory that appears under its name with all of its files, or not at all.
///
/// It is filled under a temporary name beside its own and renamed. A directory of that name must be
/// missing or empty: unlike a file, nothing is replaced.
public final class AtomicDirectory {
  /// The path that the caller gave, for messages.
  public let path: String
  private let destination: String
  private let temporary: String
  private var files: [(path: String, slot: TemporaryFiles.Slot?)] = []
  private let slot: TemporaryFiles.Slot?
  private var isPending = true
  private static let serial = Atomic<Int>(0)

  /// Creates the temporary directory.
  ///
  /// - Throws: `cannotCreate`, also where `path` is a file or a directory that is not empty.
  public init(path: String) throws(HDF5Error) {
    self.path = path
    var end = path.endIndex
    while end > path.startIndex, path[path.index(before: end)] == "/" {
      end = path.index(before: end)
    }
    destination = String(path[..<end])
    guard !destination.isEmpty else {
      throw .cannotCreate(path: path, reason: "the path names no new directory")
    }
    try AtomicDirectory.checkVacant(path)
    let number = AtomicDirectory.serial.add(1, ordering: .relaxed).newValue
    temporary = "\(destination).\(getpid())-\(number).tmp"
    guard mkdir(temporary, 0o777) == 0 else {
      throw .cannotCreate(path: path, reason: systemReason())
    }
    slot = TemporaryFiles.register(temporary)
  }

  deinit {
    if isPending {
      for (path, _) in files { unlink(path) }
      rmdir(temporary)
    }
    for (_, slot) in files { TemporaryFiles.forget(slot) }
    TemporaryFiles.forget(slot)
  }

  /// Fails unless there is nothing at `path` but perhaps an empty directory.
  public static func checkVacant(_ path: String) throws(HDF5Error) {
    var status = stat()
    guard stat(path, &status) == 0 else { return }
    guard status.st_mode & S_IFMT == S_IFDIR else {
      throw .cannotCreate(path: path, reason: "it is a file, not a directory")
    }
    guard let stream = opendir(path) else {
      throw .cannotCreate(path: path, reason: systemReason())
    }
    defer { closedir(stream) }
    var count = 0
    while readdir(stream) != nil { count += 1 }
    // "." and "..".
    guard count <= 2 else {
      throw .cannotCreate(path: path, reason: "it is a directory that is not empty")
    }
  }

  /// Adds the file `name`.
  ///
  /// - Parameter write: creates it at the path that it is given.
  /// - Throws: what `write` throws, with the path that the file would have got in the end.
  public func file(
    _ name: String, _ write: (String) throws(HDF5Error) -> Void
  ) throws(HDF5Error) {
    let place = "\(temporary)/\(name)"
    files.append((place, TemporaryFiles.register(place)))
    let named = "\(destination)/\(name)"
    do throws(HDF5Error) {
      try write(place)
    } catch {
      switch error {
      case .unstorable(place, let object, let expected, let found):
        throw .unstorable(path: named, object: object, expected: expected, found: found)
      case .cannotCreate(place, let reason): throw .cannotCreate(path: named, reason: reason)
      case .ioFailed(place, let object, let reason):
        throw .ioFailed(path: named, object: object, reason: reason)
      default: throw error
      }
    }
  }

  /// Gives the directory its name.
  ///
  /// - Throws: `cannotCreate` where something has appeared under that name; `ioFailed`.
  public func commit() throws(HDF5Error) {
    let descriptor = open(temporary, O_RDONLY | O_CLOEXEC)
    if descriptor >= 0 {
      _ = fsync(descriptor)
      close(descriptor)
    }
    guard rename(temporary, destination) == 0 else {
      if errno == ENOTEMPTY || errno == EEXIST || errno == ENOTDIR {
        throw .cannotCreate(path: path, reason: systemReason())
      }
      throw .ioFailed(path: path, object: "renaming", reason: systemReason())
    }
    isPending = false
  }
}
