import CHDF5
public import OrderedCollections
public import Results
public import Tensors

extension ModelArchive {
  /// Writes a model file; it appears at `path` complete, or not at all.
  ///
  /// - Parameters:
  ///   - attributes: root attributes. `format`, `format_version`, `weights_sha256` and
  ///     `attributes_crc32c` are made here; where they occur, as in the attributes of an opened
  ///     archive, they are replaced.
  ///   - tensors: in the order in which they are to lie in the file.
  ///   - tokenizer: written to `/tokenizer`.
  ///   - path: replaced if it exists.
  ///   - dtype: how the scalars are stored.
  /// - Throws: `unstorable` for names that are no paths or occur twice, text with zero bytes, and
  ///   finite scalars beyond float16; `cannotCreate`; `ioFailed`.
  public static func write(
    attributes: OrderedDictionary<String, AttributeValue>,
    tensors: [(name: String, tensor: Tensor)], tokenizer: TokenizerPayload? = nil,
    to path: String, dtype: StoredType = .float32
  ) throws(HDF5Error) {
    try checkNames(tensors.map(\.name), path)
    if let fault = tokenizer?.fault() {
      throw .unstorable(
        path: path, object: fault.object, expected: fault.expected, found: fault.found)
    }
    let output = try AtomicFile(path: path)
    try HDF5Library.locked { () throws(HDF5Error) in
      let root = try HDF5Object.create(
        output.temporary, for: path, lowest: H5F_LIBVER_V110, alignment: 64)
      do throws(HDF5Error) {
        try write(attributes, tensors, tokenizer, dtype, in: root)
      } catch {
        _ = root.file.handle.close()
        throw error
      }
      try root.closeFile()
    }
    try output.commit()
  }

  /// Each name must be a path of non-empty parts, and no name may be a group of another.
  private static func checkNames(_ names: [String], _ path: String) throws(HDF5Error) {
    var groups: Set<String> = []
    for name in names {
      let parts = name.split(separator: ".", omittingEmptySubsequences: false)
      guard parts.allSatisfy({ !$0.isEmpty && !$0.utf8.contains(0) && !$0.contains("/") }),
        name.utf8.count <= HDF5Limits.nameBytes, parts.count < HDF5Limits.depth
      else {
        throw .unstorable(
          path: path, object: "tensor '\(name)'", expected: "a name of parts joined by '.'",
          found: "an empty part, a '/', a zero byte or too many parts")
      }
      for count in 1..<parts.count {
        groups.insert(parts.prefix(count).joined(separator: "."))
      }
    }
    var seen: Set<String> = []
    for name in names {
      guard seen.insert(name).inserted, !groups.contains(name) else {
        throw .unstorable(
          path: path, object: "tensor '\(name)'", expected: "each name once",
          found: "the name again, as a tensor or as a group of tensors")
      }
    }
  }

  private static func write(
    _ attributes: OrderedDictionary<String, AttributeValue>,
    _ tensors: [(name: String, tensor: Tensor)], _ tokenizer: TokenizerPayload?,
    _ dtype: StoredType, in root: HDF5Object
  ) throws(HDF5Error) {
    let reserved: Set = ["format", "format_version", "weights_sha256", attributesChecksum]
    var all: OrderedDictionary<String, AttributeValue> = [
      "format": .string(format), "format_version": .integer(formatVersion),
    ]
    for (key, value) in attributes where !reserved.contains(key) { all[key] = value }
    all["weights_sha256"] = .string(try writeWeights(tensors, dtype, in: root))
    try root.setAttributes(all, style: .fixedLength)
    try root.setNumbers(
      attributesChecksum, [crc32c(of: all)], shape: nil, nl_H5T_STD_U32LE(), nl_H5T_STD_U32LE())
    if let tokenizer { try write(tokenizer, in: root) }
  }

  /// Writes the tensors and returns their checksum.
  private static func writeWeights(
    _ tensors: [(name: String, tensor: Tensor)], _ dtype: StoredType, in root: HDF5Object
  ) throws(HDF5Error) -> String {
    let weights = try root.createGroup("weights")
    var groups: [String: HDF5Object] = ["": weights]
    var rounded: [(name: String, tensor: Tensor)] = []
    let half = try HDF5Types.float16(root.file)
    for (name, tensor) in tensors {
      let parts = name.split(separator: ".").map(String.init)
      var parent = weights
      for count in 1..<parts.count {
        let path = parts.prefix(count).joined(separator: "/")
        if let group = groups[path] {
          parent = group
        } else {
          parent = try parent.createGroup(parts[count - 1])
          groups[path] = parent
        }
      }
      let leaf = parts[parts.count - 1]
      switch dtype {
      case .float32:
        try tensor.withUnsafeBufferPointer {
          (scalars: UnsafeBufferPointer<Float>) throws(HDF5Error) -> Void in
          try writeArray(
            leaf, UnsafeRawBufferPointer(scalars), shape: tensor.shape, nl_H5T_IEEE_F32LE(),
            in: parent)
        }
        rounded.append((name, tensor))
      case .float16:
        guard let bits = tensor.withUnsafeBufferPointer({ HalfPrecision.narrowed($0) }) else {
          throw .unstorable(
            path: root.file.path, object: "tensor '\(name)' as float16",
            expected: "numbers up to 65504", found: "a larger one; store float32 instead")
        }
        let bytes = TokenizerPayload.Bytes.owned(bits.withUnsafeBytes { Array($0) })
        try writeArray(leaf, bytes, shape: tensor.shape, half.id, in: parent)
        var widened = Tensor(uninitialized: tensor.shape)
        widened.withUnsafeMutableBufferPointer { target in
          bits.withUnsafeBytes { HalfPrecision.widen($0, into: target, isBFloat: false) }
        }
        rounded.append((name, widened))
      }
    }
    return weightsSHA256(rounded)
  }

  private static func write(
    _ tokenizer: TokenizerPayload, in root: HDF5Object
  ) throws(HDF5Error) {
    let group = try root.createGroup("tokenizer")
    for part in TokenizerPayload.Part.allCases {
      guard let bytes = tokenizer.parts[part] else { continue }
      let (type, shape) =
        switch part {
        case .vocabJSON, .mergesText, .tokenBytes: (nl_H5T_STD_U8LE(), [bytes.count])
        case .tokenOffsets: (nl_H5T_STD_I64LE(), [bytes.count / 8])
        case .mergePairs: (nl_H5T_STD_I32LE(), [bytes.count / 8, 2])
        }
      try writeArray(part.rawValue, bytes, shape: shape, type, in: group)
    }
  }

  private static func writeArray(
    _ name: String, _ bytes: TokenizerPayload.Bytes, shape: [Int], _ type: hid_t,
    in group: HDF5Object
  ) throws(HDF5Error) {
    try bytes.withBytes { (raw: UnsafeRawBufferPointer) throws(HDF5Error) in
      try writeArray(name, raw, shape: shape, type, in: group)
    }
  }

  /// Writes bytes as they are, with their checksum. The type describes them in file and memory
  /// alike, so that HDF5 converts nothing.
  private static func writeArray(
    _ name: String, _ bytes: UnsafeRawBufferPointer, shape: [Int], _ type: hid_t,
    in group: HDF5Object
  ) throws(HDF5Error) {
    let dataset = try group.createDataset(name, type: type, .init(shape: shape))
    if let base = bytes.baseAddress, !bytes.isEmpty { try dataset.write(from: base, type) }
    let sum = ParallelChecksums.crc32c(of: [bytes])
    try dataset.setNumbers("crc32c", sum, shape: nil, nl_H5T_STD_U32LE(), nl_H5T_STD_U32LE())
  }
}
