import CHDF5
import Results

#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

/// An open group or dataset and its place, the base of everything this module does with HDF5.
///
/// Nothing here takes the library's lock: callers are inside `HDF5Library.locked`. The class is
/// deliberately not `Sendable`, so that it cannot leave there.
final class HDF5Object {
  /// What the whole file has in common.
  final class FileState {
    let handle: HDF5Handle
    let path: String
    let isWriting: Bool
    /// The file's bytes when it was opened for reading.
    let byteCount: Int
    /// Objects opened by walks so far; see `HDF5Limits.objects`.
    var visited = 0
    private var mapping: MappedFile?

    init(handle: HDF5Handle, path: String, isWriting: Bool, byteCount: Int) {
      self.handle = handle
      self.path = path
      self.isWriting = isWriting
      self.byteCount = byteCount
    }

    /// The file's bytes, mapped once, through the descriptor that HDF5 itself reads from: the path
    /// could name another file by now.
    func mapped() throws(HDF5Error) -> MappedFile {
      if let mapping { return mapping }
      let mapping = try MappedFile(path: path, descriptor: try descriptor())
      self.mapping = mapping
      return mapping
    }

    /// Fails unless HDF5 has opened the very file that was looked at before.
    func requireIdentity(_ expected: stat) throws(HDF5Error) {
      var found = stat()
      guard fstat(try descriptor(), &found) == 0 else {
        throw .unreadable(path: path, reason: systemReason())
      }
      guard found.st_dev == expected.st_dev, found.st_ino == expected.st_ino,
        found.st_size == expected.st_size
      else { throw .unreadable(path: path, reason: HDF5Guard.replaced) }
    }

    private func descriptor() throws(HDF5Error) -> Int32 {
      var driver: UnsafeMutableRawPointer?
      guard H5Fget_vfd_handle(handle.id, nl_H5P_DEFAULT(), &driver) >= 0, let driver else {
        throw failure("file", "its descriptor")
      }
      return driver.assumingMemoryBound(to: Int32.self).pointee
    }

    /// The error for an HDF5 call that has just failed on `object` while doing `action`.
    func failure(_ object: String, _ action: String) -> HDF5Error {
      let reason = HDF5Library.deepestMessage() ?? "HDF5 gives no reason"
      if isWriting {
        return .ioFailed(path: path, object: object, reason: "\(action): \(reason)")
      }
      return .damaged(path: path, object: object, expected: action, found: reason)
    }
  }

  let handle: HDF5Handle
  let file: FileState
  /// The object's path in the file: `/weights/h/0`.
  let name: String

  var id: hid_t { handle.id }

  init(handle: HDF5Handle, file: FileState, name: String) {
    self.handle = handle
    self.file = file
    self.name = name
  }

  // MARK: Files

  /// Opens a file for reading and returns its root group.
  ///
  /// HDF5 sees the file here only if its seal is intact, if all of its metadata have checksums and
  /// it says that it is a model, or if a child process has read it without harm.
  static func open(_ path: String) throws(HDF5Error) -> HDF5Object {
    let descriptor = try MappedFile.openForReading(path)
    defer { close(descriptor) }
    var status = stat()
    guard fstat(descriptor, &status) == 0 else {
      throw .unreadable(path: path, reason: systemReason())
    }
    let superblock = try Superblock(path: path, descriptor: descriptor, size: Int(status.st_size))
    let isSealed = try FileSeal.check(path, descriptor: descriptor)
    let access = try openAccess(path)
    if !isSealed && !superblock.hasChecksums { try HDF5Guard.check(path, status, access) }

    guard let handle = HDF5Handle(H5Fopen(path, nl_H5F_ACC_RDONLY(), access.id)) else {
      let message = HDF5Library.deepestMessage() ?? "HDF5 gives no reason"
      throw .damaged(
        path: path, object: "file", expected: "a whole HDF5 file", found: message)
    }
    let file = FileState(
      handle: handle, path: path, isWriting: false, byteCount: Int(status.st_size))
    try file.requireIdentity(status)
    let root = try root(of: file)
    if !isSealed && superblock.hasChecksums {
      let format = try root.attribute("format", allowHeap: false, strict: false)
      if format != .string(FileFormat.model.rawValue) {
        try HDF5Guard.check(path, status, access)
      }
    }
    return root
  }

  /// Replaces the (empty, temporary) file at `temporary` by a new HDF5 file; messages will say
  /// `path`. Returns its root group.
  ///
  /// - Parameters:
  ///   - lowest: the oldest library that must be able to read the file.
  ///   - alignment: where the bytes of every array begin, a multiple of this; 1 for anywhere.
  static func create(
    _ temporary: String, for path: String, lowest: H5F_libver_t, alignment: Int
  ) throws(HDF5Error) -> HDF5Object {
    let access = try openAccess(path)
    let creation = try list(nl_H5P_FILE_CREATE(), path)
    guard
      H5Pset_libver_bounds(access.id, lowest, H5F_LIBVER_V110) >= 0,
      // Threshold 1: small biases, too, are mapped.
      alignment == 1 || H5Pset_alignment(access.id, 1, hsize_t(alignment)) >= 0,
      H5Pset_link_creation_order(creation.id, nl_H5P_CRT_ORDER()) >= 0,
      H5Pset_attr_creation_order(creation.id, nl_H5P_CRT_ORDER()) >= 0,
      // Here as in groups and datasets: the same contents are the same bytes at any time.
      H5Pset_obj_track_times(creation.id, false) >= 0,
      let handle = HDF5Handle(H5Fcreate(temporary, nl_H5F_ACC_TRUNC(), creation.id, access.id))
    else {
      throw .cannotCreate(path: path, reason: HDF5Library.deepestMessage() ?? "HDF5 refuses")
    }
    let file = FileState(handle: handle, path: path, isWriting: true, byteCount: 0)
    return try root(of: file)
  }

  static func openAccess(_ path: String) throws(HDF5Error) -> HDF5Handle {
    let access = try list(nl_H5P_FILE_ACCESS(), path)
    guard
      // Closing the file closes what is open in it.
      H5Pset_fclose_degree(access.id, H5F_CLOSE_STRONG) >= 0,
      // Files appear whole by renaming, so locks protect nothing, and some file systems have none.
      H5Pset_file_locking(access.id, false, true) >= 0
    else { throw .ioFailed(path: path, object: "HDF5", reason: "file access properties") }
    return access
  }

  private static func list(_ kind: hid_t, _ path: String) throws(HDF5Error) -> HDF5Handle {
    guard let handle = HDF5Handle(H5Pcreate(kind)) else {
      throw .ioFailed(path: path, object: "HDF5", reason: "property list")
    }
    return handle
  }

  private static func root(of file: FileState) throws(HDF5Error) -> HDF5Object {
    guard let handle = HDF5Handle(H5Gopen2(file.handle.id, "/", nl_H5P_DEFAULT())) else {
      throw file.failure("/", "a root group")
    }
    return HDF5Object(handle: handle, file: file, name: "/")
  }

  /// Writes what is buffered and closes the file; afterwards the object is dead.
  func closeFile() throws(HDF5Error) {
    let flushed = H5Fflush(file.handle.id, H5F_SCOPE_GLOBAL) >= 0
    let problem = flushed ? nil : file.failure("file", "writing buffered bytes")
    let closed = file.handle.close()
    if let problem { throw problem }
    guard closed else { throw file.failure("file", "closing") }
  }

  // MARK: Children

  /// The path of something directly below.
  func path(of child: String) -> String { name == "/" ? "/" + child : name + "/" + child }

  /// What a name in a group leads to.
  enum ChildKind { case group, dataset, other }

  /// The names in this group, in creation order where the file tracks it, else by name.
  func childNames() throws(HDF5Error) -> [String] {
    var info = H5G_info_t()
    guard H5Gget_info(id, &info) >= 0 else { throw file.failure(name, "a group") }
    guard info.nlinks <= hsize_t(HDF5Limits.objects) else {
      throw tooMany("names in a group", "\(info.nlinks)")
    }
    let index = tracksCreationOrder() ? H5_INDEX_CRT_ORDER : H5_INDEX_NAME
    var names: [String] = []
    for position in 0..<info.nlinks {
      let length = H5Lget_name_by_idx(
        id, ".", index, H5_ITER_INC, position, nil, 0, nl_H5P_DEFAULT())
      guard length > 0, length <= HDF5Limits.nameBytes else {
        throw file.failure(name, "a name at index \(position)")
      }
      var buffer = [CChar](repeating: 0, count: length + 1)
      let again = H5Lget_name_by_idx(
        id, ".", index, H5_ITER_INC, position, &buffer, length + 1, nl_H5P_DEFAULT())
      guard again == length, let text = HDF5Strings.name(buffer, length) else {
        throw file.failure(name, "a UTF-8 name at index \(position)")
      }
      names.append(text)
    }
    return names
  }

  private func tracksCreationOrder() -> Bool {
    guard let list = HDF5Handle(H5Gget_create_plist(id)) else { return false }
    var flags: UInt32 = 0
    return H5Pget_link_creation_order(list.id, &flags) >= 0
      && flags & nl_H5P_CRT_ORDER() == nl_H5P_CRT_ORDER()
  }

  /// Whether `child` exists; false, too, if any part of the path is missing.
  func has(_ child: String) -> Bool { H5Lexists(id, child, nl_H5P_DEFAULT()) > 0 }

  /// Opens `child`, a group or a dataset directly below.
  ///
  /// Soft and external links are not followed: an external one would open another file.
  func child(_ child: String) throws(HDF5Error) -> (kind: ChildKind, object: HDF5Object) {
    let path = path(of: child)
    file.visited += 1
    guard file.visited <= HDF5Limits.objects else { throw tooMany("objects", "more") }
    guard path.utf8.count <= HDF5Limits.pathBytes else {
      throw tooMany("bytes in an object's path", "more", limit: HDF5Limits.pathBytes)
    }
    guard has(child) else {
      throw .notFound(path: file.path, object: path)
    }
    guard nl_link_type(id, child) == Int32(H5L_TYPE_HARD.rawValue) else {
      throw .damaged(
        path: file.path, object: path, expected: "an object", found: "a link to elsewhere")
    }
    guard let handle = HDF5Handle(H5Oopen(id, child, nl_H5P_DEFAULT())) else {
      throw file.failure(path, "a readable object header")
    }
    let object = HDF5Object(handle: handle, file: file, name: path)
    return switch H5Iget_type(handle.id) {
    case H5I_GROUP: (.group, object)
    case H5I_DATASET: (.dataset, object)
    default: (.other, object)
    }
  }

  /// Opens the object at `path`, relative to this group, group by group.
  func descendant(_ path: String) throws(HDF5Error) -> (kind: ChildKind, object: HDF5Object) {
    var current: (kind: ChildKind, object: HDF5Object) = (.group, self)
    for part in path.split(separator: "/") {
      guard current.kind == .group else {
        throw .notFound(path: file.path, object: current.object.path(of: String(part)))
      }
      current = try current.object.child(String(part))
    }
    return current
  }

  private func tooMany(
    _ what: String, _ found: String, limit: Int = HDF5Limits.objects
  ) -> HDF5Error {
    .damaged(
      path: file.path, object: name, expected: "at most \(limit) \(what)", found: found)
  }

  // MARK: Creating groups

  /// Creates a group that remembers the order of its links and attributes.
  func createGroup(_ child: String) throws(HDF5Error) -> HDF5Object {
    let path = path(of: child)
    guard let list = HDF5Handle(H5Pcreate(nl_H5P_GROUP_CREATE())),
      H5Pset_link_creation_order(list.id, nl_H5P_CRT_ORDER()) >= 0,
      H5Pset_attr_creation_order(list.id, nl_H5P_CRT_ORDER()) >= 0,
      H5Pset_obj_track_times(list.id, false) >= 0,
      let handle = HDF5Handle(
        H5Gcreate2(id, child, nl_H5P_DEFAULT(), list.id, nl_H5P_DEFAULT()))
    else { throw file.failure(path, "creating the group") }
    return HDF5Object(handle: handle, file: file, name: path)
  }
}

/// How much of a strange file is looked at before it is refused.
enum HDF5Limits {
  /// Objects in one walk: a GPT-2 XL has 580 tensors.
  static let objects = 100_000
  /// Bytes in one name.
  static let nameBytes = 4096
  /// Bytes in an object's path, which also ends walks along cycles of links.
  static let pathBytes = 4096
  /// Groups within groups.
  static let depth = 32
  /// Axes of an array.
  static let rank = 32
  /// Bytes of an array that are read at once.
  static let arrayBytes = 8 << 30
  /// Bytes of an attribute in memory: the vocabulary's reference logits take half a megabyte.
  static let attributeBytes = 16 << 20
  /// Arrays up to this size may be mostly fill values.
  static let sparseBytes = 64 << 20
  /// Bytes that one stored byte can stand for: deflate's best, with room.
  static let expansion = 1100
  /// Bytes of one chunk, which HDF5 allocates whole.
  static let chunkBytes = 1 << 30
}
