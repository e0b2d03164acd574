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
      isText = name == word && Self.texts.contains(name)
      let counts = Self.repeatable.contains(name) || (name == "--answer" && command == "run")
      if !counts && !seen.insert(name == "-o" ? "--output" : name).inserted {
        throw CommandError("\(name) was given twice; it counts once")
      }
    }
  }

  /// Options whose value is any text, one that begins with a dash included.
  private static let texts: Set = ["--prompt", "--clean", "--answer", "--wrong"]
  /// Options whose every occurrence counts.
  private static let repeatable: Set = [
    "--prompt", "--clean", "--tokens", "--zero", "--mean", "--edit",
  ]

  /// The option that a word names: `-o`, `--layers`, or `--layers` of `--layers=0`.
  private static func optionName(_ word: String) -> String? {
    let match = word.prefixMatch(of: #/(-[oh]|--[a-z][a-z-]*)(=|$)/#)
    return match.map { String($0.1) }
  }
}
