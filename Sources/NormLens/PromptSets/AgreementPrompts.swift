public import HookedGPT2

/// Subject–verb agreement (the sentences of Marks et al., arXiv:2403.19647): "The boys near the car"
/// is followed by " are", not " is".
extension PromptSet {
  /// What stands between the subject and the verb.
  public enum AgreementStructure: String, Sendable, CaseIterable {
    /// "The boys".
    case simple
    /// "The boys near the car": a noun with a preposition.
    case nounPP = "nounpp"
    /// "The car that the boys": the verb belongs to the subject within the relative clause.
    case withinRC = "within-rc"
    /// "The boys that the dancer likes": the verb stands behind a relative clause.
    case rc
  }

  /// Prompts of subject–verb agreement: the answer is a verb in the subject's number, the wrong
  /// token the same verb in the other; the corrupted prompt has the subject in the other number.
  ///
  /// Two prompts may be one text asked about two verbs. Labels: `SUBJECT`, the noun that the verb
  /// agrees with; `ATTRACTOR`, the other noun where there is one; `END`.
  ///
  /// - Parameters:
  ///   - model: the model whose tokenizer must have every word as one token; those that it has not
  ///     are left out.
  ///   - count: how many prompts, all different.
  ///   - seed: what determines the prompts.
  ///   - structures: what stands between subject and verb, taken in turn.
  /// - Throws: `ModelSourceError.prompts` where the tokenizer has too few of the words, or where
  ///   there are fewer different prompts; `ModelError.noTokenizer`.
  /// - Precondition: `count` is positive; `structures` has one at least and none twice.
  public static func agreement(
    model: GPT2, count: Int, seed: UInt64 = 0,
    structures: [AgreementStructure] = AgreementStructure.allCases
  ) throws -> PromptSet {
    precondition(
      count > 0 && !structures.isEmpty && Set(structures).count == structures.count,
      "agreement: count \(count), structures \(structures)")
    var words = try PromptWords("agreement", model)
    // Singular and plural.
    func nouns(_ text: String, _ what: String) throws -> [[String]] {
      let pairs = text.split(separator: " ").map { noun in
        let plural = noun.hasSuffix("man") ? noun.dropLast(2) + "en" : noun + "s"
        return [String(noun), String(plural)]
      }
      return try words.keep(pairs, what, atLeast: 1) { $0 }
    }
    let verbs = try words.keep(
      [["is", "are"], ["has", "have"], ["does", "do"], ["goes", "go"]], "verbs", atLeast: 1
    ) { $0 }
    let people = try nouns(
      "athlete aunt boy carpenter doctor farmer father friend girl guy kid lawyer man mother poet "
        + "singer teacher uncle victim woman", "nouns")
    var (things, others, likes, prepositions) = ([[""]], [[""]], [[""]], [""])
    if structures.contains(.nounPP) {
      things = try nouns("bike car cat chair desk dog table tree truck window", "things")
      prepositions = try words.single("near behind beside", "prepositions", atLeast: 1)
    }
    if structures.contains(.withinRC) || structures.contains(.rc) {
      others = try nouns(
        "architect assistant chef dancer driver executive guard minister parent skater", "others")
    }
    if structures.contains(.rc) {
      likes = try words.keep(
        ["like", "hate", "love", "know", "see", "help"].map { [$0 + "s", $0] }, "inner verbs",
        atLeast: 1
      ) { $0 }
    }

    var random = SeededGenerator(seed: seed)
    let sizes = structures.map { structure in
      let subjects = 2 * people.count * verbs.count
      return switch structure {
      case .simple: subjects
      case .nounPP: subjects * 2 * things.count * prepositions.count
      case .withinRC: subjects * 2 * others.count
      case .rc: subjects * 2 * others.count * likes.count
      }
    }
    let draws = try words.draw(count, from: sizes, using: &random)
    let prompts = try draws.map { frame, index in
      let structure = structures[frame]
      // The digits of the index, one choice each.
      var rest = index
      func choose(_ count: Int) -> Int {
        defer { rest /= count }
        return rest % count
      }
      let (number, verb, person) = (choose(2), verbs[choose(verbs.count)], choose(people.count))
      var (template, attractorNumber) = ("The [SUBJECT]", 0)
      var (subject, attractor, inner, preposition) = (people[person], [""], [""], "")
      switch structure {
      case .simple: break
      case .nounPP:
        template = "The [SUBJECT] [PREPOSITION] the [ATTRACTOR]"
        (attractorNumber, attractor) = (choose(2), things[choose(things.count)])
        preposition = prepositions[choose(prepositions.count)]
      case .withinRC:
        template = "The [ATTRACTOR] that the [SUBJECT]"
        attractorNumber = choose(2)
        (subject, attractor) = (others[choose(others.count)], people[person])
      case .rc:
        template = "The [SUBJECT] that the [ATTRACTOR] [INNER]"
        (attractorNumber, attractor) = (choose(2), others[choose(others.count)])
        inner = likes[choose(likes.count)]
      }
      func text(_ number: Int) -> LabelledText {
        LabelledText(
          template, labels: ["SUBJECT": ["SUBJECT"], "ATTRACTOR": ["ATTRACTOR"]]
        ) { slot, _ in
          switch slot {
          case "SUBJECT": subject[number]
          case "ATTRACTOR": attractor[attractorNumber]
          case "INNER": inner[attractorNumber]
          default: preposition
          }
        }
      }
      let clean = text(number)
      return PromptText(
        clean: clean.text, corrupted: text(1 - number).text, answer: [" " + verb[number]],
        wrong: [" " + verb[1 - number]],
        positions: try clean.positions(
          structure == .simple ? ["SUBJECT", "END"] : ["SUBJECT", "ATTRACTOR", "END"],
          words.tokenizer, kind: "agreement"))
    }
    return try words.set(
      prompts,
      [
        "subject–verb agreement",
        "structures " + structures.map(\.rawValue).joined(separator: ","),
        "corruption: the subject in the other number", "seed \(seed)",
      ], source: "sentences of Marks et al., arXiv:2403.19647", model)
  }
}
