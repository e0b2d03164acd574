import Results

extension PicturePage {
  /// The logit lens: the predictions of every stream, written in their cells.
  mutating func lens() {
    guard analysis == "logit_lens" else { return }
    if variable("top_token") != nil {
      add(
        "predictions", "Logit lens: what each residual stream predicts next",
        [("", "top_prob")], texts: "top_token", also: ["top_token_id"])
    }
    for (name, words) in [
      ("prob", "probability of the answer"), ("logit", "logit of the answer"),
      ("rank", "how many tokens lie before the answer"), ("entropy", "entropy of the prediction"),
    ] {
      add(name, "Logit lens: " + words, [("", name)])
    }
  }
}
