import Foundation
import Results
import Tensors
import TestSupport
import Testing

@testable import HDF5Store

/// Files of every kind, damaged by chance: opened and read whole, each is refused with one line or is
/// what it was; where a format has no checksums, it is at least well-formed.
///
/// `NORMLENS_FUZZ` sets the number of mutations, `NORMLENS_FUZZ_SEED` the seed, and
/// `NORMLENS_FUZZ_ONLY` one number to repeat. The mutation that is being tried stands in the file that
/// the test prints first, should the process die of it.
@Suite(.serialized) struct FuzzTests {
  /// What reading a damaged file may come to.
  enum Outcome: String, CaseIterable {
    /// An error, found by this process.
    case refused
    /// An error, found by the child process without harm.
    case trialRefused = "refused in trial"
    /// An error because HDF5 crashed in the child process.
    case crashed = "crash in trial"
    /// An error because HDF5 did not come to an end in the child process.
    case endless = "timeout in trial"
    /// Exactly what was written: the damage was in unused bytes.
    case same
    /// Something well-formed, where nothing could tell.
    case wellFormed = "well-formed"
  }

  /// What reading has found.
  enum Finding {
    case same
    case wellFormed
    /// Other values, where checksums should have told.
    case different(String)
  }

  /// A kind of file.
  struct Kind: Sendable, CustomTestStringConvertible {
    var name: String
    var file: String
    var focus: Range<Int>?
    var isText = false
    /// Makes the bytes of a whole, undamaged file.
    var make: @Sendable (Scratch) throws -> [UInt8]
    /// Wraps damaged bytes into a file where they are only a part of one.
    var wrap: @Sendable ([UInt8]) -> [UInt8] = { $0 }
    /// Reads everything; `original` is an undamaged file.
    var read: @Sendable (_ path: String, _ original: String) throws -> Finding

    var testDescription: String { name }
  }

  static let environment = ProcessInfo.processInfo.environment
  static let count = environment["NORMLENS_FUZZ"].flatMap { Int($0) } ?? 2400
  static let seed = environment["NORMLENS_FUZZ_SEED"].flatMap { UInt64($0) } ?? 20_260_101
  static let only = environment["NORMLENS_FUZZ_ONLY"].flatMap { Int($0) }

  @Test(arguments: kinds)
  func damagedFiles(_ kind: Kind) throws {
    let scratch = try Scratch()
    let bytes = try kind.make(scratch)
    let original = try scratch.put("original-\(kind.file)", kind.wrap(bytes))
    guard case .same = try kind.read(original, original) else {
      Issue.record("\(kind.name): the undamaged file is not what it is")
      return
    }
    let note = NSTemporaryDirectory() + "normlens-fuzz-\(getpid())-\(kind.file).txt"
    defer { unlink(note) }
    let mutator = Mutator(seed: Self.seed)
    let numbers = Self.only.map { [$0] } ?? Array(0..<Self.count / Self.kinds.count)
    var outcomes: [Outcome: Int] = [:]
    var (longest, clock) = (Duration.zero, ContinuousClock())
    let memory = peakMemory()
    let total = try clock.measure {
      for number in numbers {
        let mutant = mutator.mutant(number, of: bytes, focus: kind.focus, isText: kind.isText)
        let what =
          "\(kind.name): NORMLENS_FUZZ_SEED=\(Self.seed) NORMLENS_FUZZ_ONLY=\(number): "
          + mutant.description
        try Data(what.utf8).write(to: URL(fileURLWithPath: note))
        let path = try scratch.put(kind.file, kind.wrap(mutant.bytes))
        var outcome = Outcome.refused
        let time = clock.measure { outcome = judge(kind, path, original, what) }
        outcomes[outcome, default: 0] += 1
        longest = max(longest, time)
        #expect(time < .seconds(15), "\(what) took \(time)")
      }
    }
    let grown = peakMemory() - memory
    let counts = Outcome.allCases.compactMap { outcome in
      outcomes[outcome].map { "\($0) \(outcome.rawValue)" }
    }
    print(
      "fuzz, \(kind.name): \(numbers.count) mutations in \(total), longest \(longest), "
        + "peak memory +\(grown >> 20) MiB: \(counts.joined(separator: ", "))")
    // Other tests may run beside this one.
    #expect(grown < 1 << 30, "\(kind.name): memory grew by \(grown) bytes")
    #expect(try Set(scratch.names).isSubset(of: ["original-\(kind.file)", kind.file, "whole"]))
  }

  private func judge(
    _ kind: Kind, _ path: String, _ original: String, _ what: String
  ) -> Outcome {
    do {
      switch try kind.read(path, original) {
      case .same: return .same
      case .wellFormed: return .wellFormed
      case .different(let place):
        Issue.record("\(what): other values without an error: \(place)")
        return .wellFormed
      }
    } catch let error as HDF5Error {
      let line = error.description
      #expect(error.kind == .damaged, "\(what): \(line)")
      #expect(line.hasPrefix(path + ": ") && !line.contains(where: \.isNewline), "\(what): \(line)")
      #expect(line.utf8.count < 1000 + path.utf8.count + 9000, "\(what): a long line")
      if line.contains("in a trial") { return .crashed }
      if line.contains("has not ended after") { return .endless }
      return line.contains("damaged HDF5") ? .trialRefused : .refused
    } catch {
      Issue.record("\(what): an error of another kind: \(error)")
      return .refused
    }
  }

  /// The most memory that this process has used.
  private func peakMemory() -> Int {
    var usage = rusage()
    #if canImport(Glibc)
      getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
      return Int(usage.ru_maxrss) << 10
    #else
      getrusage(RUSAGE_SELF, &usage)
      return Int(usage.ru_maxrss)
    #endif
  }

  // MARK: Kinds of files

  static let kinds = [
    model("model, float32", .float32, logits: 50),
    model("model, float16", .float16, logits: 50),
    // Attributes beyond 64 KiB lie elsewhere in the file.
    model("model, large attribute", .float32, logits: 9000),
    Kind(
      name: "result, sealed", file: "sealed.h5", make: result,
      read: { path, original in
        let found = try ResultFile.read(path)
        if found == ResultFileTests.sample { return .same }
        // Damage may remove the seal itself: such a file has lost its checksum.
        let tail = try Data(contentsOf: URL(fileURLWithPath: path)).suffix(20).prefix(8)
        return tail == Data("NLSEAL01".utf8) ? .different("the result") : .wellFormed
      }),
    Kind(
      name: "result, unsealed", file: "unsealed.h5",
      make: { Array(try result($0).dropLast(20)) }, read: readResult),
    fixture("keras"),
    fixture("legacy"),
    Kind(
      name: "safetensors", file: "tensors.safetensors", focus: 0..<400, make: safetensors,
      read: readTensors),
    Kind(
      name: "safetensors header", file: "header.safetensors", isText: true,
      make: { scratch in
        let bytes = try safetensors(scratch)
        return Array(bytes[8..<8 + headerLength(bytes)])
      },
      wrap: { header in
        let length = (0..<8).map { UInt8(truncatingIfNeeded: header.count >> (8 * $0)) }
        return length + header + Array(repeating: 0x3c, count: 356)
      }, read: readTensors),
    json(
      "config.json",
      """
      {"model_type": "gpt2", "n_layer": 12, "n_head": 12, "n_embd": 768, "n_positions": 1024,
       "layer_norm_epsilon": 1e-05, "activation_function": "gelu_new", "bos_token_id": 50256,
       "task_specific_params": {"text-generation": {"do_sample": true, "max_length": 50}},
       "architectures": ["GPT2LMHeadModel"], "note": "caf\\u00e9 \\ud83d\\ude00 \\n 日本"}
      """),
    json(
      "index.json",
      "{\"metadata\": {\"total_size\": 497774208}, \"weight_map\": {"
        + (0..<40).map { "\"h.\($0).attn.c_attn.weight\": \"model-0000\($0 % 3 + 1)-of-00003\"" }
        .joined(separator: ",\n") + "}}"),
    Kind(
      name: "vocab.json", file: "vocab.json", isText: true,
      make: { _ in
        Array(("{" + (0..<300).map { "\"Ġt\($0)\": \($0)" }.joined(separator: ", ") + "}").utf8)
      },
      read: readVocabulary),
  ]

  static func model(
    _ name: String, _ type: ModelArchive.StoredType, logits: Int
  ) -> Kind {
    Kind(
      name: name, file: "model-\(type.rawValue)-\(logits).h5", focus: 0..<4096,
      make: { scratch in
        let tests = try ModelArchiveTests()
        try ModelArchive.write(
          attributes: [
            "name": .string("tiny"), "n_layers": .integer(11), "layer_norm_epsilon": .number(1e-5),
            "weight_processing": .string("[]"), "list": .strings(["a", "", "bcd"]),
            "reference_logits": .numbers((0..<logits).map { Double($0) / 3 }),
          ], tensors: tests.tensors, tokenizer: tests.tokenizer, to: scratch.path("whole"),
          dtype: type)
        return try scratch.bytes("whole")
      },
      read: { path, original in
        // Without checksums, only what is read matters, not what it says.
        if let unverified = try? ModelArchive.open(path, verify: false) { touch(unverified) }
        let (found, expected) = (
          try ModelArchive.open(path), try ModelArchive.open(original)
        )
        if found.attributes != expected.attributes { return .different("attributes") }
        if found.tensorNames != expected.tensorNames { return .different("names") }
        for name in found.tensorNames {
          let (a, b) = (found[tensor: name], expected[tensor: name])
          if a?.shape != b?.shape || a?.scalars.map(\.bitPattern) != b?.scalars.map(\.bitPattern) {
            return .different(name)
          }
        }
        let (a, b) = (found.tokenizer, expected.tokenizer)
        let isSame =
          a?.vocabJSON == b?.vocabJSON && a?.mergesText == b?.mergesText
          && a?.tokenBytes == b?.tokenBytes && a?.tokenOffsets == b?.tokenOffsets
          && a?.mergePairs == b?.mergePairs
        return isSame ? .same : .different("tokenizer")
      })
  }

  private static func touch(_ archive: ModelArchive) {
    var sum: Float = 0
    for tensor in archive.tensors.values { for scalar in tensor.scalars { sum += scalar } }
    if let tokenizer = archive.tokenizer { sum += Float(tokenizer.mergePairs.count) }
    withExtendedLifetime(sum) {}
  }

  @Sendable static func result(_ scratch: Scratch) throws -> [UInt8] {
    try ResultFile.write(ResultFileTests.sample, to: scratch.path("whole"))
    return try scratch.bytes("whole")
  }

  @Sendable static func readResult(_ path: String, _ original: String) throws -> Finding {
    try ResultFile.read(path) == ResultFileTests.sample ? .same : .wellFormed
  }

  /// A file of another program.
  static func fixture(_ name: String) -> Kind {
    Kind(
      name: name, file: "\(name).h5", focus: 0..<8192,
      make: { _ in
        let path = "\(Fixtures.repository)/Tests/Fixtures/hdf5/\(name).h5"
        return Array(try Data(contentsOf: URL(fileURLWithPath: path)))
      },
      read: { path, original in
        try contents(path) == contents(original) ? .same : .wellFormed
      })
  }

  /// Everything in a file, as text.
  static func contents(_ path: String) throws -> [String] {
    let file = try HDF5File(path: path)
    var lines = ["\(try file.attributes())"]
    for dataset in try file.datasets() {
      let info = try file.info(dataset)
      lines.append("\(dataset): \(info) \(try file.attributes(of: dataset))")
      switch info.scalars {
      case .float16, .float32, .otherFloat:
        let scalars = try file.tensor(dataset).scalars.map(\.bitPattern)
        lines.append("\(scalars)")
        lines.append("\(try file.doubles(dataset).map(\.bitPattern))")
      case .integer: lines.append("\(try file.integers(dataset))")
      case .fixedString, .variableString: lines.append("\(try file.strings(dataset))")
      case .other: break
      }
    }
    return lines
  }

  @Sendable static func safetensors(_ scratch: Scratch) throws -> [UInt8] {
    try SafetensorsFile.write(
      tensors: [
        (name: "wte.weight", tensor: ramp([4, 8])), (name: "wpe.weight", tensor: ramp([3, 8])),
        (name: "h.0.attn.c_attn.bias", tensor: ramp([24])), (name: "empty", tensor: ramp([0])),
        (name: "scalar", tensor: ramp([])), (name: "ü \"x\"", tensor: ramp([2, 2, 2])),
      ], metadata: ["format": "pt"], to: scratch.path("whole"))
    return try scratch.bytes("whole")
  }

  private static func headerLength(_ bytes: [UInt8]) -> Int {
    bytes.prefix(8).reversed().reduce(0) { $0 << 8 | Int($1) }
  }

  @Sendable static func readTensors(_ path: String, _ original: String) throws -> Finding {
    func contents(_ path: String) throws -> [String] {
      let file = try SafetensorsFile(path: path)
      return try ["\(file.metadata)"]
        + file.names.map { name in
          let type = file[entry: name]?.type
          switch type {
          case .F32, .F16, .BF16:
            let tensor = try file.tensor(named: name)
            #expect(tensor.shape.reduce(1, *) == tensor.count)
            return "\(name) \(tensor.shape) \(tensor.scalars.map(\.bitPattern))"
          case .F64: return "\(name) \(try file.doubles(named: name).map(\.bitPattern))"
          default:
            #expect(failure { _ = try file.tensor(named: name) }?.kind == .damaged)
            return name
          }
        }
    }
    return try contents(path) == contents(original) ? .same : .wellFormed
  }

  @Sendable static func readVocabulary(_ path: String, _ original: String) throws -> Finding {
    func members(_ path: String) throws -> [String] {
      let bytes = try FileBytes.read(path)
      var members: [String] = []
      do throws(JSONError) {
        try JSONScanner.forEachMember(of: bytes.span) { key, id in
          members.append("\(key.count) \(id)")
        }
      } catch {
        throw HDF5Error.damaged(
          path: path, object: "text", expected: "JSON", found: error.description)
      }
      return members
    }
    return try members(path) == members(original) ? .same : .wellFormed
  }

  static func json(_ name: String, _ text: String) -> Kind {
    Kind(
      name: name, file: name, isText: true, make: { _ in Array(text.utf8) },
      read: { path, original in
        try JSONScanner.parseFile(path) == JSONScanner.parseFile(original) ? .same : .wellFormed
      })
  }
}
