import NormLens
import TestSupport
import Testing

/// The vectors of a token on its way through the norms.
@Suite struct NormStepsTests {
  @Test(arguments: ["tiny-ln", "tiny-lnfree", "tiny-gelu-erf-rmsnorm"])
  func vectors(_ name: String) throws {
    let model = try GeometryGolden(name).model()
    let prompts = [Prompt([1, 2, 3]), Prompt([4, 5]), Prompt([6, 7, 8, 9])]
    let result = try LayerNormGeometry(
      steps: [NormStep(position: 2), NormStep(prompt: 2, position: -1)]
    ).run(model, prompts)
    let group = try result.group("ln_steps")
    #expect(group[dimension: "prompt"]?.coordinates == .integers([0, 2]))
    #expect(group[dimension: "pos"]?.coordinates == .integers([2, 3]))
    let values = try group.doubles("vector")
    let (d, norms) = (model.config.dModel, model.normSites.count)
    func vector(_ prompt: Int, _ norm: Int, _ step: Int, _ position: Int) -> [Double] {
      let start = (((prompt * norms + norm) * 5 + step) * 2 + position) * d
      return Array(values[start..<start + d])
    }
    // Prompt 0 has no position 3.
    #expect(vector(0, 0, 0, 1).allSatisfy { $0.isNaN })
    let (_, cache) = try model.runWithCache(
      prompts[2].tokens,
      hooks: [.ln1Normalized(.all), .lnFinalNormalized, .unembedIn, .residPre(.all)])
    let comparison = Comparison("\(name): steps and hooks")
    func row(_ hook: HookName) throws -> [Double] {
      try cache.tensor(hook).row(3).scalars.map(Double.init)
    }
    comparison.check("raw", vector(1, 0, 0, 1), try row(HookName(.residPre, layer: 0)))
    comparison.check("scaled", vector(1, 0, 2, 1), try row(HookName(.ln1Normalized, layer: 0)))
    comparison.check(
      "final scaled", vector(1, norms - 1, 2, 1), try row(HookName(.lnFinalNormalized)))
    if name != "tiny-lnfree" {
      comparison.check("shifted", vector(1, norms - 1, 4, 1), try row(HookName(.unembedIn)))
    }
    let (raw, projected) = (vector(1, 1, 0, 1), vector(1, 1, 1, 1))
    if name.hasSuffix("rmsnorm") {
      #expect(projected == raw)
    } else {
      #expect(abs(projected.reduce(0, +)) < 1e-4)
    }
    comparison.report("steps")
  }

  /// xarray opens a file as one tree only where a group's axes are those of the groups around it.
  @Test func axesOfNestedGroups() throws {
    let model = try GPT2.load(Fixtures.checkpoint("tiny-ln"))
    let result = try LayerNormGeometry(steps: [NormStep(prompt: 1, position: 1)])
      .run(model, [Prompt([1, 2, 3]), Prompt([4, 5])])
    #expect(result.groups.contains { $0.path == "ln_steps" })
    for outer in result.groups {
      for inner in result.groups where inner.path.hasPrefix(outer.path + "/") {
        for axis in outer.dimensions {
          if let same = inner.dimensions.first(where: { $0.name == axis.name }) {
            #expect(same == axis, "\(inner.path) \(axis.name)")
          }
        }
      }
    }
  }

  @Test func tokensThatThereAreNot() throws {
    let model = try GPT2.load(Fixtures.checkpoint("tiny-ln"))
    let prompts = [Prompt([1, 2, 3]), Prompt([4, 5])]
    for step in [
      NormStep(position: 3), NormStep(position: -4), NormStep(prompt: 2, position: 0),
      NormStep(prompt: -1, position: 0), NormStep(prompt: 1, position: 2),
    ] {
      #expect(throws: ModelError.self) {
        try LayerNormGeometry(steps: [step]).run(model, prompts)
      }
    }
  }
}
