import ArgumentParser
import NormLens

/// `normlens stream`: what happens to the residual stream.
struct StreamCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "stream",
    abstract: "Residual stream: lengths, growth, turns, linearity, distances, massive activations.",
    discussion: """
      For every token before every sublayer: the stream's length and variance, the angle that the last \
      write turned it by, and the write's length and direction relative to the stream. Over all tokens: \
      how the variance grows and who writes it, how nearly each block is a linear map (with the \
      residual and without), the angular distances between depths, the largest activations, and the \
      entropy, effective rank and curvature of each prompt's tokens. Position 0, whose stream is often \
      far longer, stands apart. The file holds every token and is written while the prompts run.
      """)

  @OptionGroup var collection: CollectionOptions
  @Flag(
    help: """
      Also give entropy, effective rank and curvature as the published repositories compute them, under \
      names that end in _reference.
      """)
  var referenceConventions = false
  @Flag(help: "Also what `heads` measures, in the same pass.")
  var heads = false
  @OptionGroup var ablations: AblationOptions
  @Option(help: "Seed of the sample of tokens, where there are too many to keep.")
  var seed: UInt64 = 0

  func run() throws {
    try collection.run(
      StreamMeasures(
        seed: seed, referenceConventions: referenceConventions, ablation: try ablations.settings(),
        heads: heads ? HeadMeasures() : nil),
      seed: seed,
      bytes: { config, tokens in
        // The recorded streams, and what a forward pass has at once.
        let streams = (heads ? 6 : 4) * config.nLayers + 12
        return 4 * tokens * (streams * config.dModel + 2 * config.dMLP)
      },
      constant: StreamMeasures.byteCount,
      check: { prompts in
        if !ablations.ablations || prompts.contains(where: { $0.tokens.count > 1 }) { return }
        throw CommandError(
          "--ablations: no loss to measure: expected a prompt of two tokens or more, found one token in "
            + "each; give more text", status: .data)
      },
      table: { groups in
        [streamTables(groups), heads ? headTables(groups) : nil].compactMap(\.self)
          .joined(separator: "\n\n")
      })
  }
}
