import HookedGPT2
import Tensors

/// The runs between the two runs of a pair, along which integrated gradients are averaged.
///
/// The embeddings of step k of n are `e_base + α·(e_source − e_base)` with `α = (k − ½)/n`: the midpoint
/// rule, whose error falls with n² and which has neither end on it. Everything above the embeddings
/// flows. Position embeddings are the same in both runs, so that what is interpolated is `resid_pre` of
/// the first layer, with noise on the embeddings, if there is any, in it.
struct IntegratedGradients {
  let steps: Int

  /// Where each run stands between base and source.
  var fractions: [Double] { (0..<steps).map { (Double($0) + 0.5) / Double(steps) } }

  /// Runs some steps of some pairs together.
  static func runs(
    _ model: GPT2, _ steps: [(pair: PairRuns, fraction: Double)],
    _ direction: ActivationPatching.Direction
  ) throws -> [BaseRun] {
    let start = HookName(.residPre, layer: 0)
    let interventions = try steps.enumerated().map { index, step in
      let base = try step.pair.base(direction).activation(.residPre, layer: 0, of: model)
      let source = try step.pair.source(direction).activation(.residPre, layer: 0, of: model)
      return Intervention.replace(
        HookFilter(start), with: base + (source - base) * Float(step.fraction), prompt: index)
    }
    return try BaseRun.batch(
      model, steps.map { $0.pair.base(direction).tokens }, interventions: interventions)
  }
}
