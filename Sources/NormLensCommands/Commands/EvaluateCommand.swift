import ArgumentParser
import NormLens

/// `normlens evaluate`: how well a model predicts text.
struct EvaluateCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "evaluate",
    abstract: "Cross-entropy with percentiles, entropy, calibration; against a second model.",
    discussion: """
      Every token but the first of each prompt is predicted and counted. A text longer than the model's \
      n_ctx is cut into windows of that length; --context says another. Means come with medians, \
      percentiles and the worst tokens, since few tokens may carry a mean. Standard errors and intervals \
      are over prompts.

      --against tells how far a second model of the same vocabulary predicts otherwise: Jensen-Shannon \
      divergence, KL, and the difference of each token's loss. --freeze-ln replaces the scale of one norm \
      after another by its mean over tokens, as when LayerNorm is removed, and tells the loss.
      """)

  @OptionGroup var collection: CollectionOptions
  @Option(help: ArgumentHelp("Bins of the calibration, of equal width.", valueName: "n"))
  var bins = 10
  @Option(
    name: .customLong("skip-token"),
    help: ArgumentHelp(
      "Do not count this token where it is to be predicted; may be repeated.", valueName: "id"))
  var skippedTokens: [Int] = []
  @Option(
    help: ArgumentHelp("A second model that predicts the same tokens.", valueName: "model"),
    completion: .file())
  var against: String?
  @Flag(
    name: .customLong("freeze-ln"),
    help: "Freeze one norm's scale after another and tell the loss.")
  var freezesNorms = false
  @Option(
    name: .customLong("freeze-prompts"),
    help: ArgumentHelp("The most prompts that --freeze-ln runs; 32 by default.", valueName: "n"))
  var freezePrompts: Int?
  @Option(
    name: .customLong("freeze-positions"),
    help: ArgumentHelp(
      "Where --freeze-ln freezes: all, or rest (position 0 keeps its scale); all by default.",
      valueName: "positions"))
  var freezePositions: FrozenPositions?
  @Option(help: "Seed of the bootstrap, and of the sample where there are too many tokens to keep.")
  var seed: UInt64 = 0

  /// Which positions have the mean scale.
  enum FrozenPositions: String, ExpressibleByArgument, CaseIterable {
    case all
    case rest

    var positions: NormFreezing.Positions { self == .all ? .all : .rest }
  }

  func validate() throws {
    if !(1...10_000).contains(bins) {
      throw ValidationError("--bins \(bins): expected 1 to 10000")
    }
    if let freezePrompts, freezePrompts < 1 {
      throw ValidationError("--freeze-prompts \(freezePrompts): expected 1 or more")
    }
    if !freezesNorms && (freezePrompts != nil || freezePositions != nil) {
      throw ValidationError("--freeze-prompts and --freeze-positions are for --freeze-ln")
    }
  }

  func run() throws {
    try collection.output.check(
      inputs: collection.models.inputs + collection.prompts.inputs
        + (against.map { Checkpoint.files(of: $0) } ?? []))
    collection.models.loading.compute.apply()
    let other = try against.map {
      try GPT2.load($0, verify: !collection.models.loading.noVerify)
    }
    let freezing =
      freezesNorms
      ? NormFreezing(prompts: freezePrompts ?? 32, positions: (freezePositions ?? .all).positions)
      : nil
    let evaluation = Evaluation(
      bins: bins, skippedTokens: Set(skippedTokens), against: other, freezing: freezing, seed: seed)
    try collection.run(
      evaluation, seed: seed,
      bytes: { config, tokens in
        // The streams of a forward pass, and the streams of every layer that frozen runs resume from.
        let streams = 14 + (freezing == nil ? 0 : 2 * config.nLayers)
        return 4 * tokens * (streams * config.dModel + 2 * config.dMLP)
      },
      constant: { evaluation.logitBytes($0) },
      window: { config in
        let window = min(config.nCtx, other?.config.nCtx ?? config.nCtx)
        return window < 2 ? nil : window
      },
      table: { evaluationTables($0) ?? "" })
  }
}
