import NormLens
import TestSupport
import Testing

/// A model with RMSNorm whose stream has a mean, so that it is no LayerNorm in disguise.
@Suite struct RMSNormTests {
  static let name = "tiny-gelu-erf"
  static let path = "rmsnorm/\(name)"

  static func checkpoint() throws -> Checkpoint {
    var checkpoint = try Checkpoint.open(Fixtures.checkpoint(name))
    checkpoint.config.normalization = .rmsNorm
    return checkpoint
  }

  private let model: GPT2
  private let golden: Golden

  init() throws {
    model = try Self.checkpoint().model()
    golden = try Golden.open("processing")
  }

  private func tokens(_ prompt: String) throws -> [Int] {
    try Golden.open(Self.name).tokens(prompt)
  }

  @Test func everyHook() throws {
    let (_, cache) = try model.runWithCache(tokens("b"), hooks: Models.everyHook(model))
    let comparison = Comparison("RMSNorm hooks against float64")
    for hook in cache.names {
      comparison.check(
        "\(hook)", try cache.tensor(hook), try golden.array("\(Self.path)/hooks/\(hook)"))
    }
    comparison.report("hooks")
    #expect(
      cache.names.count == HookName.all(nLayers: model.config.nLayers, optional: true).count)
  }

  @Test func editsOfScaleAndNormalized() throws {
    let scales: [HookFilter] = [.ln1Scale(.all), .ln2Scale(.all), .lnFinalScale]
    let (_, donor) = try model.runWithCache(tokens("d"), hooks: scales)
    let comparison = Comparison("RMSNorm interventions against float64")
    let frozen = try Intervention.freezeLayerNorm(donor)
    comparison.check(
      "frozen scales", try model.run(tokens("a"), interventions: frozen),
      try golden.array("\(Self.path)/frozen"))
    let value = try golden.array("\(Self.path)/value")
    let replaced = Intervention.replace(
      .ln1Normalized(0).at(2), with: Tensor(value.row(2).values.map { Float($0) }, shape: [16]))
    comparison.check(
      "normalized", try model.run(tokens("b"), interventions: [replaced]),
      try golden.array("\(Self.path)/edited"))
    comparison.report("interventions")
    // What is put back is what was there.
    let (plain, own) = try model.runWithCache(tokens("a"), hooks: scales)
    let same = Comparison("RMSNorm with its own scales", relative: 1e-6)
    same.check(
      "own scales",
      try model.run(tokens("a"), interventions: try Intervention.freezeLayerNorm(own)), plain)
    // Heads that read inputs of their own go through the norm on their own, and share a frozen scale.
    let identity = Intervention.edit(.qInput(0)) { _ in }
    same.check("head inputs", try model.run(tokens("a"), interventions: [identity]), plain)
    same.check(
      "head inputs, frozen",
      try model.run(tokens("a"), interventions: try Intervention.freezeLayerNorm(own) + [identity]),
      plain)
    same.report("runs")
  }

  @Test func generationWithKeptKeys() throws {
    var random = SeededGenerator(seed: 0)
    var text = try tokens("c")
    let found = try model.generate(text, count: 5, using: &random)
    for token in found {
      #expect(try model.run(text).row(text.count - 1).indexOfMaximum == token)
      text.append(token)
    }
    #expect(found.count == 5)
  }

  @Test func lensOfTheFinalStream() throws {
    let last = HookFilter.residPost(.layer(-1))
    let (logits, cache) = try model.runWithCache(tokens("b"), hooks: [last])
    let stream = try cache.tensor(HookName(.residPost, layer: model.config.nLayers - 1))
    #expect(model.unembed(stream, scaleOf: stream).scalars == logits.scalars)
    let comparison = Comparison("RMSNorm unembedding with a given scale", relative: 1e-6)
    // Twice the stream over its own scale is the stream twice over the frozen one, up to ε and bias.
    let copy = stream * 1
    comparison.check("frozen", model.unembed(copy, scaleOf: stream), logits)
    comparison.report("runs")
  }

  @Test func modelFile() throws {
    let directory = try TemporaryDirectory()
    let path = directory.file("rms.h5")
    try ModelFile.write(try Self.checkpoint(), to: path)
    let read = try GPT2.load(path)
    #expect(read.config == model.config)
    #expect(read.weights.lnFinal?.normalization == .rmsNorm)
    #expect(try read.run(tokens("b")).scalars == model.run(tokens("b")).scalars)
  }
}
