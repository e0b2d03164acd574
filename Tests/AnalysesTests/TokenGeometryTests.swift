import NormLens
import TestSupport
import Testing

@testable import Analyses

/// Values of every token and their quantiles.
@Suite struct TokenGeometryTests {
  private func prompts(_ lengths: [Int], vocabulary: Int) -> [Prompt] {
    var random = SeededGenerator(seed: 9)
    return lengths.map { length in
      Prompt((0..<length).map { _ in Int.random(in: 0..<vocabulary, using: &random) })
    }
  }

  /// ‖x‖² = d(μ² + σ²); NaN exactly past a prompt's end; prompts run together as alone.
  @Test(arguments: ["tiny-ln", "tiny-lnfree"])
  func tokens(_ name: String) throws {
    let model = try GPT2.load(Fixtures.checkpoint(name))
    let prompts = prompts([5, 1, 9, 3], vocabulary: model.config.dVocab)
    let result = try LayerNormGeometry(batchSize: 3).run(model, prompts)
    let alone = try LayerNormGeometry(batchSize: 1).run(model, prompts)
    let group = try result.group("ln_geometry")
    let norms = try #require(group[dimension: "ln"]?.count)
    #expect(norms == 2 * model.config.nLayers + 1)
    let (mean, std, norm) = (
      try group.doubles("mean"), try group.doubles("std"), try group.doubles("norm")
    )
    var worst = 0.0
    for prompt in 0..<4 {
      for place in 0..<norms * 9 {
        let cell = prompt * norms * 9 + place
        let isThere = place % 9 < prompts[prompt].tokens.count
        #expect(norm[cell].isNaN == !isThere)
        if !isThere { continue }
        let square = Double(model.config.dModel) * (mean[cell] * mean[cell] + std[cell] * std[cell])
        worst = max(worst, abs(square / (norm[cell] * norm[cell]) - 1))
      }
    }
    #expect(worst < 1e-6)
    print("\(name): ‖x‖² = d(μ² + σ²) within \(worst)")
    let comparison = Comparison("\(name): prompts together and alone", relative: 1e-5)
    for variable in group.variables where variable.dimensions == ["prompt", "ln", "pos"] {
      comparison.check(
        variable.name, try group.doubles(variable.name).map { $0.isNaN ? 0 : $0 },
        try alone.doubles("ln_geometry", variable.name).map { $0.isNaN ? 0 : $0 },
        scale: variable.units == "degree" ? 90 : nil)
    }
    comparison.report("variables")
    let summary = try result.group("ln_geometry/summary")
    #expect(try summary.doubles("count") == [4, 14])
    // Position 0 is in no quantile of the others.
    let first = try summary.doubles("norm")
    let ofFirst = (0..<4).map { norm[$0 * norms * 9] }.sorted()
    #expect(abs(first[1] - (ofFirst[1] + ofFirst[2]) / 2) < 1e-5)
  }

  @Test func quantilesAreExactOrSampled() {
    for count in [1, 100, QuantileSample.capacity, 40_000] {
      var sample = QuantileSample(measures: 2, seed: 5)
      // In two portions.
      for range in [0..<count / 3, count / 3..<count] {
        let values = range.map { Float($0 * 7919 % count) } + range.map { Float($0) }
        let tensor = Tensor(values, shape: [2, range.count])
        let admitted = sample.admit(0..<range.count)
        sample.put(0, tensor.span, from: 0, admitted)
        sample.put(1, tensor.span, from: range.count, admitted)
      }
      #expect(sample.count == count && sample.isSampled == (count > QuantileSample.capacity))
      for measure in 0..<2 {
        let found = sample.quantiles(measure, [0, 0.05, 0.5, 0.95, 1]).map(Double.init)
        // Of a uniform sample of 8192 values a quantile is off by 2.2 percent less than once in 10,000.
        let allowed = sample.isSampled ? 0.022 * Double(count) : 1e-3 * Double(count)
        for (value, share) in zip(found, [0, 0.05, 0.5, 0.95, 1]) {
          #expect(abs(value - share * Double(count - 1)) <= allowed, "\(count), \(share)")
        }
      }
    }
    let none = QuantileSample(measures: 1, seed: 0)
    #expect(none.quantiles(0, [0.5])[0].isNaN)
    // Tokens without a value do not count.
    var gaps = QuantileSample(measures: 1, seed: 0)
    let values = Tensor([4, .nan, 1, .nan, 3], shape: [5])
    gaps.put(0, values.span, from: 0, gaps.admit(0..<5))
    #expect(gaps.count == 5 && gaps.quantiles(0, [0, 0.25, 1]) == [1, 2, 4])
  }

  @Test(arguments: ["crmsnorm", "isometric"])
  func streamsWithoutOnesAreRefused(_ form: String) throws {
    let steps = try WeightProcessing.parse("fold_ln,center_writing_weights,\(form)")
    let model = try GPT2.load(Fixtures.checkpoint("tiny-ln"), processing: steps)
    #expect {
      try LayerNormGeometry().run(model, [Prompt([1, 2, 3])])
    } throws: { error in
      guard case .unsuitable(_, let problem)? = error as? AnalysisError else { return false }
      return problem.contains(form)
    }
  }

  @Test func nothingToMeasure() throws {
    let model = try GPT2.load(Fixtures.checkpoint("tiny-ln"))
    #expect(throws: AnalysisError.noPrompts(analysis: "geometry")) {
      try LayerNormGeometry().run(model, [])
    }
    // A single token: position 0 only, and no quantiles of the others.
    let result = try LayerNormGeometry().run(model, [Prompt([4])])
    let summary = try result.group("ln_geometry/summary")
    #expect(try summary.doubles("count") == [1, 0])
    let norm = try summary.doubles("norm")
    #expect(norm.prefix(norm.count / 2).allSatisfy { $0 > 0 })
    #expect(norm.suffix(norm.count / 2).allSatisfy { $0.isNaN })
  }
}
