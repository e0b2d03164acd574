public import HookedGPT2

/// Greater-than (Hanna et al., arXiv:2305.00586): "The war lasted from the year 1732 to the year 17"
/// is followed by a year later than 32.
extension PromptSet {
  /// Prompts of greater-than: the answers are all two-digit tokens above the year's, the wrong ones
  /// the others; the corrupted prompt begins in the year 01, after which every year is right.
  /// The metric is the difference of the two groups' probabilities.
  ///
  /// Labels: `NOUN`, `XX` (the century), `YY` (the year), `END`.
  ///
  /// - Parameters:
  ///   - model: the model whose tokenizer must cut " 1732" into " 17" and "32"; years that it cuts
  ///     otherwise and nouns of several tokens are left out.
  ///   - count: how many prompts, all different; the years 02 to 98 in turn.
  ///   - seed: what determines the prompts.
  /// - Throws: `ModelSourceError.prompts` where the tokenizer has no such years, or where there are
  ///   fewer different prompts; `ModelError.noTokenizer`.
  /// - Precondition: `count` is positive.
  public static func greaterThan(
    model: GPT2, count: Int, seed: UInt64 = 0
  ) throws -> PromptSet {
    precondition(count > 0, "greater-than: count \(count)")
    var words = try PromptWords("greater-than", model)
    let tokenizer = words.tokenizer
    let digits = (0...99).map { ($0 < 10 ? "0" : "") + "\($0)" }
    let several = digits.filter { tokenizer.encode($0).count != 1 }
    if !several.isEmpty {
      throw words.cannotHold(
        several, "every number from 00 to 99 as one token", "\(100 - several.count) of 100")
    }
    func splits(_ century: Int, _ year: String) -> Bool {
      tokenizer.encode(" \(century)\(year)")
        == tokenizer.encode(" \(century)") + tokenizer.encode(year)
    }
    let centuries = (11...17).filter { words.isSingle("\($0)") && splits($0, "01") }
    let years = (2...98).map { year in (year, centuries.filter { splits($0, digits[year]) }) }
    let kept = years.reduce(0) { $0 + $1.1.count }
    if kept == 0 {
      throw words.cannotHold(
        [" 1702", " 1732", " 1798"], "years as two tokens, ' 17' and '32'", "none")
    }
    let nouns = try words.single(greaterThanNouns, "nouns", atLeast: 1)

    var random = SeededGenerator(seed: seed)
    let draws = try words.draw(count, from: years.map { nouns.count * $0.1.count }, using: &random)
    let prompts = try draws.map { frame, index in
      let (year, centuries) = years[frame]
      let (noun, century) = (nouns[index % nouns.count], centuries[index / nouns.count])
      func text(_ year: Int) -> LabelledText {
        LabelledText(
          "The [NOUN] lasted from the year [XX][YY] to the year [XX]",
          labels: ["NOUN": ["NOUN"], "XX": ["XX"], "YY": ["YY"]]
        ) { slot, _ in
          slot == "NOUN" ? noun : slot == "XX" ? "\(century)" : digits[year]
        }
      }
      let clean = text(year)
      return PromptText(
        clean: clean.text, corrupted: text(1).text, answer: Array(digits[(year + 1)...]),
        wrong: Array(digits[...year]),
        positions: try clean.positions(
          ["NOUN", "XX", "YY", "END"], tokenizer, kind: "greater-than"))
    }
    return try words.set(
      prompts,
      [
        "greater-than", "\(kept) of \(7 * 97) years from 1102 to 1798 are two tokens",
        "corruption: the year 01", "metric group-difference", "seed \(seed)",
      ], source: "template and nouns of Hanna et al., arXiv:2305.00586", model)
  }

  private static let greaterThanNouns = """
    abduction accord affair agreement appraisal assaults assessment attack attempts campaign captivity \
    case challenge chaos clash collaboration coma competition confrontation consequence conspiracy \
    construction consultation contact contract convention cooperation custody deal decline decrease \
    demonstrations development disagreement disorder dispute domination dynasty effect effort \
    employment endeavor engagement epidemic evaluation exchange existence expansion expedition \
    experiments fall fame flights friendship growth hardship hostility illness impact imprisonment \
    improvement incarceration increase insurgency invasion investigation journey kingdom marriage \
    modernization negotiation notoriety obstruction operation order outbreak outcome overhaul patrols \
    pilgrimage plague plan practice process program progress project pursuit quest raids reforms reign \
    relationship retaliation riot rise rivalry romance rule sanctions shift siege slump stature stint \
    strikes study test testing tests therapy tour tradition treaty trial trip unemployment voyage \
    warfare work
    """
}
