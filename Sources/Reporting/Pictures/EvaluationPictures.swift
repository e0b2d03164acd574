import Results

extension PicturePage {
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
}
