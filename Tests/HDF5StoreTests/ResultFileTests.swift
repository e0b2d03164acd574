import Foundation
import HDF5Store
import Results
import Tensors
import Testing

@Suite struct ResultFileTests {
  let scratch: Scratch

  init() throws { scratch = try Scratch() }

  /// One of everything.
  static let sample: ResultSet = {
    let prompt = Dimension("prompt", count: 2)
    let pos = Dimension("pos", count: 3)
    let layer = Dimension("layer", .integers([3, 5]))
    let component = Dimension("component", .labels(["embed", "0_attn_out", "bias ü"]))
    let tokens = ResultVariable(
      "token", ["prompt", "pos"], .strings(["<|endoftext|>", " Mary", "", "é", "日本", " a"]),
      longName: "token text", units: "1", isCoordinate: true)
    let ids = ResultVariable(
      "token_id", ["prompt", "pos"], .integers([50256, 5335, -1, 0, Int.max, Int.min]),
      longName: "token id", units: "1", isCoordinate: true)
    return ResultSet(
      title: "A sample of everything",
      groups: [
        ResultGroup(
          path: "patch/activation", dimensions: [prompt, pos, layer],
          variables: [
            tokens, ids,
            ResultVariable(
              "resid_pre", ["prompt", "layer", "pos"],
              .float32((0..<12).map { Float($0) / 3 }), longName: "effect", units: "logit",
              sign: "positive: restores the answer",
              attributes: ["tl_hook": .string("blocks.{layer}.hook_resid_pre")]),
            ResultVariable(
              "scalar", [], .float64([.pi]), longName: "a scalar", units: "percent"),
          ], attributes: ["method": .string("activation")]),
        ResultGroup(
          path: "dla", dimensions: [prompt, component, Dimension("counted", .integers([0, 1]))],
          variables: [
            ResultVariable(
              "contribution", ["prompt", "component"], .float64([1, -2, 3.5, 4, 5, 6]),
              longName: "direct effect", units: "logit", sign: "positive: favours the answer",
              attributes: [
                "n": .integer(-3), "x": .number(0.25), "ns": .integers([1]), "xs": .numbers([]),
                "names": .strings(["a", "", "ü"]), "none": .string(""),
              ]),
            ResultVariable(
              "best", ["prompt"], .strings(["Mary", "John"]), longName: "best token", units: "1"),
            ResultVariable(
              "count", ["counted"], .integers([7, 8]), longName: "a count", units: "1"),
          ]),
        ResultGroup(
          path: "patch", dimensions: [prompt],
          variables: [
            ResultVariable(
              "clean_metric", ["prompt"], .float32([2, 3]), longName: "metric", units: "logit")
          ], attributes: ["direction": .string("denoising")]),
        ResultGroup(path: "empty", dimensions: [Dimension("none", count: 0)], variables: []),
      ],
      provenance: Provenance([
        "tool_version": .string("0.1"), "seed": .integer(0), "prepend_bos": .integer(1),
        "weight_processing": .strings([]), "created": .string("2026-01-01T00:00:00Z"),
      ]))
  }()

  @Test func roundTrip() throws {
    let path = scratch.path("r.h5")
    try ResultFile.write(Self.sample, to: path)
    let found = try ResultFile.read(path)
    #expect(found.title == Self.sample.title)
    #expect(found.provenance == Self.sample.provenance)
    #expect(Array(found.provenance.facts.keys) == Array(Self.sample.provenance.facts.keys))
    #expect(found.groups.map(\.path) == Self.sample.groups.map(\.path))
    for (group, expected) in zip(found.groups, Self.sample.groups) {
      #expect(group == expected)
      for (variable, other) in zip(group.variables, expected.variables) {
        #expect(Array(variable.attributes.keys) == Array(other.attributes.keys))
      }
    }
    #expect(found == Self.sample)
    #expect(try scratch.names == ["r.h5"])
    // Tests/check_results.py looks at this copy with h5py, xarray and netCDF4.
    if let directory = ProcessInfo.processInfo.environment["NORMLENS_KEEP_RESULTS"] {
      try ResultFile.write(Self.sample, to: directory + "/sample.h5")
    }
  }

  /// Two results of one analysis in one file, each with what it says of itself.
  @Test func resultsNest() throws {
    let (left, right) = (Self.sample.nested(under: "left"), Self.sample.nested(under: "right"))
    let both = left.merged(with: right)
    let paths = ["", "/patch/activation", "/dla", "/patch", "/empty"]
    #expect(both.groups.map(\.path) == paths.map { "left" + $0 } + paths.map { "right" + $0 })
    #expect(both[group: "right"]?.attributes == Self.sample.provenance.facts)
    #expect(both.provenance.facts.isEmpty)
    let path = scratch.path("nested.h5")
    try ResultFile.write(both, to: path)
    #expect(try ResultFile.read(path) == both)
    #expect(both[group: "left/dla"]?.variables == Self.sample[group: "dla"]?.variables)
  }

  @Test func notANumberSurvives() throws {
    let path = scratch.path("nan.h5")
    let set = ResultSet(
      title: "NaN",
      groups: [
        ResultGroup(
          path: "g", dimensions: [Dimension("i", count: 4)],
          variables: [
            ResultVariable(
              "x", ["i"], .float32([1, .nan, .infinity, -0.0]), longName: "x", units: "1"),
            ResultVariable("y", [], .float64([.nan]), longName: "y", units: "1"),
          ])
      ])
    try ResultFile.write(set, to: path)
    let group = try #require(try ResultFile.read(path)[group: "g"])
    guard case .float32(let x)? = group[variable: "x"]?.values,
      case .float64(let y)? = group[variable: "y"]?.values
    else {
      Issue.record("the types have changed")
      return
    }
    #expect(x[0] == 1 && x[1].isNaN && x[2] == .infinity && x[3].sign == .minus)
    #expect(y[0].isNaN)
  }

  @Test func zeroBytesInTextAreShown() throws {
    let path = scratch.path("zero.h5")
    let set = ResultSet(
      title: "a\0b",
      groups: [
        ResultGroup(
          path: "g", dimensions: [Dimension("i", count: 1)],
          variables: [
            ResultVariable("t", ["i"], .strings(["x\0y"]), longName: "t", units: "1")
          ])
      ])
    try ResultFile.write(set, to: path)
    let found = try ResultFile.read(path)
    #expect(found.title == "a␀b")
    #expect(found[group: "g", variable: "t"]?.values == .strings(["x␀y"]))
  }

  @Test func largeArraysInSeveralPieces() throws {
    let path = scratch.path("large.h5")
    let count = 3 * 1000 * 700
    let values = (0..<count).map { Float($0 % 65_537) }
    let set = ResultSet(
      title: "large",
      groups: [
        ResultGroup(
          path: "g",
          dimensions: [
            Dimension("a", count: 3), Dimension("b", count: 1000), Dimension("c", count: 700),
          ],
          variables: [
            ResultVariable("x", ["a", "b", "c"], .float32(values), longName: "x", units: "1")
          ])
      ])
    try ResultFile.write(set, to: path)
    #expect(try ResultFile.read(path) == set)
    let file = try HDF5File(path: path)
    #expect(try file.info("g/x").layout == .chunked([1, 374, 700]))
  }

  // MARK: Streaming

  func writer(_ path: String) throws -> ResultFileWriter {
    try ResultFileWriter(
      path: path, title: "Activations",
      provenance: Provenance(["complete": .integer(1)]),
      groups: [
        .init(
          path: "activations",
          dimensions: [
            Dimension("prompt", count: 3), Dimension("layer", count: 2), Dimension("pos", count: 4),
            Dimension("d_model", count: 5),
          ],
          variables: [
            .init(
              "token", ["prompt", "pos"], .strings, isCoordinate: true,
              attributes: ["long_name": .string("token text"), "units": .string("1")]),
            .init(
              "resid_pre", ["prompt", "layer", "pos", "d_model"], .float32,
              attributes: [
                "long_name": .string("residual stream"), "units": .string("1"),
                "sign_convention": .string("not signed"),
              ], chunk: [1, 1, 4, 5]),
            .init(
              "loss", [], .float64,
              attributes: [
                "long_name": .string("mean loss"), "units": .string("nat"),
                "sign_convention": .string("not signed"),
              ]),
          ])
      ])
  }

  @Test func streamedSlabsAndFill() throws {
    let path = scratch.path("stream.h5")
    let writer = try writer(path)
    try writer.write(
      group: "activations", variable: "resid_pre", start: [1, 0, 0, 0], count: [1, 1, 3, 5],
      tensor: ramp([3, 5]))
    try writer.write(
      group: "activations", variable: "resid_pre", start: [2, 1, 3, 4], count: [1, 1, 1, 1],
      values: .float32([99]))
    try writer.write(
      group: "activations", variable: "token", start: [1, 0], count: [1, 3],
      values: .strings(["a", "b", "c"]))
    try writer.write(
      group: "activations", variable: "loss", start: [], count: [], values: .float64([2.5]))
    #expect(try !scratch.names.contains("stream.h5"))
    try writer.finish()
    #expect(try scratch.names == ["stream.h5"])
    let late = failure {
      try writer.write(
        group: "activations", variable: "loss", start: [], count: [], values: .float64([0]))
    }
    #expect(late?.kind == .ioFailed)

    let group = try #require(try ResultFile.read(path)[group: "activations"])
    guard case .float32(let values)? = group[variable: "resid_pre"]?.values else {
      Issue.record("no resid_pre")
      return
    }
    #expect(Array(values[40..<55]) == ramp([3, 5]).scalars)
    #expect(values[119] == 99)
    #expect(values.filter { !$0.isNaN }.count == 16)
    #expect(group[variable: "loss"]?.values == .float64([2.5]))
    #expect(
      group[variable: "token"]?.values
        == .strings(["", "", "", "", "a", "b", "c", "", "", "", "", ""]))
    let file = try HDF5File(path: path)
    #expect(try file.info("activations/resid_pre").layout == .chunked([1, 1, 4, 5]))
    #expect(
      try file.attribute("coordinates", of: "activations/resid_pre") == .string("token"))
    if let directory = ProcessInfo.processInfo.environment["NORMLENS_KEEP_RESULTS"] {
      try FileManager.default.copyItem(atPath: path, toPath: directory + "/stream.h5")
    }
  }

  @Test func anUnfinishedWriterLeavesNothing() throws {
    do {
      let writer = try writer(scratch.path("gone.h5"))
      try writer.write(
        group: "activations", variable: "loss", start: [], count: [], values: .float64([1]))
      #expect(try scratch.names.count == 1)
    }
    #expect(try scratch.names.isEmpty)
  }

  @Test func slabsOutsideAreCallersBugs() async {
    await #expect(processExitsWith: .failure) {
      let scratch = try Scratch()
      let writer = try ResultFileTests().writer(scratch.path("x.h5"))
      try writer.write(
        group: "activations", variable: "token", start: [0, 3], count: [1, 2],
        values: .strings(["a", "b"]))
    }
  }

  // MARK: Hostile and mistaken input

  @Test func aSealedFileIsVerifiedBeforeHDF5SeesIt() throws {
    let path = scratch.path("r.h5")
    try ResultFile.write(Self.sample, to: path)
    let bytes = try scratch.bytes("r.h5")
    var generator = SplitMix(state: 3)
    for _ in 0..<500 {
      var mutated = bytes
      let place = Int.random(in: 0..<bytes.count - 20, using: &generator)
      mutated[place] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
      let mutant = try scratch.put("f.h5", mutated)
      for error in [
        failure { _ = try ResultFile.read(mutant) }, failure { _ = try ModelArchive.open(mutant) },
      ] {
        #expect(error?.kind == .damaged)
        #expect(error?.description.contains("\n") == false)
      }
    }
    for count in [0, 100, bytes.count / 2, bytes.count - 21] {
      let short = try scratch.put("f.h5", Array(bytes[..<count]))
      #expect(failure { _ = try ResultFile.read(short) }?.kind == .damaged)
    }
  }

  @Test func checksumsOfTextAndScalarsFindDamageWithoutTheSeal() throws {
    let path = scratch.path("r.h5")
    try ResultFile.write(Self.sample, to: path)
    let bytes = Array(try scratch.bytes("r.h5").dropLast(20))
    #expect(try ResultFile.read(try scratch.put("f.h5", bytes)) == Self.sample)
    // Text in a heap, a label in a heap, a scalar: none of them is behind a filter.
    let pi = (0..<8).map { UInt8(truncatingIfNeeded: Double.pi.bitPattern >> UInt64(8 * $0)) }
    for needle in [Array("日本".utf8), Array("0_attn_out".utf8), pi] {
      var flipped = bytes
      flipped[try #require(find(needle, in: bytes))] ^= 0x02
      let error = failure { _ = try ResultFile.read(try scratch.put("f.h5", flipped)) }
      #expect(error?.kind == .damaged)
    }
  }

  @Test func fletcherFindsAFlippedBit() throws {
    let path = scratch.path("raw.h5")
    let writer = try writer(path)
    let tensor = Tensor((0..<20).map { Float($0) + 0.123 }, shape: [4, 5])
    try writer.write(
      group: "activations", variable: "resid_pre", start: [0, 0, 0, 0], count: [1, 1, 4, 5],
      tensor: tensor)
    try writer.finish()
    var bytes = Array(try scratch.bytes("raw.h5").dropLast(20))
    let place = try #require(find(littleEndian(Array(tensor.scalars[4..<8])), in: bytes))
    bytes[place] ^= 1
    let error = failure { _ = try ResultFile.read(try scratch.put("raw.h5", bytes)) }
    #expect(error?.description.contains("/activations/resid_pre") == true)
  }

  @Test func wrongKinds() throws {
    let model = scratch.path("m.h5")
    try ModelArchive.write(
      attributes: [:], tensors: [(name: "w", tensor: ramp([2]))], to: model)
    #expect(
      failure { _ = try ResultFile.read(model) }?.description
        == "\(model): expected a NormLens result file, found a NormLens model file; "
        + "give a file that a normlens analysis wrote with -o")
    let missing = scratch.path("no.h5")
    #expect(failure { _ = try ResultFile.read(missing) } == .missing(path: missing))
    let text = try scratch.put("t.h5", Array("not HDF5".utf8))
    #expect(failure { _ = try ResultFile.read(text) }?.kind == .damaged)
  }

  @Test func impossibleOutputs() throws {
    for path in [scratch.path("no/dir/r.h5"), scratch.directory, ""] {
      let error = failure { try ResultFile.write(Self.sample, to: path) }
      #expect(error?.kind == .cannotCreate)
    }
    #expect(try scratch.names.isEmpty)
  }

  @Test(.enabled(if: geteuid() != 0, "root may write anywhere"))
  func unwritableDirectory() throws {
    chmod(scratch.directory, 0o555)
    defer { chmod(scratch.directory, 0o755) }
    let error = failure { try ResultFile.write(Self.sample, to: scratch.path("r.h5")) }
    #expect(error?.kind == .cannotCreate)
  }

  @Test func refusesWhatTheFormatCannotHold() throws {
    let i = Dimension("i", count: 2)
    func variable(_ name: String, _ axes: [String]) -> ResultVariable {
      let count = axes.reduce(1) { product, _ in product * 2 }
      return ResultVariable(
        name, axes, .float32(Array(repeating: 1, count: count)), longName: "x", units: "1")
    }
    let bad: [[ResultGroup]] = [
      [ResultGroup(path: "g", dimensions: [i], variables: [variable("i", ["i"])])],
      [ResultGroup(path: "g", dimensions: [i], variables: [variable("x", ["i", "i"])])],
      [ResultGroup(path: "g", dimensions: [i], variables: [variable("a.b", ["i"])])],
      [ResultGroup(path: "g/../h", dimensions: [i], variables: [])],
      [ResultGroup(path: "", dimensions: [i], variables: [])],
      [
        ResultGroup(path: "g", dimensions: [i], variables: [variable("x", ["i"])]),
        ResultGroup(path: "g/x", dimensions: [], variables: []),
      ],
      [
        ResultGroup(path: "g", dimensions: [], variables: []),
        ResultGroup(path: "g", dimensions: [], variables: []),
      ],
    ]
    for groups in bad {
      let error = failure {
        try ResultFile.write(ResultSet(title: "t", groups: groups), to: scratch.path("b.h5"))
      }
      #expect(error != nil)
    }
    #expect(try scratch.names.isEmpty)
  }

  @Test func aFileIsReplacedWhole() throws {
    let path = scratch.path("r.h5")
    try ResultFile.write(ResultSet(title: "first", groups: []), to: path)
    try ResultFile.write(Self.sample, to: path)
    #expect(try ResultFile.read(path) == Self.sample)
    #expect(try scratch.names == ["r.h5"])
  }

  @Test func threadsMayWriteAtOnce() async throws {
    try await withThrowingTaskGroup(of: Void.self) { group in
      for index in 0..<8 {
        let path = scratch.path("r\(index).h5")
        group.addTask {
          try ResultFile.write(Self.sample, to: path)
          #expect(try ResultFile.read(path) == Self.sample)
        }
      }
      try await group.waitForAll()
    }
  }
}
