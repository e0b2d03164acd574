public import HookedGPT2

/// Docstrings (Heimersheim and Janiak, "A circuit for Python docstrings in a 4-layer attention-only
/// transformer"): a Python method's docstring lists its arguments in order, so that ":param" is
/// followed by the next one.
extension PromptSet {
  /// Which argument names the corrupted prompt replaces by random ones.
  public enum DocstringCorruption: String, Sendable, CaseIterable {
    /// Those that the docstring has listed.
    case randomDoc = "random-doc"
    /// The same ones in the definition.
    case randomDef = "random-def"
    /// The answer, in the definition.
    case randomAnswer = "random-answer"
    /// Those listed, in definition and docstring, by different names.
    case randomDefDoc = "random-def-doc"
    /// The answer in the definition, and those listed in the docstring.
    case randomAnswerDoc = "random-answer-doc"
    /// Those listed and the answer, in definition and docstring, by different names.
    case randomRandom = "random-random"
  }

  /// Prompts of docstrings: the answer is the argument to be listed next, the wrong tokens are all
  /// other argument names of both prompts.
  ///
  /// The definition has six arguments, of which the docstring has listed the third and fourth and
  /// is to list the fifth. Labels: `A_def`, `B_def`, `C_def` (the answer) in the definition; `A_doc`,
  /// `B_doc` in the docstring; `END`.
  ///
  /// - Parameters:
  ///   - model: the model whose tokenizer must have every name and word as one token; those that it
  ///     has not are left out.
  ///   - count: how many prompts, all different.
  ///   - seed: what determines the prompts.
  ///   - corruption: which argument names the corrupted prompt replaces.
  /// - Throws: `ModelSourceError.prompts` where the tokenizer has too few of the words;
  ///   `ModelError.noTokenizer`.
  /// - Precondition: `count` is positive.
  public static func docstring(
    model: GPT2, count: Int, seed: UInt64 = 0, corruption: DocstringCorruption = .randomRandom
  ) throws -> PromptSet {
    precondition(count > 0, "docstring: count \(count)")
    var words = try PromptWords("docstring", model)
    // Method, six arguments, and eight to replace some of them: the prompts never run out.
    var names = try words.single(docstringNames, "argument names", atLeast: 15)
    var nouns = try words.single(docstringWords, "description words", atLeast: 7)

    var random = SeededGenerator(seed: seed)
    var seen: Set<String> = []
    var prompts: [PromptText] = []
    while prompts.count < count {
      names.shuffle(using: &random)
      nouns.shuffle(using: &random)
      let (method, arguments) = (names[0], Array(names[1...6]))
      let answer = arguments[4]
      let listed = Array(arguments[2...3])
      // Other names for the two listed in either place, and for the answer.
      let (otherDef, otherDoc, otherAnswer) = (Array(names[7...8]), Array(names[9...10]), names[11])
      let (definition, docstring) =
        switch corruption {
        case .randomDoc: (listed + [answer], otherDoc)
        case .randomDef: (otherDef + [answer], listed)
        case .randomAnswer: (listed + [otherAnswer], listed)
        case .randomDefDoc: (otherDef + [answer], otherDoc)
        case .randomAnswerDoc: (listed + [otherAnswer], otherDoc)
        case .randomRandom: (otherDef + [otherAnswer], otherDoc)
        }
      let all = arguments[...1] + definition + arguments[5...]
      let clean = docstringText(method, arguments, listed, nouns)
      let corrupted = docstringText(method, Array(all), docstring, nouns)
      guard seen.insert(clean.text).inserted else { continue }
      var wrong: [String] = []
      for name in arguments + all + docstring where name != answer && !wrong.contains(name) {
        wrong.append(name)
      }
      prompts.append(
        PromptText(
          clean: clean.text, corrupted: corrupted.text, answer: [" " + answer],
          wrong: wrong.map { " " + $0 },
          positions: try clean.positions(
            ["A_def", "B_def", "C_def", "A_doc", "B_doc", "END"], words.tokenizer,
            kind: "docstring")))
    }
    return try words.set(
      prompts, ["Python docstrings", "corruption \(corruption.rawValue)", "seed \(seed)"],
      source: "template of Heimersheim and Janiak, 2023", model)
  }

  /// A method's head and the beginning of its docstring.
  private static func docstringText(
    _ method: String, _ arguments: [String], _ listed: [String], _ words: [String]
  ) -> LabelledText {
    LabelledText(
      """

      def [METHOD](self, [ARG], [ARG], [ARG], [ARG], [ARG], [ARG]):
          \"""[WORD] [WORD] [WORD]

          :param [LISTED]: [WORD] [WORD]
          :param [LISTED]: [WORD] [WORD]
          :param
      """,
      labels: ["ARG": ["", "", "A_def", "B_def", "C_def"], "LISTED": ["A_doc", "B_doc"]]
    ) { slot, occurrence in
      switch slot {
      case "ARG": arguments[occurrence]
      case "LISTED": listed[occurrence]
      case "WORD": words[occurrence]
      default: method
      }
    }
  }

  private static let docstringNames = """
    data name file value test new result line user key default request path output node item url model \
    response text version function log string field start number values sub index error current context \
    image message check create size event state row parser end query label target array code table \
    source first status group content last command base format color order count match tag title parent \
    call session token server host date mode page option task shape load
    """
  private static let docstringWords = """
    price control cost issue process position course minute education research subject age force matter \
    health street patient class mind church condition paper bank century section activity building \
    sense staff team student language town plan morning committee product practice evidence ground \
    letter game food union role land art support range stage trade voice arm club history account \
    material care manager record example window air light quality rule story tax worker nature hospital \
    method unit detail wall computer amount president chapter property director leader
    """
}
