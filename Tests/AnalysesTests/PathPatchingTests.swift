import Foundation
import NormLens
import TestSupport
import Testing

/// Path patching against the float64 edges of `make_paths_golden.py`, and what must hold whatever the
/// numbers are.
@Suite struct PathPatchingTests {
  /// A model and the pairs, senders and receivers of its golden file.
  struct Study {
    let model: GPT2
    let golden: Golden
    let pairs: [PromptPair]
    let senders: [PathSender]
    let receivers: [PathReceiver]

    init(_ name: String) throws {
      model = try GPT2.load(Fixtures.checkpoint(name == "deep" ? "paths/deep" : name))
      let golden = try Golden.open("paths/\(name)")
      self.golden = golden
      pairs = try golden.names(in: "pairs").sorted().map { index in
        func ids(_ key: String) throws -> [Int] {
          try golden.integers("pairs/\(index)/\(key)")
        }
        return PromptPair(
          clean: try ids("clean"), corrupted: try ids("corrupted"), answer: try ids("answer"),
          wrong: try ids("wrong"))
      }
      senders = try PathSender.parse(try golden.text("senders", of: "/"), model.config)
      receivers = try PathReceiver.parse(try golden.text("receivers", of: "/"), model.config)
    }
  }

  static let variants: [(path: String, PathPatching.Variant)] = [
    ("recomputed", .recomputed), ("frozen", .frozen),
    ("jointly-heads", .jointly(throughMLPs: false)),
    ("jointly-mixed", .jointly(throughMLPs: false)),
    ("through-heads", .jointly(throughMLPs: true)),
    ("through-mixed", .jointly(throughMLPs: true)),
  ]

  /// What float32 may miss of an effect: 3e-4 of the largest effect and 5e-7 of the largest logit.
  static func allowed(_ effects: [Double], _ model: GPT2, _ pairs: [PromptPair]) throws -> Double {
    let effect = effects.reduce(0) { $1.isNaN ? $0 : max($0, abs($1)) }
    var logit = 0.0
    for pair in pairs {
      for tokens in [pair.clean, pair.corrupted] {
        logit = max(logit, Double(try model.run(tokens).maximumMagnitude))
      }
    }
    return 3e-4 * effect + 5e-7 * logit
  }

  /// The largest difference; infinite where only one of two values is NaN.
  static func difference(_ found: [Double], _ expected: [Double]) -> Double {
    if found.count != expected.count { return .infinity }
    return zip(found, expected).reduce(0) { worst, values in
      if values.0.isNaN && values.1.isNaN { return worst }
      let difference = abs(values.0 - values.1)
      return difference.isNaN ? .infinity : max(worst, difference)
    }
  }

  @Test(arguments: ["tiny-ln", "tiny-lnfree", "deep"])
  func golden(_ name: String) throws {
    let study = try Study(name)
    for (path, variant) in Self.variants {
      let set = try study.golden.text("set", of: path)
      let receivers =
        set.isEmpty ? study.receivers : try PathReceiver.parse(set, study.model.config)
      var (worst, share, largest) = (0.0, 0.0, 0.0)
      for direction in [PathPatching.Direction.denoising, .noising] {
        for metric in [Metric.logitDifference, .kl] {
          let at = "\(path)/\(direction.rawValue)/\(metric.name)"
          let result = try PathPatching(
            senders: study.senders, receivers: receivers, direction: direction, metric: metric,
            variant: variant
          ).run(study.model, study.pairs)
          let expected = try study.golden.array("\(at)/effect").values
          let effects = try result.doubles("path", "effect")
          let limit = try Self.allowed(expected, study.model, study.pairs)
          let found = Self.difference(effects, expected)
          #expect(found <= limit, "\(name) \(at): \(found), allowed \(limit)")
          (worst, share) = (max(worst, found), max(share, found / limit))
          largest = expected.reduce(largest) { $1.isNaN ? $0 : max($0, abs($1)) }

          let clean = try study.golden.array("\(at)/clean").values
          let corrupted = try study.golden.array("\(at)/corrupted").values
          let metrics = zip(clean, corrupted).map { $0 - $1 }
          let gap = metrics.reduce(0, +)
          #expect(Self.difference(try result.doubles("path", "clean_metric"), clean) < 1e-4)
          #expect(Self.difference(try result.doubles("path", "corrupted_metric"), corrupted) < 1e-4)
          let cells = expected.count / study.pairs.count
          let normalized = (0..<cells).map { cell in
            stride(from: cell, to: expected.count, by: cells).reduce(0) { $0 + expected[$1] } / gap
          }
          let size = normalized.reduce(0) { $1.isNaN ? $0 : max($0, abs($1)) }
          let missed = Self.difference(
            try result.doubles("path", "effect_normalized"), normalized)
          #expect(missed <= 1e-3 * size, "\(name) \(at) normalized: \(missed) of \(size)")
        }
      }
      print(
        "\(name) \(path): max difference \(worst), \(fixed(100 * share, 1)) % of what is allowed, "
          + "largest effect \(fixed(largest, 3))")
    }
  }

  /// A memory bound cuts senders and runs into other batches and changes no result.
  @Test func littleMemory() throws {
    let study = try Study("deep")
    for (_, variant) in Self.variants {
      let receivers = study.receivers.filter { variant == .recomputed || $0 != .final }
      var patching = PathPatching(
        senders: study.senders, receivers: receivers, variant: variant)
      let whole = try patching.run(study.model, study.pairs).doubles("path", "effect")
      patching.bytes = 40_000
      var calls: [Int] = []
      let parts = try patching.run(study.model, study.pairs) { calls.append($0) }
        .doubles("path", "effect")
      let difference = Self.difference(parts, whole)
      #expect(difference <= 2e-5, "\(variant): \(difference)")
      let estimate = try patching.estimate(study.model, study.pairs)
      #expect(estimate.effects == whole.count { !$0.isNaN })
      #expect(calls.count > 4 && calls == calls.sorted() && calls.last == estimate.effects)
      #expect((estimate.runs == 0) == (variant == .frozen))
    }
  }

  /// All senders together give a receiver what it reads in the source run.
  @Test(arguments: ["tiny-ln", "tiny-lnfree", "mini", "mini-lnfree"])
  func everySenderTogetherIsTheSourceRun(_ name: String) throws {
    let (model, pairs) = try Self.pairs(name)
    let config = model.config
    let all = PathSender.together(PathSender.all(config), label: "everything")
    let receivers = PathReceiver.all(config)
    let found = try PathPatching(senders: [all], receivers: receivers).run(model, pairs)
      .doubles("path", "effect")
    var expected: [Double] = []
    for pair in pairs {
      let base = try BaseRun(model, tokens: pair.corrupted)
      let source = try BaseRun(model, tokens: pair.clean)
      func metric(_ logits: Tensor) -> Double {
        Double(logits[pair.answer[0]]) - Double(logits[pair.wrong[0]])
      }
      for receiver in receivers {
        func value(_ site: Site, _ layer: Int) throws -> Tensor {
          try source.cache.tensor(site, layer: layer)
        }
        let change: Intervention =
          switch receiver {
          case .q(let layer, let head):
            .replace(.q(layer: layer, head: head), with: try value(.q, layer))
          case .k(let layer, let head):
            .replace(.k(layer: layer, head: head), with: try value(.k, layer))
          case .v(let layer, let head):
            .replace(.v(layer: layer, head: head), with: try value(.v, layer))
          case .mlp(let layer):
            .replace(.mlpOut(.layer(layer)), with: try value(.mlpOut, layer))
          case .final:
            .replace(
              .residPost(.layer(config.nLayers - 1)),
              with: try value(.residPost, config.nLayers - 1))
          }
        let logits = try model.run(pair.corrupted, interventions: [change])
        expected.append(metric(logits.row(pair.length - 1)) - metric(base.logits))
      }
    }
    let limit = try Self.allowed(expected, model, pairs)
    let difference = Self.difference(found, expected)
    print("\(name), all senders together: max difference \(difference), allowed \(limit)")
    #expect(difference <= limit)
  }

  /// Every edge of a model against one whole forward pass with the receiver's input changed.
  @Test(arguments: ["mini", "mini-lnfree"])
  func everyEdgeEqualsAWholeRun(_ name: String) throws {
    let (model, pairs) = try Self.pairs(name)
    let config = model.config
    let pair = pairs[0]
    let sites: [Site] = [
      .embed, .posEmbed, .z, .mlpOut, .q, .k, .v, .residPre, .residMid, .residPost,
    ]
    let (_, base) = try model.runWithCache(
      pair.corrupted, hooks: sites.map { HookFilter($0) } + [.result(.all)])
    let (_, source) = try model.runWithCache(
      pair.clean, hooks: sites.map { HookFilter($0) } + [.result(.all)])
    func written(_ component: PathSender.Component, _ cache: ActivationCache) throws -> Tensor {
      switch component {
      case .embed: try cache.tensor(.residPre, layer: 0)
      case .mlp(let layer): try cache.tensor(.mlpOut, layer: layer)
      case .head(let layer, let head): try cache.tensor(.result, layer: layer).column(head)
      }
    }
    // Some of each kind; all of them would take a minute.
    let senders = PathSender.all(config).enumerated().filter { $0.offset % 2 == 0 }.map(\.element)
    let receivers = PathReceiver.all(config).enumerated().filter { $0.offset % 5 < 2 }.map(
      \.element)
    let found = try PathPatching(senders: senders, receivers: receivers, direction: .denoising)
      .run(model, [pair]).doubles("path", "effect")
    func metric(_ interventions: [Intervention]) throws -> Double {
      let logits = try model.run(pair.corrupted, interventions: interventions)
        .row(pair.length - 1)
      return Double(logits[pair.answer[0]]) - Double(logits[pair.wrong[0]])
    }
    let unpatched = try metric([])
    var expected: [Double] = []
    for sender in senders {
      let component = sender.components[0]
      let change = try written(component, source) - written(component, base)
      for receiver in receivers {
        if found[expected.count].isNaN {
          expected.append(.nan)
          continue
        }
        let target: HookFilter =
          switch receiver {
          case .q(let layer, let head): .qInput(layer: layer, head: head)
          case .k(let layer, let head): .kInput(layer: layer, head: head)
          case .v(let layer, let head): .vInput(layer: layer, head: head)
          case .mlp(let layer): .mlpIn(.layer(layer))
          case .final: .residPost(.layer(config.nLayers - 1))
          }
        expected.append(try metric([.add(target, change)]) - unpatched)
      }
    }
    let limit = try Self.allowed(expected, model, [pair])
    let difference = Self.difference(found, expected)
    let paths = expected.count { !$0.isNaN }
    print("\(name): \(paths) edges, max difference \(difference), allowed \(limit)")
    #expect(difference <= limit && paths > 100)
  }

  @Test(arguments: ["tiny-ln", "tiny-lnfree", "mini"])
  func equalPromptsHaveNoEffects(_ name: String) throws {
    let (model, pairs) = try Self.pairs(name)
    let config = model.config
    let same = pairs.map { pair in
      PromptPair(
        clean: pair.clean, corrupted: pair.clean, answer: pair.answer, wrong: pair.wrong)
    }
    let receivers = PathReceiver.all(config).filter { $0 != .final }
    for (_, variant) in Self.variants {
      let patching = PathPatching(
        senders: PathSender.all(config), receivers: receivers, variant: variant)
      let result = try patching.run(model, same)
      let effects = try result.doubles("path", "effect")
      #expect(effects.allSatisfy { $0.isNaN || $0 == 0 } && effects.contains(0))
      guard case .strings(let warnings)? = result[group: "path"]?.attributes["warnings"] else {
        Issue.record("no warnings")
        continue
      }
      #expect(warnings.contains { $0.contains("identical") })
      #expect(warnings.contains { $0.contains("no path changed anything") })
      #expect(try patching.estimate(model, same).runs == 0)
    }
  }

  /// Without norms nothing that reads the stream mixes what senders write: direct effects add up.
  @Test(arguments: ["tiny-lnfree", "mini-lnfree", "tiny-ln", "mini"])
  func directEffectsAddUpWithoutNorms(_ name: String) throws {
    let (model, pairs) = try Self.pairs(name)
    let config = model.config
    let components = PathSender.all(config)
    let effects = try PathPatching(
      senders: components + [.together(components, label: "everything")], receivers: [.final],
      variant: .frozen
    ).run(model, pairs)
    let recomputed = try PathPatching(
      senders: components + [.together(components, label: "everything")], receivers: [.final]
    ).run(model, pairs)
    let values = try effects.doubles("path", "effect")
    // Nothing lies behind the final stream.
    #expect(values == (try recomputed.doubles("path", "effect")))
    let clean = try effects.doubles("path", "clean_metric")
    let corrupted = try effects.doubles("path", "corrupted_metric")
    let isFree = config.normalization == .none
    var worst = 0.0
    for prompt in pairs.indices {
      let row = values[prompt * (components.count + 1)..<(prompt + 1) * (components.count + 1)]
      let whole = row[row.endIndex - 1]
      let sum = row.dropLast().reduce(0, +)
      let limit = try Self.allowed(Array(row), model, pairs)
      #expect(abs(whole - (clean[prompt] - corrupted[prompt])) <= limit)
      if isFree { #expect(abs(sum - whole) <= limit, "\(sum) and \(whole)") }
      worst = max(worst, abs(sum - whole))
    }
    print("\(name): direct effects miss their sum by \(worst)")
    if !isFree { #expect(worst > 0.01) }
  }

  /// Cells without a path are NaN; a head has one to the MLP of its own layer.
  @Test func whatIsNotAfterIsNaN() throws {
    let (model, pairs) = try Self.pairs("tiny-ln")
    let result = try PathPatching(
      senders: [.embed, .head(layer: 0, head: 1), .mlp(layer: 0), .head(layer: 1, head: 0)],
      receivers: [
        .q(layer: 0, head: 0), .mlp(layer: 0), .k(layer: 1, head: 2), .mlp(layer: 1), .final,
      ]
    ).run(model, pairs)
    let group = try result.group("path")
    let cells = try group.doubles("effect_normalized").map(\.isNaN)
    #expect(
      cells == [
        false, false, false, false, false,
        true, false, false, false, false,
        true, true, false, false, false,
        true, true, true, false, false,
      ])
    #expect(group[dimension: "receiver"]?.label(at: 2) == "L1H2.k")
    #expect(group[dimension: "sender"]?.label(at: 2) == "0_mlp_out")
    #expect(group[variable: "corrupted_token_id"] != nil && group[variable: "effect_stderr"] != nil)
  }

  @Test func names() throws {
    let config = try GPT2Config.preset("gpt2-small")
    func senders(_ text: String) throws -> [String] {
      try PathSender.parse(text, config).map(\.description)
    }
    func receivers(_ text: String) throws -> [String] {
      try PathReceiver.parse(text, config).map(\.description)
    }
    #expect(try senders("embed, L5H1,3_mlp_out,L5H1") == ["embed", "L5H1", "3_mlp_out"])
    #expect(try senders("all").count == 157 && senders("heads").count == 144)
    #expect(try senders("L10-11").count == 24 && senders("L11").first == "L11H0")
    #expect(try senders("embed+heads+mlps,mlps").count == 13)
    let everything = try PathSender.parse("embed+heads+mlps", config)
    #expect(everything[0].components.count == 157 && everything[0].components[0] == .embed)
    #expect(everything[0].description == "embed+heads+mlps")
    #expect(try receivers("all").count == 445 && receivers("heads.q").count == 144)
    #expect(
      try receivers("L9H6,final,9_mlp_in") == ["L9H6.q", "L9H6.k", "L9H6.v", "final", "9_mlp_in"])
    #expect(try receivers("L9-10.v").count == 24 && receivers("mlps").count == 12)
    for (text, message) in [
      ("L9H6.w", "unknown receiver 'L9H6.w'; did you mean 'L9H6.k'?"),
      ("fnal", "unknown receiver 'fnal'; did you mean 'final'?"),
      ("", "unknown receiver ''; expected"), ("L9H6.q,", "unknown receiver ''; expected"),
      ("L12.q", "'L12' matches nothing: the model has layers 0 to 11"),
      ("L0H12.q", "the model has heads 0 to 11"), ("12_mlp_in", "has layers 0 to 11"),
      ("L3-2.q", "run from 3 down to 2"), ("9_mlp_out", "did you mean '9_mlp_in'?"),
      ("L99999999999999999999.q", "has layers 0 to 11"),
    ] {
      #expect {
        _ = try PathReceiver.parse(text, config)
      } throws: {
        "\($0)".contains(message) && !"\($0)".contains("\n")
      }
    }
    for (text, message) in [
      ("L9H6.q", "unknown sender 'L9H6.q'; did you mean 'L9H6'?"),
      ("embd", "did you mean 'embed'?"), ("L5H1+", "unknown sender ''; expected"),
      ("L5H1++embed", "unknown sender ''"), ("-1_mlp_out", "unknown sender"),
    ] {
      #expect {
        _ = try PathSender.parse(text, config)
      } throws: {
        "\($0)".contains(message) && !"\($0)".contains("\n")
      }
    }
  }

  /// The final stream by itself: nothing is behind it, so that only MLPs before it can make a
  /// difference between the variants.
  @Test func finalByItself() throws {
    let (model, pairs) = try Self.pairs("mini")
    func effects(_ variant: PathPatching.Variant) throws -> [Double] {
      try PathPatching(
        senders: PathSender.all(model.config), receivers: [.final], variant: variant
      ).run(model, pairs).doubles("path", "effect")
    }
    let direct = try effects(.frozen)
    #expect(try effects(.jointly(throughMLPs: false)) == direct)
    #expect(try effects(.recomputed) == direct)
    #expect(try effects(.jointly(throughMLPs: true)) != direct)
  }

  @Test func whatCannotBePatched() throws {
    let (model, pairs) = try Self.pairs("tiny-ln")
    func run(
      _ senders: [PathSender], _ receivers: [PathReceiver], _ pairs: [PromptPair],
      _ variant: PathPatching.Variant = .recomputed
    ) throws {
      _ = try PathPatching(senders: senders, receivers: receivers, variant: variant)
        .run(model, pairs)
    }
    func message(_ text: String, _ body: () throws -> Void) {
      #expect(performing: body, throws: { "\($0)".contains(text) && !"\($0)".contains("\n") })
    }
    let head = PathSender.head(layer: 1, head: 0)
    message("none of the 1 senders writes before") {
      try run([head], [.q(layer: 1, head: 1)], pairs)
    }
    message("none of the 1 senders writes before") {
      try run([head], [.q(layer: 1, head: 1)], pairs, .jointly(throughMLPs: true))
    }
    message("none of the 0 senders") { try run([], [.final], pairs) }
    message("'final' patched jointly with others") {
      try run([head], [.final, .mlp(layer: 1)], pairs, .jointly(throughMLPs: false))
    }
    message("has layers 0 to 1") { try run([.mlp(layer: 2)], [.final], pairs) }
    message("has heads 0 to 2") { try run([head], [.v(layer: 1, head: -1)], pairs) }
    message("no prompts") { try run([head], [.final], []) }
    message("expected an answer token and a wrong one") {
      try run([head], [.final], [PromptPair(clean: [1, 2], corrupted: [3, 2], answer: [4])])
    }
    message("expected the same number") {
      try run([head], [.final], [PromptPair(clean: [1], corrupted: [3, 2], answer: 4, wrong: 5)])
    }
    message("token id 99") {
      try run([head], [.final], [PromptPair(clean: [1], corrupted: [3], answer: 4, wrong: 99)])
    }
    message("17 tokens") {
      let long = Array(repeating: 1, count: 17)
      try run([head], [.final], [PromptPair(clean: long, corrupted: long, answer: 4, wrong: 5)])
    }
    message("no tokens") {
      try run([head], [.final], [PromptPair(clean: [], corrupted: [], answer: 4, wrong: 5)])
    }
  }

  /// Prompt pairs of unequal lengths for any model, made of its token ids.
  static func pairs(_ name: String) throws -> (GPT2, [PromptPair]) {
    let model = try GPT2.load(
      name.hasPrefix("mini") ? Fixtures.bundled(name) : Fixtures.checkpoint(name))
    let vocabulary = model.config.dVocab
    let pairs = [(7, [2, 4]), (5, [1]), (9, [8])].map { length, places in
      let clean = (0..<length).map { ($0 * 7 + 3 * length) % vocabulary }
      var corrupted = clean
      for place in places { corrupted[place] = (clean[place] + 5 * place + 1) % vocabulary }
      return PromptPair(clean: clean, corrupted: corrupted, answer: 4, wrong: 9)
    }
    return (model, pairs)
  }
}
