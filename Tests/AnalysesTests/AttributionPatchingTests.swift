import NormLens
import TestSupport
import Testing

/// Estimates of patching effects against their definition, element by element.
@Suite struct AttributionPatchingTests {
  typealias Method = AttributionPatching.Method
  typealias Direction = ActivationPatching.Direction

  private let customSites =
    ActivationPatchingTests.customSites + [
      PatchSite("everything", of: .attnScores, over: [.layer]),
      PatchSite("key_first", of: .pattern, over: [.layer, .keyPos, .queryPos]),
      PatchSite("neuron_first", of: .mlpPre, over: [.layer, .neuron, .pos]),
    ]

  /// The named sites and others; of the trained models those that are not large.
  private func sites(_ name: String) -> [PatchSite] {
    let large = [PatchSite.mlpPost, .headPatternDestSrc]
    return (PatchSite.all + customSites).filter {
      !PatchingModels.bundled.contains(name)
        || !(large.contains($0) || $0.axes.contains(.neuron))
    }
  }

  // MARK: the definition

  /// Every gradient of one run.
  private struct Gradients: BackwardVisitor {
    var found: [HookName: Tensor] = [:]
    func wants(_ name: HookName) -> Bool { SuffixRuns.sites.contains(name.site) }
    mutating func visit(_ name: HookName, run: Int, _ gradient: Tensor) { found[name] = gradient }
  }

  /// The cells of one prompt by definition: whole activations of separate runs, every element put into
  /// its cell.
  private func naive(
    _ model: GPT2, _ patching: ActivationPatching, _ pair: PromptPair, _ method: Method
  ) throws -> [String: [[Int]: Double]] {
    let denoising = patching.direction == .denoising
    let (baseTokens, otherTokens) =
      denoising ? (pair.corrupted, pair.clean) : (pair.clean, pair.corrupted)
    let hooks = SuffixRuns.sites.map { HookFilter($0) }
    let base = try model.runWithCache(baseTokens, hooks: hooks).cache
    let other = try model.runWithCache(otherTokens, hooks: hooks).cache
    let clean = try BaseRun(model, tokens: pair.clean)
    func gradients(_ run: BaseRun, _ rules: BackwardRules) throws -> [HookName: Tensor] {
      let slope = try patching.metric.gradient(
        AnswerLogits(run.logits, pair, clean: clean.logits))
      var values =
        slope.vocabulary.isEmpty
        ? Array(repeating: 0, count: model.config.dVocab) : slope.vocabulary
      for (token, value) in zip(pair.answer, slope.answer) { values[token] += value }
      for (token, value) in zip(pair.wrong, slope.wrong) { values[token] += value }
      let start = LogitGradient(
        at: [run.length - 1], tokens: nil,
        Tensor(values.map { Float($0) }, shape: [1, values.count]))
      var visitor = Gradients()
      try BackwardPass(model, [run], rules: rules).walk(from: [start], &visitor)
      return visitor.found
    }
    let slopes: [[HookName: Tensor]]
    switch method {
    case .attribution: slopes = [try gradients(BaseRun(model, tokens: baseTokens), .gradient)]
    case .relevance(let rules): slopes = [try gradients(BaseRun(model, tokens: baseTokens), rules)]
    case .integratedGradients(let steps):
      let first = HookName(.residPre, layer: 0)
      let (from, to) = (try base.tensor(first), try other.tensor(first))
      slopes = try (1...steps).map { step in
        let share = (Float(step) - 0.5) / Float(steps)
        let run = try BaseRun(
          model, tokens: baseTokens,
          interventions: [
            .replace(HookFilter(first), with: from * (1 - share) + to * share)
          ])
        return try gradients(run, .gradient)
      }
    }
    var cells: [String: [[Int]: Double]] = [:]
    for site in patching.sites {
      let axes: [PatchSite.Axis?] =
        site.site.isAttention
        ? [.head, .queryPos, .keyPos]
        : site.site.hasHeadAxis
          ? [.pos, .head, nil]
          : [.pos, [.mlpPre, .mlpPost].contains(site.site) ? .neuron : nil]
      var found: [[Int]: Double] = [:]
      for layer in 0..<model.config.nLayers {
        let name = HookName(site.site, layer: layer)
        let (old, new) = (try base.tensor(name), try other.tensor(name))
        let slope = try slopes.map { try #require($0[name]) }
        let indices = NaivePatching.cells(old.shape)
        for (place, index) in indices.enumerated() {
          let element = Dictionary(
            uniqueKeysWithValues: zip(axes, index).compactMap { axis, i in axis.map { ($0, i) } })
          let cell = [layer] + site.axes.dropFirst().map { element[$0] ?? 0 }
          let change = Self.change(old.span[place], new.span[place], patching.replacement)
          let gradient =
            slope.reduce(0) { $0 + Double($1.span[place]) } / Double(slope.count)
          found[cell, default: 0] += change == 0 ? 0 : change * gradient
        }
      }
      cells[site.name] = found
    }
    return cells
  }

  private static func change(_ old: Float, _ new: Float, _ replacement: Replacement) -> Double {
    if case .zero = replacement { return -Double(old) }
    return old == new ? 0 : Double(new) - Double(old)
  }

  /// Holds estimates against their definition.
  private func compare(
    _ title: String, _ model: GPT2, _ patching: ActivationPatching, _ methods: [Method],
    _ pairs: [PromptPair]
  ) throws {
    let result = try AttributionPatching(of: patching, by: methods).run(model, pairs)
    for method in methods {
      let comparison = EffectComparison("\(title), \(method.name)")
      let found = try SweepValues(result, method: method.group)
      for (prompt, pair) in pairs.enumerated() {
        let expected = try naive(model, patching, pair, method)
        let logit = Double(try model.run(pair.clean).maximumMagnitude)
        for site in patching.sites {
          let cells = try found.cells(site.name, prompt: prompt, length: pair.length)
          let wanted = expected[site.name] ?? [:]
          #expect(cells.count == wanted.count, "\(site) of \(prompt)")
          comparison.check("\(site) of \(prompt)", cells, wanted, logit: logit)
        }
      }
      comparison.report()
    }
  }

  @Test(arguments: PatchingModels.all, [Direction.denoising, .noising])
  func everySite(_ name: String, _ direction: Direction) throws {
    let model = try PatchingModels.load(name)
    var patching = ActivationPatching(of: sites(name), direction: direction)
    patching.positions = .fromEnd
    try compare(
      "\(name), \(direction.rawValue)", model, patching,
      [.attribution, .relevance(.relp), .integratedGradients(steps: 3)],
      PatchingModels.pairs(name, model))
  }

  @Test(arguments: ["tiny-ln", "tiny-lnfree"])
  func everyRule(_ name: String) throws {
    let model = try PatchingModels.load(name)
    let patching = ActivationPatching(of: sites(name))
    for bits in 1..<16 {
      let rules = BackwardRules(
        ln: bits & 1 > 0, identity: bits & 2 > 0, attentionPattern: bits & 4 > 0,
        uniformAttention: bits & 8 > 0)
      try compare(
        "\(name), \(rules.names.joined(separator: ","))", model, patching, [.relevance(rules)],
        PatchingModels.equalPairs(name, model))
    }
  }

  @Test(arguments: ["tiny-ln", "mini-lnfree"])
  func everyMetric(_ name: String) throws {
    let model = try PatchingModels.load(name)
    for metric in Metric.all {
      try compare(
        "\(name), \(metric.name)", model,
        ActivationPatching(of: [.residPre, .headZ, .headPattern], metric: metric),
        [.attribution, .integratedGradients(steps: 2)], PatchingModels.equalPairs(name, model))
    }
  }

  @Test(arguments: ["tiny-ln", "mini"])
  func zeroReplacement(_ name: String) throws {
    let model = try PatchingModels.load(name)
    let patching = ActivationPatching(
      of: sites(name).filter { $0.site != .attnScores }, direction: .noising, replacement: .zero)
    try compare(
      "\(name), zero", model, patching, [.attribution, .relevance(.relp)],
      PatchingModels.equalPairs(name, model))
  }

  // MARK: choices

  /// Chosen layers and positions, in any order, are those of the whole sweep; small groups, too.
  @Test(arguments: ["tiny-ln", "patching-deep", "mini"])
  func partsOfASweep(_ name: String) throws {
    let model = try PatchingModels.load(name)
    var pairs = try PatchingModels.equalPairs(name, model)
    let last = pairs[0].length - 1
    for index in pairs.indices { pairs[index].positions = ["A": 1 + index, "END": last] }
    let sites = sites(name)
    let methods: [Method] = [.attribution, .relevance(.relp), .integratedGradients(steps: 2)]
    let whole = try AttributionPatching(of: .init(of: sites), by: methods).run(model, pairs)
    var sweep = ActivationPatching(of: sites)
    sweep.layers = [model.config.nLayers - 1, 0]
    sweep.positions = .at([.label("END"), .label("A")])
    sweep.bytes = 1
    var told: [Int] = []
    let part = try AttributionPatching(of: sweep, by: methods).run(model, pairs) {
      told.append($0.done)
      #expect($0.total == pairs.count)
    }
    #expect(told == [1, 2, 3])
    for method in methods {
      let (all, some) = (
        try SweepValues(whole, method: method.group), try SweepValues(part, method: method.group)
      )
      let comparison = EffectComparison("\(name), \(method.name): parts of a sweep")
      for site in sites {
        for (prompt, pair) in pairs.enumerated() {
          let cells = try all.cells(site.name, prompt: prompt, length: pair.length)
          let positions = [pair.length - 1, 1 + prompt]
          var expected: [[Int]: Double] = [:]
          for (cell, value) in try some.cells(site.name, prompt: prompt, length: pair.length) {
            let place = zip(site.axes, cell).map { axis, index in
              [.pos, .queryPos, .keyPos].contains(axis) ? positions[index] : index
            }
            expected[place] = value
          }
          #expect(!expected.isEmpty)
          comparison.check("\(site) of \(prompt)", cells, expected, logit: 1)
        }
      }
      comparison.report()
    }
  }

  /// Noise makes the other run: the estimate of the whole stream at layer 0 is the change by noise
  /// times the slope, and integrated gradients still add up.
  @Test(arguments: ["tiny-ln", "mini"])
  func noise(_ name: String) throws {
    let model = try PatchingModels.load(name)
    let pairs = try PatchingModels.equalPairs(name, model)
    var sweep = ActivationPatching(of: PatchSite("stream", of: .residPre, over: [.layer]))
    sweep.noise = EmbeddingNoise(deviations: 0.5, positions: .at([.index(2), .index(3)]))
    let method = Method.integratedGradients(steps: 64)
    let result = try AttributionPatching(of: sweep, by: [.attribution, method])
      .run(model, pairs)
    let found = try SweepValues(result, method: method.group)
    for prompt in pairs.indices {
      let gap = found.cleanMetric[prompt] - found.corruptedMetric[prompt]
      let cells = try found.cells("stream", prompt: prompt, length: pairs[0].length)
      let miss = abs((cells[[0]] ?? .nan) - gap)
      print("\(name), noise: gap \(gap), completeness misses \(miss)")
      #expect(gap != 0 && miss <= 2e-3 * abs(gap) + 1e-5)
    }
  }

  // MARK: what cannot be done, and what a reader is told

  private func message(_ patching: AttributionPatching) throws -> String {
    let model = try PatchingModels.load("tiny-ln")
    let pairs = try PatchingModels.equalPairs("tiny-ln", model)
    do {
      _ = try patching.run(model, pairs)
      return ""
    } catch {
      return "\(error)"
    }
  }

  @Test func refusals() throws {
    var window = ActivationPatching(of: .residPre)
    window.window = 2
    var empty = window
    empty.window = 0
    let zero = ActivationPatching(of: .residPre, replacement: .zero)
    let bare = ActivationPatching(
      of: .residPre, metric: Metric("m", units: "logit") { $0.answer[0] })
    func odd(_ gradient: AnswerLogits.Gradient) -> AttributionPatching {
      AttributionPatching(
        of: .init(
          of: .residPre,
          metric: Metric("m", units: "logit", gradient: { _ in gradient }) { $0.answer[0] }))
    }
    for (patching, words) in [
      (
        odd(.init(answer: [1, 2, 3])),
        "prompt 0: its gradient by the logits of the answer tokens has 3 numbers; expected 1"
      ),
      (odd(.init(wrong: [1, 2])), "of the wrong tokens has 2 numbers; expected 1"),
      (odd(.init(vocabulary: [1])), "of the vocabulary has 1 number; expected"),
      (AttributionPatching(of: empty), "a window has 1 to"),
      (AttributionPatching(of: window), "method attribution: a window of 2 layers"),
      (AttributionPatching(of: zero, by: [.integratedGradients(steps: 2)]), "zero is no run"),
      (AttributionPatching(of: bare), "metric 'm' has no gradient"),
      (AttributionPatching(of: .init(of: .residPre), by: []), "no methods are chosen"),
      (
        AttributionPatching(
          of: .init(of: .residPre), by: [.relevance(.relp), .relevance(.gradient)]),
        "the method is chosen twice"
      ),
      (
        AttributionPatching(of: .init(of: .residPre), by: [.integratedGradients(steps: 0)]),
        "steps 0"
      ),
      (AttributionPatching(of: .init(of: [PatchSite]())), "no sites are chosen"),
    ] {
      let found = try message(patching)
      #expect(found.contains(words) && !found.contains("\n"), "\(found)")
    }
  }

  private func warnings(_ result: ResultSet) -> [String] {
    if case .strings(let texts)? = result[group: "patch"]?.attributes["warnings"] {
      texts
    } else {
      []
    }
  }

  /// The divergence has no slope at the clean run: estimates are 0, and that is said.
  @Test func noSlope() throws {
    let model = try PatchingModels.load("mini")
    let pairs = try PatchingModels.equalPairs("mini", model)
    let sweep = ActivationPatching(of: [.residPre, .headZ], direction: .noising, metric: .kl)
    let methods: [Method] = [
      .attribution, .relevance(.relp), .integratedGradients(steps: 2),
    ]
    let result = try AttributionPatching(of: sweep, by: methods).run(model, pairs)
    #expect(try result.doubles("patch/attribution", "resid_pre").allSatisfy { $0 == 0 })
    #expect(
      try result.doubles("patch/relevance", "conservation_error").allSatisfy { $0 == 0 })
    #expect(try result.doubles("patch/integrated_gradients", "head_z").contains { $0 != 0 })
    let texts = warnings(result).filter { $0.contains("no slope") }
    #expect(texts.count == 1)
    #expect(
      texts.first?.hasPrefix(
        "kl has no slope at the clean run of all 3 prompts: estimates by attribution, relevance are 0"
      )
        == true)
    #expect(!warnings(result).contains { $0.hasPrefix("all estimates") })
  }

  /// Where only some of the runs between two have no slope, integrated gradients find effects, and
  /// nothing is said.
  @Test func slopeInPlaces() throws {
    let model = try PatchingModels.load("mini")
    let pairs = try PatchingModels.equalPairs("mini", model)
    let hinge = Metric(
      "hinge", units: "logit",
      gradient: { $0.answer[0] > $0.wrong[0] ? .init(answer: [1], wrong: [-1]) : .init() }
    ) { max(0, $0.answer[0] - $0.wrong[0]) }
    let sweep = ActivationPatching(of: .residPre, metric: hinge)
    let methods: [Method] = [.attribution, .integratedGradients(steps: 8)]
    let result = try AttributionPatching(of: sweep, by: methods).run(model, pairs)
    #expect(try result.doubles("patch/attribution", "resid_pre").allSatisfy { $0 == 0 })
    #expect(try result.doubles("patch/integrated_gradients", "resid_pre").contains { $0 != 0 })
    let texts = warnings(result).filter { $0.contains("no slope") }
    #expect(texts.count == 1 && texts.first?.contains("estimates by attribution are 0") == true)
  }

  /// What concerns the runs is said in the words of the exact sweep.
  @Test func sameWarnings() throws {
    let model = try PatchingModels.load("mini")
    var pairs = try PatchingModels.equalPairs("mini", model)
    pairs[1].corrupted = pairs[1].clean
    (pairs[2].answer, pairs[2].wrong) = (pairs[2].wrong, pairs[2].answer)
    var sweep = ActivationPatching(of: [.residPre, .headZ])
    sweep.positions = .at([.index(-1)])
    let exact = warnings(try sweep.run(model, pairs))
    let estimated = warnings(
      try AttributionPatching(of: sweep, by: [.attribution, .relevance(.relp)])
        .run(model, pairs))
    #expect(exact.count == 4 && estimated == exact, "\(exact) \(estimated)")
  }

  @Test func whatResultsSay() throws {
    let model = try PatchingModels.load("mini")
    let pairs = try PatchingModels.equalPairs("mini", model)
    let sweep = ActivationPatching(of: [.residPre, .headZ])
    let result = try AttributionPatching(
      of: sweep, by: [.relevance(.relp), .integratedGradients(steps: 2)]
    ).run(model, pairs)
    let relevance = try result.group("patch/relevance")
    #expect(relevance.attributes["rules"] == .string("ln,identity"))
    #expect(relevance[variable: "resid_pre"]?.longName == "estimated effect of patching resid_pre")
    for suffix in ["_normalized", "_stderr", "_ci_low", "_ci_high"] {
      #expect(relevance[variable: "head_z" + suffix] != nil)
    }
    let integrated = try result.group("patch/integrated_gradients")
    #expect(integrated.attributes["steps"] == .integer(2))
    #expect(integrated.attributes["quadrature"] == .string("midpoint"))
    // The two results fit together.
    let exact = try sweep.run(model, pairs)
    var estimates = result
    estimates.groups.removeAll { $0.path == "patch" }
    let agreement = try PatchAgreement.group(of: exact.merged(with: estimates))
    #expect(
      agreement[dimension: "method"]?.coordinates == .labels(["relevance", "integrated_gradients"]))
    #expect(try agreement.doubles("pearson").allSatisfy { $0 > 0 && $0 <= 1 })
  }
}
