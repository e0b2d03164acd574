import Results

extension PicturePage {
  /// Head detectors beside each other on one scale.
  mutating func headScores() {
    guard analysis == "heads/summary" || analysis == "heads" else { return }
    let isSummary = analysis == "heads/summary"
    for (ending, words) in [("_mul", "by weight"), ("_abs", "by distance from the ideal pattern")] {
      add(
        "detectors" + ending, "Head detectors, scored \(words)",
        [
          ("previous token", "previous_token" + ending),
          ("duplicate token", "duplicate_token" + ending), ("induction", "induction" + ending),
        ], isMain: isSummary && ending == "_mul")
    }
  }

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

  /// Calibration, quantiles of the loss, and freezing norms one after the other.
  mutating func predictions() {
    switch analysis {
    case "evaluate/calibration": calibration()
    case "evaluate/freeze":
      together(
        "removal", "Freezing norms one after the other: loss added", along: "removal",
        [("measured", "cumulative_delta"), ("sum of single effects", "cumulative_predicted")])
      together(
        "single", "Freezing one norm: loss added", along: "ln",
        [("measured", "single_delta"), ("predicted by the gradient", "single_predicted")])
    case "evaluate/position":
      together(
        "loss", "Loss by position", along: "pos",
        [("mean", "loss_mean"), ("median", "loss_median")])
    default: break
    }
  }

  private mutating func calibration() {
    guard !isDifference,
      let pair = numbers(["confidence", "accuracy", "count"])
    else { return }
    let models = pair[0][axis: "model"]
    let clouds = (0..<(models?.count ?? 1)).map { index in
      let cut = pair.map { models == nil ? $0 : $0.at("model", index) }
      let known = cut[0].values.indices.filter {
        cut[0].values[$0].isFinite && cut[1].values[$0].isFinite
      }
      let bins = cut[0].axes.first
      return Picture.Points.Cloud(
        models?.label(at: index) ?? "", model: models?.label(at: index),
        x: known.map { cut[0].values[$0] }, y: known.map { cut[1].values[$0] },
        labels: known.map { "\(bins?.label(at: $0) ?? ""): \(compact(cut[2].values[$0])) tokens" })
    }
    add(
      "reliability", "Calibration: how often the likeliest token comes",
      facts: ["a point a bin of confidence; on the line the model is as often right as it says"],
      panels: [
        Picture.Panel(
          "",
          clouds.allSatisfy { $0.x.isEmpty }
            ? .note("no value: no bin has a token")
            : .points(
              Picture.Points(
                x: "confidence: mean probability of the likeliest token", y: "accuracy",
                clouds: clouds, hasIdentityLine: true)))
      ], showing: ["confidence", "accuracy"])
  }

  /// Measures of one axis in one panel, a series each; a panel for each model.
  mutating func together(
    _ name: String, _ title: String, along axis: String, _ fields: [(String, String)]
  ) {
    let found = fields.compactMap { words, name in
      variable(name).flatMap { variable in
        NamedNumbers(variable, in: context.group).map { (words, variable, $0) }
      }
    }
    guard found.count > 1, let first = found.first, let places = first.2[axis: axis],
      found.allSatisfy({ $0.2.names == first.2.names && $0.2.values.count == first.2.values.count }
      ),
      Set(first.2.names).subtracting(PictureLimits.modelAxes) == [axis]
    else { return }
    let models = first.2.axes.first { PictureLimits.modelAxes.contains($0.name) }
    let maker = FieldPictures(context: context, limits: limits)
    let unit = first.1.units == "1" ? "" : PictureContext.unit(first.1.units)
    let panels = (0..<(models?.count ?? 1)).map { index in
      let model = models?.label(at: index)
      let series = found.map { words, _, numbers in
        Picture.Series(
          words, model: model, models.map { numbers.at($0.name, index).values } ?? numbers.values)
      }.filter { $0.values.contains { !$0.isNaN } }
      return Picture.Panel(
        model ?? "", model: model,
        series.isEmpty
          ? .note("no value: all \(places.count) cells are NaN")
          : .curves(
            Picture.Curves(
              x: maker.axis(places, FieldPictures.Choice(name: "all")), y: unit, series: series)))
    }
    add(
      name, title,
      facts: found.map { words, variable, _ in "\(words): \(variable.longName)" },
      panels: panels, showing: found.map(\.1.name))
  }

  /// The residual stream: how linear each block is, what its size is.
  mutating func residualStream() {
    switch analysis {
    case "stream/linearity":
      together(
        "blocks", "Linearity of each block", along: "layer",
        [
          ("with the residual", "linearity"), ("without it", "linearity_without_residual"),
          ("with, adjusted", "linearity_adjusted"),
          ("without, adjusted", "linearity_without_residual_adjusted"),
        ])
    case "stream/massive":
      together(
        "activations", "Massive activations: the largest against the median", along: "stream",
        [("ratio of largest to median", "ratio"), ("median", "median_activation")])
    default: break
    }
  }
}
