import Foundation
import NormLens
import TestSupport
import Testing

/// Values that are written prompt by prompt come out as those kept in memory.
@Suite struct ResultStreamTests {
  private func table(prompts: Int) -> PromptTable {
    PromptTable(
      ResultGroup(
        path: "geometry",
        dimensions: [
          Dimension("prompt", count: prompts), Dimension("ln", .labels(["L0.ln1", "ln_final"])),
          Dimension("pos", count: 3),
        ],
        variables: [
          ResultVariable(
            "gain", ["ln"], .float64([1, 2]), longName: "known from the start", units: "1")
        ]),
      variables: [
        ResultVariable(
          "mean", ["prompt", "ln", "pos"], .float32([]), longName: "mean", units: "1")
      ])
  }

  @Test func fileHoldsWhatMemoryHolds() throws {
    let directory = FileManager.default.temporaryDirectory.appending(
      path: "stream-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: directory) }
    let path = directory.appending(path: "r.h5").path
    let table = table(prompts: 4)
    let findings = ResultGroup(
      path: "geometry/summary",
      dimensions: [Dimension("ln", .labels(["L0.ln1", "ln_final"]))],
      variables: [
        ResultVariable("median", ["ln"], .float32([3, 4]), longName: "median", units: "1")
      ])
    let provenance = Provenance(["model_name": .string("none")])
    let file = try ResultStream(
      path: path, title: "a stream", provenance: provenance, tables: [table])
    let memory = MemorySink([table])
    // The last prompt is never taken.
    for prompt in [1, 0, 2] {
      let values = (0..<6).map { Float(10 * prompt + $0) }
      try file.take("geometry", "mean", prompt: prompt, values)
      memory.take("geometry", "mean", prompt: prompt, values)
    }
    #expect(!FileManager.default.fileExists(atPath: path))
    try file.finish([findings])
    let read = try ResultFile.read(path)
    let expected = memory.result + [findings]
    #expect(read.groups.map(\.path) == ["geometry", "geometry/summary"])
    #expect(read.title == "a stream")
    for (found, wanted) in zip(read.groups, expected) {
      #expect(found.dimensions == wanted.dimensions)
      for variable in wanted.variables {
        let values = try #require(found[variable: variable.name]?.values.doubles)
        let correct = try #require(variable.values.doubles)
        #expect(values.map(\.bitPattern).count == correct.count)
        #expect(zip(values, correct).allSatisfy { $0 == $1 || $0.isNaN && $1.isNaN })
      }
    }
    let mean = try #require(read[group: "geometry", variable: "mean"]?.values.doubles)
    #expect(mean[0] == 0 && mean[6] == 10 && mean[17] == 25 && mean[18].isNaN)
  }

  @Test func contradictionsLeaveNoFile() throws {
    let directory = FileManager.default.temporaryDirectory.appending(
      path: "stream-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: directory) }
    let table = table(prompts: 1)
    do {
      let file = try ResultStream(
        path: directory.appending(path: "r.h5").path, title: "a stream",
        provenance: Provenance(), tables: [table])
      // A group of that name is there already.
      #expect(throws: HDF5Error.self) { try file.finish([table.group]) }
    }
    #expect(try FileManager.default.contentsOfDirectory(atPath: directory.path).isEmpty)
  }
}
