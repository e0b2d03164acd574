import Foundation
import NormLens
import TestSupport

/// Activation patching as its definition says: one whole forward pass a cell, nothing shared.
///
/// The metrics are written out again in double precision, and means over reference sets are taken
/// here, so that `Metric` and the sweep's own means are held against other code.
struct NaivePatching {
  /// A metric of the logits at the last position: of a run and of the clean run, `[d_vocab]`, for
  /// right and wrong tokens.
  typealias Measure = (
    _ logits: [Double], _ clean: [Double], _ answer: [Int], _ wrong: [Int]
  ) -> Double

  /// The sweeps of one pair.
  struct Found {
    var clean: Double
    var corrupted: Double
    /// The largest |logit| of any run.
    var logit: Double
    /// The effects of a site's cells, by index along its axes.
    var effects: [String: [[Int]: Double]] = [:]
  }

  var direction = ActivationPatching.Direction.denoising
  var measure: Measure
  var replacement = Replacement.otherRun
  var window = 1
  /// What makes a clean run the corrupted one, instead of the corrupted prompt.
  var noise: ((_ prompt: Int) throws -> [Intervention])?
  /// Which cells are run: by site and index along its axes.
  var includes: (PatchSite, [Int]) -> Bool = { _, _ in true }

  /// Every sweep of a pair.
  func run(
    _ model: GPT2, _ pairs: [PromptPair], _ sites: [PatchSite]
  ) throws -> [Found] {
    try pairs.enumerated().map { try one(model, $0.element, prompt: $0.offset, sites) }
  }

  private func one(
    _ model: GPT2, _ pair: PromptPair, prompt: Int, _ sites: [PatchSite]
  ) throws -> Found {
    let last = pair.length - 1
    func logits(_ tensor: Tensor) -> [Double] { tensor.row(last).scalars.map(Double.init) }
    let noise = try self.noise?(prompt) ?? []
    let corruptedTokens = self.noise == nil ? pair.corrupted : pair.clean
    let hooks = Set(sites.map(\.site)).map { HookFilter($0) }
    let clean = try model.runWithCache(pair.clean, hooks: hooks)
    let corrupted = try model.runWithCache(corruptedTokens, hooks: hooks, interventions: noise)
    let cleanLogits = logits(clean.logits)
    func metric(_ logits: [Double]) -> Double {
      measure(logits, cleanLogits, pair.answer, pair.wrong)
    }
    func largest(_ logits: [Double]) -> Double { logits.reduce(0) { max($0, abs($1)) } }
    var found = Found(
      clean: metric(cleanLogits), corrupted: metric(logits(corrupted.logits)),
      logit: max(largest(cleanLogits), largest(logits(corrupted.logits))))

    let isNoising = direction == .noising
    let tokens = isNoising ? pair.clean : corruptedTokens
    let other = isNoising ? corrupted.cache : clean.cache
    let unpatched = isNoising ? found.clean : found.corrupted
    for site in sites {
      var values: [HookName: Tensor] = [:]
      for layer in 0..<model.config.nLayers {
        let name = HookName(site.site, layer: layer)
        values[name] = try value(model, name, like: try other.tensor(name))
      }
      var extents = site.shape(model.config, length: pair.length)
      extents[0] -= window - 1
      for cell in Self.cells(extents) where includes(site, cell) {
        var interventions = isNoising ? [] : noise
        let target = site.target(cell, window: window)
        for layer in cell[0]..<cell[0] + window {
          var one = target
          one.layers = .layer(layer)
          guard let value = values[HookName(site.site, layer: layer)] else { continue }
          interventions.append(.replace(one, with: value))
        }
        let patched = logits(try model.run(tokens, interventions: interventions))
        found.logit = max(found.logit, largest(patched))
        found.effects[site.name, default: [:]][cell] = metric(patched) - unpatched
      }
    }
    return found
  }

  /// What stands in the place of an activation, in its whole shape.
  private func value(_ model: GPT2, _ name: HookName, like other: Tensor) throws -> Tensor {
    func recorded(_ prompts: [[Int]]) throws -> [Tensor] {
      try prompts.map {
        try model.runWithCache($0, hooks: [HookFilter(name)]).cache.tensor(name)
      }
    }
    switch replacement {
    case .otherRun: return other
    case .zero: return Tensor(zeros: other.shape)
    case .positionMean(over: let prompts):
      var sum = [Double](repeating: 0, count: other.shape.reduce(1, *))
      for tensor in try recorded(prompts) {
        for (index, scalar) in tensor.scalars.enumerated() { sum[index] += Double(scalar) }
      }
      return Tensor(sum.map { Float($0 / Double(prompts.count)) }, shape: other.shape)
    case .mean(over: let prompts):
      let width = other.shape.dropFirst().reduce(1, *)
      var sum = [Double](repeating: 0, count: width)
      for tensor in try recorded(prompts) {
        for (index, scalar) in tensor.scalars.enumerated() { sum[index % width] += Double(scalar) }
      }
      let positions = Double(prompts.map(\.count).reduce(0, +))
      let mean = sum.map { Float($0 / positions) }
      return Tensor((0..<other.shape[0]).flatMap { _ in mean }, shape: other.shape)
    }
  }

  /// Every index of an array of this shape, in row-major order.
  static func cells(_ extents: [Int]) -> [[Int]] {
    extents.reduce([[]]) { cells, extent in
      cells.flatMap { cell in (0..<extent).map { cell + [$0] } }
    }
  }

  /// The metrics by name, written out.
  static func measure(_ metric: String) -> Measure? {
    func logSoftmax(_ logits: [Double]) -> [Double] {
      let top = logits.max() ?? 0
      let logSum = top + log(logits.reduce(0) { $0 + exp($1 - top) })
      return logits.map { $0 - logSum }
    }
    func best(_ logits: [Double], _ tokens: [Int]) -> Double {
      tokens.map { logits[$0] }.max() ?? .nan
    }
    func probability(_ logits: [Double], _ tokens: [Int]) -> Double {
      let logP = logSoftmax(logits)
      return tokens.reduce(0) { $0 + exp(logP[$1]) }
    }
    switch metric {
    case "logit-difference": return { x, _, A, W in best(x, A) - best(x, W) }
    case "logit": return { x, _, A, _ in best(x, A) }
    case "log-probability": return { x, _, A, _ in log(probability(x, A)) }
    case "loss": return { x, _, A, _ in -log(probability(x, A)) }
    case "probability-difference", "group-difference":
      return { x, _, A, W in probability(x, A) - probability(x, W) }
    case "kl":
      return { x, clean, _, _ in
        zip(logSoftmax(clean), logSoftmax(x)).reduce(0) { $0 + exp($1.0) * ($1.0 - $1.1) }
      }
    default: return nil
    }
  }
}
