import Foundation
import NormLens
import TestSupport
import Testing

@testable import Analyses

/// Fits through clouds whose curve is known.
@Suite struct NormShapeTests {
  private func cloud(
    scale: Double, noise: Double = 0, _ curve: (Double) -> Double
  ) -> ShapeFit {
    var random = SeededGenerator(seed: 2)
    func normal() -> Double {
      (0..<12).reduce(-6.0) { sum, _ in sum + Double.random(in: 0..<1, using: &random) }
    }
    var cells = ScatterCells()
    for _ in 0..<8 {
      let x = (0..<4000).map { _ in Float(scale * normal()) }
      let z = x.map { Float(curve(Double($0)) + noise * normal()) }
      cells.add(Tensor(x, shape: [x.count]), Tensor(z, shape: [x.count]))
    }
    return ShapeFit(Array(cells.cells))
  }

  @Test(arguments: [(1.0, 3.0, 0.5), (40, 2, 0.02), (0.01, 5, 120)])
  func hyperbolicTangent(_ scale: Double, _ c: Double, _ alpha: Double) {
    let fit = cloud(scale: scale) { c * tanh(alpha * $0) }
    print(
      "tanh: c off by \(fit.tanh.c / c - 1), α by \(fit.tanh.alpha / alpha - 1), R² \(fit.tanh.r2)")
    #expect(abs(fit.tanh.c / c - 1) < 1e-3 && abs(fit.tanh.alpha / alpha - 1) < 1e-3)
    #expect(fit.tanh.r2 > 1 - 1e-6 && fit.tanh.r2 > fit.line.r2)
  }

  @Test(arguments: [(1.0, 3.0, 0.5, 0.2), (40, 2, 0.02, -0.5), (0.01, 5, 120, 0)])
  func errorFunction(_ scale: Double, _ c: Double, _ alpha: Double, _ s: Double) {
    let fit = cloud(scale: scale) { c * erf(alpha * $0 + s) }
    print(
      "erf: c off by \(fit.erf.c / c - 1), α by \(fit.erf.alpha / alpha - 1), s by \(fit.erf.s - s), "
        + "R² \(fit.erf.r2)")
    #expect(abs(fit.erf.c / c - 1) < 1e-3 && abs(fit.erf.alpha / alpha - 1) < 1e-3)
    #expect(abs(fit.erf.s - s) < 1e-3 && fit.erf.r2 > 1 - 1e-6)
  }

  @Test func line() {
    let fit = cloud(scale: 3) { 0.25 * $0 }
    #expect(abs(fit.line.c - 0.25) < 1e-7 && fit.line.r2 > 1 - 1e-12)
    // The curves can be as straight as they like, but not straighter than the line.
    #expect(fit.tanh.r2 > 1 - 1e-6 && fit.tanh.r2 <= 1)
    #expect(abs(fit.tanh.c * fit.tanh.alpha - 0.25) < 1e-4)
    // Noise of variance 1 on a signal of variance 1: half is explained.
    let noisy = cloud(scale: 1, noise: 1) { $0 }
    #expect(abs(noisy.line.r2 - 0.5) < 0.02)
  }

  @Test func nothingToFit() {
    #expect(ShapeFit([]).line.r2.isNaN)
    var cells = ScatterCells()
    cells.add(Tensor([0, 0], shape: [2]), Tensor([1, 1], shape: [2]))
    #expect(ShapeFit(Array(cells.cells)).tanh.r2.isNaN)
    // Beyond the cells' range, at both ends.
    cells.add(Tensor([1e-30, -1e30, 3], shape: [3]), Tensor([0, 1, 2], shape: [3]))
    #expect(ShapeFit(Array(cells.cells)).line.r2.isFinite)
  }

  /// An LN-free model's clouds are straight lines of slope 1, exactly.
  @Test func withoutNorms() throws {
    let model = try GPT2.load(Fixtures.bundled("mini-lnfree"))
    let shape = try LayerNormGeometry().run(model, [Prompt(Array(1...30))]).group(
      "ln_geometry/shape")
    #expect(try shape.doubles("linear_slope").allSatisfy { abs($0 - 1) < 1e-12 })
    let r2 = try shape.doubles("linear_r2")
    #expect(r2.allSatisfy { $0 > 1 - 1e-12 })
    print("mini-lnfree: 1 − R² of the line at most \(r2.map { 1 - $0 }.max() ?? .nan)")
  }

  /// With many tokens only some are pooled, evenly.
  @Test func tokensAreSpread() throws {
    let model = try GPT2.load(Fixtures.bundled("mini"))
    let prompts = (0..<40).map { start in Prompt((0..<60).map { (start * 37 + $0 * 11) % 2000 }) }
    let shape = try LayerNormGeometry().run(model, prompts).group("ln_geometry/shape")
    guard case .integer(let tokens)? = shape.attributes["tokens"] else {
      Issue.record("no number of tokens")
      return
    }
    #expect(tokens > NormShape.tokens / 2 && tokens <= NormShape.tokens)
  }
}
