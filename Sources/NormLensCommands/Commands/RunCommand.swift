import ArgumentParser
import NormLens

/// `normlens run`: what comes next.
struct RunCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "run", abstract: "Show what the model predicts; generate; intervene.",
    discussion: """
      With --answer the report is TransformerLens' test_prompt; a leading space is added to the \
      answer unless it has one, and an answer may have several tokens. Several --answer are \
      compared by their first tokens. Prompts from a file are tested with the file's answers.

      Interventions act in the order zero, mean, edit. Their positions are the prompt's, also while \
      an answer is read or text is generated.
      """)

  @OptionGroup var model: ModelOptions
  @Argument(help: "The text.") var texts: [String] = []
  @OptionGroup var prompts: PromptOptions
  @Option(parsing: .unconditionalSingleValue, help: "What should come next; may be repeated.")
  var answer: [String] = []
  @Option(help: "How many predictions to list.") var top = 10
  @Option(help: ArgumentHelp("Continue the text by up to this many tokens.", valueName: "n"))
  var generate: Int?
  @Option(help: "Divides the logits when generating; 0, the default, takes the likeliest token.")
  var temperature: Double?
  @Option(name: .customLong("top-k"), help: "Generate from the k most likely tokens only.")
  var topK: Int?
  @Option(help: "Where chance begins when generating; 0 by default.") var seed: UInt64?
  @Flag(help: "Write the logits of every position to -o.") var logits = false
  @OptionGroup var interventions: InterventionOptions
  @Flag(
    name: .customLong("freeze-ln"),
    help: "Keep every LayerNorm's scale at what it is without the other interventions.")
  var freezeLN = false
  @OptionGroup var memory: MemoryOptions
  @OptionGroup var output: OutputOptions

  func validate() throws {
    if top < 1 { throw ValidationError("--top \(top): expected 1 or more") }
    if let generate, generate < 1 {
      throw ValidationError("--generate \(generate): expected 1 or more")
    }
    if let topK, topK < 1 { throw ValidationError("--top-k \(topK): expected 1 or more") }
    if let temperature, !(temperature >= 0 && temperature.isFinite) {
      throw ValidationError("--temperature \(temperature): expected 0 or more")
    }
    if generate == nil && (temperature != nil || topK != nil || seed != nil) {
      throw ValidationError("--temperature, --top-k and --seed are for --generate")
    }
    if temperature ?? 0 == 0 && (topK != nil || seed != nil) {
      throw ValidationError(
        "--top-k and --seed need --temperature above 0: the likeliest token leaves nothing to chance"
      )
    }
    if output.quiet && output.output == nil {
      throw ValidationError("--quiet without --logits -o FILE.h5 would do nothing")
    }
    if !interventions.mean.isEmpty && generate != nil {
      throw ValidationError("--mean needs a text of fixed length; it excludes --generate")
    }
    if logits && output.output == nil { throw ValidationError("--logits needs -o FILE.h5") }
    if !logits && output.output != nil {
      throw ValidationError("-o writes logits: add --logits, or use `cache` for activations")
    }
    if freezeLN && interventions.isEmpty {
      throw ValidationError("--freeze-ln changes nothing without --zero, --mean or --edit")
    }
    if freezeLN && generate != nil {
      throw ValidationError("--freeze-ln needs a text of fixed length; it excludes --generate")
    }
    if generate != nil && !answer.isEmpty {
      throw ValidationError("--generate and --answer exclude each other")
    }
  }

  func run() throws {
    try output.check(inputs: model.inputs + prompts.inputs)
    let model = try model.load()
    let prompts = try prompts.load(
      model, extra: texts, answered: !answer.isEmpty, quiet: output.quiet)
    if logits { try writeLogits(model, prompts) }
    if output.quiet { return }
    for (index, prompt) in prompts.enumerated() {
      if index > 0 && !output.json { Terminal.print("") }
      if let generate {
        try continueText(model, prompt, generate)
      } else if let answers = try answers(model, prompt) {
        try printTest(model, prompt, answers)
      } else {
        try printNext(model, prompt)
      }
    }
    if let file = output.output, !output.json { Terminal.print("wrote \(file)") }
  }

  /// The interventions on a prompt, with its own positions, in a run of the prompt and `more` tokens
  /// behind it; a frozen scale is that of the same run without the others.
  private func changes(
    _ model: GPT2, _ prompt: Prompt, more: [Int] = []
  ) throws -> [Intervention] {
    let asked = try interventions.interventions(model).map {
      try $0.positioned(inTextOf: prompt.tokens.count)
    }
    guard freezeLN else { return asked }
    let (_, cache) = try model.runWithCache(
      batch: [prompt.tokens + more], hooks: [.ln1Scale(.all), .ln2Scale(.all), .lnFinalScale],
      logits: .none)
    return try Intervention.freezeLayerNorm(cache) + asked
  }

  // MARK: predictions

  private func piece(_ model: GPT2, _ id: Int) throws -> String {
    do {
      return try model.tokenizer.piece(id)
    } catch ModelError.noTokenizer {
      return String(id)
    }
  }

  private func line(_ model: GPT2, _ logits: Tensor, _ token: Int) throws -> PromptTest.Line {
    let row = logits.reshaped([1, logits.count])
    let statistics = rowStatistics(row, target: token)[0]
    return PromptTest.Line(
      rank: statistics.targetRank, logit: statistics.targetLogit,
      probability: statistics.targetProbability, token: shown(try piece(model, token)))
  }

  private func topLines(_ model: GPT2, _ logits: Tensor) throws -> [(Int, PromptTest.Line)] {
    try logits.topIndices(top).map { ($0, try line(model, logits, $0)) }
  }

  private func printNext(_ model: GPT2, _ prompt: Prompt) throws {
    let logits = try model.run(
      batch: [prompt.tokens], logits: .last, interventions: changes(model, prompt))[0]
    guard logits.isFinite else { throw ModelError.nonFinite(what: "the logits") }
    let pieces = try prompt.tokens.map { try piece(model, $0) }
    let lines = try topLines(model, logits)
    if output.json {
      let top = lines.map { id, line in
        JSONText.object([
          ("token", JSONText.quoted(line.token)), ("id", "\(id)"),
          ("logit", JSONText.number(line.logit)), ("prob", JSONText.number(line.probability)),
        ])
      }
      Terminal.print(
        JSONText.object([
          ("tokens", JSONText.list(pieces.map(JSONText.quoted))),
          ("ids", JSONText.list(prompt.tokens.map(String.init))), ("top", JSONText.list(top)),
        ]))
      return
    }
    let test = PromptTest(prompt: pieces, answers: [], steps: [])
    Terminal.print(test.promptLine)
    for (index, (_, line)) in lines.enumerated() {
      Terminal.print(PromptTest.topLine(index, line))
    }
  }

  /// The tokens of each answer to a prompt: those of --answer, else of the prompts file.
  private func answers(_ model: GPT2, _ prompt: Prompt) throws -> [[Int]]? {
    if answer.isEmpty { return prompt.answer.map { [[$0]] } }
    let tokenizer = try model.tokenizer
    return try answer.map { text in
      let ids = tokenizer.encode(text.hasPrefix(" ") ? text : " " + text)
      if ids.isEmpty { throw CommandError("--answer '\(text)': no tokens") }
      return ids
    }
  }

  private func printTest(_ model: GPT2, _ prompt: Prompt, _ answers: [[Int]]) throws {
    let several = answers.count > 1
    // One answer is read token by token, each after the one before.
    let forced = several ? [] : Array(answers[0].dropLast())
    if !forced.isEmpty && !interventions.mean.isEmpty {
      throw CommandError(
        "--mean with an answer of several tokens: the mean would be taken over the answer, too")
    }
    let first = prompt.tokens.count - 1
    let positions = (0...forced.count).map { first + $0 }
    let logits = try model.run(
      batch: [prompt.tokens + forced], logits: .at(.at(positions)),
      interventions: changes(model, prompt, more: forced))[0]
    guard logits.isFinite else { throw ModelError.nonFinite(what: "the logits") }
    let steps = try positions.indices.map { step in
      let row = logits.rows(step..<step + 1)
      let expected = several ? answers.map { $0[0] } : [answers[0][step]]
      return PromptTest.Step(
        answers: try expected.map { try line(model, row, $0) },
        top: try topLines(model, row.reshaped([row.count])).map(\.1))
    }
    let test = PromptTest(
      prompt: try prompt.tokens.map { try piece(model, $0) },
      answers: try answers.map { try $0.map { try piece(model, $0) } }, steps: steps)
    Terminal.print(output.json ? json(test) : test.text(bold: Terminal.isInteractive))
  }

  private func json(_ test: PromptTest) -> String {
    func object(_ line: PromptTest.Line) -> String {
      JSONText.object([
        ("token", JSONText.quoted(line.token)), ("rank", "\(line.rank)"),
        ("logit", JSONText.number(line.logit)), ("prob", JSONText.number(line.probability)),
      ])
    }
    return JSONText.object([
      ("tokens", JSONText.list(test.prompt.map(JSONText.quoted))),
      (
        "steps",
        JSONText.list(
          test.steps.map { step in
            JSONText.object([
              ("answers", JSONText.list(step.answers.map(object))),
              ("top", JSONText.list(step.top.map(object))),
            ])
          })
      ),
    ])
  }

  // MARK: generation

  private func continueText(
    _ model: GPT2, _ prompt: Prompt, _ count: Int
  ) throws {
    var random = SeededGenerator(seed: seed ?? 0)
    let tokenizer = try? model.tokenizer
    let new = try model.generate(
      prompt.tokens, count: count, sampling: Sampling(temperature: temperature ?? 0, topK: topK),
      stop: tokenizer?.eos, interventions: changes(model, prompt), using: &random)
    // BOS is not part of the text.
    let start = prompt.tokens.first == tokenizer?.bos ? 1 : 0
    let all = Array(prompt.tokens[start...] + new)
    if output.json {
      var members = [("ids", JSONText.list((prompt.tokens + new).map(String.init)))]
      if let tokenizer { members.append(("text", JSONText.quoted(try tokenizer.decode(all)))) }
      Terminal.print(JSONText.object(members))
    } else if let tokenizer {
      Terminal.print(try tokenizer.decode(all))
    } else {
      Terminal.print(all.map(String.init).joined(separator: ","))
    }
  }

  // MARK: logits

  private func writeLogits(_ model: GPT2, _ prompts: [Prompt]) throws {
    guard let file = output.output else { return }
    let longest = prompts.map(\.tokens.count).max() ?? 1
    _ = try memory.batch(1, each: 4 * longest * model.config.dVocab, quiet: output.quiet)
    var progress = Progress("logits", total: prompts.count, quiet: output.quiet)
    try LogitFile.write(
      model, prompts, to: file,
      provenance: runProvenance(prependBOS: self.prompts.provenanceBOS(model, extra: texts)),
      interventions: { try self.changes(model, $0) },
      progress: { progress.update($0) })
  }
}
