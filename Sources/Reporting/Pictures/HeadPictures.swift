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

  /// Attention patterns of recorded runs, a thumbnail a head.
  mutating func patterns() {
    guard analysis == "activations" else { return }
    add("pattern", "Attention patterns", [("", "pattern")])
  }
}
