public import OrderedCollections
public import Tensors

extension SafetensorsFile {
  /// Writes tensors as a safetensors file; it appears at `path` complete, or not at all.
  ///
  /// - Parameters:
  ///   - tensors: in the order in which they are to lie in the file; each name once.
  ///   - type: how the scalars are stored: F32, or rounded to F16 or BF16.
  ///   - metadata: texts for the header's `__metadata__`, such as `format`: `pt`.
  ///   - path: replaced if it exists.
  /// - Throws: `unstorable` for a name that occurs twice or is reserved, and for finite scalars
  ///   beyond F16's or BF16's range; `cannotCreate`; `ioFailed`.
  /// - Precondition: `type` is one of the three.
  public static func write(
    tensors: [(name: String, tensor: Tensor)], as type: ScalarType = .F32,
    metadata: OrderedDictionary<String, String> = [:], to path: String
  ) throws(HDF5Error) {
    precondition([.F32, .F16, .BF16].contains(type), "SafetensorsFile: cannot write \(type)")
    let header = try header(tensors, type, metadata, path)
    let output = try AtomicFile(path: path)
    try output.fill { (put: AtomicFile.Put) throws(HDF5Error) in
      try header.span.withUnsafeBytes(put)
      for (name, tensor) in tensors {
        try tensor.withUnsafeBufferPointer {
          (scalars: UnsafeBufferPointer<Float>) throws(HDF5Error) -> Void in
          if type == .F32 { return try put(UnsafeRawBufferPointer(scalars)) }
          let halves =
            type == .F16
            ? HalfPrecision.narrowed(scalars) : HalfPrecision.narrowedToBFloat(scalars)
          guard let halves else {
            throw .unstorable(
              path: path, object: "tensor '\(name)' as \(type)",
              expected: "numbers within its range",
              found: "\(tensor.maximumMagnitude); store F32 instead")
          }
          try halves.span.withUnsafeBytes(put)
        }
      }
    }
    try output.commit()
  }

  /// The header's length and text, padded with spaces so that the data start 8-byte aligned.
  private static func header(
    _ tensors: [(name: String, tensor: Tensor)], _ type: ScalarType,
    _ metadata: OrderedDictionary<String, String>, _ path: String
  ) throws(HDF5Error) -> [UInt8] {
    var members: [String] = []
    if !metadata.isEmpty {
      let texts = metadata.map { JSONValue.quoted($0.key) + ":" + JSONValue.quoted($0.value) }
      members.append("\"__metadata__\":{" + texts.joined(separator: ",") + "}")
    }
    var seen: Set<String> = ["__metadata__"]
    var offset = 0
    for (name, tensor) in tensors {
      guard seen.insert(name).inserted else {
        throw .unstorable(
          path: path, object: "tensor '\(name)'", expected: "each name once", found: "it again")
      }
      let end = offset + type.byteCount * tensor.count
      let shape = tensor.shape.map(String.init).joined(separator: ",")
      members.append(
        JSONValue.quoted(name) + ":{\"dtype\":\"\(type)\",\"shape\":[\(shape)],"
          + "\"data_offsets\":[\(offset),\(end)]}")
      offset = end
    }
    var text = Array(("{" + members.joined(separator: ",") + "}").utf8)
    while text.count % 8 != 0 { text.append(0x20) }
    return withUnsafeBytes(of: UInt64(text.count).littleEndian) { Array($0) } + text
  }
}
