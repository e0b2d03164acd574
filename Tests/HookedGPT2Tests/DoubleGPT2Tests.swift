import NormLens
import TestSupport
import Testing

/// The double-precision model of the tests itself: against the float64 reference and against central
/// differences of its own forward pass.
@Suite struct DoubleGPT2Tests {
  /// The golden gradients are rounded to float32 once.
  @Test(arguments: GradientGolden.models)
  func gradientsAreTheGolden(_ name: String) throws {
    let golden = try GradientGolden(name)
    let model = DoubleGPT2(try golden.model())
    let comparison = Comparison("\(name), double-precision model", relative: 1e-6)
    for set in try golden.ruleSets() {
      let rules = try #require(GradientGolden.rules(set))
      for start in try golden.starts(rules: set) {
        let run = model.run(start.tokens)
        let found = model.gradients(run, from: start.dense(model.config), rules: rules)
        let expected = try golden.gradients(rules: set, prompt: start.name)
        for (hook, gradient) in found.values {
          let expected = try #require(expected[hook], "no golden gradient at \(hook)")
          comparison.check(
            "\(hook), \(set), prompt \(start.name)", gradient.values, expected.values)
        }
      }
    }
    comparison.report("gradients")
  }

  @Test(arguments: GradientGolden.models)
  func centralDifferences(_ name: String) throws {
    let golden = try GradientGolden(name)
    let model = DoubleGPT2(try golden.model())
    let start = try #require(try golden.starts(rules: "none").first { $0.name == "1" })
    let slope = start.dense(model.config)
    let run = model.run(start.tokens)
    let gradients = model.gradients(run, from: slope)
    var random = SeededGenerator(seed: 5)
    var worst = 0.0
    for (hook, gradient) in gradients.values {
      let direction = gradient.map { _ in Double.random(in: -1..<1, using: &random) }
      let step = 1e-5
      let ends = [step, -step].map { step in
        model.run(start.tokens) { name, value in
          guard name == hook else { return }
          for i in value.values.indices { value.values[i] += step * direction.values[i] }
        }.logits.dot(slope)
      }
      let along = gradient.dot(direction)
      let size = max(
        1e-3, zip(gradient.values, direction.values).reduce(0) { $0 + abs($1.0 * $1.1) })
      let error = abs((ends[0] - ends[1]) / (2 * step) - along) / size
      worst = max(worst, error)
      #expect(error < 1e-6, "\(hook): \((ends[0] - ends[1]) / (2 * step)), gradient \(along)")
    }
    #expect(gradients.values.count == 6 + 18 * model.config.nLayers)
    print("\(name): gradients differ from central differences by \(worst)")
  }
}
