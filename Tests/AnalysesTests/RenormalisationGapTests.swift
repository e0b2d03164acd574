import NormLens
import TestSupport
import Testing

/// What the final norm's renormalisation does to each part; the golden tests have its numbers.
@Suite struct RenormalisationGapTests {
  private func run(_ model: GPT2) throws -> (dla: ResultGroup, gap: ResultGroup) {
    let tokens = (0..<7).map { ($0 * 5 + 2) % model.config.dVocab }
    let prompts = [3, 7, 1].map { Prompt(Array(tokens[..<$0]), answer: 7, wrong: 3) }
    let attribution = try DirectLogitAttribution().run(model, prompts)
    return (try attribution.group("dla"), RenormalisationGap().derive(from: attribution))
  }

  @Test(arguments: ["tiny-ln", "tiny-1x1"])
  func gapsAreDifferences(_ name: String) throws {
    let (dla, gap) = try run(try GPT2.load(Fixtures.checkpoint(name)))
    for (kind, frozen, direct) in [
      ("component", "contribution", "component_direct_effect"),
      ("head", "head_contribution", "head_direct_effect"),
    ] {
      let (frozen, direct) = (try dla.doubles(frozen), try dla.doubles(direct))
      let values = try gap.doubles("\(kind)_gap")
      #expect(values == zip(direct, frozen).map { Double(Float($0 - $1)) })
      #expect(values.contains { abs($0) > 1e-3 })
      let effect = direct.reduce(0) { $0 + abs($1) }
      let pooled = try gap.doubles("\(kind)_gap_pooled")[0]
      let expected = 100 * values.reduce(0) { $0 + abs($1) } / effect
      #expect(abs(pooled / expected - 1) < 1e-5)
      // For the size of all direct effects of the prompt's components.
      let whole = try dla.doubles("component_direct_effect")
      let relative = try gap.doubles("\(kind)_gap_relative")
      for prompt in 0..<3 {
        let cells = prompt * whole.count / 3..<(prompt + 1) * whole.count / 3
        let total = whole[cells].reduce(0) { $0 + abs($1) }
        for cell in prompt * values.count / 3..<(prompt + 1) * values.count / 3 {
          #expect(abs(relative[cell] - values[cell] / total) < 1e-6)
        }
      }
    }
    // Over heads that is the normalised error of the attribution.
    let nmae = try dla.doubles("nmae_pooled")[0]
    #expect(abs(try gap.doubles("head_gap_pooled")[0] / nmae - 1) < 1e-4)
    // Of the bias nothing is renormalised.
    let count = try #require(gap[dimension: "component"]?.count)
    let components = try gap.doubles("component_gap")
    #expect(
      stride(from: count - 1, to: components.count, by: count).allSatisfy { components[$0] == 0 })
  }

  @Test(arguments: ["tiny-lnfree", "tiny-apollo"])
  func withoutNormsItIsZero(_ name: String) throws {
    let (dla, gap) = try run(try GPT2.load(Fixtures.checkpoint(name)))
    for variable in gap.variables where !variable.isCoordinate {
      #expect(try gap.doubles(variable.name).allSatisfy { $0 == 0 }, "\(variable.name)")
    }
    // Not because it is said to be: the two differ by rounding.
    let (frozen, direct) = (
      try dla.doubles("head_contribution"), try dla.doubles("head_direct_effect")
    )
    let largest = frozen.reduce(0) { max($0, abs($1)) }
    #expect(zip(frozen, direct).allSatisfy { abs($0 - $1) < 1e-6 * largest })
  }

  /// Parts that an intervention took out of the stream have no gap, and the pooled gap is of the rest.
  @Test func replacedLayersAreNaN() throws {
    let model = try GPT2.load(Fixtures.checkpoint("tiny-ln"))
    let attribution = try DirectLogitAttribution().run(
      model, [Prompt([2, 7, 12], answer: 7, wrong: 3)], interventions: [.zero(.attnOut(.layer(0)))])
    let gap = RenormalisationGap().derive(from: attribution)
    let heads = try gap.doubles("head_gap")
    #expect(heads.prefix(3).allSatisfy(\.isNaN) && heads.suffix(3).allSatisfy(\.isFinite))
    #expect(try gap.doubles("head_gap_pooled")[0].isFinite)
    #expect(try gap.doubles("component_gap").allSatisfy(\.isFinite))
  }
}
