import HDF5Store
import Results
import Tensors
import Testing

@Suite struct SafetensorsTests {
  let scratch: Scratch

  init() throws { scratch = try Scratch() }

  /// A file of a header text and data.
  func file(_ header: String, _ data: [UInt8] = [], length: UInt64? = nil) throws -> String {
    let text = Array(header.utf8)
    let count = length ?? UInt64(text.count)
    let prefix = (0..<8).map { UInt8(truncatingIfNeeded: count >> UInt64(8 * $0)) }
    return try scratch.put("x.safetensors", prefix + text + data)
  }

  @Test func roundTrip() throws {
    let path = scratch.path("a.safetensors")
    let tensors = [("b \"x\"", ramp([2, 3])), ("a", ramp([], from: 7)), ("empty", ramp([0, 4]))]
    try SafetensorsFile.write(
      tensors: tensors.map { (name: $0.0, tensor: $0.1) }, metadata: ["format": "pt"], to: path)
    let file = try SafetensorsFile(path: path)
    #expect(file.names == ["b \"x\"", "a", "empty"])
    for (name, tensor) in tensors {
      let found = try file.tensor(named: name)
      #expect(found.shape == tensor.shape)
      #expect(found.scalars == tensor.scalars)
      #expect(try file.doubles(named: name) == tensor.scalars.map(Double.init))
    }
    #expect(try file.tensor(named: "b \"x\"").isBorrowed)
    #expect(file[entry: "a"]?.type == .F32)
    #expect(try scratch.names == ["a.safetensors"])
    #expect(failure { _ = try file.tensor(named: "c") } != nil)
  }

  @Test func widensAndCopies() throws {
    // half 1, -2, 65504; bfloat 1, -2, inf; double pi; then a float32 at an odd place.
    let header =
      #"{"h":{"dtype":"F16","shape":[3],"data_offsets":[0,6]},"#
      + #""b":{"dtype":"BF16","shape":[3],"data_offsets":[6,12]},"#
      + #""o":{"dtype":"U8","shape":[1],"data_offsets":[12,13]},"#
      + #""f":{"dtype":"F32","shape":[2],"data_offsets":[13,21]},"#
      + #""d":{"dtype":"F64","shape":[],"data_offsets":[21,29]}}"#
    let double = (0..<8).map { UInt8(truncatingIfNeeded: Double.pi.bitPattern >> UInt64(8 * $0)) }
    let data: [UInt8] =
      [0x00, 0x3c, 0x00, 0xc0, 0xff, 0x7b] + [0x80, 0x3f, 0x00, 0xc0, 0x80, 0x7f] + [9]
      + littleEndian([1.5, -3]) + double
    let file = try SafetensorsFile(path: try file(header, data))
    #expect(try file.tensor(named: "h").scalars == [1, -2, 65504])
    #expect(try file.tensor(named: "b").scalars == [1, -2, .infinity])
    #expect(try file.tensor(named: "f").scalars == [1.5, -3])
    #expect(try file.doubles(named: "d") == [.pi])
    #expect(failure { _ = try file.tensor(named: "o") }?.kind == .damaged)
  }

  @Test(arguments: [
    // Not an object; unknown type; wrong byte count; negative; beyond the file; gap; overlap;
    // trailing data; missing member; duplicate name; duplicate member; overflow; not whole.
    "[]", "{", "",
    #"{"a":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}}"#,
    #"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#,
    #"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#,
    #"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#,
    #"{"a":{"dtype":"F32","shape":[0],"data_offsets":[4,4]}}"#,
    #"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}}"#,
    #"{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}}"#,
    #"{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}"#,
    #"{"a":{"dtype":"F32","data_offsets":[0,4]}}"#,
    #"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#,
    #"{"a":{"dtype":"U8","dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#,
    #"{"a":{"dtype":"F64","shape":[4611686018427387904,4],"data_offsets":[0,4]}}"#,
    #"{"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}}"#,
    #"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#,
    #"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,9223372036854775807]}}"#,
    #"{"a":{"dtype":"F32","shape":[1],"data_offsets":[9223372036854775803,9223372036854775807]}}"#,
    #"{"__metadata__":{"a":1}}"#,
  ])
  func refusesHeader(text: String) throws {
    let path = try file(text, [1, 2, 3, 4])
    let error = failure { _ = try SafetensorsFile(path: path) }
    #expect(error?.kind == .damaged)
    #expect(error?.description.contains("\n") == false)
  }

  /// What a message must name for each fault: object, expected, found.
  static let faults: [(header: String, parts: [String])] = [
    (
      #"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#,
      ["tensor 'a'", "8 bytes for F32 of shape [2]", "data_offsets for 4"]
    ),
    (
      #"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}}"#,
      ["tensor 'b'", "data from byte 1", "data_offsets from 2"]
    ),
    (
      #"{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}}"#,
      ["tensor 'b'", "data from byte 3", "data_offsets from 2"]
    ),
    (
      #"{"a":{"dtype":"U8","shape":[5],"data_offsets":[0,5]}}"#,
      ["data", "5 bytes, as the header says", "found 4"]
    ),
    (
      #"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#,
      ["header", "each key once", "'a' again"]
    ),
    (
      #"{"a":{"dtype":"F64","shape":[4611686018427387904,4],"data_offsets":[0,4]}}"#,
      ["tensor 'a'", "product fits 64 bits", "4611686018427387904"]
    ),
    (#"{"a":{"dtype":"U8","shape":[-4],"data_offsets":[0,4]}}"#, ["tensor 'a'", "negative", "-4"]),
    (
      #"{"a":{"dtype":"Q8","shape":[4],"data_offsets":[0,4]}}"#,
      ["tensor 'a'", "a dtype of F64, F32", "'Q8'"]
    ),
    (
      #"{"a":{"dtype":"U8","data_offsets":[0,4]}}"#,
      ["tensor 'a'", "dtype, shape", "found no shape"]
    ),
    (
      #"{"a":{"dtype":"U8","shape":[4],"data_offsets":[4,0]}}"#,
      ["tensor 'a'", "two rising data_offsets", "[4, 0]"]
    ),
    (
      #"{"a\n\u001b[31m":{"dtype":"U8","shape":[5],"data_offsets":[0,4]}}"#,
      [#"tensor 'a\u{a}\u{1b}[31m'"#, "5 bytes", "data_offsets for 4"]
    ),
  ]

  @Test(arguments: faults)
  func namesTheFault(_ header: String, _ parts: [String]) throws {
    let path = try file(header, [1, 2, 3, 4])
    let message = failure { _ = try SafetensorsFile(path: path) }?.description ?? "no error"
    #expect(message.hasPrefix("\(path): ") && !message.contains(where: \.isNewline))
    for part in parts { #expect(message.contains(part), "'\(part)' is missing: \(message)") }
  }

  @Test func numbersOfThingsAreLimited() throws {
    let tensors = (0...100_000).map {
      "\"\($0)\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}"
    }
    for (header, limit) in [
      ("{" + tensors.joined(separator: ",") + "}", "100000 tensors"),
      (
        "{\"__metadata__\":{" + (0...100_000).map { "\"\($0)\":\"\"" }.joined(separator: ",")
          + "}}",
        "100000 texts in __metadata__"
      ),
      (
        "{\"a\":{\"shape\":[" + String(repeating: "1,", count: 40) + "1]}}",
        "32 numbers in a shape or data_offsets"
      ),
    ] {
      let path = try file(header)
      let message = failure { _ = try SafetensorsFile(path: path) }?.description ?? "no error"
      #expect(message.contains("expected at most \(limit)"), "\(message)")
    }
  }

  @Test func refusesLengthsAndShortFiles() throws {
    for length in [UInt64.max, 1 << 40, 100_000_001, 3] {
      let path = try file("{}", length: length)
      #expect(failure { _ = try SafetensorsFile(path: path) }?.kind == .damaged)
    }
    for bytes: [UInt8] in [[], [1], [2, 0, 0, 0, 0, 0, 0]] {
      let path = try scratch.put("short.safetensors", bytes)
      #expect(failure { _ = try SafetensorsFile(path: path) }?.kind == .damaged)
    }
    let missing = scratch.path("no")
    #expect(failure { _ = try SafetensorsFile(path: missing) } == .missing(path: missing))
  }

  @Test func refusesNamesTwice() throws {
    let path = scratch.path("twice.safetensors")
    let error = failure {
      try SafetensorsFile.write(
        tensors: [(name: "a", tensor: ramp([1])), (name: "a", tensor: ramp([1]))], to: path)
    }
    #expect(error != nil)
    #expect(try scratch.names.isEmpty)
  }
}
