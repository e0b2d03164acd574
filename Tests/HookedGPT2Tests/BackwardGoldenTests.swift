import NormLens
import TestSupport
import Testing

/// Keeps every gradient, and what makes up the parameters' gradients.
private struct Recorder: BackwardVisitor {
  var gradients: [Int: [HookName: Tensor]] = [:]
  var steps: [Int: [ParameterStep: (input: Tensor, gradient: Tensor)]] = [:]
  var wantsSteps = false

  func wants(_ name: HookName) -> Bool { true }
  mutating func visit(_ name: HookName, run: Int, _ gradient: Tensor) {
    #expect(gradients[run]?[name] == nil, "\(name) twice")
    gradients[run, default: [:]][name] = gradient
  }
  func wants(_ step: ParameterStep) -> Bool { wantsSteps }
  mutating func visit(
    _ step: ParameterStep, run: Int, input: () throws -> Tensor, gradient: Tensor
  ) throws {
    #expect(steps[run]?[step] == nil, "\(step) twice")
    steps[run, default: [:]][step] = (try input(), gradient)
  }
}

/// Comparisons of gradients. Those at a scale are sums over a row that cancel (a norm's derivative sees
/// no change of length), and are held to 3e-4 of the largest.
private struct Comparisons {
  private let scales: Comparison
  private let others: Comparison

  init(_ title: String, relative: Double) {
    others = Comparison(title, relative: relative)
    scales = Comparison("\(title), at scales", relative: 3e-4)
  }

  func of(_ hook: HookName) -> Comparison {
    Self.areCancelled(hook) ? scales : others
  }

  static func areCancelled(_ hook: HookName) -> Bool {
    [.ln1Scale, .ln2Scale, .lnFinalScale].contains(hook.site)
  }

  func report() {
    others.report("gradients")
    scales.report("gradients")
  }
}

/// The backward pass against autograd in float64 (`Tests/Golden/make_gradient_golden.py`) and against
/// the double-precision model.
@Suite struct BackwardGoldenTests {
  private func record(
    _ model: GPT2, _ starts: [GradientGolden.Start], _ rules: BackwardRules,
    from first: [Int]? = nil, steps: Bool = false
  ) throws -> Recorder {
    var recorder = Recorder(wantsSteps: steps)
    let runs = try BaseRun.batch(model, starts.map(\.tokens))
    try BackwardPass(model, runs, rules: rules, from: first)
      .walk(from: starts.map(\.gradient), &recorder)
    return recorder
  }

  /// Every hook, optional ones too, under every rule set; prompts of several lengths, read at one or
  /// two positions, at an inner one, by some logits or the whole vocabulary, in one batch.
  @Test(arguments: GradientGolden.models)
  func everyHook(_ name: String) throws {
    let golden = try GradientGolden(name)
    let model = try golden.model()
    let hooks = HookName.all(nLayers: model.config.nLayers, optional: true)
    let sets = try golden.ruleSets()
    #expect(sets.count == 7)
    for set in sets {
      let rules = try #require(GradientGolden.rules(set))
      let starts = try golden.starts(rules: set)
      let found = try record(model, starts, rules)
      let (logits, cache) = try model.runWithGradients(
        batch: starts.map(\.tokens), hooks: Models.everyHook(model), rules: rules
      ) { prompt, _ in starts[prompt].gradient }
      let plain = try model.runWithCache(
        batch: starts.map(\.tokens), hooks: Models.everyHook(model))
      let comparisons = Comparisons("\(name), gradients, rules \(set)", relative: 1e-5)
      // At scales the terms cancel, in some prompts nearly all: the largest value is that of the hook.
      var largest: [HookName: Double] = [:]
      for hook in hooks where Comparisons.areCancelled(hook) {
        largest[hook] = try starts.map {
          try golden.gradients(rules: set, prompt: $0.name)[hook.rawValue]?.magnitude ?? 0
        }.max().flatMap { $0 > 0 ? $0 : nil }
      }
      for (run, start) in starts.enumerated() {
        // The forward pass knows nothing of the rules.
        #expect(logits[run].scalars == plain.logits[run].scalars)
        let expected = try golden.gradients(rules: set, prompt: start.name)
        #expect(Set(expected.keys) == Set(hooks.map(\.rawValue)))
        for hook in hooks {
          let activations = try [cache, plain.cache].map {
            try $0.tensor(hook, prompt: run).scalars
          }
          #expect(activations[0] == activations[1], "\(hook)")
          let correct = try #require(expected[hook.rawValue])
          let pairs = [
            ("cache", try cache.tensor(hook.gradient, prompt: run)),
            ("walk", try #require(found.gradients[run]?[hook])),
          ]
          for (path, gradient) in pairs {
            comparisons.of(hook).check(
              "\(hook), prompt \(start.name), \(path)", gradient, correct,
              scale: largest[hook])
          }
        }
      }
      comparisons.report()
    }
  }

  /// From a later position on the gradients are those of the whole pass.
  @Test(arguments: GradientGolden.models)
  func laterPositions(_ name: String) throws {
    let golden = try GradientGolden(name)
    let model = try golden.model()
    let starts = try golden.starts(rules: "ln+identity")
    let first = [2, 0, 1]
    let found = try record(model, starts, .relp, from: first)
    let comparisons = Comparisons("\(name), gradients from later positions", relative: 1e-5)
    for (run, start) in starts.enumerated() {
      let expected = try golden.gradients(rules: "ln+identity", prompt: start.name)
      for hook in HookName.all(nLayers: model.config.nLayers, optional: true) {
        let whole = try #require(expected[hook.rawValue])
        let gradient = try #require(found.gradients[run]?[hook])
        comparisons.of(hook).check(
          "\(hook), prompt \(start.name)", gradient,
          whole.gathering(
            Array(first[run]..<start.tokens.count), axis: hook.site.isAttention ? 1 : 0),
          scale: max(whole.magnitude, 1e-30))
      }
    }
    comparisons.report()
  }

  /// What is handed over for the parameters makes their derivatives: xᵀ·g of a matrix, Σ x ⊙ g of a
  /// gain, Σ g of a bias.
  @Test(arguments: GradientGolden.models, [BackwardRules.gradient, .relp])
  func parameterSteps(_ name: String, _ rules: BackwardRules) throws {
    let golden = try GradientGolden(name)
    let model = try golden.model()
    let double = DoubleGPT2(model)
    let starts = try golden.starts(rules: "none")
    let found = try record(model, starts, rules, steps: true)
    let comparison = Comparison(
      "\(name), derivatives by parameters, rules \(rules.names)", relative: 2e-5)
    for (run, start) in starts.enumerated() {
      let forward = double.run(start.tokens)
      let backward = double.gradients(forward, from: start.dense(model.config), rules: rules)
      let expected = double.parameterSteps(forward, backward)
      #expect(Set(try #require(found.steps[run]).keys) == Set(expected.keys))
      for (step, expected) in expected {
        let (x, g) = try #require(found.steps[run]?[step])
        let (input, gradient) = (DoubleMatrix(x), DoubleMatrix(g))
        let label = "\(step), prompt \(start.name)"
        comparison.check("bias of \(label)", gradient.columnSums, expected.gradient.columnSums)
        let isNorm =
          switch step {
          case .ln1, .ln2, .lnFinal: true
          default: false
          }
        if isNorm {
          comparison.check(
            "gain of \(label)", input.combined(gradient, *).columnSums,
            expected.input.combined(expected.gradient, *).columnSums)
        } else {
          comparison.check(
            "matrix of \(label)", (input.transposed * gradient).values,
            (expected.input.transposed * expected.gradient).values)
        }
      }
    }
    comparison.report("arrays")
  }

  /// The always-on hooks of longer prompts, of one token and of the whole context, against the
  /// double-precision model, under every combination of rules.
  @Test(arguments: Fixtures.checkpoints)
  func doublePrecision(_ name: String) throws {
    let model = try Models.load(name)
    let golden = try Golden.open(name)
    let double = DoubleGPT2(model)
    let comparisons = Comparisons(
      "\(name), gradients against double precision", relative: 2e-5)
    let prompts = ["t1", "full", "b"]
    let starts = try prompts.enumerated().map { index, prompt in
      let tokens = try golden.tokens(prompt)
      let values = Models.noise([1, 2], seed: UInt64(40 + index))
      return GradientGolden.Start(
        name: prompt, tokens: tokens,
        gradient: LogitGradient(at: [tokens.count - 1], tokens: [1, 4], values))
    }
    let forward = starts.map { double.run($0.tokens) }
    for bits in 0..<16 {
      let rules = BackwardRules(
        ln: bits & 1 > 0, identity: bits & 2 > 0, attentionPattern: bits & 4 > 0,
        uniformAttention: bits & 8 > 0)
      let found = try record(model, starts, rules)
      for (run, start) in starts.enumerated() {
        let expected = double.gradients(
          forward[run], from: start.dense(model.config), rules: rules)
        for (hook, gradient) in expected.values {
          let name = try HookName(parsing: hook, nLayers: model.config.nLayers)
          let tensor = try #require(found.gradients[run]?[name])
          // One token attends to itself alone: nothing can come to its queries and keys.
          let isNothing = gradient.magnitude < 1e-12
          comparisons.of(name).check(
            "\(hook), \(rules.names), \(start.name)", tensor.scalars.map(Double.init),
            gradient.values, scale: isNothing ? 1 : nil)
        }
      }
    }
    comparisons.report()
  }

  /// A block adds to the stream: what it adds and what comes out have one gradient, bit for bit.
  @Test(arguments: GradientGolden.models, [BackwardRules.gradient, .relp])
  func sumsHandOnTheirGradient(_ name: String, _ rules: BackwardRules) throws {
    let golden = try GradientGolden(name)
    let model = try golden.model()
    let starts = try golden.starts(rules: "none")
    let found = try record(model, starts, rules)
    for run in starts.indices {
      func gradient(_ site: Site, _ layer: Int? = nil) throws -> [Float] {
        try #require(found.gradients[run]?[HookName(site, layer: layer)]).scalars
      }
      for layer in 0..<model.config.nLayers {
        #expect(try gradient(.mlpOut, layer) == gradient(.residPost, layer))
        #expect(try gradient(.attnOut, layer) == gradient(.residMid, layer))
        #expect(try gradient(.residPost, layer).contains { abs($0) > 1e-3 })
        if layer > 0 {
          #expect(try gradient(.residPre, layer) == gradient(.residPost, layer - 1))
        }
        // A head's own output is added, too.
        let result = try #require(found.gradients[run]?[HookName(.result, layer: layer)])
        let attnOut = try #require(found.gradients[run]?[HookName(.attnOut, layer: layer)])
        for position in 0..<attnOut.shape[0] {
          let heads = result.row(position)
          for head in 0..<model.config.nHeads {
            #expect(heads.row(head).scalars == attnOut.row(position).scalars)
          }
        }
      }
      #expect(try gradient(.embed) == gradient(.residPre, 0))
      #expect(try gradient(.posEmbed) == gradient(.residPre, 0))
    }
  }
}
