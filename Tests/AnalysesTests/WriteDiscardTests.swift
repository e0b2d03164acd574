import NormLens
import TestSupport
import Testing

/// The shares that norms discard against the norms themselves: what changes behind them when a write
/// grows a little.
@Suite struct WriteDiscardTests {
  /// The heads' shares at one position, against finite differences of the norm along each head's result.
  @Test(arguments: ["tiny-ln", "tiny-gelu-erf-rmsnorm"])
  func finiteDifferences(_ name: String) throws {
    let model = try GeometryGolden(name).model()
    let tokens = [3, 1, 4, 1, 5]
    // Of one prompt of two tokens the mean over positions from 1 on is that of position 1.
    let prompt = Prompt(Array(tokens.prefix(2)))
    let result = try LayerNormGeometry().run(model, [prompt])
    let writes = try result.group("ln_geometry/writes")
    let found = try writes.doubles("head_discarded")
    let ofMLPs = try writes.doubles("mlp_discarded")
    let hooks: [HookFilter] = [
      .result(.all), .mlpOut(.all), .residMid(.all), .residPre(.all), .residPost(.all),
    ]
    let (_, cache) = try model.runWithCache(prompt.tokens, hooks: hooks)
    let sites = model.normSites
    var worst = 0.0
    /// The share that the norm does not pass on, up to ε.
    func discarded(_ write: Tensor, _ site: NormSite) throws -> Double {
      let norm = try #require(site.norm)
      let x = try cache.tensor(site.input).row(1).reshaped([1, model.config.dModel])
      let length = write.dot(write).squareRoot()
      let step = Float(1e-2 * x.dot(x).squareRoot() / length)
      let w = write.reshaped(x.shape)
      let (up, down) = (norm.parts(x + w * step), norm.parts(x - w * step))
      let change = (up.normalized - down.normalized) * (1 / (2 * step))
      let scale = Double(norm.parts(x).scale[0, 0])
      return 1 - change.dot(change) * scale * scale / (length * length)
    }
    for layer in 0..<model.config.nLayers {
      for head in 0..<model.config.nHeads {
        let write = try cache.tensor(.result, layer: layer).row(1).row(head)
        for (reader, site) in [sites[2 * layer + 1], sites[sites.count - 1]].enumerated() {
          let expected = try discarded(write, site)
          let value = found[(layer * model.config.nHeads + head) * 2 + reader]
          worst = max(worst, abs(expected - value))
        }
      }
      let write = try cache.tensor(.mlpOut, layer: layer).row(1)
      for (reader, site) in [sites[2 * layer + 2], sites[sites.count - 1]].enumerated() {
        worst = max(worst, abs(try discarded(write, site) - ofMLPs[layer * 2 + reader]))
      }
    }
    #expect(worst < 2e-3)
    print("\(name): discarded shares against finite differences: max difference \(worst)")
  }

  /// Of many tokens every second one is asked. Prompts of five tokens behind position 0, all alike: each
  /// position comes as often as the others, and the means are those of one prompt.
  @Test func manyTokens() throws {
    let model = try GeometryGolden("tiny-ln").model()
    let prompt = Prompt([3, 1, 4, 1, 5, 9])
    let one = try LayerNormGeometry().run(model, [prompt]).group("ln_geometry/writes")
    let many = try LayerNormGeometry().run(model, Array(repeating: prompt, count: 1000))
      .group("ln_geometry/writes")
    #expect(one.attributes["tokens"] == .integer(5) && many.attributes["tokens"] == .integer(2500))
    var worst = 0.0
    for variable in one.variables {
      let (few, all) = (try one.doubles(variable.name), try many.doubles(variable.name))
      worst = zip(few, all).reduce(worst) { max($0, abs($1.0 - $1.1)) }
    }
    print("discarded shares of one prompt and of a thousand: max difference \(worst)")
    let shares = try one.doubles("head_discarded")
    #expect(worst < 1e-6 && shares.contains { $0 > 1e-3 })
  }

  @Test func parts() throws {
    for name in ["tiny-ln", "tiny-lnfree", "tiny-gelu-erf-rmsnorm"] {
      let golden = try GeometryGolden(name)
      let writes = try LayerNormGeometry().run(golden.model(), [Prompt([1, 2, 3, 4])])
        .group("ln_geometry/writes")
      for ending in ["", "_first"] {
        for kind in ["head", "mlp"] {
          let whole = try writes.doubles("\(kind)_discarded\(ending)")
          let ones = try writes.doubles("\(kind)_discarded_ones\(ending)")
          let radial = try writes.doubles("\(kind)_discarded_radial\(ending)")
          for index in whole.indices {
            #expect(abs(whole[index] - ones[index] - radial[index]) < 1e-6)
            #expect(whole[index] >= 0 && whole[index] <= 1 + 1e-5)
          }
          // Without norms nothing is divided by the stream's length; RMSNorm keeps the mean.
          if name == "tiny-lnfree" { #expect(radial.allSatisfy { $0 == 0 }) }
          if name.hasSuffix("rmsnorm") { #expect(ones.allSatisfy { $0 == 0 }) }
        }
      }
    }
  }
}
