import CHDF5
public import OrderedCollections
public import Results
public import Tensors

/// Any HDF5 file, open for reading: its groups, attributes and arrays, checked before they are read.
///
/// Object names are paths from the root: `model_weights/transformer/wte/weight:0`. Links to other
/// places and other files are not followed.
public final class HDF5File: @unchecked Sendable {
  // Sendable: `root` is only touched inside the library's lock.

  /// Something in a group.
  public struct Item: Sendable, Equatable {
    /// What it is.
    public enum Kind: Sendable {
      /// A group.
      case group
      /// An array.
      case dataset
      /// A named type.
      case other
    }

    /// The name, without the group's.
    public let name: String
    /// What it is.
    public let kind: Kind
  }

  /// The file, as it was given.
  public let path: String
  private var root: HDF5Object?

  /// Opens a file for reading.
  ///
  /// - Throws: `missing`, `unreadable`, `wrongKind` if it is no HDF5 file, `damaged`.
  public init(path: String) throws(HDF5Error) {
    self.path = path
    try HDF5Library.locked { () throws(HDF5Error) in root = try HDF5Object.open(path) }
  }

  deinit {
    HDF5Library.lockedCleanup {
      _ = root?.file.handle.close()
      root = nil
    }
  }

  // MARK: Structure

  /// The contents of a group, in creation order where the file tracks it, else by name.
  public func items(in group: String = "/") throws(HDF5Error) -> [Item] {
    try HDF5Library.locked { () throws(HDF5Error) -> [Item] in
      let group = try object(group, .group)
      var items: [Item] = []
      for name in try group.childNames() {
        let kind: Item.Kind =
          switch try group.child(name).kind {
          case .group: .group
          case .dataset: .dataset
          case .other: .other
          }
        items.append(Item(name: name, kind: kind))
      }
      return items
    }
  }

  /// The paths of all datasets in and below a group, without a leading slash, depth first.
  public func datasets(under group: String = "/") throws(HDF5Error) -> [String] {
    try HDF5Library.locked { () throws(HDF5Error) -> [String] in
      var paths: [String] = []
      try walk(try object(group, .group), depth: 0, into: &paths)
      return paths
    }
  }

  /// Whether there is a group or a dataset at `path`.
  public func contains(_ path: String) throws(HDF5Error) -> Bool {
    do throws(HDF5Error) {
      return try HDF5Library.locked { () throws(HDF5Error) -> Bool in
        _ = try object(path, nil)
        return true
      }
    } catch {
      if case .notFound = error { return false }
      throw error
    }
  }

  private func walk(
    _ group: HDF5Object, depth: Int, into paths: inout [String]
  ) throws(HDF5Error) {
    guard depth < HDF5Limits.depth else {
      throw .damaged(
        path: path, object: group.name,
        expected: "at most \(HDF5Limits.depth) levels of groups", found: "more")
    }
    for name in try group.childNames() {
      let child = try group.child(name)
      switch child.kind {
      case .group: try walk(child.object, depth: depth + 1, into: &paths)
      case .dataset: paths.append(String(child.object.name.drop { $0 == "/" }))
      case .other: continue
      }
    }
  }

  // MARK: Attributes

  /// The attributes of a group or dataset, in creation order where the file tracks it, else by
  /// name; those that are neither numbers nor text are left out.
  public func attributes(
    of path: String = "/"
  ) throws(HDF5Error) -> OrderedDictionary<String, AttributeValue> {
    try HDF5Library.locked { () throws(HDF5Error) -> OrderedDictionary<String, AttributeValue> in
      try object(path, nil).attributes(strict: false)
    }
  }

  /// The attribute `name` of a group or dataset, or nil if it has none of that name.
  public func attribute(
    _ name: String, of path: String = "/"
  ) throws(HDF5Error) -> AttributeValue? {
    try HDF5Library.locked { () throws(HDF5Error) -> AttributeValue? in
      try object(path, nil).attribute(name)
    }
  }

  /// Whether a group or dataset has an attribute `name`, whose value is not looked at.
  public func hasAttribute(_ name: String, of path: String = "/") throws(HDF5Error) -> Bool {
    try HDF5Library.locked { () throws(HDF5Error) -> Bool in
      H5Aexists(try object(path, nil).id, name) > 0
    }
  }

  // MARK: Arrays

  /// What a dataset is, without reading it.
  public func info(_ dataset: String) throws(HDF5Error) -> HDF5DatasetInfo {
    try HDF5Library.locked { () throws(HDF5Error) -> HDF5DatasetInfo in
      try object(dataset, .dataset).datasetInfo()
    }
  }

  /// A dataset of floating-point numbers as float32: mapped where it lies in the file as such in
  /// one aligned piece, else read and converted.
  public func tensor(_ dataset: String) throws(HDF5Error) -> Tensor {
    try HDF5Library.locked { () throws(HDF5Error) -> Tensor in
      let object = try object(dataset, .dataset)
      let info = try object.datasetInfo()
      if info.scalars == .float32, case .contiguous(let offset?) = info.layout {
        try object.checkReadable(info, count: info.count, scalarBytes: 4)
        let mapped = try object.file.mapped()
        let bytes = mapped.bytes[offset..<offset + 4 * info.count]
        return MappedTensors.float32(
          UnsafeRawBufferPointer(rebasing: bytes), shape: info.shape, owner: mapped)
      }
      return try read(object, info, slab: nil)
    }
  }

  /// A slab of a dataset of floating-point numbers, as float32.
  ///
  /// - Precondition: `start` and `count` have one element an axis.
  public func tensor(
    _ dataset: String, start: [Int], count: [Int]
  ) throws(HDF5Error) -> Tensor {
    try HDF5Library.locked { () throws(HDF5Error) -> Tensor in
      let object = try object(dataset, .dataset)
      let info = try object.datasetInfo()
      precondition(
        start.count == info.shape.count && count.count == info.shape.count,
        "HDF5File: slab at \(start) of \(count) for an array of shape \(info.shape)")
      for (extent, (first, length)) in zip(info.shape, zip(start, count)) {
        guard first >= 0, length >= 0, first <= extent, length <= extent - first else {
          throw .damaged(
            path: path, object: object.name,
            expected: "at least \(start) + \(count) along its axes", found: "shape \(info.shape)")
        }
      }
      return try read(object, info, slab: .init(start: start, count: count))
    }
  }

  private func read(
    _ object: HDF5Object, _ info: HDF5DatasetInfo, slab: HDF5Object.Slab?
  ) throws(HDF5Error) -> Tensor {
    switch info.scalars {
    case .float16, .float32, .otherFloat: break
    default: throw object.wrongScalars(info, expected: "floating-point numbers")
    }
    let shape = slab?.count ?? info.shape
    let count = shape.reduce(1, *)
    try object.checkReadable(info, count: count, scalarBytes: 4)
    var tensor = Tensor(uninitialized: shape)
    guard count > 0 else { return tensor }
    try tensor.withUnsafeMutableBufferPointer {
      (target: UnsafeMutableBufferPointer<Float>) throws(HDF5Error) -> Void in
      guard let base = target.baseAddress else { return }
      try object.read(into: base, nl_H5T_NATIVE_FLOAT(), slab: slab)
    }
    return tensor
  }

  /// A dataset of floating-point numbers as `Double`.
  public func doubles(_ dataset: String) throws(HDF5Error) -> [Double] {
    try HDF5Library.locked { () throws(HDF5Error) -> [Double] in
      let object = try object(dataset, .dataset)
      let info = try object.datasetInfo()
      switch info.scalars {
      case .float16, .float32, .otherFloat: break
      default: throw object.wrongScalars(info, expected: "floating-point numbers")
      }
      return try object.readNumbers(info, as: nl_H5T_NATIVE_DOUBLE(), zero: 0)
    }
  }

  /// A dataset of whole numbers.
  public func integers(_ dataset: String) throws(HDF5Error) -> [Int] {
    try HDF5Library.locked { () throws(HDF5Error) -> [Int] in
      let object = try object(dataset, .dataset)
      return try object.readIntegers(try object.datasetInfo())
    }
  }

  /// A dataset of texts.
  public func strings(_ dataset: String) throws(HDF5Error) -> [String] {
    try HDF5Library.locked { () throws(HDF5Error) -> [String] in
      let object = try object(dataset, .dataset)
      return try object.readStrings(try object.datasetInfo())
    }
  }

  /// Opens what lies at `path`; fails if it is not of the kind asked for.
  private func object(
    _ path: String, _ kind: HDF5Object.ChildKind?
  ) throws(HDF5Error) -> HDF5Object {
    guard let root else { throw .unreadable(path: self.path, reason: "the file is closed") }
    // The limit is for one walk, not for all that is ever asked of a file.
    root.file.visited = 0
    let found = try root.descendant(path)
    guard kind == nil || found.kind == kind else {
      throw .damaged(
        path: self.path, object: found.object.name,
        expected: kind == .group ? "a group" : "a dataset",
        found: found.kind == .group ? "a group" : "a dataset or a named type")
    }
    return found.object
  }
}
