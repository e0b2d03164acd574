import NormLens
import TestSupport
import Testing

/// Models to be compared get the same weight processing, or are refused.
@Suite struct TwinModelsTests {
  private func processed(
    _ name: String, _ steps: [WeightProcessing], in directory: TemporaryDirectory,
    as file: String
  ) throws -> String {
    let path = directory.file(file)
    try ModelFile.write(
      try Checkpoint.open(Fixtures.bundled(name), processing: steps), to: path)
    return path
  }

  private func streams(_ model: GPT2) throws -> Tensor {
    let tokens = try model.tokens("When Mary and John went to the store")
    return try model.runWithCache(tokens, hooks: [.residPost(.layer(3))]).cache.tensor(
      .residPost, layer: 3)
  }

  @Test func alikeStayAsTheyAre() throws {
    let twins = try TwinModels(
      ["mini", "mini-vanilla", "mini-lnfree"].map { Fixtures.bundled($0) })
    #expect(twins.models.map(\.identity.name) == ["mini", "mini-vanilla", "mini-lnfree"])
    #expect(
      twins.models.map(\.identity.weightProcessing) == [[], [], ["fold_affine_norms"]])
    #expect(twins.notes.isEmpty)
  }

  /// What one has been through is done to the others: a model beside its processed self has the same
  /// streams.
  @Test func missingStepsAreApplied() throws {
    let directory = try TemporaryDirectory()
    let path = try processed(
      "mini", WeightProcessing.transformerLens, in: directory, as: "mini-tl.h5")
    let twins = try TwinModels([Fixtures.bundled("mini"), path, Fixtures.bundled("mini-lnfree")])
    #expect(twins.models.map(\.identity.name) == ["mini", "mini-tl", "mini-lnfree"])
    let steps = WeightProcessing.transformerLens.map(\.rawValue)
    #expect(twins.models[0].identity.weightProcessing == steps)
    #expect(twins.models[1].identity.weightProcessing == steps)
    #expect(
      twins.models[2].identity.weightProcessing == [
        "fold_affine_norms", "center_writing_weights", "center_unembed", "fold_value_biases",
      ])
    #expect(
      twins.notes == [
        "mini: fold_ln,center_writing_weights,center_unembed,fold_value_biases applied, as to the "
          + "other models",
        "mini-lnfree: center_writing_weights,center_unembed,fold_value_biases applied, as to the "
          + "other models",
      ])
    #expect(twins.models[0].identity.weightsSHA256 == twins.models[1].identity.weightsSHA256)
    let (first, second) = (try streams(twins.models[0]), try streams(twins.models[1]))
    #expect((first - second).maximumMagnitude == 0)
    for model in twins.models {
      let stream = try streams(model)
      let mean = (0..<stream.shape[0]).map { Swift.abs(stream.row($0).sum) }.max() ?? 0
      print("\(model.identity.name): largest |sum of a stream| \(mean)")
      #expect(mean < 1e-3)
    }
  }

  @Test func coordinatesOfTheStream() throws {
    let directory = try TemporaryDirectory()
    let isometric = try processed(
      "mini", [.foldLN, .centerWritingWeights, .isometric], in: directory, as: "iso.h5")
    let crms = try processed(
      "mini", [.foldLN, .centerWritingWeights, .crmsNorm], in: directory, as: "crms.h5")
    let twins = try TwinModels([isometric, Fixtures.bundled("mini-lnfree")])
    #expect(twins.models.map(\.config.dModel) == [191, 191])
    let beside = try TwinModels([Fixtures.bundled("mini"), crms])
    #expect(beside.models.map(\.config.dModel) == [191, 191])
    #expect(
      beside.models[0].identity.weightsSHA256 == beside.models[1].identity.weightsSHA256)

    func refuse(_ sources: [String], saying part: String) {
      let error = #expect(throws: AnalysisError.self) { try TwinModels(sources) }
      #expect(error?.description.contains(part) == true, "\(error?.description ?? "nothing")")
    }
    refuse(
      [crms, Fixtures.bundled("mini-lnfree")],
      saying: "'mini-lnfree' cannot be brought into the gauge of the others")
    refuse([crms, isometric], saying: "compare the models as they were before that processing")

    var foreign = try Checkpoint.open(Fixtures.bundled("mini"))
    foreign.identity.weightProcessing = ["pruned"]
    try ModelFile.write(foreign, to: directory.file("pruned.h5"))
    refuse(
      [directory.file("pruned.h5"), Fixtures.bundled("mini-lnfree")],
      saying: "'mini' has been through 'pruned'")
  }

  /// What is asked for is done to all that it concerns.
  @Test func askedFor() throws {
    let twins = try TwinModels(
      ["mini", "mini-lnfree"].map { Fixtures.bundled($0) },
      processing: [.foldLN, .centerUnembed])
    #expect(twins.models[0].identity.weightProcessing == ["fold_ln", "center_unembed"])
    #expect(
      twins.models[1].identity.weightProcessing == ["fold_affine_norms", "center_unembed"])
    #expect(twins.notes == ["mini-lnfree: skipped fold_ln: the model has no norms"])
    let one = try TwinModels([Fixtures.bundled("mini")], processing: [.foldLN])
    #expect(one.models[0].identity.weightProcessing == ["fold_ln"] && one.notes.isEmpty)
  }
}
