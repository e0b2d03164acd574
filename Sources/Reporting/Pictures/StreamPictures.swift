import Results

extension PicturePage {
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
