import Foundation
import NormLens
import TestSupport
import Testing

/// Processed weights: the numbers of the formulas, the same predictions, and a refusal wherever a
/// step would change them.
@Suite struct WeightProcessingTests {
  static let free = ["tiny-lnfree", "tiny-apollo"]
  static let choices = WeightProcessing.allCases.filter { $0 != .foldAffineNorms }
  /// All steps that go together: a stream is compressed once.
  static let everything = choices.filter { $0 != .crmsNorm }

  private func process(_ name: String, _ steps: [WeightProcessing]) throws -> Checkpoint {
    try Checkpoint.open(Fixtures.checkpoint(name), processing: steps)
  }

  // MARK: float64 values

  @Test func goldenTensors() throws {
    let golden = try Golden.open("processing")
    let comparison = Comparison("processed tensors against float64", relative: 1e-6)
    let logits = Comparison("logits of processed models against float64", relative: 1e-5)
    for name in try golden.names(in: "processed") {
      let tokens = try Golden.open(name).tokens("a")
      for processing in try golden.names(in: "processed/\(name)") {
        let path = "processed/\(name)/\(processing)"
        let steps = try WeightProcessing.parse(golden.text("steps", of: path))
        let checkpoint = try process(name, steps)
        #expect(
          checkpoint.identity.weightProcessing
            == (Self.free.contains(name) ? ["fold_affine_norms"] : []) + steps.map(\.rawValue))
        let model = try checkpoint.model()
        var expected = Set(try golden.names(in: path))
        expected.remove("logits")
        for tensor in expected {
          // The unembedding is stored where it differs from the embedding, its bias where not zero.
          let found =
            switch tensor {
            case "unembed.weight": model.weights.W_U_transposed
            case "unembed.bias": model.weights.b_U ?? Tensor(zeros: [model.config.dVocab])
            default: try #require(checkpoint.tensors[tensor], "\(path): \(tensor)")
            }
          comparison.check("\(path)/\(tensor)", found, try golden.array("\(path)/\(tensor)"))
        }
        #expect(expected.isSuperset(of: checkpoint.tensors.keys), "\(path)")
        logits.check(path, try model.run(tokens), try golden.array("\(path)/logits"))
      }
    }
    comparison.report("tensors")
    logits.report("models")
  }

  // MARK: identities

  /// Whether a list of steps is exact on a checkpoint, by the conditions as they are documented.
  private func isLegal(_ steps: [WeightProcessing], free: Bool) -> Bool {
    let compressing = steps.filter { [.crmsNorm, .isometric].contains($0) }
    if compressing.count > 1 { return false }
    if !compressing.isEmpty && !steps.contains(.centerWritingWeights) { return false }
    if free {
      let bundle = WeightProcessing.transformerLens.allSatisfy(steps.contains)
      return !steps.contains(.rmsNorm) && !steps.contains(.crmsNorm)
        && (bundle || !steps.contains(.foldLN))
    }
    return (!steps.contains(.centerReadingWeights) || steps.contains(.foldLN))
      && (compressing.isEmpty || steps.contains(.foldLN))
      && (!steps.contains(.rmsNorm) || steps.contains(.centerWritingWeights))
  }

  @Test(arguments: Fixtures.checkpoints)
  func everyCombinationKeepsThePredictions(_ name: String) throws {
    let golden = try Golden.open(name)
    let tokens = try golden.tokens("full")
    let expected = try golden.logits("full")
    let logProbabilities = Comparison(
      "\(name) log-probabilities of every combination", relative: 1e-5)
    let logits = Comparison("\(name) logits of every combination that keeps them", relative: 1e-5)
    let probabilities = Comparison(
      "\(name) probabilities of every combination",
      relative: ProcessingCheck.probabilityLimit(magnitude: expected.magnitude))
    let reference = logSoftmax(expected)
    var refused = 0
    for choice in 0..<1 << Self.choices.count {
      let steps = Self.choices.indices.filter { choice >> $0 & 1 == 1 }.map { Self.choices[$0] }
      guard isLegal(steps, free: Self.free.contains(name)) else {
        refused += 1
        #expect(throws: ModelError.self, "\(steps)") { try process(name, steps) }
        continue
      }
      // Whatever order the steps are given in.
      let found = try process(name, steps.reversed()).model().run(tokens)
      let label = steps.map(\.rawValue).joined(separator: ",")
      let now = logSoftmax(GoldenArray(found.scalars.map(Double.init), shape: found.shape))
      logProbabilities.check(label, now.values, reference.values)
      probabilities.check(label, now.values.map(exp), reference.values.map(exp), scale: 1)
      if !steps.contains(.centerUnembed) { logits.check(label, found, expected) }
    }
    logProbabilities.report("models, \(refused) refused")
    probabilities.report("models")
    logits.report("models")
  }

  private func logSoftmax(_ logits: GoldenArray) -> GoldenArray {
    var values = logits.values
    let columns = logits.shape[1]
    for row in 0..<logits.shape[0] {
      let cells = row * columns..<(row + 1) * columns
      let largest = values[cells].max()!
      let sum = largest + log(values[cells].reduce(0) { $0 + exp($1 - largest) })
      for i in cells { values[i] -= sum }
    }
    return GoldenArray(values, shape: logits.shape)
  }

  @Test(arguments: Fixtures.checkpoints)
  func centredWritersGiveAStreamOfMeanZero(_ name: String) throws {
    let before = try Models.load(name)
    let model = try process(name, [.centerWritingWeights]).model()
    let tokens = try Golden.open(name).tokens("b")
    let hooks: [HookFilter] = [
      .residPre(.all), .residMid(.all), .residPost(.all), .attnOut(.all), .mlpOut(.all),
    ]
    let (_, plain) = try before.runWithCache(tokens, hooks: hooks)
    let (_, cache) = try model.runWithCache(tokens, hooks: hooks)
    let means = Comparison("\(name) mean of a centred stream", relative: 1e-6)
    let centred = Comparison("\(name) centred stream is the stream centred", relative: 1e-5)
    for hook in cache.names {
      let x = try cache.tensor(hook)
      let scale = Double(x.maximumMagnitude)
      let rowMeans = (0..<x.shape[0]).map { x.row($0).sum / Double(x.rowCount) }
      means.check("\(hook)", rowMeans, rowMeans.map { _ in 0 }, scale: scale)
      centred.check("\(hook)", x, try plain.tensor(hook).centeringRows())
    }
    means.report("hooks")
    centred.report("hooks")
  }

  @Test(arguments: Fixtures.checkpoints)
  func foldedReadersAnnihilateTheMean(_ name: String) throws {
    let model = try process(name, Self.free.contains(name) ? [] : [.foldLN]).model()
    let comparison = Comparison("\(name) sums of folded readers over d_model", relative: 1e-6)
    func check(_ label: String, _ W: Tensor) {
      let sums = W.transposedForTest.map { $0.reduce(0, +) }
      comparison.check(label, sums, sums.map { _ in 0 }, scale: Double(W.maximumMagnitude) * 24)
    }
    for (layer, block) in model.weights.blocks.enumerated() {
      check("W_QKV \(layer)", block.W_QKV)
      check("W_in \(layer)", block.W_in)
    }
    let W_U = model.weights.W_U_transposed
    let sums = (0..<W_U.shape[0]).map { W_U.row($0).sum }
    comparison.check(
      "W_U", sums, sums.map { _ in 0 }, scale: Double(W_U.maximumMagnitude) * 24)
    comparison.report("matrices")
  }

  /// Folding changes what the norms say of themselves and nothing that flows.
  @Test(arguments: Fixtures.checkpoints.filter { !free.contains($0) })
  func foldingKeepsActivations(_ name: String) throws {
    let tokens = try Golden.open(name).tokens("b")
    let hooks: [HookFilter] = [
      .pattern(.all), .attnScores(.all), .z(.all), .result(.all), .attnOut(.all), .mlpPre(.all),
      .mlpPost(.all), .mlpOut(.all), .residPost(.all), .q(.all), .k(.all), .v(.all),
      .ln1Scale(.all), .ln2Scale(.all), .lnFinalScale, .ln1Normalized(.all), .ln2Normalized(.all),
      .lnFinalNormalized,
    ]
    let (_, before) = try Models.load(name).runWithCache(tokens, hooks: hooks)
    let (_, after) = try process(name, [.foldLN]).model().runWithCache(tokens, hooks: hooks)
    let comparison = Comparison("\(name) hooks of a folded model", relative: 1e-5)
    for hook in before.names {
      comparison.check("\(hook)", try after.tensor(hook), try before.tensor(hook))
    }
    comparison.report("hooks")
  }

  /// On a stream of mean zero RMSNorm is LayerNorm, at every hook.
  @Test(arguments: Fixtures.checkpoints.filter { !free.contains($0) })
  func rmsNormIsLayerNormOnACentredStream(_ name: String) throws {
    let tokens = try Golden.open(name).tokens("b")
    let origin = try process(name, [.centerWritingWeights]).model()
    let model = try process(name, [.centerWritingWeights, .rmsNorm]).model()
    #expect(model.config.normalization == .rmsNorm)
    let (_, before) = try origin.runWithCache(tokens, hooks: Models.everyHook(origin))
    let (_, after) = try model.runWithCache(tokens, hooks: Models.everyHook(model))
    let comparison = Comparison("\(name) hooks with RMSNorm", relative: 1e-5)
    for hook in before.names {
      comparison.check("\(hook)", try after.tensor(hook), try before.tensor(hook))
    }
    comparison.report("hooks")
  }

  // MARK: checks and records

  /// Predictions of the published arithmetic, ε = 1e12 and all, and of the folded model.
  @Test(arguments: free)
  func foldingIsChecked(_ name: String) throws {
    let checks = try process(name, []).processingChecks
    #expect(checks.map(\.step) == ["fold_affine_norms"])
    print("\(name) folding: logits \(checks[0].logits), probabilities \(checks[0].probabilities)")
    #expect(checks[0].logits < 1e-5 && checks[0].probabilities < 1e-6)
  }

  @Test func everyStepIsCheckedAndKeptInTheFile() throws {
    let directory = try TemporaryDirectory()
    let checkpoint = try process("tiny-ln", Self.everything)
    #expect(checkpoint.processingChecks.map(\.step) == Self.everything.map(\.rawValue))
    for check in checkpoint.processingChecks {
      #expect(check.logits < 1e-5 && check.probabilities < 1e-6, "\(check)")
    }
    let path = directory.file("processed.h5")
    try ModelFile.write(checkpoint, to: path)
    let read = try ModelFile.read(path)
    #expect(read.processingChecks == checkpoint.processingChecks)
    #expect(read.identity.weightProcessing == Self.everything.map(\.rawValue))
    #expect(read.config == checkpoint.config)
    #expect(read.config.normalization == .rmsNorm)
    let tokens = try Golden.open("tiny-ln").tokens("b")
    #expect(try read.model().run(tokens).scalars == checkpoint.model().run(tokens).scalars)

    // Nothing is done twice.
    let again = try Checkpoint.open(path, processing: Self.everything)
    #expect(again.skippedProcessing.count == Self.everything.count)
    #expect(again.identity == read.identity)
    #expect(again.processingChecks == read.processingChecks)
    #expect(again.tensors.mapValues(\.scalars) == read.tensors.mapValues(\.scalars))
  }

  /// A step that was carried out without a check leaves a gap, not a shift.
  @Test func aStepWithoutACheckKeepsItsPlace() throws {
    let directory = try TemporaryDirectory()
    var checkpoint = try process("tiny-lnfree", [.centerUnembed])
    checkpoint.processingChecks.removeFirst()
    try ModelFile.write(checkpoint, to: directory.file("m.h5"))
    let read = try ModelFile.read(directory.file("m.h5"))
    #expect(read.identity.weightProcessing == ["fold_affine_norms", "center_unembed"])
    #expect(read.processingChecks == checkpoint.processingChecks)
    #expect(read.processingChecks.map(\.step) == ["center_unembed"])
  }

  @Test func repetition() throws {
    let fold = WeightProcessing.foldLN.rawValue
    let values = WeightProcessing.foldValueBiases
    #expect(!values.stillHolds(after: []))
    #expect(values.stillHolds(after: [fold, values.rawValue]))
    #expect(!values.stillHolds(after: [values.rawValue, fold]))
    #expect(WeightProcessing.foldLN.stillHolds(after: [fold, values.rawValue]))
    // The values' biases come back with a norm's bias, and are folded once more.
    let directory = try TemporaryDirectory()
    try ModelFile.write(try process("tiny-ln", [.foldValueBiases]), to: directory.file("m.h5"))
    let model = try Checkpoint.open(
      directory.file("m.h5"), processing: [.foldLN, .foldValueBiases])
    #expect(
      model.identity.weightProcessing == [values.rawValue, fold, values.rawValue])
    for block in try model.model().weights.blocks {
      #expect(block.b_QKV.rows(48..<72).maximumMagnitude == 0)
    }
  }

  @Test func theBundleFitsAModelWithoutNorms() throws {
    let free = try process("tiny-lnfree", WeightProcessing.transformerLens)
    #expect(
      free.identity.weightProcessing == [
        "fold_affine_norms", "center_writing_weights", "center_unembed", "fold_value_biases",
      ])
    #expect(free.skippedProcessing == ["fold_ln: the model has no norms to fold"])
  }

  /// The tensors of a mapped file, and of another holder, stay what they are.
  @Test func theOriginalIsNotTouched() throws {
    let original = try Checkpoint.open(Fixtures.bundled("mini"))
    let before = original.tensors.mapValues(\.scalars)
    let processed = try original.processed(by: Self.everything)
    #expect(original.tensors.mapValues(\.scalars) == before)
    #expect(processed.tensors["wte.weight"]?.scalars != before["wte.weight"])
    #expect(original.config.tiedUnembed && !processed.config.tiedUnembed)
    let ids = Array(original.tensors.keys)
    #expect(Array(processed.tensors.keys.prefix(ids.count)) == ids)
  }

  /// Trained models, whose streams are what random ones are not.
  @Test(arguments: ["mini", "mini-vanilla", "mini-lnfree"])
  func bundledModels(_ name: String) throws {
    let steps =
      name == "mini-lnfree"
      ? WeightProcessing.transformerLens + [.centerReadingWeights, .isometric] : Self.everything
    let checkpoint = try Checkpoint.open(Fixtures.bundled(name), processing: steps)
    let largest = checkpoint.processingChecks.reduce((0.0, 0.0)) {
      (max($0.0, $1.logits), max($0.1, $1.probabilities))
    }
    print("\(name) processing: logits \(largest.0), probabilities \(largest.1)")
    #expect(largest.0 < 1e-5 && largest.1 < 2e-6)
  }

  /// In a deep model with logits of trained size, float32 itself changes probabilities by more than
  /// 1e-6: the allowance grows with the logits, and is not used up.
  @Test func largeLogits() throws {
    let config = try GPT2Config(nLayers: 16, dModel: 192, nHeads: 4, nCtx: 64, dVocab: 4000)
    try processLarge(config, name: "16 layers of 192")
  }

  /// The same in full size, with times.
  @Test(
    .enabled(
      if: ProcessInfo.processInfo.environment["NORMLENS_PROCESS"] != nil,
      "set NORMLENS_PROCESS=gpt2-small (or -medium, -large, -xl) to process a model of that size"))
  func fullSize() throws {
    let name = ProcessInfo.processInfo.environment["NORMLENS_PROCESS"] ?? ""
    try processLarge(try GPT2Config.preset(name), name: name)
  }

  private func processLarge(_ config: GPT2Config, name: String) throws {
    var checkpoint = try Checkpoint.random(config, name: name, seed: 3, biases: 0.1)
    // Logits as GPT-2 has them: far from zero together, and some ten apart.
    let model = try checkpoint.model()
    let tokens = [1, 2, 3, 4, 5, 6, 7, 8]
    let factor = 10 / (try model.run(tokens).maximumMagnitude)
    for part in ["ln_f.weight", "ln_f.bias"] {
      checkpoint.tensors[part] = checkpoint.tensors[part].map { $0 * factor }
    }
    checkpoint.tensors["ln_f.weight"]?[0] = 0
    checkpoint.tensors["ln_f.bias"]?[0] = -100
    for row in 0..<config.dVocab { checkpoint.tensors["wte.weight"]?[row, 0] += 1 }
    let magnitude = Double(try checkpoint.model().run(tokens).maximumMagnitude)
    #expect(magnitude > 90 && magnitude < 150)
    let clock = ContinuousClock()
    let start = clock.now
    let processed = try checkpoint.processed(by: Self.everything)
    print("\(name): \(model.weights.parameterCount) parameters processed in \(clock.now - start)")
    let limit = ProcessingCheck.probabilityLimit(magnitude: magnitude)
    for check in processed.processingChecks {
      print(
        "  \(check.step): log-probabilities \(check.logits) of the largest logit, probabilities "
          + "\(check.probabilities), allowed \(limit)")
      #expect(check.logits < 1e-5 && check.probabilities < limit)
    }
    #expect(processed.processingChecks.count == Self.everything.count)
  }

  // MARK: refusals

  @Test func refusals() throws {
    func expect(
      _ name: String, _ steps: [WeightProcessing], _ parts: String...,
      sourceLocation: SourceLocation = #_sourceLocation
    ) {
      do {
        _ = try process(name, steps)
        Issue.record("\(name) \(steps) went through", sourceLocation: sourceLocation)
      } catch {
        for part in ["weight processing"] + parts {
          #expect("\(error)".contains(part), sourceLocation: sourceLocation)
        }
      }
    }
    expect("tiny-ln", [.rmsNorm], "'rmsnorm'", "wte.weight", "add center_writing_weights")
    expect("tiny-ln", [.centerReadingWeights], "h.0.ln_1 has gains from", "add fold_ln")
    expect("tiny-lnfree", [.foldLN], "'fold_ln'", "no norm")
    expect("tiny-lnfree", [.rmsNorm], "'rmsnorm'", "LayerNorm")
    expect("tiny-lnfree", WeightProcessing.transformerLens + [.rmsNorm], "'rmsnorm'")
    for form in [WeightProcessing.crmsNorm, .isometric] {
      let name = "'\(form.rawValue)'"
      expect("tiny-ln", [form], name, "h.0.ln_1", "add fold_ln, center_writing_weights")
      expect("tiny-ln", [.foldLN, form], name, "wte.weight", "add center_writing_weights")
      expect("tiny-ln", [.centerWritingWeights, form], name, "add fold_ln")
    }
    expect("tiny-lnfree", [.isometric], "'isometric'", "add center_writing_weights")
    expect("tiny-lnfree", [.centerWritingWeights, .crmsNorm], "'crmsnorm'", "no norm", "isometric")
    expect(
      "tiny-ln", [.foldLN, .centerWritingWeights, .crmsNorm, .isometric], "'isometric'",
      "23 of 24", "leave the step out")
    #expect(throws: ModelError.self) { try WeightProcessing.parse("fold_affine_norms") }
    #expect(throws: ModelError.self) { try WeightProcessing.parse("fold_ln,") }
    #expect(throws: ModelError.self) { try WeightProcessing.parse("Fold_LN") }
    #expect(try WeightProcessing.parse("rmsnorm,transformerlens,fold_ln").count == 5)
  }

  /// What a model of another normalization would compute is another model: nothing is assumed.
  @Test func conditionsAreCheckedOnTheWeights() throws {
    // Neither reads nor writes of these weights know of a mean: without a norm nothing is exact.
    var checkpoint = try Checkpoint.open(Fixtures.checkpoint("tiny-gelu-erf"))
    checkpoint.config.normalization = .none
    for name in checkpoint.tensors.keys where name.contains("ln_") {
      checkpoint.tensors[name] = nil
    }
    for step in [WeightProcessing.centerWritingWeights, .centerReadingWeights] {
      #expect(throws: ModelError.self) { try checkpoint.processed(by: [step]) }
    }
    #expect(throws: Never.self) {
      try checkpoint.processed(by: [.centerUnembed, .foldValueBiases])
    }
    // RMSNorm on a stream with a mean divides by it.
    checkpoint = try Checkpoint.open(Fixtures.checkpoint("tiny-gelu-erf"))
    checkpoint.config.normalization = .rmsNorm
    for step in [WeightProcessing.centerWritingWeights, .centerReadingWeights] {
      #expect(throws: ModelError.self) { try checkpoint.processed(by: [step]) }
    }
    let folded = try checkpoint.processed(by: [.foldLN, .centerUnembed, .foldValueBiases])
    #expect(folded.processingChecks.allSatisfy { $0.probabilities < 1e-6 })
    #expect(throws: ModelError.self) { try folded.processed(by: [.centerReadingWeights]) }
  }

  /// Numbers that were stored as float16 cancel as well as those can.
  @Test func rmsNormFitsWeightsThatWereRoundedToFloat16() throws {
    var checkpoint = try process("tiny-ln", [.foldLN, .centerWritingWeights])
    checkpoint.tensors = checkpoint.tensors.mapValues { $0.map { Float(Float16($0)) } }
    let processed = try checkpoint.processed(by: [.rmsNorm])
    #expect(processed.config.normalization == .rmsNorm)
    #expect(processed.processingChecks.last.map { $0.logits < 1e-4 } == true)
    // The same error in other numbers is a mean.
    checkpoint.tensors = checkpoint.tensors.mapValues { $0.map { $0 * 1.0001 + 1e-4 } }
    #expect(throws: ModelError.self) { try checkpoint.processed(by: [.rmsNorm]) }
  }

  // MARK: any model in the ε = 1e12 form

  /// Identities (a) and (f) of the LN-removal sheet on a model with constants of its own choice, each
  /// LayerNorm with another σ; with a normal ε the same weights are another model.
  @Test(arguments: ["tiny-ln", "tiny-gelu-erf", "tiny-1x1"])
  func anyModelInTheEpsilonForm(_ name: String) throws {
    var random = SeededGenerator(seed: 16)
    var trick = try Checkpoint.open(Fixtures.checkpoint(name))
    trick.config.layerNormEpsilon = 1e12
    for (tensor, values) in trick.tensors
    where tensor.contains("ln_") && tensor.hasSuffix(".weight") {
      let sigma = Float.random(in: 0.2..<20, using: &random)
      trick.tensors[tensor] = values * (1e6 / sigma)
    }
    let folded = try trick.processed(by: [.foldAffineNorms])
    #expect(folded.config.normalization == .none)
    let check = folded.processingChecks[0]
    print("\(name) in the ε form: logits \(check.logits), probabilities \(check.probabilities)")
    #expect(check.logits < 1e-4 && check.probabilities < 1e-6)
    let tokens = try Golden.open(name).tokens("full")
    let comparison = Comparison("\(name) folded against ε = 1e12", relative: 1e-4)
    comparison.check("logits", try folded.model().run(tokens), try trick.model().run(tokens))
    comparison.report("models")

    var normal = trick
    normal.config.layerNormEpsilon = 1e-5
    let (other, right) = (try normal.model().run(tokens), try folded.model().run(tokens))
    let largest = zip(other.scalars, right.scalars).map { Swift.abs($0 - $1) }.max()!
    #expect(largest > right.maximumMagnitude)
  }

  /// An ε that is not large enough for the stream's variance is told, not folded away.
  @Test func aNormThatIsNotAffineIsNotFolded() throws {
    var checkpoint = try Checkpoint.open(Fixtures.checkpoint("tiny-ln"))
    checkpoint.config.layerNormEpsilon = 10
    #expect(throws: ModelError.self) { try checkpoint.processed(by: [.foldAffineNorms]) }
    do {
      _ = try checkpoint.processed(by: [.foldAffineNorms])
    } catch {
      for part in ["fold_affine_norms", "log-probabilities by", "expected at most 0.0001"] {
        #expect("\(error)".contains(part))
      }
    }
  }
}

extension Tensor {
  /// The columns of a matrix.
  fileprivate var transposedForTest: [[Double]] {
    let scalars = scalars
    let columns = rowCount
    return (0..<columns).map { column in
      stride(from: column, to: count, by: columns).map { Double(scalars[$0]) }
    }
  }
}
