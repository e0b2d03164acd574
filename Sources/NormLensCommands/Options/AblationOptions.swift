import ArgumentParser
import NormLens

/// Whether and how the losses of changed models stand beside the measures of the stream.
struct AblationOptions: ParsableArguments {
  @Flag(
    help: ArgumentHelp(
      "Also give losses: without each run of blocks, with all blocks in parallel, with writes scaled, "
        + "without massive activations."))
  var ablations = false

  @Option(
    help: ArgumentHelp(
      "How many prompts --ablations runs on, evenly chosen; a prompt costs some L²/6 forward passes. "
        + "(default: 32)", valueName: "n"))
  var ablationPrompts: Int?

  @Option(
    parsing: .unconditional,  // else -1 would be taken for an option
    help: ArgumentHelp(
      "What --ablations multiplies the blocks' writes by, comma-separated. (default: 0,0.1,…,1)",
      valueName: "list"))
  var lambdas: String?

  @Option(
    help: ArgumentHelp(
      "The coordinates of the stream that --ablations sets to zero and to their means, POS:DIM, "
        + "comma-separated; by default those that are massive.", valueName: "list"))
  var massive: String?

  @Option(
    help: ArgumentHelp(
      "The block before which they are set; by default the first one whose stream has a massive "
        + "activation, or block 1 with --massive.", valueName: "n"))
  var massiveLayer: Int?

  func validate() throws {
    let others = [
      ("--ablation-prompts", ablationPrompts != nil), ("--lambdas", lambdas != nil),
      ("--massive", massive != nil), ("--massive-layer", massiveLayer != nil),
    ]
    if !ablations, let (name, _) = others.first(where: \.1) {
      throw ValidationError("\(name): losses of changed models are computed with --ablations")
    }
    if let ablationPrompts, ablationPrompts < 1 {
      throw ValidationError("--ablation-prompts \(ablationPrompts): expected 1 or more")
    }
  }

  /// What is asked for; nil where nothing is.
  ///
  /// - Throws: `CommandError` for lists that cannot be read.
  func settings() throws -> StreamAblation? {
    if !ablations { return nil }
    var settings = StreamAblation()
    if let ablationPrompts { settings.promptLimit = ablationPrompts }
    if let lambdas {
      settings.lambdas = try listWords(lambdas).map { word in
        guard let lambda = Double(word), lambda.isFinite else {
          throw CommandError("--lambdas: '\(word)': expected a number, such as 0.5")
        }
        return lambda
      }
      if settings.lambdas.count > 1000 {
        throw CommandError("--lambdas: \(settings.lambdas.count) numbers; expected 1000 at most")
      }
    }
    if let massive {
      settings.massive = try listWords(massive).map { word in
        let parts = word.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count == 2, let position = Int(parts[0]), let dimension = Int(parts[1]) else {
          throw CommandError("--massive: '\(word)': expected POSITION:COORDINATE, such as 0:447")
        }
        return StreamAblation.Coordinate(position: position, dimension: dimension)
      }
    }
    settings.massiveLayer = massiveLayer
    return settings
  }
}
