import ArgumentParser
import NormLens

/// `normlens heads`: what the attention heads attend to.
struct HeadsCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "heads",
    abstract: "Attention heads: entropy, sinks, detectors of known kinds of heads.",
    discussion: """
      For every head: the entropy of its attention, the share of its queries that attend to position 0, \
      and scores as a previous-token, duplicate-token and induction head, as TransformerLens' detect_head \
      computes them; from the weights, whether the head copies what it attends to. The grids show means \
      over prompts, layers downwards and heads across. The file holds every prompt. --repeated makes \
      prompts of random tokens that stand twice, on which induction is best measured.
      """)

  @OptionGroup var collection: CollectionOptions

  @Option(
    help: ArgumentHelp(
      "Instead of text: so many prompts of random tokens that stand twice.", valueName: "n"))
  var repeated: Int?
  @Option(help: ArgumentHelp("How many tokens stand twice. (default: 50)", valueName: "n"))
  var repeatedLength: Int?
  @Option(help: "Seed of --repeated.")
  var seed: UInt64 = 0

  @Flag(
    name: .customLong("exclude-bos"),
    help: "Leave the attention to position 0 out of the detectors.")
  var excludeBOS = false
  @Flag(help: "Leave the attention of each token to itself out of the detectors.")
  var excludeCurrentToken = false
  @Option(
    help: ArgumentHelp(
      "A query counts for the sink rate from this attention to position 0 on.", valueName: "share"))
  var sinkThreshold = 0.3

  @Flag(
    help: ArgumentHelp(
      "Also how much each head's output could matter to the queries, keys and values of each later head, "
        + "by the weights."))
  var composition = false

  func validate() throws {
    if let repeated, !(1...1_000_000).contains(repeated) {
      throw ValidationError("--repeated \(repeated): expected 1 to 1000000")
    }
    if repeated != nil && collection.prompts.isGiven {
      throw ValidationError(
        "--repeated: makes prompts of its own; leave out the text, or --repeated")
    }
    if let repeatedLength {
      if repeated == nil {
        throw ValidationError("--repeated-length: says how long the prompts of --repeated are")
      }
      if !(1...1_000_000).contains(repeatedLength) {
        throw ValidationError("--repeated-length \(repeatedLength): expected 1 or more")
      }
    }
    if !(0..<1).contains(sinkThreshold) {
      throw ValidationError(
        "--sink-threshold \(sinkThreshold): expected 0 or more, and less than 1")
    }
  }

  func run() throws {
    let tokens = repeated.map {
      RepeatedTokens(count: $0, length: repeatedLength ?? 50, seed: seed)
    }
    let patterns = HeadPatterns.Settings(
      excludeBOS: excludeBOS, excludeCurrentToken: excludeCurrentToken,
      sinkThreshold: sinkThreshold, repeated: tokens?.length)
    let prependBOS = collection.prompts.prependBOS
    try collection.run(
      HeadMeasures(patterns: patterns, composition: composition), seed: tokens?.seed,
      generated: tokens.map { tokens in { try tokens.prompts($0, prependBOS: prependBOS) } },
      bytes: { config, tokens in
        // The recorded queries and keys, and what a forward pass has at once.
        let streams = 2 * config.nLayers + 12
        return 4 * tokens * (streams * config.dModel + 2 * config.dMLP)
      },
      // The scores of all pairs of heads, and a block's attention weights several times over.
      constant: {
        let heads = $0.nLayers * $0.nHeads
        return (composition ? 12 * heads * heads : 0) + 32 * $0.dAttn * $0.dModel
      },
      table: { headTables($0) ?? "" })
  }
}
