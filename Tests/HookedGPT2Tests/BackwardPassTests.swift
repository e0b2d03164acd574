import NormLens
import TestSupport
import Testing

/// Keeps every gradient that a pass hands over.
private struct Collector: BackwardVisitor {
  var wanted: (HookName) -> Bool = { _ in true }
  var gradients: [HookName: [Tensor]] = [:]
  var order: [HookName] = []

  func wants(_ name: HookName) -> Bool { wanted(name) }
  mutating func visit(_ name: HookName, run: Int, _ gradient: Tensor) {
    if gradients[name] == nil { order.append(name) }
    gradients[name, default: []].append(gradient)
    #expect(gradients[name]?.count == run + 1, "\(name): runs out of order")
  }

  func callAsFunction(_ name: HookName, _ run: Int = 0) throws -> Tensor {
    try #require(gradients[name])[run]
  }
}

/// Keeps what makes up every parameter's gradient.
private struct ParameterCollector: BackwardVisitor {
  var terms: [ParameterStep: [(input: Tensor, gradient: Tensor)]] = [:]

  func wants(_ name: HookName) -> Bool { name.site == .embed }
  mutating func visit(_ name: HookName, run: Int, _ gradient: Tensor) {}
  func wants(_ step: ParameterStep) -> Bool { true }
  mutating func visit(
    _ step: ParameterStep, run: Int, input: () throws -> Tensor, gradient: Tensor
  ) throws {
    terms[step, default: []].append((try input(), gradient))
  }
}

/// The backward pass against differences of forward passes, and against itself.
@Suite struct BackwardPassTests {
  static let names =
    [
      "tiny-ln", "tiny-lnfree", "tiny-1x1", "tiny-relu-untied", "tiny-gelu-erf", "rmsnorm",
    ] + CompressedForm.all.map(\.name)

  static func load(_ name: String) throws -> GPT2 {
    if let form = CompressedForm.all.first(where: { $0.name == name }) { return try form.load() }
    return name == "rmsnorm" ? try RMSNormTests.checkpoint().model() : try Models.load(name)
  }

  static func prompts(_ model: GPT2) -> [[Int]] {
    [7, 3, 5].enumerated().map { seed, length in
      (0..<min(length, model.config.nCtx)).map { ($0 * 31 + seed * 17 + 5) % model.config.dVocab }
    }
  }

  /// A linear metric of a few logits of a prompt.
  static func start(_ model: GPT2, length: Int, seed: UInt64 = 1, onlyLast: Bool = false)
    -> LogitGradient
  {
    let positions = onlyLast || length < 3 ? [length - 1] : [1, length - 1]
    let tokens = [0, 3, 1].map { $0 % model.config.dVocab }
    return LogitGradient(
      at: positions, tokens: tokens, Models.noise([positions.count, 3], seed: seed))
  }

  /// Its value.
  static func value(_ start: LogitGradient, _ logits: Tensor) -> Double {
    var sum = 0.0
    for (row, position) in start.positions.enumerated() {
      for column in 0..<start.values.shape[1] {
        let token = start.tokens?[column] ?? column
        sum += Double(start.values[row, column]) * Double(logits[position, token])
      }
    }
    return sum
  }

  private func gradients(
    _ model: GPT2, _ prompts: [[Int]], _ start: [LogitGradient], rules: BackwardRules = .gradient,
    from first: [Int]? = nil, wanted: @escaping (HookName) -> Bool = { _ in true }
  ) throws -> Collector {
    var collector = Collector(wanted: wanted)
    let runs = try BaseRun.batch(model, prompts)
    try BackwardPass(model, runs, rules: rules, from: first).walk(from: start, &collector)
    return collector
  }

  /// Along a random direction at each hook the metric changes as the gradient says.
  @Test(arguments: names) func finiteDifferences(name: String) throws {
    let model = try Self.load(name)
    let prompt = Self.prompts(model)[0]
    let start = Self.start(model, length: prompt.count)
    let gradients = try gradients(model, [prompt], [start])
    let every = HookName.all(nLayers: model.config.nLayers, optional: true)
    #expect(Set(gradients.order) == Set(every))
    #expect(gradients.order.last == HookName(.embed))
    let (_, cache) = try model.runWithCache(prompt, hooks: Models.everyHook(model))
    var (worst, worstHook) = (0.0, "")
    for hook in every {
      let gradient = try gradients(hook)
      let activation = try cache.tensor(hook)
      try #require(gradient.shape == activation.shape, "\(hook): \(gradient.shape)")
      let finite = activation.scalars.filter(\.isFinite)
      let size = finite.map { Double($0) * Double($0) }.reduce(0, +) / Double(finite.count)
      let direction = Models.noise(activation.shape, seed: 7) * Float(size.squareRoot())
      func metric(_ step: Float) throws -> Double {
        let moved = Intervention.add(HookFilter(hook), direction * step)
        return Self.value(start, try model.run(prompt, interventions: [moved]))
      }
      let h: Float = model.config.activation == .relu ? 0.001 : 0.01  // fewer kinks in the way
      let near = try metric(h) - metric(-h)
      let far = try metric(2 * h) - metric(-2 * h)
      let difference = (8 * near - far) / Double(12 * h)
      let expected = gradient.dot(direction)
      let scale =
        (gradient.dot(gradient) * direction.dot(direction)).squareRoot()
        / Double(direction.count).squareRoot()
      let error = scale > 0 ? abs(difference - expected) / scale : abs(difference)
      if error > worst { (worst, worstHook) = (error, "\(hook)") }
      #expect(error < 5e-3, "\(hook): \(difference) by differences, \(expected) by the gradient")
    }
    print("\(name): gradients against differences: \(worst) at \(worstHook)")
  }

  // MARK: batches and parts

  @Test(arguments: names) func batchesAreTheirPrompts(name: String) throws {
    let model = try Self.load(name)
    let prompts = Self.prompts(model)
    let start = prompts.indices.map {
      Self.start(model, length: prompts[$0].count, seed: UInt64($0), onlyLast: $0 == 2)
    }
    let together = try gradients(model, prompts, start)
    let comparison = Comparison("\(name): a batch against its prompts", relative: 2e-5)
    for run in prompts.indices {
      let alone = try gradients(model, [prompts[run]], [start[run]])
      for hook in together.order {
        comparison.check("\(hook), run \(run)", try together(hook, run), try alone(hook))
      }
    }
    comparison.report("gradients")
  }

  /// A pass from a position on gives the end of what the whole pass gives.
  @Test(arguments: names) func tails(name: String) throws {
    let model = try Self.load(name)
    let prompts = Self.prompts(model)
    let start = prompts.map { Self.start(model, length: $0.count) }
    let whole = try gradients(model, prompts, start)
    // The last of these has no position left.
    for first in [[2, 1, 0], [6, 0, 5]] where prompts[0].count == 7 {
      let tail = try gradients(model, prompts, start, from: first)
      let comparison = Comparison("\(name): positions from \(first) on", relative: 2e-5)
      for hook in whole.order {
        for run in prompts.indices {
          let (all, length) = (try whole(hook, run), prompts[run].count)
          let expected =
            hook.site.isAttention
            ? all.gatheringAxis1(Array(first[run]..<length)) : all.rows(first[run]..<length)
          let scale = Double(all.maximumMagnitude)
          let found = try tail(hook, run)
          comparison.check(
            "\(hook), run \(run)", found, expected, scale: scale > 0 ? scale : 1)
        }
      }
      comparison.report("gradients")
    }
  }

  /// A hook's gradient is bit for bit the same whatever else is wanted: the pass only ends earlier.
  @Test(arguments: ["tiny-ln", "tiny-lnfree"]) func oneHookAtATime(name: String) throws {
    let model = try Self.load(name)
    let prompts = Self.prompts(model)
    let start = prompts.map { Self.start(model, length: $0.count) }
    let all = try gradients(model, prompts, start)
    for hook in all.order {
      let one = try gradients(model, prompts, start, wanted: { $0 == hook })
      #expect(one.order == [hook])
      for run in prompts.indices {
        let (a, b) = (try one(hook, run), try all(hook, run))
        #expect(a.shape == b.shape && a.scalars == b.scalars, "\(hook)")
      }
    }
  }

  /// Positions that nobody reads, or that lie after all that are read, have gradients of 0.
  @Test func onlyTheFirstPositionIsRead() throws {
    let model = try Models.load("tiny-ln")
    let prompt = Self.prompts(model)[0]
    let start = LogitGradient(at: [0], tokens: nil, Models.noise([1, 53], seed: 3))
    let found = try gradients(model, [prompt], [start])
    let stream = try found(HookName(.residPre, layer: 0))
    #expect(stream.row(0).maximumMagnitude > 0)
    #expect(stream.rows(1..<prompt.count).maximumMagnitude == 0)
    let nothing = try gradients(
      model, [prompt], [LogitGradient(at: [], tokens: [1], Tensor(zeros: [0, 1]))])
    for hook in nothing.order { #expect(try nothing(hook).maximumMagnitude == 0, "\(hook)") }
    #expect(nothing.order == found.order)
  }

  /// A token named twice counts twice, and all tokens named are the whole vocabulary.
  @Test func tokensAddUp() throws {
    let model = try Models.load("tiny-relu-untied")
    let prompt = Self.prompts(model)[0]
    let values = Models.noise([2, model.config.dVocab], seed: 5)
    let dense = LogitGradient(at: [2, 6], tokens: nil, values)
    let all = Array(0..<model.config.dVocab)
    let halves = Tensor(
      (0..<2).flatMap { row in
        let half = values.row(row) * 0.5
        return half.scalars + half.scalars
      }, shape: [2, 2 * all.count])
    let sparse = LogitGradient(at: [2, 6], tokens: all + all, halves)
    let comparison = Comparison("all tokens by name", relative: 1e-5)
    let (a, b) = (
      try gradients(model, [prompt], [dense]), try gradients(model, [prompt], [sparse])
    )
    for hook in a.order { comparison.check("\(hook)", try a(hook), try b(hook)) }
    comparison.report("gradients")
  }

  // MARK: rules

  /// What a rule does in the last block, above which all passes are one.
  @Test func attentionRules() throws {
    let model = try Models.load("tiny-ln")
    let prompt = Self.prompts(model)[0]
    let start = Self.start(model, length: prompt.count)
    let layer = model.config.nLayers - 1
    let plain = try gradients(model, [prompt], [start])
    func share(_ rules: BackwardRules, _ expected: [Site: Float]) throws {
      let found = try gradients(model, [prompt], [start], rules: rules)
      for (site, factor) in expected {
        let name = HookName(site, layer: layer)
        let (a, b) = (try found(name), try plain(name))
        let difference = (a - b * factor).maximumMagnitude / b.maximumMagnitude
        #expect(difference <= 1e-6, "\(rules.names) \(site): \(difference)")
        if factor == 0 { #expect(a.maximumMagnitude == 0) }
      }
    }
    let above: [Site: Float] = [.z: 1, .result: 1, .attnOut: 1, .residMid: 1]
    func with(_ own: [Site: Float]) -> [Site: Float] { own.merging(above) { $1 } }
    try share(
      BackwardRules(attentionPattern: true),
      with([.pattern: 0, .attnScores: 0, .q: 0, .k: 0, .v: 1, .qInput: 0, .kInput: 0]))
    try share(
      BackwardRules(uniformAttention: true),
      with([.pattern: 0.5, .attnScores: 0.5, .q: 0.25, .k: 0.25, .v: 0.5, .qInput: 0.25]))
    try share(
      BackwardRules(attentionPattern: true, uniformAttention: true),
      with([.pattern: 0, .attnScores: 0, .q: 0, .k: 0, .v: 0.5]))
  }

  /// `identity` passes on activation(x)/x; `ln` holds the scale.
  @Test(arguments: names) func identityAndNormRules(name: String) throws {
    let model = try Self.load(name)
    let prompt = Self.prompts(model)[0]
    let start = Self.start(model, length: prompt.count)
    let (_, cache) = try model.runWithCache(prompt, hooks: Models.everyHook(model))
    let found = try gradients(model, [prompt], [start], rules: .relp)
    let plain = try gradients(model, [prompt], [start])
    let comparison = Comparison("\(name): local rules", relative: 1e-4)
    for layer in 0..<model.config.nLayers {
      // Relevance is conserved: Σ post·ρ = Σ pre·ρ, neuron by neuron.
      let (pre, post) = (HookName(.mlpPre, layer: layer), HookName(.mlpPost, layer: layer))
      comparison.check(
        "\(pre)", try cache.tensor(pre) * found(pre), try cache.tensor(post) * found(post))
    }
    let scale = try found(HookName(.lnFinalScale))
    if model.config.normalization == .none {
      #expect(scale.scalars == (try plain(HookName(.lnFinalScale)).scalars))
    } else {
      #expect(scale.maximumMagnitude == 0)
      let normalized = try found(HookName(.lnFinalNormalized))
      let divided = normalized.dividingRows(by: try cache.tensor(.lnFinalScale))
      comparison.check(
        "resid_post", try found(HookName(.residPost, layer: model.config.nLayers - 1)),
        model.config.normalization == .layerNorm ? divided.centeringRows() : divided)
    }
    comparison.report("arrays")
    let rules = BackwardRules(ln: true)
    if model.config.normalization == .none {
      let same = try gradients(model, [prompt], [start], rules: rules)
      for hook in plain.order {
        #expect(try same(hook).scalars == plain(hook).scalars, "\(hook)")
      }
    }
  }

  // MARK: parameters

  /// `dW = xᵀ·g`, `db = Σ g`, `dgain = Σ x̂ ⊙ g` of every step against differences.
  @Test(arguments: ["tiny-ln", "tiny-lnfree", "rmsnorm"]) func parameterSteps(name: String) throws {
    let checkpoint =
      name == "rmsnorm"
      ? try RMSNormTests.checkpoint() : try Checkpoint.open(Fixtures.checkpoint(name))
    let model = try checkpoint.model()
    let prompts = Self.prompts(model)
    let start = prompts.map { Self.start(model, length: $0.count) }
    var collector = ParameterCollector()
    try BackwardPass(model, try BaseRun.batch(model, prompts)).walk(from: start, &collector)

    let perBlock = model.config.normalization == .none ? 4 : 6
    let norms = model.config.normalization == .none ? 0 : 1
    #expect(collector.terms.count == perBlock * model.config.nLayers + norms)
    var (worst, worstName) = (0.0, "")
    for (step, terms) in collector.terms {
      let isNorm: Bool
      let tensor: String
      switch step {
      case .ln1(let layer): (isNorm, tensor) = (true, "h.\(layer).ln_1")
      case .ln2(let layer): (isNorm, tensor) = (true, "h.\(layer).ln_2")
      case .lnFinal: (isNorm, tensor) = (true, "ln_f")
      case .qkv(let layer): (isNorm, tensor) = (false, "h.\(layer).attn.c_attn")
      case .attnOut(let layer): (isNorm, tensor) = (false, "h.\(layer).attn.c_proj")
      case .mlpIn(let layer): (isNorm, tensor) = (false, "h.\(layer).mlp.c_fc")
      case .mlpOut(let layer): (isNorm, tensor) = (false, "h.\(layer).mlp.c_proj")
      }
      for part in ["weight", "bias"] {
        let key = "\(tensor).\(part)"
        let parameter = try #require(checkpoint.tensors[key])
        var gradient = Tensor(zeros: parameter.shape)
        for (run, (input, g)) in terms.enumerated() {
          #expect(g.shape[0] == prompts[run].count && input.shape[0] == g.shape[0])
          if part == "bias" {
            gradient = gradient + g.meanOverRows() * Float(g.shape[0])
          } else if isNorm {
            gradient = gradient + (input * g).meanOverRows() * Float(g.shape[0])
          } else {
            gradient = gradient + matmul(input.transposed(), MatrixView(g))
          }
        }
        let size = (parameter.dot(parameter) / Double(parameter.count)).squareRoot()
        let direction = Models.noise(parameter.shape, seed: 11) * Float(max(size, 0.1))
        func metric(_ by: Float) throws -> Double {
          var moved = checkpoint
          moved.tensors[key] = parameter + direction * by
          let model = try moved.model()
          return try prompts.indices.reduce(0) {
            $0 + Self.value(start[$1], try model.run(prompts[$1]))
          }
        }
        let h: Float = 0.01
        let near = try metric(h) - metric(-h)
        let far = try metric(2 * h) - metric(-2 * h)
        let difference = (8 * near - far) / Double(12 * h)
        let expected = gradient.dot(direction)
        let scale =
          (gradient.dot(gradient) * direction.dot(direction)).squareRoot()
          / Double(direction.count).squareRoot()
        let error = abs(difference - expected) / max(scale, 1e-3)
        if error > worst { (worst, worstName) = (error, key) }
        #expect(error < 5e-3, "\(key): \(difference) by differences, \(expected)")
      }
    }
    print("\(name): parameters' gradients against differences: \(worst) at \(worstName)")
  }

  // MARK: gradients by name

  @Test func gradientsInTheCache() throws {
    let model = try Models.load("tiny-ln")
    let prompts = Self.prompts(model)
    let start = prompts.map { Self.start(model, length: $0.count) }
    var seen: [[Int]] = []
    let (logits, cache) = try model.runWithGradients(
      batch: prompts, hooks: [.residPre(.all), .pattern(-1), .z(0).gradient, .unembedOut]
    ) { prompt, logits in
      seen.append(logits.shape)
      return start[prompt]
    }
    #expect(seen == prompts.map { [$0.count, 53] })
    let found = try gradients(model, prompts, start)
    for (prompt, tokens) in prompts.enumerated() {
      #expect(logits[prompt].scalars == (try cache.tensor(.unembedOut, prompt: prompt).scalars))
      for name in [
        HookName(.residPre, layer: 0), HookName(.residPre, layer: 1),
        HookName(.pattern, layer: 1), HookName(.z, layer: 0), HookName(.unembedOut),
      ] {
        let gradient = try cache.gradient(name.site, layer: name.layer, prompt: prompt)
        #expect(gradient.shape == name.site.shape(model.config, positions: tokens.count))
        let difference = (gradient - (try found(name, prompt))).maximumMagnitude
        #expect(difference <= 1e-5 * gradient.maximumMagnitude, "\(name)")
      }
    }
    #expect(
      cache.names.map(\.rawValue) == [
        "blocks.0.hook_resid_pre", "blocks.1.hook_resid_pre", "blocks.1.attn.hook_pattern",
        "unembed.hook_out", "unembed.hook_out_grad", "blocks.1.attn.hook_pattern_grad",
        "blocks.1.hook_resid_pre_grad", "blocks.0.attn.hook_z_grad",
        "blocks.0.hook_resid_pre_grad",
      ])
    #expect(throws: ModelError.self) { try cache.tensor(.z, layer: 0) }

    let (_, alone) = try model.runWithGradients(
      prompts[0], hooks: [.residPre(1)], rules: .relp
    ) { _ in start[0] }
    let relevance = try gradients(model, [prompts[0]], [start[0]], rules: .relp)
    let expected = try relevance(HookName(.residPre, layer: 1))
    #expect(try alone["resid_pre1_grad"].scalars == expected.scalars)
    #expect(try alone["blocks.1.hook_resid_pre_grad"].scalars == expected.scalars)
    #expect(try alone.gradient(.residPre, layer: -1).scalars == expected.scalars)
  }

  @Test func namesOfGradients() throws {
    func parse(_ text: String) throws -> HookName { try HookName(parsing: text, nLayers: 2) }
    for name in HookName.all(nLayers: 2, optional: true) {
      #expect(name.gradient.rawValue == name.rawValue + "_grad")
      #expect(try parse(name.gradient.rawValue) == name.gradient)
      #expect(name.gradient != name && name.gradient.activation == name)
      #expect(name.gradient.isGradient && !name.isGradient)
    }
    #expect(try parse("resid_pre0_grad") == HookName(.residPre, layer: 0).gradient)
    #expect(try parse("k-1_grad") == HookName(.k, layer: 1).gradient)
    #expect(throws: ModelError.unknownHook(name: "rsid_pre0_grad", suggestion: "resid_pre0_grad")) {
      try parse("rsid_pre0_grad")
    }
    #expect(throws: ModelError.layerOutOfRange(hook: "k7_grad", layer: 7, layers: 2)) {
      try parse("k7_grad")
    }
  }

  @Test func whatIsRefused() throws {
    let model = try Models.load("tiny-ln")
    func refuses(
      _ parts: [String], hooks: [HookFilter] = [.residPre(.all)], tokens: [Int] = [1, 2, 3],
      start: LogitGradient = LogitGradient(at: [2], tokens: [1], Tensor([1], shape: [1, 1])),
      sourceLocation: SourceLocation = #_sourceLocation
    ) {
      #expect(sourceLocation: sourceLocation) {
        _ = try model.runWithGradients(tokens, hooks: hooks) { _ in start }
      } throws: { error in
        let text = "\(error)"
        return error is ModelError && !text.contains("\n") && parts.allSatisfy(text.contains)
      }
    }
    let one = Tensor([1], shape: [1, 1])
    refuses(["position 3", "3 tokens"], start: LogitGradient(at: [3], tokens: [1], one))
    refuses(["position -1"], start: LogitGradient(at: [-1], tokens: [1], one))
    refuses(["token id 53", "0 to 52"], start: LogitGradient(at: [2], tokens: [53], one))
    refuses(
      ["NaN", "prompt 0"],
      start: LogitGradient(at: [2], tokens: [1], Tensor([.nan], shape: [1, 1])))
    refuses(
      ["the gradient at blocks"],
      start: LogitGradient(at: [2], tokens: [1, 1], Tensor(repeating: 3e38, shape: [1, 2])))
    refuses(["no hooks"], hooks: [])
    refuses(["whole activations"], hooks: [.z(layer: 0, head: 1)])
    refuses(["whole activations"], hooks: [.residPre(0).at(1).gradient])
    refuses(["layer 5"], hooks: [.residPre(5).gradient])
    refuses(["token id 99"], tokens: [1, 99])
    struct Stop: Error {}
    #expect(throws: Stop.self) {
      try model.runWithGradients([1, 2], hooks: [.residPre(0)]) { _ in throw Stop() }
    }
    // A forward pass has none.
    let gradient = HookFilter(HookName(.residPre, layer: 0).gradient)
    #expect {
      try model.runWithCache([1, 2], hooks: [gradient])
    } throws: { "\($0)".contains("resid_pre_grad layer 0") && "\($0)".contains("no gradients") }
    #expect(throws: ModelError.self) {
      try model.run([1, 2], interventions: [.zero(gradient)])
    }
  }

  /// A pass over many layers and a long prompt holds one layer's gradients at a time.
  @Test func deepAndLong() throws {
    let config = try GPT2Config(nLayers: 48, dModel: 16, nHeads: 2, nCtx: 1024, dVocab: 64)
    let model = try Checkpoint.random(config, name: "deep", seed: 1).model()
    let tokens = (0..<1024).map { $0 * 37 % 64 }
    let start = Self.start(model, length: 1024)
    let found = try gradients(
      model, [tokens], [start], wanted: { [.residPre, .q].contains($0.site) })
    #expect(found.order.count == 96)
    let first = try found(HookName(.residPre, layer: 0))
    #expect(first.isFinite && first.maximumMagnitude > 0)
    // Along the whole of a direction the metric changes as it says.
    let direction = Models.noise(first.shape, seed: 2) * 0.01
    func metric(_ step: Float) throws -> Double {
      let moved = Intervention.add(.residPre(0), direction * step)
      return Self.value(start, try model.run(tokens, interventions: [moved]))
    }
    let difference = try (metric(0.1) - metric(-0.1)) / 0.2
    let expected = first.dot(direction)
    print("48 layers, 1024 tokens: \(difference) by differences, \(expected) by the gradient")
    #expect(abs(difference - expected) < 0.02 * abs(expected))
  }
}
