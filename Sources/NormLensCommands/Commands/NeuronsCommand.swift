import ArgumentParser
import NormLens

/// `normlens neurons`: entropy neurons.
struct NeuronsCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "neurons",
    abstract: "Entropy neurons: what acts on predictions through the final norm's scale.",
    discussion: """
      For every neuron of the last MLP: how much it writes, how evenly its write spreads over the \
      vocabulary, their ratio (the score, large for entropy neurons), and how much of the write lies where \
      the unembedding does not look. On text: what loss and entropy become when a neuron is held at its \
      mean, with the final norm at work (total) and with its scale frozen (direct), for the neurons of the \
      highest scores and for others drawn at random, and for the first ones together. Without a prompt, \
      and for another layer, the weights alone. Without LayerNorm total and direct are the same.
      """)

  @OptionGroup var collection: CollectionOptions
  @Option(help: ArgumentHelp("The MLP; the last by default.", valueName: "n"))
  var layer: Int?
  @Option(
    help: ArgumentHelp(
      "How many of the smallest singular directions of W_U count as its null space. (default: d_model/64)",
      valueName: "k"))
  var nullSpace: Int?
  @Option(
    help: ArgumentHelp(
      "The neurons to hold at their means: numbers, comma-separated, all, or none. (default: the 16 of the "
        + "highest scores and 16 others)", valueName: "list"))
  var ablate: String?
  @Option(
    help: ArgumentHelp(
      "How many neurons are ablated together, one more at a time: the first of --ablate, else of the "
        + "highest scores.", valueName: "n"))
  var together = 16
  @Option(
    help: ArgumentHelp(
      "How many positions at a prompt's start do not count as predictions.", valueName: "n"))
  var skipFirst = 0
  @Option(help: "Seed of the neurons drawn at random, and of the sample of tokens for medians.")
  var seed: UInt64 = 0

  func validate() throws {
    for (name, value) in [("--together", together), ("--skip-first", skipFirst)] where value < 0 {
      throw ValidationError("\(name) \(value): expected 0 or more")
    }
  }

  func run() throws {
    var analysis = EntropyNeurons(
      layer: layer, nullSpace: nullSpace, ablated: try ablated(), cumulated: together,
      skipFirst: skipFirst, seed: seed)
    if !collection.prompts.isGiven {
      if let ablate, ablate != "none" {
        throw CommandError("--ablate \(ablate): \(PromptOptions.noPrompt)")
      }
      return try weightsAlone(analysis)
    }
    if analysis.ablated == EntropyNeurons.Ablated.none { analysis.ablated = .some(.none) }
    try collection.run(
      analysis, seed: seed,
      bytes: { config, tokens in
        // What a forward pass has at once, the final stream and the neurons.
        4 * tokens * (16 * config.dModel + 3 * config.dMLP)
      },
      // Blocks of logits, the logits of the neurons' writes, and the matrices of W_U.
      constant: { config in
        let vocabulary = 4 * config.dVocab
        return min(5 * 1024 * vocabulary, 240 << 20) + min(512, config.dMLP) * vocabulary
          + 40 * config.dModel * config.dModel
      },
      check: { prompts in
        if prompts.contains(where: { $0.tokens.count > 1 + skipFirst }) { return }
        throw CommandError(
          "neurons: no prediction to measure: expected a prompt of more than \(1 + skipFirst) tokens, "
            + "found at most \(prompts.map(\.tokens.count).max() ?? 0); give more text, or none for the "
            + "weights alone", status: .data)
      },
      table: { neuronTables($0) ?? "" })
  }

  /// What the weights say, where there is no text.
  private func weightsAlone(_ analysis: EntropyNeurons) throws {
    try collection.output.check(inputs: collection.models.inputs)
    let models = try collection.models.load()
    let results = try collection.models.each(models) { try analysis.withoutText($0) }
    try collection.output.deliver(
      results, of: models, provenance: runProvenance(prependBOS: nil, seed: seed)
    ) { neuronTables($0.groups) ?? "" }
  }

  /// The neurons of `--ablate`; nil for the analysis' own choice.
  private func ablated() throws -> EntropyNeurons.Ablated? {
    switch ablate {
    case nil: return nil
    case "all": return .all
    case "none": return EntropyNeurons.Ablated.none
    case let list?:
      return .neurons(
        try listWords(list).map { word in
          guard let neuron = Int(word) else {
            throw CommandError(
              "--ablate: '\(word)': expected numbers of neurons, such as 584,2123, or all, or none")
          }
          return neuron
        })
    }
  }
}
