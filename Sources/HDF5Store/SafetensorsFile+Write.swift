public import OrderedCollections
public import Tensors

extension SafetensorsFile {
  /// Writes float32 tensors as a safetensors file; it appears at `path` complete, or not at all.
  ///
  /// - Parameters:
  ///   - tensors: in the order in which they are to lie in the file; each name once.
  ///   - metadata: texts for the header's `__metadata__`, such as `format`: `pt`.
  ///   - path: replaced if it exists.
  /// - Throws: `unstorable` for a name that occurs twice or is reserved; `cannotCreate`; `ioFailed`.
  public static func write(
    tensors: [(name: String, tensor: Tensor)],
    metadata: OrderedDictionary<String, String> = [:], to path: String
  ) throws(HDF5Error) {
    let header = try header(tensors, metadata, path)
    let output = try AtomicFile(path: path)
    try output.fill { (put: AtomicFile.Put) throws(HDF5Error) in
      try header.span.withUnsafeBytes(put)
      for (_, tensor) in tensors {
        try tensor.withUnsafeBufferPointer {
          (scalars: UnsafeBufferPointer<Float>) throws(HDF5Error) -> Void in
          try put(UnsafeRawBufferPointer(scalars))
        }
      }
    }
    try output.commit()
  }

  /// The header's length and text, padded with spaces so that the data start 8-byte aligned.
  private static func header(
    _ tensors: [(name: String, tensor: Tensor)], _ metadata: OrderedDictionary<String, String>,
    _ path: String
  ) throws(HDF5Error) -> [UInt8] {
    var members: [String] = []
    if !metadata.isEmpty {
      let texts = metadata.map { quoted($0.key) + ":" + quoted($0.value) }
      members.append("\"__metadata__\":{" + texts.joined(separator: ",") + "}")
    }
    var seen: Set<String> = ["__metadata__"]
    var offset = 0
    for (name, tensor) in tensors {
      guard seen.insert(name).inserted else {
        throw .unstorable(
          path: path, object: "tensor '\(name)'", expected: "each name once", found: "it again")
      }
      let end = offset + 4 * tensor.count
      let shape = tensor.shape.map(String.init).joined(separator: ",")
      members.append(
        quoted(name) + ":{\"dtype\":\"F32\",\"shape\":[\(shape)],"
          + "\"data_offsets\":[\(offset),\(end)]}")
      offset = end
    }
    var text = Array(("{" + members.joined(separator: ",") + "}").utf8)
    while text.count % 8 != 0 { text.append(0x20) }
    return withUnsafeBytes(of: UInt64(text.count).littleEndian) { Array($0) } + text
  }

  private static func quoted(_ text: String) -> String {
    var result = "\""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\"": result += "\\\""
      case "\\": result += "\\\\"
      case "\0"..<" ":
        let digits = String(scalar.value, radix: 16)
        result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result + "\""
  }
}
