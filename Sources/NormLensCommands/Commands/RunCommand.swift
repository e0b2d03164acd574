import ArgumentParser
import NormLens

/// `normlens run`: what comes next.
struct RunCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "run", abstract: "Show what the model predicts; generate; intervene.",
    discussion: """
      With --answer the report is TransformerLens' test_prompt; a leading space is added to the \
      answer unless it has one, and an answer may have several tokens. Several --answer are \
      compared by their first tokens.
      """)

  @OptionGroup var model: ModelOptions
  @Argument(help: "The text.") var texts: [String] = []
  @OptionGroup var prompts: PromptOptions
  @Option(help: "What should come next; may be repeated.") var answer: [String] = []
  @Option(help: "How many predictions to list.") var top = 10
  @Option(help: ArgumentHelp("Continue the text by up to this many tokens.", valueName: "n"))
  var generate: Int?
  @Option(help: "Divides the logits when generating; 0 takes the most likely token.")
  var temperature = 0.0
  @Option(name: .customLong("top-k"), help: "Generate from the k most likely tokens only.")
  var topK: Int?
  @Option(help: "Where chance begins.") var seed: UInt64 = 0
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
    if !(temperature >= 0 && temperature.isFinite) {
      throw ValidationError("--temperature \(temperature): expected 0 or more")
    }
    if topK != nil && temperature == 0 {
      throw ValidationError("--top-k needs --temperature above 0: greedy choice uses one token")
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
    try output.check()
    let model = try model.load()
    let prompts = try prompts.load(model, extra: texts)
    if logits { try writeLogits(model, prompts) }
    if output.quiet { return }
    for (index, prompt) in prompts.enumerated() {
      if index > 0 && !output.json { Terminal.print("") }
      let changes = try self.changes(model, prompt)
      if let generate {
        try continueText(model, prompt, generate, changes)
      } else if answer.isEmpty {
        try printNext(model, prompt, changes)
      } else {
        try printTest(model, prompt, changes)
      }
    }
    if let file = output.output, !output.json { Terminal.print("wrote \(file)") }
  }

  /// The interventions on a prompt; a frozen scale is that of the prompt's own unchanged run.
  private func changes(_ model: GPT2, _ prompt: Prompt) throws -> [Intervention] {
    let asked = try interventions.interventions(model)
    guard freezeLN else { return asked }
    let (_, cache) = try model.runWithCache(
      batch: [prompt.tokens], hooks: [.ln1Scale(.all), .ln2Scale(.all), .lnFinalScale],
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

  private func printNext(_ model: GPT2, _ prompt: Prompt, _ changes: [Intervention]) throws {
    let logits = try model.run(batch: [prompt.tokens], logits: .last, interventions: changes)[0]
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

  private func printTest(_ model: GPT2, _ prompt: Prompt, _ changes: [Intervention]) throws {
    let tokenizer = try model.tokenizer
    let answers = try answer.map { text in
      let ids = tokenizer.encode(text.hasPrefix(" ") ? text : " " + text)
      if ids.isEmpty { throw CommandError("--answer '\(text)': no tokens") }
      return ids
    }
    let several = answers.count > 1
    // One answer is read token by token, each after the one before.
    let forced = several ? [] : Array(answers[0].dropLast())
    let first = prompt.tokens.count - 1
    let positions = (0...forced.count).map { first + $0 }
    let logits = try model.run(
      batch: [prompt.tokens + forced], logits: .at(.at(positions)), interventions: changes)[0]
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
    _ model: GPT2, _ prompt: Prompt, _ count: Int, _ changes: [Intervention]
  ) throws {
    var random = SeededGenerator(seed: seed)
    let tokenizer = try? model.tokenizer
    let new = try model.generate(
      prompt.tokens, count: count, sampling: Sampling(temperature: temperature, topK: topK),
      stop: tokenizer?.eos, interventions: changes, using: &random)
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
      interventions: { try changes(model, $0) },
      progress: { progress.update($0) })
  }
}
