import ArgumentParser
import NormLens

/// `normlens geometry`: what the norms do to the stream.
struct GeometryCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "geometry",
    abstract: "LayerNorm geometry: lengths, shares and angles at every norm.",
    discussion: """
      For every norm and token: the stream's mean, deviation and length, its share along the ones \
      vector, and the angles that projection, gain and bias turn it by. The tables show medians over \
      tokens; position 0, whose stream is often far longer, stands apart. Then the cloud of all tokens \
      before and behind each norm, the share of each write that a norm does not see to first order, and \
      how straight the norm is. With answers in the prompts file: what the final norm's \
      renormalisation changes of direct effects. The file holds every token and is written while the \
      prompts run. Without LayerNorm the gain and the fixed divisor are folded into the weights, and \
      |z|/√d is the stream's own deviation.
      """)

  @OptionGroup var collection: CollectionOptions
  @OptionGroup var selectability: SelectabilityOptions
  @Option(
    parsing: .unconditional,  // else -1 would be taken for an option
    help: ArgumentHelp(
      "Keep the vectors of these tokens on their way through each norm: positions, or PROMPT:POSITION, "
        + "comma-separated; prompts count from 0, negative positions from the end.",
      valueName: "list"))
  var steps: String?
  @Option(
    help: "Seed of the samples: tokens where there are too many to keep, keys of --selectability.")
  var seed: UInt64 = 0

  func validate() throws {
    if steps != nil && !collection.output.keepsValues {
      throw ValidationError("--steps: vectors are not printed; name a file with -o, or take --json")
    }
    if selectability.keyMargins && !collection.output.keepsValues {
      throw ValidationError(
        "--key-margins: margins of keys are not printed; name a file with -o, or take --json")
    }
  }

  func run() throws {
    let keys = try selectability.settings(seed: seed)
    let steps = try chosenSteps()
    try collection.run(
      LayerNormGeometry(seed: seed, steps: steps, selectability: keys), seed: seed,
      bytes: { config, tokens in
        // The recorded streams, and what a forward pass has at once.
        let streams = (keys == nil ? 4 : 7) * config.nLayers + 12
        return 4 * tokens * (streams * config.dModel + 2 * config.dMLP)
      },
      // The second moments of every norm's cloud.
      constant: { 8 * $0.dModel * $0.dModel * (2 * $0.nLayers + 1) },
      table: { geometryTables($0) ?? "" })
  }
}

extension GeometryCommand {
  /// The tokens of `--steps`.
  private func chosenSteps() throws -> [NormStep] {
    guard let steps else { return [] }
    let words = listWords(steps)
    return try words.map { word in
      let parts = word.split(separator: ":", omittingEmptySubsequences: false)
      let numbers = parts.compactMap { Int($0) }
      guard numbers.count == parts.count, (1...2).contains(parts.count) else {
        throw CommandError(
          "--steps: '\(word)': expected POSITION or PROMPT:POSITION, such as 5 or 0:-1")
      }
      return NormStep(
        prompt: numbers.count == 2 ? numbers[0] : nil, position: numbers[numbers.count - 1])
    }
  }
}
