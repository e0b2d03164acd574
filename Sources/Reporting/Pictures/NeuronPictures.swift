import Results

extension PicturePage {
  /// Entropy neurons: long but hardly seen by the logits; and what of their effect the norm mediates.
  mutating func entropyNeurons() {
    guard analysis == "neurons" else { return }
    for (name, title, x, y) in [
      (
        "norm_and_variance", "Neurons of the last layer: output norm and variance of their logits",
        "norm", "logit_variance"
      ),
      (
        "total_and_direct", "Ablating a neuron: total against direct effect on the loss",
        "loss_effect_total", "loss_effect_direct"
      ),
    ] {
      var panels = against(x, y)
      if x == "norm", !panels.isEmpty, case .points(var points) = panels[0].drawing {
        points.hasIdentityLine = false
        panels[0].drawing = .points(points)
      }
      let neurons = variable(x)?.values.count ?? 0
      add(name, title, facts: pointLimit(neurons, limits.points), panels: panels)
    }
  }
}
