import ArgumentParser
import NormLens

/// What is asked of the keys and queries of each head.
struct SelectabilityOptions: ParsableArguments {
  @Flag(
    help: ArgumentHelp(
      "Also ask which keys a query of each head could choose, and how the head's queries lie to the ones "
        + "direction."))
  var selectability = false

  @Option(
    parsing: .unconditional,  // else -1 would be taken for an option
    help: ArgumentHelp(
      "How many keys of each prompt --selectability asks about, besides position 0: a number, or all. "
        + "(default: 32)", valueName: "n"))
  var keys: String?

  @Flag(help: "Keep every key's label, margin and the first query that cannot choose it.")
  var keyMargins = false

  func validate() throws {
    if !selectability && (keys != nil || keyMargins) {
      throw ValidationError(
        "\(keys != nil ? "--keys" : "--key-margins"): keys are asked about with --selectability")
    }
  }

  /// What is asked; nil where nothing is.
  ///
  /// - Throws: `CommandError` for a number of keys that there is not.
  func settings(seed: UInt64) throws -> Selectability.Settings? {
    if !selectability { return nil }
    var settings = Selectability.Settings(perKey: keyMargins, seed: seed)
    if let keys {
      guard let count = keys == "all" ? .max : Int(keys), count >= 1 else {
        throw CommandError("--keys '\(keys)': expected a number of 1 or more, or all")
      }
      settings.keys = keys == "all" ? nil : count
    }
    return settings
  }
}
