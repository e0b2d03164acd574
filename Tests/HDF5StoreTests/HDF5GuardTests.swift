import CHDF5
import Foundation
import Results
import Tensors
import TestSupport
import Testing

@testable import HDF5Store

/// Files of other programs, which a child process reads first.
@Suite struct HDF5GuardTests {
  let scratch: Scratch

  init() throws { scratch = try Scratch() }

  static func fixture(_ name: String) -> String {
    "\(Fixtures.repository)/Tests/Fixtures/hdf5/\(name).h5"
  }

  @Test func filesOfOtherProgramsAreRead() throws {
    let keras = try HDF5File(path: Self.fixture("keras"))
    let group = "transformer/tfgpt2lm_head_model/transformer"
    #expect(try keras.datasets().count == 16)
    #expect(try keras.info("\(group)/h_._0/attn/c_attn/bias:0").shape == [1, 24])
    #expect(try keras.tensor("\(group)/wte/weight:0").shape == [32, 8])
    #expect(try keras.attribute("backend") == .string("tensorflow"))
    guard case .strings(let names)? = try keras.attribute("weight_names", of: "transformer") else {
      Issue.record("no weight_names")
      return
    }
    #expect(names.count == 16 && names[1].hasSuffix("wpe/embeddings:0"))

    let legacy = try HDF5File(path: Self.fixture("legacy"))
    #expect(try legacy.tensor("values/half").scalars == (0..<12).map { Float($0) })
    #expect(try legacy.tensor("values/big_endian").scalars == [0, 1, 2, 3, 4, 5])
    #expect(try legacy.integers("values/bytes") == Array(0..<20))
    #expect(try legacy.strings("values/words") == ["one", "zwei", "", "四"])
    #expect(try legacy.strings("values/labels") == ["x", "yy", "zzz"])
    #expect(try legacy.doubles("values/unset") == Array(repeating: 0, count: 10))
    #expect(try legacy.attribute("text") == .string("of variable length: ü"))
    #expect(try legacy.attribute("counts") == .integers([0, 1, 2, 3]))
  }

  @Test func linksToElsewhereAreNotFollowed() throws {
    let file = try HDF5File(path: Self.fixture("links"))
    #expect(try file.doubles("here") == [0, 1, 2])
    for name in ["soft", "elsewhere"] {
      let error = failure { _ = try file.doubles(name) }
      #expect(error?.description.contains("/\(name): expected an object") == true)
    }
  }

  @Test func aWalkWithoutEndIsEnded() throws {
    let error = failure { _ = try HDF5File(path: Self.fixture("cycle")) }
    #expect(error?.kind == .damaged)
    #expect(error?.description.contains("at most 32 levels of groups") == true)
    #expect(error?.description.contains("damaged HDF5") == true)
  }

  @Test func manyThreadsMayOpenAtOnce() async throws {
    try await withThrowingTaskGroup(of: Int.self) { group in
      for _ in 0..<8 {
        group.addTask { try HDF5File(path: Self.fixture("keras")).datasets().count }
      }
      for try await count in group { #expect(count == 16) }
    }
  }

  @Test func theChildsEndMayBeIgnored() async {
    await #expect(processExitsWith: .success) {
      // The system then collects ended children itself, and nobody can ask how they ended.
      signal(SIGCHLD, SIG_IGN)
      try #require(try HDF5File(path: HDF5GuardTests.fixture("keras")).datasets().count == 16)
      let error = failure { _ = try HDF5File(path: HDF5GuardTests.fixture("cycle")) }
      try #require(error?.kind == .damaged)
    }
  }

  @Test func aChildThatDoesNotEndIsEnded() throws {
    // Opening a pipe that nobody writes to waits for ever.
    let pipe = scratch.path("pipe")
    try #require(mkfifo(pipe, 0o600) == 0)
    let clock = ContinuousClock()
    let time = try clock.measure {
      let error = try refusal(of: pipe, seconds: 1)
      #expect(
        error?.description.contains("damaged HDF5: reading it has not ended after 1 s") == true)
    }
    #expect(time < .seconds(10))
  }

  @Test func anotherFileOfTheNameIsNoticed() throws {
    let error = try refusal(of: Self.fixture("keras"), status: Self.fixture("legacy"))
    #expect(
      error
        == .unreadable(
          path: Self.fixture("keras"),
          reason: "another file has taken its place while it was opened"
        ))
  }

  /// The error of a trial reading of `path`, which is said to be the file at `status`.
  private func refusal(
    of path: String, status: String? = nil, seconds: Int = 10
  ) throws -> HDF5Error? {
    var known = stat()
    try #require(stat(status ?? path, &known) == 0)
    return failure {
      try HDF5Library.locked { () throws(HDF5Error) in
        try HDF5Guard.check(path, known, try HDF5Object.openAccess(path), seconds: seconds)
      }
    }
  }

  #if os(Linux)
    @Test(
      .enabled(
        if: ProcessInfo.processInfo.environment["ASAN_OPTIONS"] == nil,
        "the memory of the child is not limited under AddressSanitizer"))
    func aFileThatUnpacksToFarMoreThanItIsRefused() throws {
      let path = scratch.path("bomb.h5")
      let count = 40 << 20
      try HDF5Library.locked { () throws(HDF5Error) in
        let root = try HDF5Object.create(
          path, for: path, lowest: H5F_LIBVER_EARLIEST, alignment: 1)
        let dataset = try root.createDataset(
          "zeros", type: nl_H5T_IEEE_F32LE(),
          .init(shape: [count], chunk: [count], isCompressed: true))
        let zeros = [Float](repeating: 0, count: count)
        try dataset.write(from: zeros, nl_H5T_NATIVE_FLOAT())
        try root.closeFile()
      }
      let size = try FileManager.default.attributesOfItem(atPath: path)[.size] as? Int ?? 0
      #expect(size < 1 << 20)
      let error = failure { _ = try HDF5File(path: path) }
      #expect(error?.kind == .damaged)
      #expect(error?.description.contains("/zeros: ") == true, "\(String(describing: error))")
      #expect(error?.description.contains("damaged HDF5") == true)
    }
  #endif

  // MARK: Model files

  @Test func everyByteOfAModelFile() throws {
    let tests = try ModelArchiveTests()
    let path = scratch.path("model.h5")
    try ModelArchive.write(
      attributes: ["name": .string("tiny"), "logits": .numbers([1, 2, 3])], tensors: tests.tensors,
      tokenizer: tests.tokenizer, to: path)
    let bytes = try scratch.bytes("model.h5")
    let original = try ModelArchive.open(path)
    func isOriginal(_ path: String) throws -> Bool {
      let found = try ModelArchive.open(path)
      return found.attributes == original.attributes && found.tensorNames == original.tensorNames
        && found.tensorNames.allSatisfy {
          found[tensor: $0]?.shape == original[tensor: $0]?.shape
            && found[tensor: $0]?.scalars == original[tensor: $0]?.scalars
        } && found.tokenizer?.mergePairs == original.tokenizer?.mergePairs
        && found.tokenizer?.tokenBytes == original.tokenizer?.tokenBytes
    }
    // Every bit where there is time for it, else one in each byte.
    let all = ProcessInfo.processInfo.environment["NORMLENS_FUZZ"] != nil
    var (refused, harmless) = (0, 0)
    for place in bytes.indices {
      for bit in all ? Array(0..<8) : [place % 8] {
        var mutant = bytes
        mutant[place] ^= 1 << UInt8(bit)
        let file = try scratch.put("flipped.h5", mutant)
        do {
          #expect(try isOriginal(file), "bit \(bit) of byte \(place) changes something in silence")
          harmless += 1
        } catch let error as HDF5Error {
          refused += 1
          #expect(error.kind == .damaged, "bit \(bit) of byte \(place): \(error)")
        }
      }
    }
    // Every length near the beginning and the end, and steps in between.
    let lengths = Set(0..<100).union(stride(from: 100, to: bytes.count, by: 61))
      .union((bytes.count - 100)..<bytes.count)
    for length in lengths {
      let file = try scratch.put("cut.h5", Array(bytes[..<length]))
      let error = failure { _ = try ModelArchive.open(file) }
      #expect(error?.kind == .damaged, "cut to \(length) bytes: \(String(describing: error))")
    }
    print(
      "model file of \(bytes.count) bytes: \(refused) flipped bits refused, \(harmless) in unused "
        + "bytes; \(lengths.count) lengths refused")
  }
}
