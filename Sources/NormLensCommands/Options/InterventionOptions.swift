import ArgumentParser
import NormLens

/// Changes of activations on the command line.
struct InterventionOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Set to zero: L5H1, L3N1024, 3_mlp_out, resid_pre2, a hook's name; @0,-1 for positions.",
      valueName: "target"))
  var zero: [String] = []

  @Option(help: ArgumentHelp("Set to the mean over the prompt's positions.", valueName: "target"))
  var mean: [String] = []

  @Option(help: ArgumentHelp("Multiply: L9H6*2, 3_mlp_out*-1.", valueName: "target*factor"))
  var edit: [String] = []

  /// Whether nothing is changed.
  var isEmpty: Bool { zero.isEmpty && mean.isEmpty && edit.isEmpty }

  /// The interventions.
  func interventions(_ model: GPT2) throws -> [Intervention] {
    let config = model.config
    var result = try zero.map { try TargetText($0, config).zero() }
    result += try mean.map { try TargetText($0, config).mean() }
    for text in edit {
      let parts = text.split(separator: "*", maxSplits: 1)
      guard parts.count == 2, let factor = Float(parts[1]), factor.isFinite else {
        throw CommandError("--edit '\(text)': expected TARGET*FACTOR, such as L9H6*2")
      }
      result.append(try TargetText(String(parts[0]), config).scale(by: factor))
    }
    return result
  }
}
