import Foundation
import Results
import Tensors
import Testing

@testable import HDF5Store

@Suite struct ModelArchiveTests {
  let scratch: Scratch

  init() throws { scratch = try Scratch() }

  let tensors: [(name: String, tensor: Tensor)] = [
    ("wte.weight", ramp([11, 8])), ("h.0.attn.c_attn.weight", ramp([8, 24], from: 100)),
    ("h.0.attn.c_attn.bias", ramp([3], from: 300)), ("h.10.ln_1.weight", ramp([8], from: 77)),
    ("h.2.ln_1.weight", ramp([8], from: 5)), ("scalar", ramp([], from: 9)),
  ]

  let tokenizer = TokenizerPayload(
    vocabJSON: Array("{\"a\":0,\"b\":1,\"ab\":2}".utf8), mergesText: Array("a b\n".utf8),
    tokenBytes: Array("abab".utf8), tokenOffsets: [0, 1, 2, 4],
    mergePairs: [0, 1, 2, 1])

  @discardableResult
  func write(
    _ name: String = "model.h5", dtype: ModelArchive.StoredType = .float32
  ) throws -> String {
    let path = scratch.path(name)
    try ModelArchive.write(
      attributes: [
        "name": .string("tiny ü"), "n_layers": .integer(11), "layer_norm_epsilon": .number(1e-5),
        "special_tokens": .string("{}"), "empty": .string(""), "list": .strings(["a", "", "bcd"]),
        "reference_tokens": .integers([5, 6]),
        "reference_logits": .numbers((0..<50_257).map { Double($0) / 3 }),
      ], tensors: tensors, tokenizer: tokenizer, to: path, dtype: dtype)
    return path
  }

  @Test func roundTripWithoutCopies() throws {
    let archive = try ModelArchive.open(try write())
    #expect(archive.tensorNames == ["wte.weight"] + archive.tensorNames.dropFirst())
    #expect(Set(archive.tensorNames) == Set(tensors.map(\.name)))
    for (name, tensor) in tensors {
      let found = try #require(archive[tensor: name])
      #expect(found.shape == tensor.shape)
      #expect(found.scalars == tensor.scalars)
      #expect(found.isBorrowed)
      found.withUnsafeBufferPointer { #expect(Int(bitPattern: $0.baseAddress) % 64 == 0) }
    }
    #expect(archive[attribute: "format"] == .string("normlens-model"))
    #expect(archive[attribute: "format_version"] == .integer(1))
    #expect(archive[attribute: "name"] == .string("tiny ü"))
    #expect(archive[attribute: "layer_norm_epsilon"] == .number(1e-5))
    #expect(archive[attribute: "empty"] == .string(""))
    #expect(archive[attribute: "list"] == .strings(["a", "", "bcd"]))
    #expect(archive[attribute: "reference_tokens"] == .integers([5, 6]))
    let logits = archive[attribute: "reference_logits"]
    let isSame = logits == .numbers((0..<50_257).map { Double($0) / 3 })
    #expect(isSame)
    #expect(
      archive[attribute: "weights_sha256"] == .string(ModelArchive.weightsSHA256(tensors)))
    #expect(try scratch.names == ["model.h5"])
  }

  @Test func tensorsOutliveTheArchive() throws {
    var tensor = try ModelArchive.open(try write())[tensor: "wte.weight"]
    try FileManager.default.removeItem(atPath: scratch.path("model.h5"))
    #expect(tensor?.scalars == tensors[0].tensor.scalars)
    tensor?.withUnsafeMutableBufferPointer { $0[0] = 5 }
    #expect(tensor?.isBorrowed == false)
  }

  @Test func tokenizerRoundTrip() throws {
    let found = try #require(try ModelArchive.open(try write()).tokenizer)
    #expect(found.vocabJSON == tokenizer.vocabJSON)
    #expect(found.mergesText == tokenizer.mergesText)
    #expect(found.tokenBytes == tokenizer.tokenBytes)
    #expect(found.tokenOffsets == [0, 1, 2, 4])
    #expect(found.mergePairs == [0, 1, 2, 1])
    #expect(found.tokenCount == 3)
    #expect(found.mergeCount == 2)
    let path = scratch.path("bare.h5")
    try ModelArchive.write(attributes: [:], tensors: tensors, to: path)
    #expect(try ModelArchive.open(path).tokenizer == nil)
  }

  @Test func float16WidensAndKeepsTheChecksum() throws {
    let archive = try ModelArchive.open(try write("half.h5", dtype: .float16))
    for (name, tensor) in tensors {
      #expect(archive[tensor: name]?.scalars == tensor.scalars)
      #expect(archive[tensor: name]?.isBorrowed == false)
    }
    // These numbers are exact in half precision, so the checksum is that of the float32 file.
    #expect(
      archive[attribute: "weights_sha256"] == .string(ModelArchive.weightsSHA256(tensors)))
    let error = failure {
      try ModelArchive.write(
        attributes: [:], tensors: [(name: "w", tensor: Tensor([70000], shape: [1]))],
        to: scratch.path("over.h5"), dtype: .float16)
    }
    #expect(error?.description.contains("tensor 'w'") == true)
    #expect(try scratch.names == ["half.h5"])
  }

  @Test func rewritingAnOpenedArchiveKeepsIt() throws {
    let first = try ModelArchive.open(try write())
    let path = scratch.path("again.h5")
    try ModelArchive.write(
      attributes: first.attributes, tensors: first.tensors.map { (name: $0.key, tensor: $0.value) },
      tokenizer: first.tokenizer, to: path)
    let second = try ModelArchive.open(path)
    #expect(second.tensorNames == first.tensorNames)
    #expect(second[attribute: "weights_sha256"] == first[attribute: "weights_sha256"])
    #expect(second.attributes.count == first.attributes.count)
  }

  @Test(arguments: ["wte.weight", "vocab_json", "merge_pairs"])
  func aFlippedBitIsNamed(target: String) throws {
    try write()
    var bytes = try scratch.bytes("model.h5")
    let needle =
      switch target {
      case "wte.weight": littleEndian(Array(tensors[0].tensor.scalars[40..<50]))
      case "vocab_json": tokenizer.vocabJSON
      default: [2, 0, 0, 0, 1, 0, 0, 0] as [UInt8]
      }
    bytes[try #require(find(needle, in: bytes)) + 2] ^= 0x10
    let path = try scratch.put("flipped.h5", bytes)
    let error = failure { _ = try ModelArchive.open(path) }
    guard case .damaged(_, let object, let expected, let found) = error else {
      Issue.record("no damage was found: \(String(describing: error))")
      return
    }
    #expect(object.hasSuffix(target.replacing(".", with: "/")))
    #expect(expected.hasPrefix("crc32c 0x") && found.hasPrefix("0x"))
    if target == "wte.weight" {
      #expect(throws: Never.self) { try ModelArchive.open(path, verify: false) }
    }
  }

  @Test func everyMutatedByteIsFoundOrHarmless() throws {
    let original = try ModelArchive.open(try write("m.h5"))
    let bytes = try scratch.bytes("m.h5")
    var generator = SplitMix(state: 42)
    var refused = 0
    for _ in 0..<400 {
      var mutated = bytes
      // Metadata lie mostly at the beginning; half of the mutations go there.
      let range = Bool.random(using: &generator) ? 4096 : mutated.count
      let place = Int.random(in: 0..<range, using: &generator)
      mutated[place] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
      let path = try scratch.put("mutated.h5", mutated)
      do {
        let archive = try ModelArchive.open(path)
        // What opens must be what was written: the bit was in unused space.
        #expect(archive.tensorNames == original.tensorNames)
        // Without the values in the message, which are many.
        let isSame = archive.attributes == original.attributes
        #expect(isSame, "attributes differ after a flip at \(place)")
        for name in original.tensorNames {
          #expect(archive[tensor: name]?.scalars == original[tensor: name]?.scalars)
        }
        #expect(archive.tokenizer?.mergePairs == original.tokenizer?.mergePairs)
      } catch {
        refused += 1
        #expect(error.kind == .damaged)
        #expect(!error.description.contains("\n"))
      }
    }
    #expect(refused > 50)
  }

  @Test func truncatedFiles() throws {
    try write()
    let bytes = try scratch.bytes("model.h5")
    for count in [0, 1, 7, 8, 100, bytes.count / 2, bytes.count - 1] {
      let path = try scratch.put("short.h5", Array(bytes[..<count]))
      let error = failure { _ = try ModelArchive.open(path) }
      #expect(error?.kind == .damaged, "\(count) bytes: \(String(describing: error))")
    }
  }

  @Test func wrongKindsAndMissingFiles() throws {
    let result = scratch.path("result.h5")
    try ResultFile.write(ResultSet(title: "t", groups: []), to: result)
    let error = failure { _ = try ModelArchive.open(result) }
    #expect(error?.kind == .damaged)
    #expect(
      error?.description
        == "\(result): expected a NormLens model file, found a NormLens result file; "
        + "give a model, or make one with 'normlens convert'")
    let text = try scratch.put("a.txt", Array("hello, this is text".utf8))
    #expect(failure { _ = try ModelArchive.open(text) }?.kind == .damaged)
    let missing = scratch.path("none.h5")
    #expect(failure { _ = try ModelArchive.open(missing) } == .missing(path: missing))
    #expect(failure { _ = try ModelArchive.open(scratch.directory) }?.kind == .unreadable)
    #expect(failure { _ = try ModelArchive.open("") }?.kind == .unreadable)
  }

  @Test func impossibleOutputs() throws {
    let file = try scratch.put("file", [1])
    let nowhere = scratch.path("no/such/dir/m.h5")
    for path in [nowhere, file + "/m.h5", scratch.directory, "", "/dev/null"] {
      let error = failure { try ModelArchive.write(attributes: [:], tensors: tensors, to: path) }
      #expect(error?.kind == .cannotCreate, "\(path)")
    }
    #expect(try scratch.names == ["file"])
  }

  @Test func refusesNamesThatAreNoPaths() throws {
    let one = ramp([1])
    let bad = ["a a", "a a.b", "a.b a", "", "a..b", ".a", "a/b", "a."]
    for names in bad.map({ $0.split(separator: " ", omittingEmptySubsequences: false) }) {
      let error = failure {
        try ModelArchive.write(
          attributes: [:], tensors: names.map { (name: String($0), tensor: one) },
          to: scratch.path("bad.h5"))
      }
      #expect(error != nil, "\(names)")
    }
    let zero = failure {
      try ModelArchive.write(
        attributes: ["x": .string("a\0b")], tensors: tensors, to: scratch.path("bad.h5"))
    }
    #expect(zero?.kind == .damaged)
    let broken = TokenizerPayload(
      vocabJSON: [], mergesText: [], tokenBytes: [1], tokenOffsets: [0, 2], mergePairs: [])
    let tokens = failure {
      try ModelArchive.write(
        attributes: [:], tensors: tensors, tokenizer: broken, to: scratch.path("bad.h5"))
    }
    #expect(tokens?.kind == .damaged)
    #expect(try scratch.names.isEmpty)
  }

  @Test func anOldFileSurvivesAFailure() throws {
    let path = try write()
    let before = try scratch.bytes("model.h5")
    let error = failure {
      try ModelArchive.write(
        attributes: [:], tensors: [(name: "w", tensor: Tensor([1e30], shape: [1]))], to: path,
        dtype: .float16)
    }
    #expect(error != nil)
    #expect(try scratch.bytes("model.h5") == before)
    #expect(try scratch.names == ["model.h5"])
  }

  @Test func aLinkStaysALink() throws {
    let target = try scratch.put("target.h5", [1])
    let link = scratch.path("link.h5")
    try FileManager.default.createSymbolicLink(atPath: link, withDestinationPath: target)
    try ModelArchive.write(attributes: [:], tensors: tensors, to: link)
    #expect(try FileManager.default.destinationOfSymbolicLink(atPath: link) == target)
    #expect(throws: Never.self) { try ModelArchive.open(target) }
  }

  @Test func aFullDiskLeavesNothing() async throws {
    await #expect(processExitsWith: .success) {
      let scratch = try Scratch()
      // Writing past this size fails like a full disk does.
      signal(SIGXFSZ, SIG_IGN)
      var limit = rlimit(rlim_cur: 1 << 20, rlim_max: 1 << 20)
      try #require(setrlimit(__rlimit_resource_t(1), &limit) == 0)
      let large = ramp([1 << 20])
      for dtype in ModelArchive.StoredType.allCases {
        let error = failure {
          try ModelArchive.write(
            attributes: [:], tensors: [(name: "w", tensor: large)], to: scratch.path("m.h5"),
            dtype: dtype)
        }
        try #require(error?.kind == .ioFailed)
        try #require(error?.description.contains("File too large") == true)
      }
      // Random, because anything else would be compressed below the limit.
      var generator = SplitMix(state: 1)
      let numbers = (0..<(1 << 20)).map { _ in Double.random(in: 0..<1, using: &generator) }
      let set = ResultSet(
        title: "large",
        groups: [
          ResultGroup(
            path: "g", dimensions: [Dimension("i", count: 1 << 20)],
            variables: [
              ResultVariable("x", ["i"], .float64(numbers), longName: "x", units: "1")
            ])
        ])
      let error = failure { try ResultFile.write(set, to: scratch.path("r.h5")) }
      try #require(error?.kind == .ioFailed)
      let tensors = failure {
        try SafetensorsFile.write(
          tensors: [(name: "w", tensor: large)], to: scratch.path("s.safetensors"))
      }
      try #require(tensors?.kind == .ioFailed)
      try #require(try scratch.names.isEmpty)
      // The library still works afterwards.
      try ModelArchive.write(
        attributes: [:], tensors: [(name: "w", tensor: ramp([4]))], to: scratch.path("m.h5"))
      _ = try ModelArchive.open(scratch.path("m.h5"))
    }
  }

  @Test func anyHDF5FileCanBeWalked() throws {
    let file = try HDF5File(path: try write())
    #expect(try file.items().map(\.name) == ["weights", "tokenizer"])
    #expect(try file.datasets(under: "weights").contains("weights/h/0/attn/c_attn/weight"))
    #expect(try file.contains("weights/h/0"))
    #expect(try !file.contains("weights/h/1"))
    let info = try file.info("weights/wte/weight")
    #expect(info.shape == [11, 8])
    #expect(info.scalars == .float32)
    let tensor = try file.tensor("weights/wte/weight")
    #expect(tensor.isBorrowed)
    #expect(tensor.scalars == tensors[0].tensor.scalars)
    let slab = try file.tensor("weights/wte/weight", start: [2, 3], count: [2, 2])
    #expect(slab.scalars == [19, 20, 27, 28].map { tensors[0].tensor.scalars[$0] })
    #expect(failure { _ = try file.tensor("tokenizer/vocab_json") }?.kind == .damaged)
    #expect(failure { _ = try file.tensor("weights") }?.kind == .damaged)
    #expect(failure { _ = try file.tensor("weights/none") }?.kind == .damaged)
    #expect(try file.integers("tokenizer/token_offsets") == [0, 1, 2, 4])
    #expect(try file.attribute("name") == .string("tiny ü"))
  }
}

/// A small generator with a seed, so that a failing mutation can be repeated.
struct SplitMix: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}
