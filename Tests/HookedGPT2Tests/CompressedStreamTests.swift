import NormLens
import TestSupport
import Testing

/// Models whose stream has lost the direction of the ones: `crmsnorm` and `isometric`.
@Suite struct CompressedStreamTests {
  /// Every hook of the compressed model in float32 against the unprocessed model's in float64: streams
  /// in coordinates, everything else as it is.
  @Test(arguments: CompressedForm.all)
  func everyHook(_ form: CompressedForm) throws {
    let (plain, model) = (try form.plain(), try form.load())
    let golden = try Golden.open(form.checkpoint)
    let d = plain.config.dModel
    #expect(model.config.dModel == d - 1 && model.config.normWidth == d)
    #expect(model.config.dHead == plain.config.dHead && !model.config.hasOnesDirection)
    let (_, cache) = try model.runWithCache(golden.tokens("b"), hooks: Models.everyHook(model))
    let comparison = Comparison("\(form) hooks against float64", relative: 1e-5)
    for hook in cache.names where hook.site != .unembedIn {
      let found = try cache.tensor(hook)
      var expected = try golden.hook("\(hook)", prompt: "b")
      if hook.site.axes.contains("d_model") {
        let rows = expected.values.count / d
        expected = GoldenArray(
          (0..<rows).flatMap { form.coordinates(Array(expected.values[$0 * d..<($0 + 1) * d])) },
          shape: expected.shape.dropLast() + [d - 1])
      }
      comparison.check("\(hook)", found, expected)
    }
    comparison.report("hooks")
  }

  /// Lengths in the centred stream and angles between its rows are what `isometric` keeps and
  /// `crmsnorm` does not.
  @Test(arguments: CompressedForm.all)
  func normsAndAngles(_ form: CompressedForm) throws {
    let (plain, model) = (try form.plain(), try form.load())
    let tokens = try Golden.open(form.checkpoint).tokens("b")
    let hooks: [HookFilter] = [.residPre(.all), .residMid(.all), .residPost(.all), .attnOut(.all)]
    let (_, before) = try plain.runWithCache(tokens, hooks: hooks)
    let (_, after) = try model.runWithCache(tokens, hooks: hooks)
    var worst = 0.0
    for hook in before.names {
      let (x, y) = (try before.tensor(hook).centeringRows(), try after.tensor(hook))
      let largest = (0..<x.shape[0]).map { x.row($0).dot(x.row($0)) }.max()!
      for i in 0..<x.shape[0] {
        for j in 0...i {
          worst = max(
            worst, Swift.abs(x.row(i).dot(x.row(j)) - y.row(i).dot(y.row(j))) / largest)
        }
      }
    }
    print("\(form): inner products of the centred stream change by \(worst) of the largest")
    #expect(form.form == .isometric ? worst < 1e-5 : worst > 1e-3)
  }

  /// Gradients at hooks in coordinates: what a step of the stream does is what it was.
  @Test(arguments: CompressedForm.all)
  func gradients(_ form: CompressedForm) throws {
    let model = try form.load()
    let double = DoubleGPT2(model)
    let prompt = BackwardPassTests.prompts(model)[0]
    let start = BackwardPassTests.start(model, length: prompt.count)
    let dense = GradientGolden.Start(name: "b", tokens: prompt, gradient: start)
      .dense(model.config)
    let run = double.run(prompt)
    let comparison = Comparison("\(form) gradients against double precision", relative: 1e-4)
    for rules in [BackwardRules.gradient, .relp] {
      let expected = double.gradients(run, from: dense, rules: rules)
      let (_, cache) = try model.runWithGradients(
        prompt, hooks: Models.everyHook(model).map(\.gradient), rules: rules
      ) { _ in start }
      for hook in HookName.all(nLayers: model.config.nLayers) {
        let gradient = try cache.tensor(hook.gradient)
        let value = try #require(expected.values["\(hook)"], "\(hook)")
        // At scales large terms cancel.
        let scale = hook.rawValue.hasSuffix("hook_scale") ? max(1, value.magnitude) : nil
        comparison.check(
          "\(hook), \(rules.names)", gradient.scalars.map(Double.init), value.values, scale: scale)
      }
    }
    comparison.report("gradients")

    // The double-precision model itself, against differences.
    let gradients = double.gradients(run, from: dense)
    var random = SeededGenerator(seed: 5)
    var worst = 0.0
    for (hook, gradient) in gradients.values {
      let direction = gradient.map { _ in Double.random(in: -1..<1, using: &random) }
      let ends = [1e-5, -1e-5].map { step in
        double.run(prompt) { name, value in
          guard name == hook else { return }
          for i in value.values.indices { value.values[i] += step * direction.values[i] }
        }.logits.dot(dense)
      }
      let size = max(
        1e-3, zip(gradient.values, direction.values).reduce(0) { $0 + abs($1.0 * $1.1) })
      let difference = (ends[0] - ends[1]) / 2e-5
      let error = abs(difference - gradient.dot(direction)) / size
      worst = max(worst, error)
      #expect(error < 1e-5, "\(form) \(hook): \(difference), \(gradient.dot(direction))")
    }
    print("\(form): gradients differ from central differences by \(worst)")
  }

  /// Edits of scales and normalised streams mean what they meant.
  @Test(arguments: CompressedForm.all)
  func frozenScales(_ form: CompressedForm) throws {
    let (plain, model) = (try form.plain(), try form.load())
    let golden = try Golden.open(form.checkpoint)
    let comparison = Comparison("\(form) with frozen scales", relative: 1e-5)
    let scales: [HookFilter] = [.ln1Scale(.all), .ln2Scale(.all), .lnFinalScale]
    var found: [Tensor] = []
    for each in [plain, model] {
      let (_, donor) = try each.runWithCache(golden.tokens("d"), hooks: scales)
      let frozen = try Intervention.freezeLayerNorm(donor)
      // Heads that read inputs of their own go through the norm by themselves.
      let own = Intervention.edit(.qInput(0)) { $0 = $0 * 1.5 }
      found.append(try each.run(golden.tokens("a"), interventions: frozen + [own]))
    }
    comparison.check("logits", found[1], found[0])
    // Half of what is normalised, which has no mean in either model.
    let halved = Intervention.edit(.ln2Normalized(0)) { $0 = $0 * 0.5 }
    comparison.check(
      "normalized", try model.run(golden.tokens("b"), interventions: [halved]),
      try plain.run(golden.tokens("b"), interventions: [halved]))
    comparison.report("runs")
  }

  // MARK: files

  @Test(arguments: CompressedForm.all)
  func modelFile(_ form: CompressedForm) throws {
    let directory = try TemporaryDirectory()
    let path = directory.file("m.h5")
    let checkpoint = try form.open()
    try ModelFile.write(checkpoint, to: path)
    let read = try ModelFile.read(path)
    #expect(read.config == checkpoint.config)
    let tokens = try Golden.open(form.checkpoint).tokens("b")
    #expect(try read.model().run(tokens).scalars == checkpoint.model().run(tokens).scalars)
    // What it has been through is not done again.
    let again = try Checkpoint.open(path, processing: form.steps)
    #expect(again.skippedProcessing.count == form.steps.count)
    // The other steps that speak of a mean have none to speak of.
    for step in [WeightProcessing.centerReadingWeights, .crmsNorm, .isometric]
    where step != form.form {
      #expect(throws: ModelError.self) { try Checkpoint.open(path, processing: [step]) }
    }
    let more = try Checkpoint.open(path, processing: [.centerUnembed, .foldValueBiases])
    #expect(more.processingChecks.suffix(2).allSatisfy { $0.logits < 1e-5 })
    #expect(throws: ModelSourceError.self) {
      try HuggingFaceExport.write(checkpoint, to: directory.file("hf"))
    }
    #expect(try directory.contents() == ["m.h5"])
  }

  /// A width that belongs to no norm is refused, and an unprocessed file does not speak of one.
  @Test func widthsInFiles() throws {
    let directory = try TemporaryDirectory()
    let path = directory.file("m.h5")
    for form in CompressedForm.all.prefix(2) {
      for width in [22, 25, 26] {
        var checkpoint = try form.open()
        checkpoint.config.normWidth = width
        try ModelFile.write(checkpoint, to: path)
        do {
          _ = try ModelFile.read(path)
          Issue.record("\(form): width \(width) was read")
        } catch {
          for part in ["norm_width", "\(width)", "24"] { #expect("\(error)".contains(part)) }
        }
      }
    }
    #expect(throws: ModelError.self) {
      try GPT2Config(nLayers: 1, dModel: 8, nHeads: 2, normalization: .layerNorm, normWidth: 9)
    }
    #expect(throws: ModelError.self) {
      try GPT2Config(nLayers: 1, dModel: 8, nHeads: 2, normalization: .crmsNorm)
    }
    for dHead in [-1, 0, 1 << 23, Int.max] {
      #expect(throws: ModelError.self) {
        try GPT2Config(nLayers: 1, dModel: 8, nHeads: 3, dHead: dHead)
      }
    }
    #expect(throws: ModelError.self) { try GPT2Config(nLayers: 1, dModel: 8, nHeads: 3) }
  }

  /// Heads that are not d_model / n_heads wide, in a model with LayerNorm.
  @Test func headsOfAnyWidth() throws {
    let directory = try TemporaryDirectory()
    let config = try GPT2Config(nLayers: 2, dModel: 10, nHeads: 3, dHead: 7, nCtx: 12, dVocab: 31)
    let checkpoint = try Checkpoint.random(config, name: "wide", seed: 4, biases: 0.1)
    let model = try checkpoint.model()
    let tokens = [3, 1, 4, 1, 5, 9, 2]
    let comparison = Comparison("heads of 7 in a stream of 10", relative: 1e-5)
    let run = DoubleGPT2(model).run(tokens)
    let (logits, cache) = try model.runWithCache(tokens, hooks: [.z(.all), .q(.all)])
    comparison.check("logits", logits.scalars.map(Double.init), run.logits.values)
    for hook in cache.names {
      comparison.check(
        "\(hook)", try cache.tensor(hook).scalars.map(Double.init), run["\(hook)"].values)
    }
    comparison.report("hooks")
    try ModelFile.write(checkpoint, to: directory.file("m.h5"))
    #expect(try ModelFile.read(directory.file("m.h5")).config == config)
    #expect(model.W_V(layer: 1, head: 2).shape == [10, 7])
    #expect(model.W_O(layer: 1, head: 2).shape == [7, 10])
    #expect(throws: ModelSourceError.self) {
      try HuggingFaceExport.write(checkpoint, to: directory.file("hf"))
    }
  }
}
