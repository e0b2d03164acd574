import ArgumentParser
import Foundation
import NormLens

/// `normlens prompts`: prompt sets for patching, checked against a model's tokenizer.
struct PromptsCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "prompts", abstract: "Write a set of prompt pairs that fits a model's tokenizer.",
    discussion: """
      Kinds: ioi (indirect objects), greater-than (years), pronoun (he or she), agreement (subject and \
      verb), docstring (Python arguments), induction (random words, twice). Every word is one token of \
      the model, clean and corrupted prompts have as many tokens, and no prompt occurs twice.
      """)

  /// What the prompts ask.
  enum Kind: String, CaseIterable {
    case ioi
    case greaterThan = "greater-than"
    case pronoun
    case agreement
    case docstring
    case induction
  }

  @Argument(help: "ioi, greater-than, pronoun, agreement, docstring or induction.")
  var kind: String
  @OptionGroup var model: ModelOptions
  @Option(
    name: [.customShort("n"), .customLong("count")],
    help: ArgumentHelp("How many prompts.", valueName: "n"))
  var count: Int
  @Option(help: "What determines the prompts.") var seed: UInt64 = 0
  @Option(
    help: ArgumentHelp(
      "ioi (1 to \(PromptSet.ioiTemplateCount)), pronoun (1 to \(PromptSet.pronounTemplateCount)): "
        + "the templates; all by default.", valueName: "1,2,…"))
  var templates: String?
  @Option(
    help: ArgumentHelp(
      "ioi: abba (the indirect object first), baba or both, the default.", valueName: "order"))
  var order: String?
  @Option(
    help: ArgumentHelp(
      "ioi: \(Self.list(PromptSet.IOICorruption.self)) (the default is s2-io). docstring: "
        + "\(Self.list(PromptSet.DocstringCorruption.self)) (random-random). induction, copies of "
        + "A, A: \(Self.list(PromptSet.InductionCorruption.self)) (ab).",
      valueName: "kind"))
  var corruption: String?
  @Flag(help: "ioi: prompts in fours, both orders with either name as the subject.")
  var groups = false
  @Option(
    help: ArgumentHelp(
      "agreement: \(Self.list(PromptSet.AgreementStructure.self)), comma-separated; all by default.",
      valueName: "list"))
  var structure: String?
  @Option(help: ArgumentHelp("induction: tokens to be repeated; 20 by default.", valueName: "n"))
  var length: Int?
  @Option(
    help: ArgumentHelp(
      "induction: the words to draw from, comma-separated; all of the tokenizer's by default.",
      valueName: "list"))
  var words: String?
  @Option(
    name: .shortAndLong,
    help: ArgumentHelp("Write the prompts to this file (JSON).", valueName: "file.json"),
    completion: .file())
  var output: String?
  @Flag(help: "Print the file's JSON instead of a summary.") var json = false
  @Flag(help: "Print nothing but errors.") var quiet = false

  func validate() throws {
    if !(1...100_000).contains(count) {
      throw ValidationError("-n \(count): expected 1 to 100000 prompts")
    }
    if groups && count % 4 != 0 {
      throw ValidationError(
        "-n \(count): --groups makes prompts in fours; expected a multiple of 4")
    }
    if groups && order != nil {
      throw ValidationError("--order: --groups has both orders; leave one of the two out")
    }
    if let length, !(3...1024).contains(length) {
      throw ValidationError("--length \(length): expected 3 to 1024 tokens")
    }
  }

  func run() throws {
    let kind = try Self.choice(kind, of: Kind.self, "kind of prompts")
    try checkOptions(kind)
    let make = try generator(kind)
    var destination = OutputOptions()
    destination.output = output
    try destination.check(inputs: model.inputs)
    let model = try model.load()
    let set: PromptSet
    do {
      set = try make(model)
    } catch ModelError.noTokenizer {
      throw CommandError(
        "prompts \(kind.rawValue): '\(model.identity.name)' has no tokenizer, and prompts are text; "
          + "take a model with one", status: .data)
    }
    if let output { try set.write(to: output) }
    if quiet { return }
    if json {
      Terminal.print(String(set.json.dropLast()))
      return
    }
    Terminal.print(try summary(set, model, kind))
    if let output { Terminal.print("wrote \(output)") }
  }

  /// The prompts of a kind as the options say; a closure, so that they are checked before the model
  /// is opened.
  private func generator(_ kind: Kind) throws -> (GPT2) throws -> PromptSet {
    switch kind {
    case .ioi:
      let templates = try templates(upTo: PromptSet.ioiTemplateCount)
      let orders =
        order == nil || order == "both"
        ? PromptSet.IOIOrder.allCases
        : [try Self.choice(order, of: PromptSet.IOIOrder.self, "--order", also: ["both"])]
      let corruption = try Self.choice(
        corruption ?? "s2-io", of: PromptSet.IOICorruption.self, "--corruption")
      return {
        try .ioi(
          model: $0, count: count, seed: seed, templates: templates, orders: orders,
          corruption: corruption, inGroups: groups)
      }
    case .greaterThan: return { try .greaterThan(model: $0, count: count, seed: seed) }
    case .pronoun:
      let templates = try templates(upTo: PromptSet.pronounTemplateCount)
      return { try .pronoun(model: $0, count: count, seed: seed, templates: templates) }
    case .agreement:
      let structures = try structure.map { list in
        try Self.words(list, "--structure").map {
          try Self.choice($0, of: PromptSet.AgreementStructure.self, "--structure")
        }
      }
      return {
        try .agreement(
          model: $0, count: count, seed: seed,
          structures: structures ?? PromptSet.AgreementStructure.allCases)
      }
    case .docstring:
      let corruption = try Self.choice(
        corruption ?? "random-random", of: PromptSet.DocstringCorruption.self, "--corruption")
      return { try .docstring(model: $0, count: count, seed: seed, corruption: corruption) }
    case .induction:
      let corruption = try Self.choice(
        corruption ?? "ab", of: PromptSet.InductionCorruption.self, "--corruption")
      let words = try words.map { try Self.words($0, "--words") }
      return {
        try .induction(
          model: $0, count: count, seed: seed, length: length ?? 20, corruption: corruption,
          words: words)
      }
    }
  }

  /// Fails where an option belongs to other kinds.
  private func checkOptions(_ kind: Kind) throws(CommandError) {
    let options: [(name: String, isGiven: Bool, kinds: [Kind])] = [
      ("--templates", templates != nil, [.ioi, .pronoun]), ("--order", order != nil, [.ioi]),
      ("--corruption", corruption != nil, [.ioi, .docstring, .induction]),
      ("--groups", groups, [.ioi]), ("--structure", structure != nil, [.agreement]),
      ("--length", length != nil, [.induction]), ("--words", words != nil, [.induction]),
    ]
    for option in options where option.isGiven && !option.kinds.contains(kind) {
      let kinds = option.kinds.map(\.rawValue).joined(separator: ", ")
      throw CommandError("\(option.name) belongs to \(kinds), not to \(kind.rawValue)")
    }
  }

  /// The template numbers of `--templates 1,2,5`.
  private func templates(upTo last: Int) throws(CommandError) -> [Int] {
    guard let templates, templates != "all" else { return Array(1...last) }
    var numbers: [Int] = []
    for word in try Self.words(templates, "--templates") {
      guard let number = Int(word), (1...last).contains(number), !numbers.contains(number) else {
        throw CommandError(
          "--templates '\(templates)': '\(word)'; expected different numbers from 1 to \(last), "
            + "or all")
      }
      numbers.append(number)
    }
    return numbers
  }

  /// The parts of a list with commas, each once.
  private static func words(_ list: String, _ option: String) throws(CommandError) -> [String] {
    var words: [String] = []
    for part in list.split(separator: ",", omittingEmptySubsequences: false) {
      let word = part.trimmingCharacters(in: .whitespaces)
      if word.isEmpty || words.contains(word) {
        throw CommandError(
          "\(option) '\(list)': expected words with a comma between, each once; found "
            + (word.isEmpty ? "an empty one" : "'\(word)' again"))
      }
      words.append(word)
    }
    return words
  }

  /// The case that a word names, or an error with all of them and the nearest.
  private static func choice<Choice: RawRepresentable & CaseIterable>(
    _ word: String?, of type: Choice.Type, _ what: String, also: [String] = []
  ) throws(CommandError) -> Choice where Choice.RawValue == String {
    let word = word ?? ""
    if let choice = Choice(rawValue: word) { return choice }
    let names = Choice.allCases.map(\.rawValue) + also
    let near = nearestText(to: word, among: names).map { "; did you mean '\($0)'?" }
    throw CommandError(
      "\(what) '\(word)': expected \(names.joined(separator: ", "))\(near ?? "")")
  }

  private static func list<Choice: RawRepresentable & CaseIterable>(
    _ type: Choice.Type
  ) -> String where Choice.RawValue == String {
    Choice.allCases.map(\.rawValue).joined(separator: ", ")
  }

  // MARK: summary

  /// What the set is, its first prompts, and how many the model gets right.
  private func summary(_ set: PromptSet, _ model: GPT2, _ kind: Kind) throws -> String {
    let pairs = try set.pairs(model)
    let lengths = Set(pairs.map(\.length)).sorted()
    let tokens = lengths.count == 1 ? "\(lengths[0])" : "\(lengths[0]) to \(lengths.last ?? 0)"
    var parts = [
      "\(pairs.count) prompts of \(tokens) tokens: \(set.description ?? set.name)"
    ]
    for (index, prompt) in set.prompts.prefix(2).enumerated() {
      func tokens(_ list: [String]) -> String {
        list.prefix(3).map { "|\(shown($0))|" }.joined(separator: " ")
          + (list.count > 3 ? " …" : "")
      }
      let labels = prompt.positions.map { "\($0.key) \($0.value.pos) |\(shown($0.value.token))|" }
      parts.append(
        """
        prompt \(index)
          clean      \(shown(prompt.clean))
          corrupted  \(shown(prompt.corrupted ?? ""))
          answer     \(tokens(prompt.answer)), wrong \(tokens(prompt.wrong))
          positions  \(labels.joined(separator: ", "))
        """)
    }
    let metric = kind == .greaterThan ? Metric.groupDifference : .logitDifference
    var progress = Progress("prompts", total: 2 * pairs.count, quiet: quiet)
    let clean = try values(metric, pairs, \.clean, model) { progress.update($0) }
    let corrupted = try values(metric, pairs, \.corrupted, model) {
      progress.update(pairs.count + $0)
    }
    func mean(_ values: [Double]) -> String {
      fixed(values.reduce(0, +) / Double(values.count), 3, signed: true)
    }
    let right = clean.filter { $0 > 0 }.count
    parts.append(
      "\(metric.name), mean: clean \(mean(clean)), corrupted \(mean(corrupted)); "
        + "\(model.identity.name) gets \(right) of \(pairs.count) clean prompts right")
    return parts.joined(separator: "\n\n")
  }

  /// The metric of each clean or corrupted prompt, computed in batches.
  private func values(
    _ metric: Metric, _ pairs: [PromptPair], _ tokens: KeyPath<PromptPair, [Int]>, _ model: GPT2,
    _ progress: (Int) -> Void
  ) throws -> [Double] {
    var values: [Double] = []
    for start in stride(from: 0, to: pairs.count, by: 32) {
      let batch = pairs[start..<Swift.min(start + 32, pairs.count)]
      let logits = try model.run(batch: batch.map { $0[keyPath: tokens] }, logits: .last)
      for (pair, row) in zip(batch, logits) {
        let row = row.row(0)
        let value = try metric(AnswerLogits(row, pair, clean: row))
        if !value.isFinite {
          throw AnalysisError.nonFinite(
            analysis: "prompts", what: "\(metric.name) of prompt \(values.count)")
        }
        values.append(value)
      }
      progress(values.count)
    }
    return values
  }
}
