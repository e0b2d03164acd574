public import HookedGPT2

/// Gendered pronouns (Mathwin et al., "Identifying a preliminary circuit for predicting gendered
/// pronouns in GPT-2 small"): "So Mary is a really great friend, isn't" is followed by " she".
extension PromptSet {
  /// The number of templates; they are numbered from 1.
  public static let pronounTemplateCount = pronounTemplates.count

  /// Prompts of gendered pronouns: the answer is " he" or " she" and the wrong token the other; the
  /// corrupted prompt has a name of the other gender.
  ///
  /// Labels: `NAME`, `END`.
  ///
  /// - Parameters:
  ///   - model: the model whose tokenizer must have every name as one token; those that it has not
  ///     are left out.
  ///   - count: how many prompts, all different; genders and templates in turn.
  ///   - seed: what determines the prompts.
  ///   - templates: the numbers of the templates.
  /// - Throws: `ModelSourceError.prompts` where the tokenizer has too few of the words, or where
  ///   there are fewer different prompts; `ModelError.noTokenizer`.
  /// - Precondition: `count` is positive; the templates exist, at least one, none twice.
  public static func pronoun(
    model: GPT2, count: Int, seed: UInt64 = 0,
    templates: [Int] = Array(1...pronounTemplateCount)
  ) throws -> PromptSet {
    precondition(count > 0, "pronoun: count \(count)")
    precondition(
      !templates.isEmpty && templates.allSatisfy((1...pronounTemplateCount).contains)
        && Set(templates).count == templates.count,
      "pronoun: templates \(templates) of 1...\(pronounTemplateCount)")
    var words = try PromptWords("pronoun", model)
    _ = try words.single("he she", "pronouns", atLeast: 2)
    let names = [
      try words.single(
        "John David Mark Paul Ryan Gary Jack Sean Carl Joe", "male names", atLeast: 1),
      try words.single(
        "Mary Lisa Anna Sarah Amy Carol Karen Susan Julie Judy", "female names", atLeast: 1),
    ]
    var random = SeededGenerator(seed: seed)
    let frames = templates.flatMap { number in
      [0, 1].map { (template: pronounTemplates[number - 1], gender: $0) }
    }
    let draws = try words.draw(count, from: frames.map { names[$0.gender].count }, using: &random)
    let prompts = try draws.map { frame, index in
      let (template, gender) = frames[frame]
      func text(_ name: String) -> LabelledText {
        LabelledText(template, labels: ["NAME": ["NAME"]]) { _, _ in name }
      }
      let others = names[1 - gender]
      let clean = text(names[gender][index])
      return PromptText(
        clean: clean.text,
        corrupted: text(others[Int.random(in: others.indices, using: &random)]).text,
        answer: [[" he", " she"][gender]], wrong: [[" she", " he"][gender]],
        positions: try clean.positions(["NAME", "END"], words.tokenizer, kind: "pronoun"))
    }
    return try words.set(
      prompts,
      [
        "gendered pronouns", "templates " + templates.map(String.init).joined(separator: ","),
        "corruption: a name of the other gender", "seed \(seed)",
      ], source: "templates and names of Mathwin et al., 2023", model)
  }

  private static let pronounTemplates = [
    "So [NAME] is a really great friend, isn't", "So [NAME] is such a good cook, isn't",
    "So [NAME] is a very good athlete, isn't", "So [NAME] is a really nice person, isn't",
    "So [NAME] is such a funny person, isn't",
  ]
}
