import NormLens
import TestSupport
import Testing

/// Selectability and query alignment of whole models against the float64 reference.
@Suite struct SelectabilityGoldenTests {
  static let models = ["tiny-ln", "tiny-lnfree", "narrow", "narrow-lnfree"]
  static let prompts = ["full", "b", "t1"]

  @Test(arguments: models) func golden(name: String) throws {
    let golden = try Golden.open("selectability-\(name)")
    let model = try GPT2.load(
      Fixtures.checkpoint(name.hasPrefix("narrow") ? "selectability-\(name)" : name))
    let prompts = try Self.prompts.map { Prompt(try golden.integers("\($0)/tokens")) }
    var collectors: [any Collector] = [
      try Selectability(model, prompts, .init(keys: nil, perKey: true)),
      try QueryAlignment(model, prompts),
    ]
    let sink = MemorySink(collectors.flatMap(\.tables))
    try CollectionPass(prompts, batchSize: 2).run(model, &collectors, into: sink)
    let comparison = Comparison("selectable keys and query alignment, \(name)")
    for group in sink.result {
      for variable in group.variables {
        let values = try #require(variable.values.doubles)
        if variable.dimensions.first != "prompt" {
          check(
            comparison, "\(group.path)/\(variable.name)", values,
            try golden.array("\(group.path)/\(variable.name)").values)
          continue
        }
        if variable.name == "unsolved" { #expect(values.allSatisfy { $0 == 0 }) }
        if ["unsolved", "trivially_selectable"].contains(variable.name) { continue }
        let width = values.count / prompts.count
        for (index, prompt) in Self.prompts.enumerated() {
          let path = "\(prompt)/\(group.path)/\(variable.name)"
          var own = Array(values[index * width..<(index + 1) * width])
          if variable.dimensions.last == "key_pos" {
            // Cells past the prompt's end are NaN.
            let (longest, length) = (
              group[dimension: "key_pos"]?.count ?? 0, prompts[index].tokens.count
            )
            #expect(
              own.indices.allSatisfy { $0 % longest < length || own[$0].isNaN })
            own = own.indices.filter { $0 % longest < length }.map { own[$0] }
          }
          check(comparison, path, own, try golden.array(path).values)
        }
      }
    }
    comparison.report()
  }

  /// NaN stands where NaN stands; everything else agrees.
  private func check(
    _ comparison: Comparison, _ label: String, _ values: [Double], _ golden: [Double]
  ) {
    guard values.count == golden.count else {
      Issue.record("\(label): \(values.count) values, expected \(golden.count)")
      return
    }
    #expect(values.map(\.isNaN) == golden.map(\.isNaN), "\(label)")
    let numbers = values.indices.filter { !values[$0].isNaN && !golden[$0].isNaN }
    comparison.check(label, numbers.map { values[$0] }, numbers.map { golden[$0] })
  }
}
