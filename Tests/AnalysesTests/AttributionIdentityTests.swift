import NormLens
import TestSupport
import Testing

/// What must hold of estimates whatever the model is: to 1e-12 in the double-precision model of the
/// tests, to float32 rounding of the analysis. Identities of edges are not here: there are no edge
/// scores.
@Suite struct AttributionIdentityTests {
  typealias Direction = ActivationPatching.Direction
  typealias Method = AttributionPatching.Method

  static let methods: [Method] = [
    .attribution, .integratedGradients(steps: 3), .relevance(.relp),
  ]
  static let lnFree = ["tiny-lnfree", "tiny-apollo"]

  // MARK: in double precision

  /// What heads write adds up to what attention writes, what neurons write to what an MLP writes: so do
  /// their estimates, at every position and under all rules.
  @Test(arguments: GradientGolden.models)
  func partsAddUp(_ name: String) throws {
    let pair = DoublePair(try GradientGolden(name).model())
    var deviation = Deviation()
    for rules in DoublePair.ruleSets {
      let gradients = pair.gradients(rules)
      for layer in 0..<pair.model.config.nLayers {
        let h = "blocks.\(layer)."
        for (whole, parts) in [
          ("hook_attn_out", "attn.hook_z"), ("hook_attn_out", "attn.hook_result"),
          ("hook_mlp_out", "mlp.hook_post"),
        ] {
          deviation.add(
            pair.estimates("\(h)\(whole)", gradients), pair.estimates("\(h)\(parts)", gradients))
        }
      }
    }
    print("\(name): parts and wholes differ by \(deviation.worst), largest \(deviation.size)")
    #expect(deviation.worst < 1e-12 && deviation.size > 0.1)
  }

  /// A network that is linear (no norms, no non-linearity, patterns that do not move): estimates are
  /// the effects, everywhere.
  @Test(arguments: lnFree)
  func linearNetwork(_ name: String) throws {
    let model = try PatchingModels.load(name)
    var double = DoubleGPT2(model)
    double.nonlinearity = .identity
    let free = DoublePair(model)
    let patterns = double.run(free.pair.corrupted)
    let pair = DoublePair(double, free.pair) { name, value in
      if name.hasSuffix("hook_pattern") { value = patterns[name] }
    }
    let gradients = pair.gradients(BackwardRules(attentionPattern: true))
    var deviation = Deviation()
    for layer in 0..<model.config.nLayers {
      for site in [
        "hook_resid_pre", "attn.hook_v", "attn.hook_z", "hook_attn_out", "hook_resid_mid",
        "mlp.hook_pre", "mlp.hook_post", "hook_mlp_out", "hook_resid_post",
      ] {
        let hook = "blocks.\(layer).\(site)"
        deviation.add(pair.estimates(hook, gradients), pair.effects(hook))
      }
      for site in ["attn.hook_q", "attn.hook_k", "attn.hook_attn_scores"] {
        let hook = "blocks.\(layer).\(site)"
        #expect(pair.estimates(hook, gradients).allSatisfy { $0 == 0 })
        #expect(pair.effects(hook).allSatisfy { $0 == 0 })
      }
    }
    print("\(name): linear network: \(deviation.worst), largest \(deviation.size)")
    #expect(deviation.worst < 1e-12 && deviation.size > 0.1)
  }

  /// Without norms the read-out is linear: at the last stream and at what the last MLP adds, estimates
  /// are the effects under all rules; below they are not.
  @Test(arguments: lnFree)
  func lastLayerIsExact(_ name: String) throws {
    let pair = DoublePair(try PatchingModels.load(name))
    let h = "blocks.\(pair.model.config.nLayers - 1)."
    var deviation = Deviation()
    for rules in DoublePair.ruleSets {
      let gradients = pair.gradients(rules)
      for site in ["hook_resid_post", "hook_mlp_out"] {
        deviation.add(pair.estimates(h + site, gradients), pair.effects(h + site))
      }
      var below = Deviation()
      below.add(pair.estimates("\(h)hook_resid_mid", gradients), pair.effects("\(h)hook_resid_mid"))
      #expect(below.worst > 1e-3, "\(rules.names): the last MLP is not linear")
    }
    print("\(name): exact at the end to \(deviation.worst), largest \(deviation.size)")
    #expect(deviation.worst < 1e-12 && deviation.size > 0.1)
  }

  /// With norms relevance at the last stream is the effect of patching it with the scale left alone.
  @Test(arguments: ["tiny-ln", "patching-deep", "tiny-relu-untied", "tiny-gelu-erf-rmsnorm"])
  func frozenScale(_ name: String) throws {
    let pair = DoublePair(try GradientGolden(name).model())
    let hook = "blocks.\(pair.model.config.nLayers - 1).hook_resid_post"
    let patched = pair.model.run(pair.pair.corrupted) { name, value in
      if name == hook {
        for i in 0..<value.columns { value[pair.last, i] = pair.clean[hook][pair.last, i] }
      }
      if name == "ln_final.hook_scale" { value = pair.corrupted[name] }
    }
    let exact = pair.metric(patched) - pair.metric(pair.corrupted)
    var (relevance, derivative) = (Deviation(), Deviation())
    relevance.add(pair.estimates(hook, pair.gradients(.relp))[pair.last], exact)
    derivative.add(pair.estimates(hook, pair.gradients(.gradient))[pair.last], exact)
    print("\(name): closed form: \(relevance.worst), the derivative's \(derivative.worst)")
    #expect(relevance.worst < 1e-12 && relevance.size > 0.1)
    #expect(derivative.worst > 1e-3)
  }

  /// Without norms their rule changes nothing, and relevance differs from the derivative by the neurons'
  /// coefficients only.
  @Test(arguments: lnFree)
  func ruleForNormsWithoutNorms(_ name: String) throws {
    let pair = DoublePair(try PatchingModels.load(name))
    let (relp, identity, plain) = (
      pair.gradients(.relp), pair.gradients(.init(identity: true)), pair.gradients(.gradient)
    )
    for (hook, gradient) in relp.values { #expect(identity.values[hook] == gradient, "\(hook)") }
    let h = "blocks.\(pair.model.config.nLayers - 1)."
    // Up to the last neurons nothing differs; there it is the ratio of the coefficients.
    #expect(plain["\(h)mlp.hook_post"] == relp["\(h)mlp.hook_post"])
    var deviation = Deviation()
    let pre = pair.corrupted["\(h)mlp.hook_pre"]
    for (index, x) in pre.values.enumerated() {
      deviation.add(
        relp["\(h)mlp.hook_pre"].values[index] * pair.model.slope(x),
        plain["\(h)mlp.hook_pre"].values[index] * pair.model.identityCoefficient(x),
        scale: plain["\(h)mlp.hook_pre"].magnitude)
    }
    #expect(deviation.worst < 1e-12)
    #expect(plain["hook_embed"] != relp["hook_embed"])
  }

  /// The identity rule's coefficient is activation(x)/x, between 0 and 1.
  @Test(arguments: ["tiny-ln", "tiny-gelu-erf", "tiny-relu-untied"])
  func coefficient(_ name: String) throws {
    let model = DoubleGPT2(try PatchingModels.load(name))
    var slopes = (low: 0.0, high: 0.0)
    for step in -600...600 {
      let x = Double(step) / 100
      let c = model.identityCoefficient(x)
      // Far out the doubles end: 0 < c < 1 to rounding.
      #expect(c >= 0 && c <= 1 && (abs(x) > 5 || name == "tiny-relu-untied" || (c > 0 && c < 1)))
      #expect(abs(c * x - model.activation(x)) < 1e-15)
      slopes = (min(slopes.low, model.slope(x)), max(slopes.high, model.slope(x)))
    }
    #expect(model.identityCoefficient(0) == (name == "tiny-relu-untied" ? 0 : 0.5))
    // The derivative leaves this interval.
    #expect(name == "tiny-relu-untied" || (slopes.low < -0.12 && slopes.high > 1.12))
  }

  /// Integrated gradients of the embeddings add up to the whole difference of the metric, up to an
  /// error that falls with the square of the steps.
  @Test(arguments: ["tiny-ln", "tiny-lnfree", "patching-deep"])
  func completeness(_ name: String) throws {
    let pair = DoublePair(try PatchingModels.load(name))
    let hook = "blocks.0.hook_resid_pre"
    let gap = pair.metric(pair.clean) - pair.metric(pair.corrupted)
    let (base, source) = (pair.corrupted[hook], pair.clean[hook])
    let errors = [32, 64, 128].map { steps in
      var sum = 0.0
      for k in 0..<steps {
        let alpha = (Double(k) + 0.5) / Double(steps)
        let run = pair.model.run(pair.pair.corrupted) { name, value in
          if name == hook { value = base.combined(source) { $0 + alpha * ($1 - $0) } }
        }
        let gradient = pair.model.gradients(run, from: pair.start)[hook]
        sum += base.combined(source) { $1 - $0 }.dot(gradient) / Double(steps)
      }
      return abs(sum - gap)
    }
    let plain = pair.estimates(hook, pair.gradients(.gradient)).reduce(0, +)
    print("\(name): difference \(gap), derivative \(plain), errors of 32, 64, 128 steps \(errors)")
    #expect(abs(gap) > 0.1 && abs(plain - gap) > 0.01 * abs(gap))
    for (coarse, fine) in zip(errors, errors.dropFirst()) {
      #expect(coarse / fine > 3.5 && coarse / fine < 4.5)
    }
  }

  // MARK: the analysis

  /// The named sites; of the trained models those that are not large.
  private func sites(_ name: String) -> [PatchSite] {
    let large = [PatchSite.mlpPost, .headPatternDestSrc]
    let scores = PatchSite("scores", of: .attnScores, over: [.layer, .head])
    return PatchSite.all.filter { !PatchingModels.bundled.contains(name) || !large.contains($0) }
      + [scores]
  }

  private func estimates(
    _ model: GPT2, _ pairs: [PromptPair], _ sites: [PatchSite], _ methods: [Method],
    _ direction: Direction = .denoising
  ) throws -> [SweepValues] {
    var experiment = ActivationPatching(of: sites, direction: direction)
    experiment.positions = .fromEnd
    let result = try AttributionPatching(of: experiment, by: methods).run(model, pairs)
    return try methods.map { try SweepValues(result, method: $0.group) }
  }

  private func logit(_ model: GPT2, _ pair: PromptPair) throws -> Double {
    max(
      Double(try model.run(pair.clean).maximumMagnitude),
      Double(try model.run(pair.corrupted).maximumMagnitude))
  }

  /// Two equal runs: every estimate is 0, in both directions and by all methods.
  @Test(arguments: PatchingModels.all, [Direction.denoising, .noising])
  func equalRunsGiveNothing(_ name: String, _ direction: Direction) throws {
    let model = try PatchingModels.load(name)
    let pairs = try PatchingModels.pairs(name, model).flatMap { pair in
      [pair.clean, pair.corrupted].map {
        PromptPair(clean: $0, corrupted: $0, answer: pair.answer, wrong: pair.wrong)
      }
    }
    let sites = sites(name)
    for found in try estimates(model, pairs, sites, Self.methods, direction) {
      #expect(found.cleanMetric == found.corruptedMetric)
      for site in sites {
        let values = try found[site.name]
        #expect(values.contains(0), "\(site)")
        #expect(values.allSatisfy { ($0 == 0 && $0.sign == .plus) || $0.isNaN }, "\(site)")
      }
    }
  }

  /// The same beside pairs that differ; and in these nothing before the first difference.
  @Test(arguments: PatchingModels.all)
  func equalBeginnings(_ name: String) throws {
    let model = try PatchingModels.load(name)
    var pairs = try PatchingModels.equalPairs(name, model)
    pairs[1].corrupted = pairs[1].clean
    let sites = sites(name)
    for found in try estimates(model, pairs, sites, Self.methods) {
      for site in sites {
        for (prompt, pair) in pairs.enumerated() {
          let cells = try found.cells(site.name, prompt: prompt, length: pair.length)
          let isNothing = cells.values.allSatisfy { $0 == 0 }
          // In a single layer the last query is the same, whatever was before it.
          let isSomething = prompt != 1 && (model.config.nLayers > 1 || site == .residPre)
          #expect(prompt != 1 || isNothing, "\(site)")
          #expect(!isSomething || !isNothing, "\(site) of \(prompt)")
          guard let axis = site.axes.firstIndex(where: { [.pos, .queryPos].contains($0) }) else {
            continue
          }
          let first = zip(pair.clean, pair.corrupted).prefix { $0 == $1 }.count
          #expect(first > 0)
          #expect(cells.allSatisfy { $0.key[axis] >= first || $0.value == 0 }, "\(site)")
        }
      }
    }
  }

  /// No rules are the derivative, bit for bit.
  @Test(arguments: PatchingModels.all, [Direction.denoising, .noising])
  func noRules(_ name: String, _ direction: Direction) throws {
    let model = try PatchingModels.load(name)
    let pairs = try PatchingModels.pairs(name, model)
    let sites = sites(name)
    let found = try estimates(
      model, pairs, sites, [.attribution, .relevance(BackwardRules())], direction)
    #expect(found[1].group.attributes["rules"] == .string("none"))
    for site in sites {
      let (attribution, relevance) = (try found[0][site.name], try found[1][site.name])
      #expect(zip(attribution, relevance).allSatisfy { $0.bitPattern == $1.bitPattern })
      // In a single layer the last query is the same, whatever was before it.
      let isSomething = model.config.nLayers > 1 || site == .residPre
      #expect(!isSomething || attribution.contains { abs($0) > 1e-6 }, "\(site)")
    }
    let relp = try estimates(model, pairs, sites, [.relevance(.relp)], direction)[0]
    #expect(try relp["resid_pre"] != found[0]["resid_pre"])
  }

  /// Rules and methods change no forward pass.
  @Test(arguments: PatchingModels.all)
  func forwardPassIsTheSame(_ name: String) throws {
    let model = try PatchingModels.load(name)
    let pairs = try PatchingModels.equalPairs(name, model)
    let exact = try SweepValues(ActivationPatching(of: .residPre).run(model, pairs))
    for rules in DoublePair.ruleSets {
      let found = try estimates(model, pairs, [.residPre], [.relevance(rules)])[0]
      #expect(found.cleanMetric == exact.cleanMetric)
      #expect(found.corruptedMetric == exact.corruptedMetric)
    }
  }

  /// Estimates of parts add up to that of the whole: heads to attention, neurons to an MLP, positions
  /// to a head; a stream is the same after a block and before the next.
  @Test(arguments: PatchingModels.all, [Direction.denoising, .noising])
  func partsAddUpInFloat32(_ name: String, _ direction: Direction) throws {
    let model = try PatchingModels.load(name)
    let pairs = try PatchingModels.equalPairs(name, model)
    let post = PatchSite("resid_post", of: .residPost, over: [.layer, .pos])
    let all = PatchSite.all + [post]
    let shapes = Dictionary(
      uniqueKeysWithValues: all.map {
        ($0.name, $0.shape(model.config, length: pairs[0].length))
      })
    let found = try estimates(model, pairs, all, Self.methods, direction)
    var deviation = Deviation()
    for values in found {
      for prompt in pairs.indices {
        /// A site's estimates with some axes summed, and Σ|estimate|.
        func summed(_ site: String, over axes: Set<Int>) throws -> ([[Int]: Double], Double) {
          var sums: [[Int]: Double] = [:]
          var size = 0.0
          let cells = try values.cells(site, prompt: prompt, length: pairs[prompt].length)
          #expect(cells.count == shapes[site]?.reduce(1, *))
          for (cell, value) in cells {
            sums[cell.indices.filter { !axes.contains($0) }.map { cell[$0] }, default: 0] += value
            size = max(size, abs(value))
          }
          return (sums, size)
        }
        for (whole, parts, axes) in [
          ("attn_out", "head_z_by_pos", [2]), ("mlp_out", "mlp_post", [2]),
          ("head_z", "head_z_by_pos", [1]), ("head_q", "head_q_by_pos", [1]),
          ("head_k", "head_k_by_pos", [1]), ("head_v", "head_v_by_pos", [1]),
          ("head_pattern", "head_pattern_by_pos", [2]),
          ("head_pattern_by_pos", "head_pattern_dest_src", [3]),
        ] as [(String, String, Set<Int>)] {
          let (a, size) = try summed(whole, over: [])
          let (b, partSize) = try summed(parts, over: axes)
          #expect(Set(a.keys) == Set(b.keys))
          for (cell, value) in a {
            deviation.add(value, b[cell] ?? .nan, scale: max(size, partSize))
          }
        }
        let (after, _) = try summed("resid_post", over: [])
        let (before, _) = try summed("resid_pre", over: [])
        for (cell, value) in before where cell[0] > 0 {
          #expect(after[[cell[0] - 1, cell[1]]] == value)
        }
      }
    }
    print("\(name), \(direction.rawValue): parts and wholes differ by \(deviation.worst)")
    #expect(deviation.worst < 2e-5 && deviation.size > 0.01)
  }

  /// Without norms and for the logit difference all methods are exact at the end of the model, and
  /// the rule for norms changes nothing.
  @Test(arguments: lnFree + ["mini-lnfree"], [Direction.denoising, .noising])
  func exactWithoutNorms(_ name: String, _ direction: Direction) throws {
    let model = try PatchingModels.load(name)
    let pairs = try PatchingModels.pairs(name, model)
    let post = PatchSite("resid_post", of: .residPost, over: [.layer, .pos])
    var experiment = ActivationPatching(of: [post, .mlpOut], direction: direction)
    experiment.positions = .fromEnd
    experiment.layers = [-1]
    let exact = try SweepValues(experiment.run(model, pairs))
    let result = try AttributionPatching(of: experiment, by: Self.methods).run(model, pairs)
    let comparison = EffectComparison("\(name), \(direction.rawValue): the last layer is exact")
    for method in Self.methods {
      let found = try SweepValues(result, method: method.group)
      for site in [post, .mlpOut] {
        for (prompt, pair) in pairs.enumerated() {
          let cells = try exact.cells(site.name, prompt: prompt, length: pair.length)
          #expect(cells.values.contains { abs($0) > 0.01 })
          comparison.check(
            "\(method.name) \(site) of \(prompt)",
            try found.cells(site.name, prompt: prompt, length: pair.length), cells,
            logit: try logit(model, pair))
        }
      }
    }
    comparison.report()

    let sites = PatchSite.blocks + PatchSite.heads
    let relp = try estimates(model, pairs, sites, [.relevance(.relp)], direction)[0]
    let identity = try estimates(
      model, pairs, sites, [.relevance(.init(identity: true))], direction)[0]
    let plain = try estimates(model, pairs, sites, [.attribution], direction)[0]
    for site in sites {
      let (a, b) = (try relp[site.name], try identity[site.name])
      let size = a.reduce(0) { $1.isNaN ? $0 : max($0, abs($1)) }
      #expect(zip(a, b).allSatisfy { ($0.isNaN && $1.isNaN) || abs($0 - $1) <= 1e-6 * size })
      #expect(size > 1e-4)
    }
    #expect(try plain["resid_pre"] != relp["resid_pre"])
  }

  /// Exchanged runs, patched the other way round, are the same estimate.
  @Test(arguments: ["tiny-ln", "patching-deep", "mini-lnfree"])
  func exchangedPairs(_ name: String) throws {
    let model = try PatchingModels.load(name)
    let pairs = try PatchingModels.equalPairs(name, model)
    let exchanged = pairs.map {
      PromptPair(clean: $0.corrupted, corrupted: $0.clean, answer: $0.answer, wrong: $0.wrong)
    }
    let sites = PatchSite.blocks + PatchSite.heads
    let comparison = EffectComparison("\(name): estimates of exchanged runs")
    let one = try estimates(model, pairs, sites, Self.methods)
    let other = try estimates(model, exchanged, sites, Self.methods, .noising)
    for (index, method) in Self.methods.enumerated() {
      for site in sites {
        for (prompt, pair) in pairs.enumerated() {
          comparison.check(
            "\(method.name) \(site) of \(prompt)",
            try one[index].cells(site.name, prompt: prompt, length: pair.length),
            try other[index].cells(site.name, prompt: prompt, length: pair.length),
            logit: try logit(model, pair))
        }
      }
    }
    comparison.report()
  }

  /// The embeddings' integrated gradients add up to the metric's difference, better with every step.
  @Test(arguments: ["tiny-ln", "tiny-lnfree", "patching-deep"] + PatchingModels.bundled)
  func completenessInFloat32(_ name: String) throws {
    let model = try PatchingModels.load(name)
    let pairs = try PatchingModels.equalPairs(name, model)
    func errors(_ method: Method, _ direction: Direction) throws -> [Double] {
      let found = try estimates(model, pairs, [.residPre], [method], direction)[0]
      return try pairs.indices.map { prompt in
        let cells = try found.cells("resid_pre", prompt: prompt, length: pairs[prompt].length)
        let sum = cells.filter { $0.key[0] == 0 }.values.reduce(0, +)
        let gap = found.cleanMetric[prompt] - found.corruptedMetric[prompt]
        #expect(abs(gap) > 0.01)
        return abs(sum - (direction == .denoising ? gap : -gap))
      }
    }
    for direction in [Direction.denoising, .noising] {
      let floor = 1e-5 * (try pairs.map { try logit(model, $0) }.max() ?? 0)
      let plain = try errors(.attribution, direction)
      let some = try errors(.integratedGradients(steps: 16), direction)
      let many = try errors(.integratedGradients(steps: 64), direction)
      print("\(name), \(direction.rawValue): errors of the derivative, of 16 and of 64 steps:")
      for prompt in pairs.indices {
        print("  \(plain[prompt]), \(some[prompt]), \(many[prompt])")
        #expect(many[prompt] < max(floor, plain[prompt] / 20))
        #expect(many[prompt] < max(floor, some[prompt] / 4))
      }
    }
  }
}
