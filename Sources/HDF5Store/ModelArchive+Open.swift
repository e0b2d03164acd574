import CHDF5
import OrderedCollections
import Results
import Tensors

extension ModelArchive {
  /// Opens a model file: checks that it is one, verifies every array's checksum, and maps the
  /// tensors.
  ///
  /// - Parameters:
  ///   - path: the file.
  ///   - verify: whether checksums are compared; their presence is required either way.
  /// - Throws: `missing` or `unreadable`; `wrongKind` for another file, a result file say;
  ///   `damaged` naming the array whose checksum, extents or place in the file are wrong.
  public static func open(
    _ path: String, verify: Bool = true
  ) throws(HDF5Error) -> ModelArchive {
    let contents = try HDF5Library.locked { () throws(HDF5Error) -> Contents in
      try Self.contents(of: path)
    }
    if verify { try self.verify(contents) }
    let values = contents.arrays.filter { $0.group == .weights }
    var tensors: OrderedDictionary<String, Tensor> = [:]
    tensors.reserveCapacity(values.count)
    for array in values { tensors[array.name] = tensor(array, in: contents.file) }
    return ModelArchive(
      path: path, attributes: contents.attributes, tensors: tensors,
      tokenizer: try tokenizer(contents))
  }

  /// What the metadata say; nothing of the arrays has been looked at.
  private struct Contents: Sendable {
    var attributes: OrderedDictionary<String, AttributeValue>
    var file: MappedFile
    var arrays: [StoredArray] = []
  }

  /// One array in the file; its bytes are known to lie inside.
  private struct StoredArray: Sendable {
    enum Group { case weights, tokenizer }
    var group: Group
    /// The tensor's name, or the dataset's under `/tokenizer`.
    var name: String
    var object: String
    var shape: [Int]
    var scalars: HDF5Scalars
    var bytes: Range<Int>
    var crc32c: UInt32
  }

  // MARK: Metadata

  private static func contents(of path: String) throws(HDF5Error) -> Contents {
    let root = try HDF5Object.open(path)
    try FileFormat.model.check(root)
    let attributes = try root.attributes(allowHeap: false)
    var contents = Contents(attributes: attributes, file: try root.file.mapped())
    let weights = try root.child("weights")
    guard weights.kind == .group else {
      throw .damaged(path: path, object: "/weights", expected: "a group", found: "a dataset")
    }
    try walk(weights.object, prefix: "", depth: 1, .weights, into: &contents)
    if root.has("tokenizer") {
      let tokenizer = try root.child("tokenizer")
      guard tokenizer.kind == .group else {
        throw .damaged(path: path, object: "/tokenizer", expected: "a group", found: "a dataset")
      }
      try walk(tokenizer.object, prefix: "", depth: 1, .tokenizer, into: &contents)
    }
    return contents
  }

  private static func walk(
    _ group: HDF5Object, prefix: String, depth: Int, _ kind: StoredArray.Group,
    into contents: inout Contents
  ) throws(HDF5Error) {
    guard depth < HDF5Limits.depth else {
      throw .damaged(
        path: group.file.path, object: group.name,
        expected: "at most \(HDF5Limits.depth) levels of groups", found: "more")
    }
    for name in try group.childNames() {
      let child = try group.child(name)
      switch child.kind {
      case .group:
        try walk(
          child.object, prefix: prefix + name + ".", depth: depth + 1, kind, into: &contents)
      case .dataset:
        contents.arrays.append(try array(child.object, prefix + name, kind, contents.file))
      case .other:
        throw .damaged(
          path: group.file.path, object: child.object.name, expected: "a group or a dataset",
          found: "a named type")
      }
    }
  }

  private static func array(
    _ dataset: HDF5Object, _ name: String, _ kind: StoredArray.Group, _ file: MappedFile
  ) throws(HDF5Error) -> StoredArray {
    let info = try dataset.datasetInfo()
    func damaged(_ expected: String, _ found: String) -> HDF5Error {
      .damaged(path: dataset.file.path, object: dataset.name, expected: expected, found: found)
    }
    guard case .contiguous(let offset) = info.layout else {
      throw damaged("contiguous, uncompressed storage", "\(info.layout)")
    }
    if kind == .weights, info.scalars != .float32, info.scalars != .float16 {
      throw damaged("little-endian float32 or float16", info.scalars.description)
    }
    let (byteCount, overflow) = info.count.multipliedReportingOverflow(by: info.scalars.byteCount)
    guard !overflow, byteCount <= file.bytes.count else {
      throw damaged("at most \(file.bytes.count) bytes, the file's size", "\(info.shape)")
    }
    var start = 0
    if byteCount > 0 {
      guard let offset, offset >= 0, offset <= file.bytes.count - byteCount else {
        throw damaged(
          "\(byteCount) bytes inside a file of \(file.bytes.count)",
          offset.map { "offset \($0)" } ?? "nothing stored")
      }
      start = offset
    }
    guard case .integer(let value)? = try dataset.attribute("crc32c", allowHeap: false),
      let sum = UInt32(exactly: value)
    else { throw damaged("an attribute crc32c of 32 bits", "none") }
    return StoredArray(
      group: kind, name: name, object: dataset.name, shape: info.shape, scalars: info.scalars,
      bytes: start..<start + byteCount, crc32c: sum)
  }

  // MARK: Arrays

  private static func verify(_ contents: Contents) throws(HDF5Error) {
    guard case .integer(let sum)? = contents.attributes[attributesChecksum] else {
      throw .damaged(
        path: contents.file.path, object: "root attributes",
        expected: "an attribute \(attributesChecksum)", found: "none")
    }
    let found = crc32c(of: contents.attributes)
    guard sum == Int(found) else {
      throw .damaged(
        path: contents.file.path, object: "root attributes",
        expected: "crc32c \(hex(UInt32(truncatingIfNeeded: sum)))", found: hex(found))
    }
    let sums = ParallelChecksums.crc32c(
      of: contents.arrays.map {
        UnsafeRawBufferPointer(rebasing: contents.file.bytes[$0.bytes])
      })
    for (array, sum) in zip(contents.arrays, sums) where array.crc32c != sum {
      throw .damaged(
        path: contents.file.path, object: array.object, expected: "crc32c \(hex(array.crc32c))",
        found: hex(sum))
    }
  }

  private static func hex(_ sum: UInt32) -> String {
    let digits = String(sum, radix: 16)
    return "0x" + String(repeating: "0", count: 8 - digits.count) + digits
  }

  private static func tensor(_ array: StoredArray, in file: MappedFile) -> Tensor {
    let bytes = UnsafeRawBufferPointer(rebasing: file.bytes[array.bytes])
    return array.scalars == .float16
      ? MappedTensors.widened(bytes, shape: array.shape, isBFloat: false)
      : MappedTensors.float32(bytes, shape: array.shape, owner: file)
  }

  private static func tokenizer(_ contents: Contents) throws(HDF5Error) -> TokenizerPayload? {
    let arrays = contents.arrays.filter { $0.group == .tokenizer }
    guard !arrays.isEmpty else { return nil }
    var parts: [TokenizerPayload.Part: TokenizerPayload.Bytes] = [:]
    let path = contents.file.path
    for part in TokenizerPayload.Part.allCases {
      let object = "/tokenizer/" + part.rawValue
      guard let array = arrays.first(where: { $0.name == part.rawValue }) else {
        throw .notFound(path: path, object: object)
      }
      let (scalars, shape): (HDF5Scalars, [Int]) =
        switch part {
        case .vocabJSON, .mergesText, .tokenBytes:
          (.integer(byteCount: 1, isSigned: false), [array.bytes.count])
        case .tokenOffsets: (.integer(byteCount: 8, isSigned: true), [array.bytes.count / 8])
        case .mergePairs: (.integer(byteCount: 4, isSigned: true), [array.bytes.count / 8, 2])
        }
      guard array.scalars == scalars, array.shape == shape else {
        throw .damaged(
          path: path, object: object, expected: "\(scalars) of shape \(shape)",
          found: "\(array.scalars) of shape \(array.shape)")
      }
      parts[part] = .mapped(contents.file, array.bytes)
    }
    let payload = TokenizerPayload(parts: parts)
    if let fault = payload.fault() {
      throw .damaged(
        path: path, object: fault.object, expected: fault.expected, found: fault.found)
    }
    return payload
  }
}
