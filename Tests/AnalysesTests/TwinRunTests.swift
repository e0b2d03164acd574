import NormLens
import TestSupport
import Testing

/// Several models side by side: where values stand, what differences are, what is refused.
@Suite struct TwinRunTests {
  private func result(
    _ name: String, _ values: [Float], layers: Int = 2, tokens: [Int] = [0, 5, 7, 9],
    gain: [Double]? = nil
  ) -> ResultSet {
    var variables = [
      ResultVariable(
        "token_id", ["prompt", "pos"], .integers(tokens), longName: "token id", units: "1",
        isCoordinate: true),
      ResultVariable(
        "norm", ["prompt", "pos"], .float32(values), longName: "norm", units: "1",
        attributes: ["formula": .string("|x|")]),
      ResultVariable(
        "count", ["layer"], .integers(Array(1...layers)), longName: "count", units: "1"),
      ResultVariable(
        "total", [], .float64([Double(values[0])]), longName: "total", units: "nat",
        attributes: ["note": .string("of \(name)")]),
    ]
    if let gain {
      variables.append(
        ResultVariable("gain", ["layer"], .float64(gain), longName: "gain", units: "1"))
    }
    return ResultSet(
      title: "norms of \(name)",
      groups: [
        ResultGroup(
          path: "norms",
          dimensions: [
            Dimension("prompt", count: 2), Dimension("pos", count: 2),
            Dimension("layer", count: layers),
          ], variables: variables, attributes: ["epsilon": .number(Double(values[0]))])
      ],
      provenance: Provenance([
        "model_name": .string(name), "normalization": .string("layernorm"), "seed": .integer(3),
      ]))
  }

  @Test func oneModelIsItself() throws {
    let result = result("a", [1, 2, 3, .nan])
    let alone = try TwinRun(["a"]).combine([result])
    #expect(alone.groups.map(\.path) == ["norms"] && alone.title == result.title)
    #expect(alone.provenance == result.provenance)
  }

  @Test func valuesAndDifferences() throws {
    let twins = TwinRun(["a", "b", "a"])
    #expect(twins.names == ["a", "b", "a (2)"])
    let combined = try twins.combine([
      result("a", [1, 2, 3, 4], gain: [5, 6]), result("b", [10, 20, 30, .nan]),
      result("a", [100, 200, 300, 400], gain: [7, 9]),
    ])
    #expect(combined.title == "norms of a, beside b, a (2)")
    #expect(combined.groups.map(\.path) == ["norms", "norms/difference"])
    let group = try combined.group("norms")
    #expect(group[variable: "norm"]?.dimensions == ["prompt", "model", "pos"])
    let norms = try group.doubles("norm")
    #expect(norms.prefix(9) == [1, 2, 10, 20, 100, 200, 3, 4, 30])
    #expect(norms[9].isNaN && norms[10] == 300 && norms[11] == 400)
    #expect(group[variable: "count"]?.dimensions == ["model", "layer"])
    #expect(group[variable: "total"]?.dimensions == ["model"])
    #expect(group[variable: "token_id"]?.dimensions == ["prompt", "pos"])
    #expect(group[dimension: "model"]?.coordinates == .labels(["a", "b", "a (2)"]))
    let gain = try group.doubles("gain")
    #expect(Array(gain[..<2]) == [5, 6] && gain[2].isNaN && gain[3].isNaN)
    #expect(group[variable: "gain"]?.attributes["lacking_models"] == .strings(["b"]))
    #expect(
      group[variable: "total"]?.attributes["note"] == .strings(["of a", "of b", "of a"]))
    #expect(group[variable: "norm"]?.attributes["formula"] == .string("|x|"))
    #expect(group.attributes["epsilon"] == .numbers([1, 10, 100]))

    let beside = try combined.group("norms/difference")
    #expect(beside.variables.map(\.name) == ["token_id", "norm", "total", "gain"])
    #expect(beside[dimension: "pair"]?.coordinates == .labels(["b − a", "a (2) − a", "a (2) − b"]))
    #expect(beside[variable: "norm"]?.dimensions == ["prompt", "pair", "pos"])
    #expect(try beside.doubles("norm").prefix(6) == [9, 18, 99, 198, 90, 180])
    #expect(try beside.doubles("total") == [9, 99, 90])
    let gains = try beside.doubles("gain")
    #expect(gains[2] == 2 && gains[3] == 3 && gains[0].isNaN && gains[4].isNaN)
    #expect(
      beside[variable: "total"]?.attributes["sign_convention"]
        == .string("the pair's first model minus its second: positive where the first has more"))

    let facts = combined.provenance.facts
    #expect(facts["model_name"] == .strings(["a", "b", "a (2)"]))
    #expect(facts["normalization"] == .strings(["layernorm", "layernorm", "layernorm"]))
    #expect(facts["seed"] == .integer(3))
  }

  @Test func whatCannotStandSideBySide() throws {
    func fail(_ other: ResultSet, saying part: String) {
      let error = #expect(throws: AnalysisError.self) {
        try TwinRun(["a", "b"]).combine([result("a", [1, 2, 3, 4]), other])
      }
      #expect(error?.description.contains(part) == true, "\(error?.description ?? "nothing")")
    }
    fail(result("b", [1, 2, 3, 4], layers: 3), saying: "axis 'layer' with 2 and 3 places")
    fail(
      result("b", [1, 2, 3, 4], tokens: [0, 5, 7, 8]),
      saying: "the prompts are not the same tokens")
    var axes = result("b", [1, 2, 3, 4])
    axes.groups[0].variables[1].dimensions = ["pos", "prompt"]
    fail(axes, saying: "has axes")
  }

  /// In step, batch by batch, the models find what each finds alone.
  @Test func inStep() throws {
    let names = ["mini", "mini-lnfree"]
    let models = try names.map { try GPT2.load(Fixtures.bundled($0)) }
    let texts = ["hat ring", "The capital of France is", "So", "green coin ring warm quiet"]
    let prompts = try texts.map { Prompt(try models[0].tokens($0)) } + [Prompt([7])]
    let analysis = LayerNormGeometry(batchSize: 2)
    var steps: [Int] = []
    let together = try analysis.run(models, prompts) { steps.append($0) }
    #expect(steps.prefix(3) == [2, 4, 5])
    let alone = try TwinRun(names).combine(
      models.map { try analysis.run($0, prompts) })
    #expect(Set(together.groups.map(\.path)) == Set(alone.groups.map(\.path)))
    #expect(together.title == alone.title && together.provenance == alone.provenance)
    var compared = 0
    for group in alone.groups {
      let found = try together.group(group.path)
      #expect(Set(found.dimensions.map(\.name)) == Set(group.dimensions.map(\.name)))
      #expect(
        Set(found.variables.map(\.name)) == Set(group.variables.map(\.name)), "\(group.path)")
      for variable in group.variables {
        let other = found[variable: variable.name]
        #expect(
          other?.dimensions == variable.dimensions && other?.attributes == variable.attributes)
        guard let wanted = variable.values.doubles, let values = other?.values.doubles else {
          continue
        }
        #expect(
          areSame(values, wanted),
          "\(group.path)/\(variable.name)")
        compared += values.count
      }
    }
    print("in step and alone: \(compared) numbers, all equal")
  }

  /// A model beside itself differs in nothing.
  @Test func beside() throws {
    let model = try GPT2.load(Fixtures.bundled("mini"))
    let result = try LayerNormGeometry().run(
      [model, model], [Prompt(try model.tokens("hat ring cake"))])
    #expect(result.provenance.facts["model_name"] == .strings(["mini", "mini (2)"]))
    for group in result.groups where group.path.hasSuffix("/difference") {
      for variable in group.variables where !variable.isCoordinate {
        let values = variable.values.doubles ?? []
        #expect(values.allSatisfy { $0 == 0 || $0.isNaN }, "\(group.path)/\(variable.name)")
      }
    }
  }

  /// An error says whose it is.
  @Test func errorsName() throws {
    let mini = try GPT2.load(Fixtures.bundled("mini"))
    let tiny = try GPT2.load(Fixtures.checkpoint("tiny-ln"))
    let error = #expect(throws: AnalysisError.self) {
      try LayerNormGeometry().run([mini, tiny], [Prompt([1, 2, 3])])
    }
    #expect(error?.description.hasPrefix("several models: 'mini' and 'tiny-ln' have") == true)
  }
}
