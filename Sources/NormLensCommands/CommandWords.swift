import NormLens

/// The command line before it is parsed, for what the parser lets pass in silence.
struct CommandWords {
  private let command: String?
  private let words: [String]

  init(_ words: [String]) {
    command = words.first
    self.words = words
  }

  /// Checks that no option that counts once is given twice, of which the parser takes the last, and
  /// that no option stands where another's text should, which the parser takes for the text.
  func check() throws(CommandError) {
    var seen: Set<String> = []
    var isText = false
    for word in words {
      let name = Self.optionName(word)
      if isText {
        isText = false
        if name == word || word == "--" {
          throw CommandError(
            "'\(word)' stands where a text should; if it is the text, write it behind '=', as in "
              + "--prompt=\(word)")
        }
        continue
      }
      // Behind it are texts only.
      if word == "--" { break }
      guard let name else { continue }
      let isNumber = picksPrompt && name == "--prompt"
      isText = name == word && Self.texts.contains(name) && !isNumber
      let counts =
        Self.repeatable.contains(name) && !isNumber
        || repeatsAnswers && Self.answers.contains(name)
      if !counts && !seen.insert(Self.short[name] ?? name).inserted {
        throw CommandError("\(name) was given twice; it counts once")
      }
    }
  }

  /// Options whose value is any text, one that begins with a dash included.
  private static let texts: Set = ["--prompt", "--clean", "--corrupted", "--answer", "--wrong"]
  /// Options whose every occurrence counts.
  private static let repeatable: Set = [
    "--prompt", "--clean", "--corrupted", "--tokens", "--clean-tokens", "--corrupted-tokens",
    "--text", "--skip-token", "--zero", "--mean", "--edit", "--model", "--only",
  ]
  /// Options of which every occurrence counts where there may be several questions.
  private static let answers: Set = ["--answer", "--wrong"]
  private var repeatsAnswers: Bool { ["run", "patch", "paths"].contains(command) }
  /// Whether `--prompt` is a prompt's number, not its text.
  private var picksPrompt: Bool { ["plot", "show"].contains(command) }
  /// The long names of options that have a short one.
  private static let short = ["-o": "--output", "-n": "--count"]

  /// The option that a word names: `-o`, `--layers`, or `--layers` of `--layers=0`.
  private static func optionName(_ word: String) -> String? {
    let match = word.prefixMatch(of: #/(-[ohn]|--[a-z][a-z-]*)(=|$)/#)
    return match.map { String($0.1) }
  }
}
