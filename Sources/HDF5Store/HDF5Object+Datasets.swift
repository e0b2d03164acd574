import CHDF5

/// What a dataset is, before any of it is read.
public struct HDF5DatasetInfo: Sendable, Equatable {
  /// Where the scalars lie in the file.
  public enum Layout: Sendable, Equatable {
    /// In one piece at this byte offset; nil if nothing was ever written.
    case contiguous(offset: Int?)
    /// In pieces of this shape, perhaps compressed.
    case chunked([Int])
    /// Inside the object header, in other files, or spread over other datasets.
    case other(String)
  }

  /// The extents; empty for a scalar.
  public let shape: [Int]
  /// What the scalars are.
  public let scalars: HDF5Scalars
  /// Where they lie.
  public let layout: Layout
  /// The bytes that they take in the file.
  public let storedByteCount: Int

  /// The number of scalars.
  public var count: Int { shape.reduce(1, *) }
}

extension HDF5Object {
  // MARK: Description

  /// What this dataset is; refuses extents and storage that no file of this size can have.
  func datasetInfo() throws(HDF5Error) -> HDF5DatasetInfo {
    guard let type = HDF5Handle(H5Dget_type(id)), let space = HDF5Handle(H5Dget_space(id)),
      let list = HDF5Handle(H5Dget_create_plist(id))
    else { throw file.failure(name, "a dataset with type and extents") }
    let scalars = try HDF5Scalars(type: type, file: file)
    let extents = try HDF5Extents(space: space, name: name, file: file)
    guard extents != .null else {
      throw .damaged(path: file.path, object: name, expected: "values", found: "no dataspace")
    }
    let shape = extents.shape
    let stored = Int(clamping: H5Dget_storage_size(id))
    guard file.isWriting || stored <= file.byteCount else {
      throw .damaged(
        path: file.path, object: name, expected: "at most \(file.byteCount) bytes, the file's size",
        found: "\(stored)")
    }
    return HDF5DatasetInfo(
      shape: shape, scalars: scalars, layout: try layout(list, rank: shape.count, scalars),
      storedByteCount: stored)
  }

  private func layout(
    _ list: HDF5Handle, rank: Int, _ scalars: HDF5Scalars
  ) throws(HDF5Error) -> HDF5DatasetInfo.Layout {
    let filters = H5Pget_nfilters(list.id)
    guard filters >= 0 else { throw file.failure(name, "a list of filters") }
    switch H5Pget_layout(list.id) {
    case H5D_CONTIGUOUS:
      guard H5Pget_external_count(list.id) == 0 else { return .other("external") }
      let offset = H5Dget_offset(id)
      return .contiguous(offset: offset == nl_HADDR_UNDEF() ? nil : Int(exactly: offset))
    case H5D_CHUNKED:
      var sizes = [hsize_t](repeating: 0, count: max(rank, 1))
      guard rank > 0, H5Pget_chunk(list.id, Int32(rank), &sizes) == Int32(rank) else {
        throw file.failure(name, "a chunk shape")
      }
      var bytes = scalars.byteCount
      for size in sizes {
        let (next, overflow) = bytes.multipliedReportingOverflow(by: Int(clamping: size))
        guard !overflow, next <= HDF5Limits.chunkBytes else {
          throw .damaged(
            path: file.path, object: name,
            expected: "chunks of at most \(HDF5Limits.chunkBytes) bytes", found: "larger ones")
        }
        bytes = next
      }
      return .chunked(sizes.map { Int($0) })
    case H5D_COMPACT: return .other("compact")
    case H5D_VIRTUAL: return .other("virtual")
    default: throw file.failure(name, "a known storage layout")
    }
  }

  /// Refuses to allocate for a slab of `count` scalars of this dataset that takes `scalarBytes`
  /// each in memory, unless the file can plausibly hold it.
  func checkReadable(
    _ info: HDF5DatasetInfo, count: Int, scalarBytes: Int
  ) throws(HDF5Error) {
    let (bytes, overflow) = count.multipliedReportingOverflow(
      by: max(scalarBytes, info.scalars.byteCount))
    guard !overflow, bytes <= HDF5Limits.arrayBytes else {
      throw .tooLarge(
        path: file.path, object: name, bytes: "\(count) scalars",
        limit: "\(HDF5Limits.arrayBytes) bytes")
    }
    switch info.layout {
    case .contiguous(let offset?):
      let needed = count * info.scalars.byteCount
      guard offset >= 0, needed <= file.byteCount, offset <= file.byteCount - needed else {
        throw .damaged(
          path: file.path, object: name,
          expected: "\(needed) bytes inside a file of \(file.byteCount)", found: "offset \(offset)")
      }
    case .other("external"), .other("virtual"):
      throw .damaged(
        path: file.path, object: name, expected: "values in this file",
        found: "references to other files")
    default:
      let most = max(HDF5Limits.sparseBytes, info.storedByteCount * HDF5Limits.expansion)
      guard bytes <= most else {
        throw .tooLarge(
          path: file.path, object: name, bytes: "\(bytes) bytes",
          limit: "\(most) bytes, as \(info.storedByteCount) are stored")
      }
    }
  }

  // MARK: Reading

  /// Part of a dataset: where it starts and how far it goes along each axis.
  struct Slab {
    var start: [Int]
    var count: [Int]
  }

  /// Reads a slab (all of it where nil) into memory that holds it, converting to `memoryType`.
  func read(
    into base: UnsafeMutableRawPointer, _ memoryType: hid_t, slab: Slab?
  ) throws(HDF5Error) {
    guard let slab else {
      guard
        H5Dread(id, memoryType, nl_H5S_ALL(), nl_H5S_ALL(), nl_H5P_DEFAULT(), base) >= 0
      else { throw file.failure(name, "readable values") }
      return
    }
    let (space, memory) = try select(slab)
    guard H5Dread(id, memoryType, memory.id, space.id, nl_H5P_DEFAULT(), base) >= 0 else {
      throw file.failure(name, "readable values")
    }
  }

  private func select(
    _ slab: Slab
  ) throws(HDF5Error) -> (file: HDF5Handle, memory: HDF5Handle) {
    let start = slab.start.map { hsize_t($0) }
    let count = slab.count.map { hsize_t($0) }
    guard let space = HDF5Handle(H5Dget_space(id)),
      H5Sselect_hyperslab(space.id, H5S_SELECT_SET, start, nil, count, nil) >= 0,
      let memory = HDF5Handle(H5Screate_simple(Int32(count.count), count, nil))
    else { throw file.failure(name, "a slab at \(slab.start) of \(slab.count)") }
    return (space, memory)
  }

  /// Reads numbers of one type.
  func readNumbers<T: BitwiseCopyable>(
    _ info: HDF5DatasetInfo, slab: Slab? = nil, as memoryType: hid_t, zero: T
  ) throws(HDF5Error) -> [T] {
    let count = (slab?.count ?? info.shape).reduce(1, *)
    try checkReadable(info, count: count, scalarBytes: MemoryLayout<T>.stride)
    guard count > 0 else { return [] }
    var values = [T](repeating: zero, count: count)
    let outcome: Result<Void, HDF5Error> = values.withUnsafeMutableBytes { buffer in
      guard let base = buffer.baseAddress else { return .success(()) }
      do throws(HDF5Error) {
        return .success(try read(into: base, memoryType, slab: slab))
      } catch {
        return .failure(error)
      }
    }
    try outcome.get()
    return values
  }

  /// Reads whole numbers of any type as `Int`.
  func readIntegers(_ info: HDF5DatasetInfo, slab: Slab? = nil) throws(HDF5Error) -> [Int] {
    guard case .integer(let byteCount, let isSigned) = info.scalars else {
      throw wrongScalars(info, expected: "whole numbers")
    }
    if byteCount < 8 || isSigned {
      return try readNumbers(info, slab: slab, as: nl_H5T_NATIVE_INT64(), zero: 0)
    }
    let values: [UInt64] = try readNumbers(
      info, slab: slab, as: nl_H5T_NATIVE_UINT64(), zero: 0)
    guard let whole = integers(values) else {
      throw .damaged(
        path: file.path, object: name, expected: "whole numbers up to \(Int.max)",
        found: "a larger one")
    }
    return whole
  }

  /// Reads texts of fixed or variable length.
  func readStrings(_ info: HDF5DatasetInfo, slab: Slab? = nil) throws(HDF5Error) -> [String] {
    let count = (slab?.count ?? info.shape).reduce(1, *)
    guard let type = HDF5Handle(H5Dget_type(id)) else { throw file.failure(name, "a type") }
    switch info.scalars {
    case .fixedString(let width):
      try checkReadable(info, count: count, scalarBytes: width)
      guard count > 0 else { return [] }
      var bytes = [UInt8](repeating: 0, count: count * width)
      try read(into: &bytes, type.id, slab: slab)
      return try fixedStrings(bytes, width: width, count: count, type: type, name)
    case .variableString:
      try checkReadable(info, count: count, scalarBytes: 16)
      guard count > 0 else { return [] }
      var pointers = [UnsafeMutablePointer<CChar>?](repeating: nil, count: count)
      var extents = [hsize_t(count)]
      guard let memory = HDF5Handle(H5Screate_simple(1, &extents, nil)) else {
        throw file.failure(name, "memory for texts")
      }
      // On failure, too: HDF5 may have allocated some of the texts.
      defer { H5Dvlen_reclaim(type.id, memory.id, nl_H5P_DEFAULT(), &pointers) }
      try read(into: &pointers, type.id, slab: slab)
      return try heapStrings(pointers, name)
    default: throw wrongScalars(info, expected: "text")
    }
  }

  /// The error for a dataset of the wrong type.
  func wrongScalars(_ info: HDF5DatasetInfo, expected: String) -> HDF5Error {
    .damaged(path: file.path, object: name, expected: expected, found: info.scalars.description)
  }

  // MARK: Writing

  /// How a new dataset is laid out and filled.
  struct Creation {
    var shape: [Int] = []
    /// Pieces of this shape, each with a checksum; in one piece where nil.
    var chunk: [Int]?
    /// Whether pieces are compressed.
    var isCompressed = false
    /// What cells hold that are never written.
    var fill: Fill = .none

    enum Fill { case none, floatNaN, doubleNaN }
  }

  /// Creates a dataset that remembers the order of its attributes.
  func createDataset(
    _ child: String, type: hid_t, _ creation: Creation
  ) throws(HDF5Error) -> HDF5Object {
    let path = path(of: child)
    let extents = creation.shape.map { hsize_t($0) }
    guard let list = HDF5Handle(H5Pcreate(nl_H5P_DATASET_CREATE())),
      let access = HDF5Handle(H5Pcreate(nl_H5P_DATASET_ACCESS())),
      let space = HDF5Handle(
        extents.isEmpty
          ? H5Screate(H5S_SCALAR) : H5Screate_simple(Int32(extents.count), extents, nil)),
      H5Pset_attr_creation_order(list.id, nl_H5P_CRT_ORDER()) >= 0,
      H5Pset_obj_track_times(list.id, false) >= 0,
      setFill(creation.fill, list),
      setChunks(creation, scalarBytes: H5Tget_size(type), list, access),
      let handle = HDF5Handle(
        H5Dcreate2(id, child, type, space.id, nl_H5P_DEFAULT(), list.id, access.id))
    else { throw file.failure(path, "creating the dataset") }
    return HDF5Object(handle: handle, file: file, name: path)
  }

  private func setFill(_ fill: Creation.Fill, _ list: HDF5Handle) -> Bool {
    switch fill {
    case .none: return true
    case .floatNaN:
      var value = Float.nan
      return H5Pset_fill_value(list.id, nl_H5T_NATIVE_FLOAT(), &value) >= 0
    case .doubleNaN:
      var value = Double.nan
      return H5Pset_fill_value(list.id, nl_H5T_NATIVE_DOUBLE(), &value) >= 0
    }
  }

  private func setChunks(
    _ creation: Creation, scalarBytes: Int, _ list: HDF5Handle, _ access: HDF5Handle
  ) -> Bool {
    guard let chunk = creation.chunk else { return true }
    let sizes = chunk.map { hsize_t($0) }
    // A chunk that does not fit the cache would be checked and written again for each slab of it.
    let cache = min(max(1 << 20, 2 * scalarBytes * chunk.reduce(1, *)), 64 << 20)
    guard H5Pset_chunk(list.id, Int32(sizes.count), sizes) >= 0,
      H5Pset_chunk_cache(access.id, 521, cache, 1) >= 0
    else { return false }
    if creation.isCompressed {
      guard H5Pset_shuffle(list.id) >= 0, H5Pset_deflate(list.id, 4) >= 0 else { return false }
    }
    // Last, so that damaged bytes are found before anything interprets them.
    return H5Pset_fletcher32(list.id) >= 0
  }

  /// Writes a slab (everything where nil) from memory.
  func write(
    from base: UnsafeRawPointer, _ memoryType: hid_t, slab: Slab? = nil
  ) throws(HDF5Error) {
    guard let slab, !slab.count.isEmpty else {
      guard
        H5Dwrite(id, memoryType, nl_H5S_ALL(), nl_H5S_ALL(), nl_H5P_DEFAULT(), base) >= 0
      else { throw file.failure(name, "writing") }
      return
    }
    let (space, memory) = try select(slab)
    guard H5Dwrite(id, memoryType, memory.id, space.id, nl_H5P_DEFAULT(), base) >= 0 else {
      throw file.failure(name, "writing")
    }
  }

  /// Writes texts of variable length.
  func writeStrings(_ texts: [String], slab: Slab? = nil) throws(HDF5Error) {
    let type = try HDF5Types.string(byteCount: nil, file)
    let outcome: Result<Void, HDF5Error> = HDF5Strings(texts).withPointers { pointers in
      do throws(HDF5Error) {
        return .success(try write(from: pointers, type.id, slab: slab))
      } catch {
        return .failure(error)
      }
    }
    try outcome.get()
  }
}
