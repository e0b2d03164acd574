import Foundation
import NormLens
import TestSupport
import Testing

/// A safetensors file byte by byte, so that every type and every fault can be written.
struct RawSafetensors {
  struct Entry {
    var name: String
    var type: String
    var shape: [Int]
    var bytes: [UInt8]
  }

  var entries: [Entry] = []

  /// The tensors of a file whose scalars are float32.
  init(_ path: String) throws {
    let file = try SafetensorsFile(path: path)
    for name in file.names { add(name, try file.tensor(named: name)) }
  }

  init() {}

  mutating func add(_ name: String, _ tensor: Tensor) {
    let bytes = tensor.scalars.flatMap { scalar in
      withUnsafeBytes(of: scalar.bitPattern.littleEndian) { Array($0) }
    }
    entries.append(Entry(name: name, type: "F32", shape: tensor.shape, bytes: bytes))
  }

  /// A tensor of zeros.
  mutating func add(_ name: String, zeros shape: [Int], type: String = "F32", scalarBytes: Int = 4)
  {
    let count = shape.reduce(1, *) * scalarBytes
    entries.append(
      Entry(name: name, type: type, shape: shape, bytes: [UInt8](repeating: 0, count: count)))
  }

  mutating func remove(_ name: String) { entries.removeAll { $0.name == name } }

  mutating func rename(_ change: (String) -> String) {
    for index in entries.indices { entries[index].name = change(entries[index].name) }
  }

  subscript(name: String) -> Entry {
    get {
      entries.first { $0.name == name } ?? Entry(name: name, type: "F32", shape: [0], bytes: [])
    }
    set {
      if let index = entries.firstIndex(where: { $0.name == name }) { entries[index] = newValue }
    }
  }

  /// Transposes a matrix of float32.
  mutating func transpose(_ name: String) {
    let entry = self[name]
    let (rows, columns) = (entry.shape[0], entry.shape[1])
    var bytes: [UInt8] = []
    for column in 0..<columns {
      for row in 0..<rows {
        bytes += entry.bytes[4 * (row * columns + column)..<4 * (row * columns + column) + 4]
      }
    }
    self[name] = Entry(name: name, type: "F32", shape: [columns, rows], bytes: bytes)
  }

  func write(_ path: String) throws {
    var members: [String] = []
    var offset = 0
    for entry in entries {
      let end = offset + entry.bytes.count
      members.append(
        "\"\(entry.name)\":{\"dtype\":\"\(entry.type)\",\"shape\":\(entry.shape),"
          + "\"data_offsets\":[\(offset),\(end)]}")
      offset = end
    }
    var header = Array(("{" + members.joined(separator: ",") + "}").utf8)
    while header.count % 8 != 0 { header.append(0x20) }
    var data = withUnsafeBytes(of: UInt64(header.count).littleEndian) { Data($0) }
    data += header
    for entry in entries { data += entry.bytes }
    try data.write(to: URL(fileURLWithPath: path))
  }
}

extension TemporaryDirectory {
  /// A copy of a checkpoint with golden values, its weights changed.
  func checkpoint(
    _ name: String = "tiny-ln", as copy: String = "d", _ change: (inout RawSafetensors) -> Void
  ) throws -> String {
    let directory = try self.copy(Fixtures.checkpoint(name), as: copy)
    let weights = "\(directory)/model.safetensors"
    var tensors = try RawSafetensors(weights)
    change(&tensors)
    try tensors.write(weights)
    return directory
  }

  /// A copy of one of the forms in which checkpoints are published.
  func form(_ name: String) throws -> String { try copy(Sources.directory(name), as: name) }

  /// Replaces the value of a configuration's field, in JSON; nil takes the field away.
  func setField(_ field: String, _ value: String?, in directory: String = "d") throws {
    let path = "\(directory)/config.json"
    let text = try String(contentsOfFile: file(path), encoding: .utf8)
    var lines = text.split(separator: "\n").dropFirst().dropLast()
      .filter { !$0.contains("\"\(field)\":") && $0.hasPrefix("  \"") && !$0.hasSuffix("[") }
      .map { $0.hasSuffix(",") ? String($0.dropLast()) : String($0) }
    if let value { lines.append("  \"\(field)\": \(value)") }
    try write("{\n" + lines.joined(separator: ",\n") + "\n}\n", as: path)
  }

  /// Writes bytes and returns the file's path.
  @discardableResult
  func put(_ bytes: [UInt8], as name: String) throws -> String {
    try Data(bytes).write(to: URL(fileURLWithPath: file(name)))
    return file(name)
  }
}

/// The forms that `Tests/Golden/make_sources.py` wrote.
enum Sources {
  static let forms = [
    "sharded", "float16", "bfloat16", "float64", "old", "nanogpt", "keras", "keras-model",
  ]

  static func directory(_ name: String) -> String {
    "\(Fixtures.repository)/Tests/Fixtures/sources/\(name)"
  }

  static func tokens(_ name: String) throws -> [Int] {
    try HDF5File(path: directory("logits.h5")).integers("\(name)/tokens")
  }

  static func logits(_ name: String) throws -> [Double] {
    try HDF5File(path: directory("logits.h5")).doubles("\(name)/logits")
  }
}

/// Opens a source that must be refused: one line with these words, of this class.
func expectRefusal(
  _ source: String, missing: Bool = false, saying parts: [String],
  sourceLocation: SourceLocation = #_sourceLocation
) {
  do {
    _ = try Checkpoint.open(source)
    Issue.record("\(source) was opened, expected \(parts)", sourceLocation: sourceLocation)
  } catch {
    let text = "\(error)"
    #expect(
      parts.allSatisfy { text.contains($0) }, "\(text): expected \(parts)",
      sourceLocation: sourceLocation)
    #expect(!text.contains("\n"), sourceLocation: sourceLocation)
    let isMissing: Bool? =
      switch error {
      case let error as ModelSourceError: error.isMissing
      case let error as HDF5Error: error.kind == .unreadable
      case is ModelError, is JSONError: false
      default: nil
      }
    #expect(isMissing == missing, "\(text)", sourceLocation: sourceLocation)
  }
}
