import Foundation
import NormLens
import TestSupport
import Testing

/// Prompt sets: generators, the file, and pairs of token ids.
@Suite struct PromptSetTests {
  private func mini() throws -> GPT2 { try GPT2.load(Fixtures.bundled("mini")) }

  /// What must hold of every generated set: `count` different prompts, whose pairs the model's
  /// tokenizer makes without a complaint, and whose labels name the clean text's tokens.
  private func check(
    _ set: PromptSet, count: Int, labels: [String], _ model: GPT2,
    sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    #expect(set.prompts.count == count, sourceLocation: sourceLocation)
    let different = Set(set.prompts.map { "\($0.clean)|\($0.answer)" })
    #expect(different.count == count, sourceLocation: sourceLocation)
    let pairs = try set.pairs(model)
    for (prompt, pair) in zip(set.prompts, pairs) {
      #expect(pair.clean.count == pair.corrupted.count, sourceLocation: sourceLocation)
      #expect(pair.clean != pair.corrupted, sourceLocation: sourceLocation)
      #expect(Array(prompt.positions.keys) == labels, sourceLocation: sourceLocation)
      for (label, position) in pair.positions {
        let token = try model.tokenizer.piece(pair.clean[position])
        #expect(token == prompt.positions[label]?.token, sourceLocation: sourceLocation)
      }
      #expect(pair.positions["END"] == pair.length - 1, sourceLocation: sourceLocation)
    }
  }

  /// The token at a label of a prompt.
  private func token(_ prompt: PromptText, _ label: String) -> String {
    prompt.positions[label]?.token ?? "no \(label)"
  }

  // MARK: indirect objects

  static let ioiLabels = ["IO", "S1", "S1+1", "S2", "END"]

  @Test(arguments: PromptSet.IOICorruption.allCases)
  func ioi(_ corruption: PromptSet.IOICorruption) throws {
    let model = try mini()
    let set = try PromptSet.ioi(model: model, count: 60, seed: 3, corruption: corruption)
    try check(set, count: 60, labels: Self.ioiLabels, model)
    for (prompt, pair) in zip(set.prompts, try set.pairs(model)) {
      let (io, s) = (prompt.answer[0], prompt.wrong[0])
      #expect(token(prompt, "IO") == io && token(prompt, "S1") == s && token(prompt, "S2") == s)
      let s1 = try #require(pair.positions["S1"])
      let s2 = try #require(pair.positions["S2"])
      let first = try #require(pair.positions["IO"])
      #expect(pair.positions["S1+1"] == s1 + 1 && s2 > max(s1, first))
      let pieces = try pair.corrupted.map { try model.tokenizer.piece($0) }
      let changed = pair.clean.indices.filter { pair.clean[$0] != pair.corrupted[$0] }
      switch corruption {
      case .s2IO: #expect(changed == [s2] && pieces[s2] == io)
      case .s2Random: #expect(changed == [s2] && ![io, s].contains(pieces[s2]))
      case .abc:
        #expect(changed == [first, s1, s2].sorted())
        let names = Set([first, s1, s2].map { pieces[$0] })
        #expect(names.count == 3 && names.isDisjoint(with: [io, s]))
      case .ioS1: #expect(changed == [first, s1].sorted() && pieces[s1] == io)
      }
    }
  }

  @Test func ioiOrdersAndTemplates() throws {
    let model = try mini()
    for order in PromptSet.IOIOrder.allCases {
      let set = try PromptSet.ioi(model: model, count: 30, templates: [1, 14], orders: [order])
      try check(set, count: 30, labels: Self.ioiLabels, model)
      for prompt in set.prompts {
        let positions = prompt.positions.mapValues(\.pos)
        let isABBA = try #require(positions["IO"]) < #require(positions["S1"])
        #expect(isABBA == (order == .abba))
      }
      // The templates in turn.
      #expect(set.prompts.filter { $0.clean.hasPrefix("Then,") }.count == 15)
      #expect(set.prompts.filter { $0.clean.hasPrefix("The ") }.count == 15)
    }
    // A template without place and object, as often as there are pairs of names: 55 of them.
    let all = try PromptSet.ioi(model: model, count: 55 * 54, templates: [5], orders: [.abba])
    try check(all, count: 55 * 54, labels: Self.ioiLabels, model)
    #expect(throws: ModelSourceError.self) {
      try PromptSet.ioi(model: model, count: 55 * 54 + 1, templates: [5], orders: [.abba])
    }
  }

  /// In groups of four, each order with either name as the subject; the S2 → IO corruption of one
  /// member is the clean text of another.
  @Test func ioiGroups() throws {
    let model = try mini()
    let set = try PromptSet.ioi(model: model, count: 40, seed: 5, inGroups: true)
    try check(set, count: 40, labels: Self.ioiLabels, model)
    for start in stride(from: 0, to: 40, by: 4) {
      let group = set.prompts[start..<start + 4]
      #expect(Set(group.map(\.answer)).count == 2)
      #expect(Set(group.map(\.clean)) == Set(group.compactMap(\.corrupted)))
      let firstNames = group.map { prompt in
        let first = prompt.positions["IO"]?.pos ?? 0 < prompt.positions["S1"]?.pos ?? 0
        return token(prompt, first ? "IO" : "S1")
      }
      #expect(Set(firstNames).count == 2)
    }
  }

  // MARK: the other kinds

  @Test func pronouns() throws {
    let model = try mini()
    // 6 of the male and 9 of the female names are tokens of mini, in 5 templates.
    let set = try PromptSet.pronoun(model: model, count: 75, seed: 2)
    try check(set, count: 75, labels: ["NAME", "END"], model)
    #expect(set.prompts.filter { $0.answer == [" he"] && $0.wrong == [" she"] }.count == 30)
    #expect(set.prompts.filter { $0.answer == [" she"] && $0.wrong == [" he"] }.count == 45)
    let names = Dictionary(grouping: set.prompts) { token($0, "NAME") }
    for (name, prompts) in names {
      #expect(Set(prompts.map(\.answer)).count == 1, "\(name)")
      for prompt in prompts {
        let others = names.filter { $0.value[0].answer != prompt.answer }.map(\.key)
        let corrupted = try #require(prompt.corrupted)
        #expect(others.contains { corrupted == prompt.clean.replacing(name, with: $0) })
      }
    }
    #expect(throws: ModelSourceError.self) { try PromptSet.pronoun(model: model, count: 76) }
    let one = try PromptSet.pronoun(model: model, count: 4, templates: [3])
    #expect(one.prompts.allSatisfy { $0.clean.hasSuffix("is a very good athlete, isn't") })
    // Small sets have both genders.
    #expect(Set(one.prompts.map(\.answer)).count == 2)
  }

  @Test(arguments: PromptSet.InductionCorruption.allCases)
  func induction(_ corruption: PromptSet.InductionCorruption) throws {
    let model = try mini()
    let set = try PromptSet.induction(
      model: model, count: 30, seed: 7, length: 9, corruption: corruption)
    try check(set, count: 30, labels: ["A1", "A1+1", "A2", "END"], model)
    for (prompt, pair) in zip(set.prompts, try set.pairs(model)) {
      // BOS, A, and A without its last token.
      let (clean, other) = (Array(pair.clean.dropFirst()), Array(pair.corrupted.dropFirst()))
      let a = Array(clean[..<9])
      #expect(clean.count == 17 && clean[9...].elementsEqual(a[..<8]) && Set(a).count == 9)
      #expect(pair.answer == [a[8]])
      #expect(a[..<7].contains(pair.wrong[0]))
      #expect(try prompt.positions["A1"].map { try model.tokenizer.singleToken($0.token) } == a[7])
      let (first, second) = (Array(other[..<9]), Array(other[9...]))
      #expect((first == a) == (corruption == .ab))
      #expect((second[...] == a[..<8]) == (corruption == .ba))
      #expect((second[...] == first[..<8]) == (corruption == .bb))
      if corruption != .ab { #expect(Set(first).isDisjoint(with: a)) }
      if corruption != .ba { #expect(Set(second).isDisjoint(with: a)) }
    }
  }

  @Test func inductionOfChosenWords() throws {
    let model = try mini()
    let words = ["ring", "coin", "book", "green", "warm", "quiet"]
    let set = try PromptSet.induction(model: model, count: 120, length: 3, words: words)
    try check(set, count: 120, labels: ["A1", "A1+1", "A2", "END"], model)
    #expect(set.prompts.allSatisfy { words.contains(String($0.answer[0].dropFirst())) })
    // 6·5·4 sequences of three words.
    let errors = [
      problem { try PromptSet.induction(model: model, count: 121, length: 3, words: words) },
      problem { try PromptSet.induction(model: model, count: 1, length: 4, words: words) },
      problem {
        try PromptSet.induction(model: model, count: 1, length: 3, words: words + ["zebra"])
      },
      problem {
        try PromptSet.induction(model: model, count: 1, length: 3, words: words + ["ring"])
      },
      problem { try PromptSet.induction(model: model, count: 1, length: 70) },
    ]
    let parts = [
      "there are 120 different", "need 8 words; there are 6", "' zebra'", "twice", "128",
    ]
    for (error, part) in zip(errors, parts) {
      #expect(error?.contains(part) == true, "\(part): \(error ?? "none")")
      #expect(error?.hasPrefix("induction: ") == true)
    }
  }

  /// mini cuts years into single digits and has few of the words of programs: errors name them.
  @Test func whatMiniCannotHold() throws {
    let model = try mini()
    for (error, parts) in [
      (
        problem { try PromptSet.greaterThan(model: model, count: 1) },
        ["greater-than: ", "'mini'", "00 to 99", "'01'"]
      ),
      (
        problem { try PromptSet.docstring(model: model, count: 1) },
        ["docstring: ", "15 argument names", "found 10 of", "' data'"]
      ),
      (
        problem { try PromptSet.agreement(model: model, count: 1) },
        ["agreement: ", "1 things", "' cats'"]
      ),
    ] {
      for part in parts {
        #expect(error?.contains(part) == true, "\(part): \(error ?? "none")")
      }
    }
  }

  @Test func aSeedDecidesEverything() throws {
    let model = try mini()
    let makers: [(UInt64) throws -> PromptSet] = [
      { try .ioi(model: model, count: 20, seed: $0, corruption: .abc) },
      { try .pronoun(model: model, count: 20, seed: $0) },
      { try .induction(model: model, count: 5, seed: $0) },
    ]
    for make in makers {
      let first = try make(11)
      #expect(try make(11).json == first.json)
      #expect(try make(12).prompts != first.prompts)
    }
  }

  // MARK: GPT-2's own vocabulary

  /// The directory of GPT-2's tokenizer, which is not part of this project.
  static let gpt2Tokenizer: String? = {
    let named = ProcessInfo.processInfo.environment["NORMLENS_GPT2_TOKENIZER"]
    let folder = named ?? "\(Fixtures.repository)/../shared/gpt2-tokenizer"
    return FileManager.default.fileExists(atPath: folder + "/vocab.json") ? folder : nil
  }()

  /// A random model with that tokenizer.
  private func gpt2() throws -> GPT2 {
    let config = try GPT2Config(nLayers: 1, dModel: 8, nHeads: 1, nCtx: 128, dVocab: 50257)
    return try Checkpoint.random(
      config, name: "gpt2", seed: 0, tokenizerDirectory: Self.gpt2Tokenizer
    ).model()
  }

  static let why: Comment =
    "GPT-2's vocabulary is not in the repository: NORMLENS_GPT2_TOKENIZER names its directory"

  @Test(.enabled(if: gpt2Tokenizer != nil, why)) func gpt2IOI() throws {
    let model = try gpt2()
    let first = try PromptSet.ioi(
      model: model, count: 50, templates: [1], orders: [.abba], corruption: .abc)
    try check(first, count: 50, labels: Self.ioiLabels, model)
    for prompt in first.prompts {
      // "Then, Mary and John went to the store. John gave a drink to": 15 tokens without BOS.
      #expect(try model.tokens(prompt.clean, prependBOS: false).count == 15)
      #expect(prompt.positions.values.map(\.pos) == [2, 4, 5, 10, 14])
    }
    for corruption in PromptSet.IOICorruption.allCases {
      let set = try PromptSet.ioi(model: model, count: 300, seed: 1, corruption: corruption)
      try check(set, count: 300, labels: Self.ioiLabels, model)
      #expect(set.description?.contains("99 of 99 names, 8 of 8 places, 8 of 8 objects") == true)
    }
    try check(
      PromptSet.ioi(model: model, count: 80, inGroups: true), count: 80, labels: Self.ioiLabels,
      model)
  }

  @Test(.enabled(if: gpt2Tokenizer != nil, why)) func gpt2GreaterThan() throws {
    let model = try gpt2()
    let set = try PromptSet.greaterThan(model: model, count: 97 * 2, seed: 4)
    try check(set, count: 97 * 2, labels: ["NOUN", "XX", "YY", "END"], model)
    var years: [Int: Int] = [:]
    for (prompt, pair) in zip(set.prompts, try set.pairs(model)) {
      #expect(prompt.positions.values.map(\.pos) == [1, 6, 7, 11])
      let year = try #require(Int(token(prompt, "YY")))
      years[year, default: 0] += 1
      #expect(prompt.wrong.compactMap { Int($0) } == Array(0...year))
      #expect(prompt.answer.compactMap { Int($0) } == Array(year + 1...99))
      // With BOS, token 8 is the year, and "01" is 486.
      let changed = pair.clean.indices.filter { pair.clean[$0] != pair.corrupted[$0] }
      #expect(changed == [8] && pair.corrupted[8] == 486)
      #expect(token(prompt, "XX") == token(prompt, "END"))
    }
    // The years in turn: each year that is two tokens twice.
    #expect(years.values.allSatisfy { $0 <= 3 } && years.count > 90)
    print("greater-than: \(years.count) of 97 years; \(set.description ?? "")")
  }

  @Test(.enabled(if: gpt2Tokenizer != nil, why)) func gpt2Pronoun() throws {
    let model = try gpt2()
    let set = try PromptSet.pronoun(model: model, count: 100)
    try check(set, count: 100, labels: ["NAME", "END"], model)
    for pair in try set.pairs(model) {
      #expect([[339], [673]].contains(pair.answer) && pair.answer != pair.wrong)
      #expect(pair.positions["NAME"] == 2)
    }
  }

  @Test(.enabled(if: gpt2Tokenizer != nil, why)) func gpt2Agreement() throws {
    let model = try gpt2()
    for structure in PromptSet.AgreementStructure.allCases {
      let set = try PromptSet.agreement(
        model: model, count: 120, seed: 6, structures: [structure])
      let labels =
        structure == .simple ? ["SUBJECT", "END"] : ["SUBJECT", "ATTRACTOR", "END"]
      try check(set, count: 120, labels: labels, model)
      for (prompt, pair) in zip(set.prompts, try set.pairs(model)) {
        let subject = try #require(pair.positions["SUBJECT"])
        #expect(pair.clean.indices.filter { pair.clean[$0] != pair.corrupted[$0] } == [subject])
        let plurals = [" are", " have", " do", " go"]
        let noun = token(prompt, "SUBJECT")
        let isPlural = noun.hasSuffix("s") || noun.hasSuffix("men")
        #expect(plurals.contains(prompt.answer[0]) == isPlural, "\(prompt.clean)")
        #expect(plurals.contains(prompt.wrong[0]) != isPlural)
        switch structure {
        case .simple: #expect(pair.length == 3)
        case .nounPP: #expect(pair.length == 6 && subject == 2)
        case .withinRC: #expect(pair.length == 6 && subject == 5)
        case .rc:
          #expect(pair.length == 7 && subject == 2)
          let inner = try model.tokenizer.piece(pair.clean[6])
          #expect(inner.hasSuffix("s") != token(prompt, "ATTRACTOR").hasSuffix("s"))
        }
      }
    }
    let all = try PromptSet.agreement(model: model, count: 40)
    #expect(Set(all.prompts.map { $0.clean.split(separator: " ").count }).count > 3)
  }

  @Test(.enabled(if: gpt2Tokenizer != nil, why), arguments: PromptSet.DocstringCorruption.allCases)
  func gpt2Docstring(_ corruption: PromptSet.DocstringCorruption) throws {
    let model = try gpt2()
    let set = try PromptSet.docstring(model: model, count: 40, seed: 8, corruption: corruption)
    let labels = ["A_def", "B_def", "C_def", "A_doc", "B_doc", "END"]
    try check(set, count: 40, labels: labels, model)
    for (prompt, pair) in zip(set.prompts, try set.pairs(model)) {
      #expect(prompt.clean.hasPrefix("\ndef ") && prompt.clean.hasSuffix("\n    :param"))
      #expect(token(prompt, "A_def") == token(prompt, "A_doc"))
      #expect(token(prompt, "B_def") == token(prompt, "B_doc"))
      #expect(prompt.answer == [token(prompt, "C_def")])
      let changed = pair.clean.indices.filter { pair.clean[$0] != pair.corrupted[$0] }
      let expected =
        switch corruption {
        case .randomDoc: ["A_doc", "B_doc"]
        case .randomDef: ["A_def", "B_def"]
        case .randomAnswer: ["C_def"]
        case .randomDefDoc: ["A_def", "B_def", "A_doc", "B_doc"]
        case .randomAnswerDoc: ["C_def", "A_doc", "B_doc"]
        case .randomRandom: ["A_def", "B_def", "C_def", "A_doc", "B_doc"]
        }
      #expect(changed == expected.compactMap { pair.positions[$0] }.sorted())
      // Every other argument name of either prompt is wrong.
      let names = Set(changed.map { pair.corrupted[$0] })
      #expect(names.isSubset(of: pair.wrong) && pair.wrong.count == 5 + names.count)
    }
  }

  @Test(.enabled(if: gpt2Tokenizer != nil, why)) func gpt2Induction() throws {
    let model = try gpt2()
    let set = try PromptSet.induction(model: model, count: 50)
    try check(set, count: 50, labels: ["A1", "A1+1", "A2", "END"], model)
    for pair in try set.pairs(model) {
      #expect(pair.length == 40 && pair.clean.dropFirst().allSatisfy((100..<10_000).contains))
    }
  }

  // MARK: the file

  @Test func aFileIsReadAsWritten() throws {
    let directory = try TemporaryDirectory()
    let model = try mini()
    var set = try PromptSet.ioi(model: model, count: 8)
    set.license = "free \"to\" use\n"
    set.prompts.append(PromptText(clean: "Ann's \u{1F600}\tx", answer: [" a", " b"]))
    try set.write(to: directory.file("p.json"))
    let read = try PromptSet.read(directory.file("p.json"))
    #expect(read.prompts == set.prompts && read.name == "ioi" && read.license == set.license)
    #expect(read.description == set.description && read.source == set.source)
    #expect(read.model == "mini")
    #expect(read.json == set.json)
    // Any JSON reader reads it.
    _ = try JSONSerialization.jsonObject(with: Data(set.json.utf8))
  }

  @Test func pairsAreShiftedByBOS() throws {
    let model = try mini()
    let set = try PromptSet.ioi(model: model, count: 4)
    let (with, without) = (try set.pairs(model), try set.pairs(model, prependBOS: false))
    for (a, b) in zip(with, without) {
      #expect(a.clean == [0] + b.clean && a.corrupted == [0] + b.corrupted)
      #expect(a.positions == b.positions.mapValues { $0 + 1 })
      #expect(a.answer == b.answer && a.wrong == b.wrong)
    }
    let prompts = try set.cleanPrompts(model)
    #expect(prompts.map(\.tokens) == with.map(\.clean))
    #expect(prompts.map { [$0.answer] } == with.map { [$0.answer.first] })
  }

  /// Sets that would compare what is not comparable.
  @Test func pairsThatAreNone() throws {
    let model = try mini()
    let clean = "When Mary and John went"
    for (prompt, parts) in [
      (PromptText(clean: clean), ["prompts[0].corrupted", "missing"]),
      (
        PromptText(clean: clean, corrupted: "When Mary and Xavier went"),
        ["5 tokens", "'corrupted' 8", "position 3", "' John'", "' X'"]
      ),
      (PromptText(clean: clean, corrupted: clean + " to"), ["at position 5", "nothing", "' to'"]),
      (
        PromptText(clean: clean, corrupted: clean, answer: [" Mary"], wrong: [" John", " Mary"]),
        ["prompts[0].wrong", "' Mary' too"]
      ),
      (
        PromptText(clean: clean, corrupted: clean, answer: [" Mary", " John", " Mary"]),
        ["prompts[0].answer[2]", "' Mary' again"]
      ),
      (
        PromptText(clean: clean, corrupted: clean, answer: ["Mary"]),
        ["prompts[0].answer", "\" Mary\" is one token"]
      ),
      (
        PromptText(clean: clean, corrupted: clean, positions: ["S1": .init(2, token: " John")]),
        ["prompts[0].positions.S1", "' John' at position 2", "' and' there"]
      ),
    ] {
      let error = problem { try PromptSet(name: "odd", prompts: [prompt]).pairs(model) }
      for part in ["prompt set 'odd'"] + parts {
        #expect(error?.contains(part) == true, "\(part): \(error ?? "none")")
      }
    }
  }

  /// The sets under notebooks-data fit all three models, and all three know the answers.
  @Test(arguments: BundledModels.names)
  func bundledSets(_ name: String) throws {
    let model = try GPT2.load(Fixtures.bundled(name))
    for (file, count, least) in [
      ("ioi", 48, 48), ("ioi-templates", 64, 60), ("pronoun", 30, 30), ("induction", 64, 64),
    ] {
      let set = try PromptSet.read("\(Fixtures.data)/prompts/\(file).json")
      let pairs = try set.pairs(model)
      #expect(pairs.count == count)
      let lengths = Set(pairs.map(\.length))
      #expect(lengths.count == 1 || file == "ioi-templates")
      let logits = try model.run(batch: pairs.map(\.clean), logits: .last)
      let differences = zip(pairs, logits).map { $1[0, $0.answer[0]] - $1[0, $0.wrong[0]] }
      let right = differences.filter { $0 > 0 }.count
      print(
        "\(name), \(file): \(right) of \(count) right, mean logit difference "
          + fixed(Double(differences.reduce(0, +)) / Double(count), 2))
      #expect(right >= least)
    }
  }

  private func problem<T>(_ body: () throws -> T) -> String? {
    do {
      _ = try body()
      return nil
    } catch {
      return "\(error)"
    }
  }
}
