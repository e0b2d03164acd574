import Foundation
import HDF5Store
import OrderedCollections

/// `model.safetensors.index.json`: which of several safetensors files holds which tensor.
struct ShardIndex {
  /// The index.
  let path: String
  /// The file of each tensor.
  private(set) var map: OrderedDictionary<String, String> = [:]
  /// The bytes of all tensors, where the index says how many there are.
  private(set) var totalSize: Int?

  /// The most bytes of an index; that of a GPT-2 XL has 50 KB.
  static let byteLimit = 16 << 20
  /// The most tensors and files that an index may name.
  static let countLimit = 100_000

  /// The files, each once, in the order of their first tensors.
  var shards: [String] { Array(tensorsByShard.keys) }

  /// The tensors that each file should hold.
  var tensorsByShard: OrderedDictionary<String, [String]> {
    map.reduce(into: [:]) { $0[$1.value, default: []].append($1.key) }
  }

  /// Where the shard `name` lies: beside the index.
  func path(of name: String) -> String {
    let directory = (path as NSString).deletingLastPathComponent
    return directory.isEmpty ? name : "\(directory)/\(name)"
  }

  /// Reads the index at `path`.
  ///
  /// - Throws: `HDF5Error` with the fault's place; `ModelSourceError.weights` for the name of a
  ///   shard that would leave the directory.
  init(path: String) throws {
    self.path = path
    let bytes = try FileBytes.read(path, limit: Self.byteLimit)
    do {
      let (map, total) = try Self.parse(bytes)
      guard let map else {
        throw ModelSourceError.field(
          path: path, field: "weight_map", expected: "an object of tensors and files",
          found: "missing")
      }
      (self.map, totalSize) = (map, total)
    } catch let error as JSONError {
      throw HDF5Error.damaged(
        path: path, object: error.place, expected: error.expected, found: error.found)
    }
    guard map.count <= Self.countLimit else {
      throw ModelSourceError.weights(
        path: path,
        problem: "weight_map names more than \(Self.countLimit) tensors; expected fewer")
    }
    for (tensor, shard) in map where !Self.isPlain(shard) {
      throw ModelSourceError.weights(
        path: path,
        problem: "weight_map puts tensor '\(tensor)' into '\(shard)'; expected the name of a file "
          + "in the same directory, without '/', '\\' and '..'")
    }
  }

  private static func isPlain(_ name: String) -> Bool {
    !name.isEmpty && name != "." && !name.contains("..")
      && !name.unicodeScalars.contains { $0 == "/" || $0 == "\\" || $0.value < 0x20 }
  }

  private static func parse(
    _ bytes: [UInt8]
  ) throws(JSONError) -> (OrderedDictionary<String, String>?, Int?) {
    var map: OrderedDictionary<String, String>?
    var total: Int?
    try JSONScanner.scan(bytes.span, limit: byteLimit) {
      (scanner: inout JSONScanner) throws(JSONError) in
      try scanner.object { (scanner: inout JSONScanner, key: String) throws(JSONError) in
        switch key {
        case "weight_map":
          var entries: OrderedDictionary<String, String> = [:]
          try scanner.object { (scanner: inout JSONScanner, tensor: String) throws(JSONError) in
            // One too many shows that there are too many; the others need not be kept.
            if entries.count > countLimit {
              try scanner.skip()
            } else {
              entries[tensor] = try scanner.string()
            }
          }
          map = entries
        case "metadata":
          try scanner.object { (scanner: inout JSONScanner, key: String) throws(JSONError) in
            if key == "total_size" { total = try scanner.integer() } else { try scanner.skip() }
          }
        default: try scanner.skip()
        }
      }
    }
    return (map, total)
  }
}
