import Foundation
import NormLens
import TestSupport
import Testing

/// Damaged and hostile files given to the commands: the exit status, one line that names the file,
/// no output, no traces, and little memory.
@Suite struct HostileFileTests {
  /// A hostile file and the command that is given it.
  struct Case: Sendable, CustomTestStringConvertible {
    var name: String
    var status: Int32 = 65
    var arguments: [String]
    var parts: [String]
    /// Makes the file in the directory; `checkpoint` is a whole Hugging Face directory in it.
    var make: @Sendable (TemporaryDirectory) throws -> Void

    var testDescription: String { "\(name) → \(status)" }
  }

  static let convert = ["convert", "checkpoint", "-o", "out.h5"]

  // MARK: Cases

  /// A Hugging Face directory whose `model.safetensors` has this header and these data.
  static func header(
    _ name: String, _ text: String, _ parts: String..., data: [UInt8] = [1, 2, 3, 4],
    length: UInt64? = nil
  ) -> Case {
    Case(name: name, arguments: convert, parts: ["checkpoint/model.safetensors"] + parts) {
      directory in
      try put(tensors(text, data: data, length: length), "checkpoint/model.safetensors", directory)
    }
  }

  static func tensors(_ header: String, data: [UInt8], length: UInt64? = nil) -> [UInt8] {
    let text = Array(header.utf8)
    let count = length ?? UInt64(text.count)
    return (0..<8).map { UInt8(truncatingIfNeeded: count >> UInt64(8 * $0)) } + text + data
  }

  static func config(_ name: String, _ text: String, _ parts: String...) -> Case {
    Case(name: name, arguments: convert, parts: ["checkpoint/config.json"] + parts) { directory in
      try put(Array(text.utf8), "checkpoint/config.json", directory)
    }
  }

  /// A bundled model with changed bytes.
  static func model(
    _ name: String, _ parts: String..., change: @escaping @Sendable (inout [UInt8]) -> Void
  ) -> Case {
    Case(name: name, arguments: ["convert", "m.h5", "-o", "out.h5"], parts: ["m.h5: "] + parts) {
      directory in
      var bytes = try read(Fixtures.bundled("mini"))
      change(&bytes)
      try put(bytes, "m.h5", directory)
    }
  }

  /// A file that another program has written, with changed bytes.
  static func foreign(
    _ name: String, _ fixture: String, _ parts: String...,
    change: @escaping @Sendable (inout [UInt8]) -> Void = { _ in }
  ) -> Case {
    Case(name: name, arguments: ["show", "r.h5"], parts: ["r.h5: "] + parts) { directory in
      var bytes = try read("\(Fixtures.repository)/Tests/Fixtures/hdf5/\(fixture).h5")
      change(&bytes)
      try put(bytes, "r.h5", directory)
    }
  }

  static let headers = [
    header("length beyond the file", "{}", "header length", "18446744073709551615", length: .max),
    header("length beyond the format", "{}", "100000001", length: 100_000_001),
    header("no JSON", "{{", "header", "byte 1"),
    header("deep JSON", String(repeating: "[", count: 100_000), "header"),
    header(
      "a deep unknown field", #"{"a":{"x":"# + String(repeating: "[", count: 100_000),
      "at most 64 levels"),
    header(
      "data beyond the file", #"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#,
      "8 bytes, as the header says", "found 4"),
    header(
      "an overlap",
      #"{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}}"#,
      "tensor 'b'", "from byte 3"),
    header(
      "a gap", #"{"b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}}"#, "tensor 'b'",
      "from byte 0"),
    header(
      "a key twice",
      #"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#,
      "'a' again"),
    header(
      "shape and bytes", #"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#, "tensor 'a'",
      "8 bytes"),
    header(
      "huge dimensions",
      #"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}}"#, "tensor 'a'",
      "64 bits"),
    header(
      "a name of two lines", #"{"a\nb":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#,
      #"tensor 'a\u{a}b'"#),
  ]

  static let configs = [
    config("deep configuration", String(repeating: "[", count: 1_000_000), "at most 64 levels"),
    config("cut configuration", "{\"n_layer\": 1,\n \"n_head\"", "line 2", "end of the text"),
    config("a field twice", "{\"n_layer\": 1,\n \"n_layer\": 2}", "line 2", "'n_layer' again"),
    config("an empty configuration", "", "end of the text"),
    config(
      "a configuration of 65 MB", String(repeating: " ", count: 65 << 20), "at most 1048576 bytes"),
    config(
      "many values", "[" + String(repeating: "0,", count: 500_000) + "0]", "at most 400000 values"),
  ]

  static let models = [
    model("an empty model", "an empty file") { $0 = [] },
    model("eight bytes of a model") { $0.removeSubrange(8...) },
    model("half a model", "truncated") { $0.removeSubrange(($0.count / 2)...) },
    model("all but a byte of a model", "truncated") { $0.removeLast() },
    model("a flipped bit of a weight", "crc32c 0x") { $0[$0.count / 2] ^= 4 },
    model("a flipped bit of the superblock") { $0[20] ^= 1 },
    model("a result as a model", "a NormLens result file") { $0 = resultBytes },
    model("text as a model", "a file of another kind") { $0 = Array("hello\n".utf8) },
    foreign("a walk without end", "cycle", "at most 32 levels of groups", "damaged HDF5"),
    foreign("an HDF5 file of another program", "keras", "NormLens did not write"),
    foreign("a cut HDF5 file", "keras", "damaged HDF5", "truncated") { $0.removeLast(1000) },
    foreign("a hole in an HDF5 file", "keras", "damaged HDF5") { bytes in
      for index in 512..<4096 { bytes[index] = 0xff }
    },
    Case(
      name: "an infinity", arguments: convert,
      parts: ["'transformer.h.0.mlp.c_fc.bias'", "a NaN or an infinity", "the first at [3]"]
    ) { directory in
      let path = directory.file("checkpoint/model.safetensors")
      let file = try SafetensorsFile(path: path)
      let tensors = try file.names.map { name in
        var tensor = try file.tensor(named: name)
        if name.hasSuffix("h.0.mlp.c_fc.bias") {
          tensor.withUnsafeMutableBufferPointer { $0[3] = .infinity }
        }
        return (name: name, tensor: tensor)
      }
      try SafetensorsFile.write(tensors: tensors, to: path)
    },
  ]

  /// A small result file.
  static let resultBytes: [UInt8] = {
    do {
      let directory = try TemporaryDirectory()
      try ResultFile.write(ResultSet(title: "t", groups: []), to: directory.file("r.h5"))
      return try read(directory.file("r.h5"))
    } catch {
      return []
    }
  }()

  static let unreadable = [
    Case(
      name: "a directory as weights", status: 66, arguments: convert,
      parts: ["checkpoint/model.safetensors", "directory"]
    ) { directory in
      let path = directory.file("checkpoint/model.safetensors")
      try FileManager.default.removeItem(atPath: path)
      try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
    },
    Case(
      name: "a directory as configuration", status: 66, arguments: convert,
      parts: ["checkpoint/config.json", "directory"]
    ) { directory in
      let path = directory.file("checkpoint/config.json")
      try FileManager.default.removeItem(atPath: path)
      try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
    },
    Case(
      name: "a pipe as a model", status: 66, arguments: ["inspect", "pipe"],
      parts: ["pipe", "not a regular file"]
    ) { directory in #expect(mkfifo(directory.file("pipe"), 0o600) == 0) },
    Case(
      name: "a pipe as weights", status: 66, arguments: convert,
      parts: ["checkpoint/model.safetensors", "not a regular file"]
    ) { directory in
      let path = directory.file("checkpoint/model.safetensors")
      try FileManager.default.removeItem(atPath: path)
      #expect(mkfifo(path, 0o600) == 0)
    },
    Case(
      name: "a device as a result", status: 66, arguments: ["show", "/dev/null"],
      parts: ["/dev/null", "not a regular file"]
    ) { _ in },
    Case(
      name: "a directory as a result", status: 66, arguments: ["show", "checkpoint"],
      parts: ["checkpoint", "directory"]
    ) { _ in },
    Case(
      name: "a link that leads nowhere", status: 66, arguments: ["show", "link.h5"],
      parts: ["link.h5"]
    ) { directory in
      try FileManager.default.createSymbolicLink(
        atPath: directory.file("link.h5"), withDestinationPath: "nothing")
    },
  ]

  @Test(arguments: headers + configs + models + unreadable)
  func refusal(_ item: Case) throws {
    let directory = try TemporaryDirectory()
    try directory.copy(Fixtures.checkpoint("tiny-1x1"), as: "checkpoint")
    try item.make(directory)
    try Command.fail(item.arguments, item.status, saying: item.parts, in: directory)
  }

  @Test func linksAreFollowed() throws {
    // The cache of Hugging Face is made of them.
    let directory = try TemporaryDirectory()
    try directory.copy(Fixtures.checkpoint("tiny-1x1"), as: "blobs")
    try FileManager.default.createDirectory(
      atPath: directory.file("snapshot"), withIntermediateDirectories: false)
    for name in ["config.json", "model.safetensors"] {
      try FileManager.default.createSymbolicLink(
        atPath: directory.file("snapshot/\(name)"), withDestinationPath: "../blobs/\(name)")
    }
    try Command.succeed(["inspect", "snapshot"], in: directory)
  }

  // MARK: Memory

  /// What GNU time says of a command.
  static let meter = "/usr/bin/time"

  /// The most memory that a command has used, in bytes.
  private func peakMemory(_ arguments: [String], in directory: TemporaryDirectory) throws -> Int {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: Self.meter)
    process.arguments = ["-f", "%M", "-o", "peak", try Command.binary.get().path] + arguments
    process.currentDirectoryURL = URL(fileURLWithPath: directory.path)
    process.standardError = FileHandle.nullDevice
    process.standardOutput = FileHandle.nullDevice
    try process.run()
    process.waitUntilExit()
    let text = String(
      decoding: try Data(contentsOf: URL(fileURLWithPath: directory.file("peak"))), as: UTF8.self)
    let last = text.split(separator: "\n").last ?? ""
    return try #require(Int(last), "\(text)") << 10
  }

  /// Headers and configurations of some size that describe as much as they can.
  static let large: [(name: String, file: String, text: @Sendable () -> [UInt8])] = [
    (
      "many tensors", "model.safetensors",
      {
        header(60_000_000) { name($0) + "{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}" }
      }
    ),
    (
      "many unknown fields", "model.safetensors",
      { header(40_000_000, "\"a\":{", "}") { name($0) + "0" } }
    ),
    (
      "many texts", "model.safetensors",
      { header(40_000_000, "\"__metadata__\":{", "}") { name($0) + "\"\"" } }
    ),
    (
      "long texts", "model.safetensors",
      {
        header(60_000_000, "\"__metadata__\":{", "}") {
          name($0) + "\"" + String(repeating: "x", count: 900) + "\""
        }
      }
    ),
    (
      "one long name", "model.safetensors",
      { tensors("{\"" + String(repeating: "a", count: 60_000_000) + "\":0}", data: []) }
    ),
    (
      "numbers", "config.json",
      { Array(("[" + String(repeating: "0,", count: 20_000_000) + "0]").utf8) }
    ),
    (
      "arrays", "config.json",
      { Array(("[" + String(repeating: "[0],", count: 190_000) + "0]").utf8) }
    ),
    (
      "members", "config.json",
      { Array("{".utf8) + joined(4_000_000) { name($0) + "0" } + Array("}".utf8) }
    ),
  ]

  private static func name(_ index: Int) -> String { "\"" + String(index, radix: 36) + "\":" }

  /// Members until they take `count` bytes.
  private static func joined(_ count: Int, _ member: (Int) -> String) -> [UInt8] {
    var text: [UInt8] = []
    text.reserveCapacity(count + 2000)
    var index = 0
    while text.count < count {
      if index > 0 { text.append(UInt8(ascii: ",")) }
      text.append(contentsOf: member(index).utf8)
      index += 1
    }
    return text
  }

  private static func header(
    _ count: Int, _ before: String = "", _ after: String = "", _ member: (Int) -> String
  ) -> [UInt8] {
    let text = Array(("{" + before).utf8) + joined(count, member) + Array((after + "}").utf8)
    return (0..<8).map { UInt8(truncatingIfNeeded: text.count >> (8 * $0)) } + text
  }

  @Test(
    .enabled(
      if: FileManager.default.isExecutableFile(atPath: meter), "GNU time is not at \(meter)"))
  func memoryStaysWithinTwiceTheInput() throws {
    let directory = try TemporaryDirectory()
    try directory.copy(Fixtures.checkpoint("tiny-1x1"), as: "whole")
    let base = try peakMemory(["inspect", "whole"], in: directory)
    for (name, file, text) in Self.large {
      try directory.copy(Fixtures.checkpoint("tiny-1x1"), as: "checkpoint")
      let bytes = text()
      try Self.put(bytes, "checkpoint/\(file)", directory)
      let peak = try peakMemory(["inspect", "checkpoint"], in: directory)
      let outcome = try Command.run(["inspect", "checkpoint"], in: directory)
      #expect(outcome.status == 65, "\(name): \(outcome.errors)")
      let bound = base + 2 * bytes.count + (64 << 20)
      print(
        "memory, \(file) of \(name): \(bytes.count >> 20) MiB of input, peak \(peak >> 20) MiB, "
          + "bound \(bound >> 20) MiB")
      #expect(peak < bound, "\(name)")
      try FileManager.default.removeItem(atPath: directory.file("checkpoint"))
    }
  }

  // MARK: Files

  private static func read(_ path: String) throws -> [UInt8] {
    Array(try Data(contentsOf: URL(fileURLWithPath: path)))
  }

  private static func put(
    _ bytes: [UInt8], _ name: String, _ directory: TemporaryDirectory
  ) throws {
    try Data(bytes).write(to: URL(fileURLWithPath: directory.file(name)))
  }
}
