import Foundation
import NormLens
import TestSupport
import Testing

/// `convert --to huggingface`: what is written computes the same and comes back.
@Suite struct ExportTests {
  /// The tensors of a safetensors file, bit for bit.
  private func tensors(_ path: String) throws -> [String: [UInt32]] {
    let file = try SafetensorsFile(path: path)
    var result: [String: [UInt32]] = [:]
    for name in file.names {
      result[name] = try file.tensor(named: name).scalars.map(\.bitPattern)
    }
    return result
  }

  private func bytes(_ path: String) throws -> Data {
    try Data(contentsOf: URL(fileURLWithPath: path))
  }

  /// Checkpoints with LayerNorm, which come back as they were.
  private static let unprocessed = Fixtures.checkpoints.filter {
    !["tiny-lnfree", "tiny-apollo"].contains($0)
  }

  @Test(arguments: unprocessed)
  func anUnprocessedModelComesBackBitForBit(_ name: String) throws {
    let directory = try TemporaryDirectory()
    try directory.copy(Fixtures.checkpoint(name), as: name)
    try Command.succeed(["convert", name, "-o", "m.h5", "--quiet"], in: directory)
    let text = try Command.succeed(
      ["convert", "m.h5", "--to", "huggingface", "-o", "back/"], in: directory)
    #expect(text.hasPrefix("wrote back/: \(name), ") && text.contains("within 0 of the source's"))
    #expect(
      try tensors(directory.file("back/model.safetensors"))
        == tensors(directory.file("\(name)/model.safetensors")))
    let (back, source) = (
      try Checkpoint.open(directory.file("back")), try Checkpoint.open(directory.file(name))
    )
    #expect(back.config == source.config && back.specialTokens == source.specialTokens)
    #expect(back.identity.weightsSHA256 == source.identity.weightsSHA256)
    // What the model does not decide stays as it was published.
    let published = try #require(source.publishedConfig?.keys)
    for field in published where !["dtype", "architectures"].contains(field) {
      #expect(
        back.publishedConfig?[field]?.text == source.publishedConfig?[field]?.text, "\(field)")
    }
    #expect(try directory.contents().filter { $0.contains("tmp") }.isEmpty)
  }

  @Test func theTokenizerComesBackByteForByte() throws {
    let directory = try TemporaryDirectory()
    try Command.succeed(["convert", "mini", "--to", "huggingface", "-o", "hf"], in: directory)
    let (back, source) = (
      try Checkpoint.open(directory.file("hf")), try Checkpoint.open(Fixtures.bundled("mini"))
    )
    #expect(back.tokenizer?.vocabJSON == source.tokenizer?.vocabJSON)
    #expect(back.tokenizer?.mergesText == source.tokenizer?.mergesText)
    #expect(try bytes(directory.file("hf/vocab.json")) == Data(source.tokenizer?.vocabJSON ?? []))
    #expect(back.specialTokens == source.specialTokens)
    let (a, b) = (try back.model(), try source.model())
    #expect(try a.tokens(OutputTests.ioi) == b.tokens(OutputTests.ioi))
  }

  @Test(arguments: ["tiny-lnfree", "tiny-apollo", "mini-lnfree"])
  func aModelWithoutLayerNormsIsWrittenWithAnEnormousEpsilon(_ name: String) throws {
    let directory = try TemporaryDirectory()
    let source = name.hasPrefix("mini") ? Fixtures.bundled(name) : Fixtures.checkpoint(name)
    try Command.succeed(
      ["convert", source, "--to", "huggingface", "-o", "hf", "--quiet"], in: directory)
    let config = try JSONScanner.parseFile(directory.file("hf/config.json"))
    #expect(config["layer_norm_epsilon"]?.double == 1e12)
    #expect(config["tie_word_embeddings"]?.bool == false)
    let written = try tensors(directory.file("hf/model.safetensors"))
    #expect(
      written["transformer.h.0.ln_1.weight"]?.allSatisfy { $0 == Float(1e6).bitPattern } == true)
    // As the LayerNorm that it pretends to be, and folded again.
    let folded = try Checkpoint.open(directory.file("hf"))
    let model = try GPT2.load(source)
    #expect(folded.config.normalization == .none)
    let tokens = Array(1...min(20, model.config.nCtx))
    let comparison = Comparison("\(name) written and folded again", relative: 1e-5)
    comparison.check("logits", try folded.model().run(tokens), try model.run(tokens))
    comparison.report("run")
  }

  @Test(arguments: ["float16", "bfloat16"])
  func roundedWeightsComeBackBitForBit(_ type: String) throws {
    let directory = try TemporaryDirectory()
    let arguments = ["--to", "huggingface", "--dtype", type, "--quiet"]
    try Command.succeed(["convert", "mini", "-o", "a"] + arguments, in: directory)
    try Command.succeed(["convert", "a", "-o", "b"] + arguments, in: directory)
    #expect(
      try bytes(directory.file("a/model.safetensors"))
        == bytes(directory.file("b/model.safetensors")))
    let config = try JSONScanner.parseFile(directory.file("a/config.json"))
    #expect(config["torch_dtype"]?.string == type)
    let (rounded, full) = (
      try GPT2.load(directory.file("a")), try GPT2.load(Fixtures.bundled("mini"))
    )
    let limit: Float = type == "float16" ? 0x1p-11 : 0x1p-8
    for (a, b) in zip(rounded.weights.W_E.scalars, full.weights.W_E.scalars) {
      #expect(abs(a - b) <= limit * abs(b) + 1e-7)
    }
  }

  @Test func anUnembeddingBiasIsWorkedIntoTheHead() throws {
    // fold_ln makes one.
    let directory = try TemporaryDirectory()
    try Command.succeed(
      [
        "convert", "mini", "--process", "transformerlens", "--to", "huggingface", "-o", "hf",
        "--quiet",
      ], in: directory)
    let source = try Checkpoint.open(
      Fixtures.bundled("mini"), processing: WeightProcessing.transformerLens
    ).model()
    let model = try GPT2.load(directory.file("hf"))
    #expect(source.weights.b_U != nil && model.weights.b_U == nil)
    let tokens = try source.tokens(OutputTests.ioi)
    let comparison = Comparison("mini, processed and written", relative: 1e-5)
    comparison.check("logits", try model.run(tokens), try source.run(tokens))
    comparison.report("run")
  }

  /// transformers refuses a whole number as layer_norm_epsilon, which JSON does not tell apart.
  @Test func anEpsilonWrittenAsAWholeNumberIsWrittenWithAPoint() throws {
    let directory = try TemporaryDirectory()
    try directory.copy(Fixtures.checkpoint("tiny-apollo"), as: "d")
    let path = directory.file("d/config.json")
    let text = try String(contentsOfFile: path, encoding: .utf8)
    let field = #/"layer_norm_epsilon": [0-9.e+]+/#
    #expect(text.contains(field))
    try directory.write(
      text.replacing(field, with: "\"layer_norm_epsilon\": 1000000000000"), as: "d/config.json")
    try Command.succeed(["convert", "d", "--to", "huggingface", "-o", "hf"], in: directory)
    let written = try String(contentsOfFile: directory.file("hf/config.json"), encoding: .utf8)
    #expect(written.contains("\"layer_norm_epsilon\": 1000000000000.0,"))
  }

  /// Rounding to float16 leaves the columns a sum of some 1e-4 of their magnitudes.
  @Test(arguments: ["tiny-lnfree", "tiny-apollo"])
  func aModelThatWasStoredAsFloat16IsWritten(_ name: String) throws {
    let directory = try TemporaryDirectory()
    try directory.copy(Fixtures.checkpoint(name), as: "d")
    try Command.succeed(
      ["convert", "d", "--dtype", "float16", "-o", "half.h5", "--quiet"], in: directory)
    try Command.succeed(["convert", "half.h5", "--to", "huggingface", "-o", "hf"], in: directory)
    let (source, model) = (
      try GPT2.load(directory.file("half.h5")), try GPT2.load(directory.file("hf"))
    )
    let tokens = try Golden.open(name).tokens("full")
    let comparison = Comparison("\(name), float16 and written", relative: 1e-3)
    comparison.check("logits", try model.run(tokens), try source.run(tokens))
    comparison.report("run")
  }

  /// An error while writing names the file that was to be, not the temporary one.
  @Test func aFileThatCannotBeWrittenIsNamed() throws {
    let directory = try TemporaryDirectory()
    for (arguments, name) in [
      (["--to", "huggingface", "-o", "hf"], "hf/model.safetensors: "), (["-o", "m.h5"], "m.h5: "),
    ] {
      let limited = try Command.run(
        ["convert", "mini"] + arguments, in: directory, limit: "ulimit -f 100")
      #expect(limited.status == 74)
      #expect(limited.errors.hasPrefix("normlens: error: \(name)"), "\(limited.errors)")
      #expect(try directory.contents().isEmpty)
    }
  }

  @Test func whatIsNotWrittenIsSaid() throws {
    let directory = try TemporaryDirectory()
    try FileManager.default.createDirectory(
      atPath: directory.file("full"), withIntermediateDirectories: false)
    try directory.write("x", as: "full/file")
    let export = ["--to", "huggingface"]
    try Command.fail(
      ["convert", "mini", "-o", "full"] + export, 73, saying: ["full", "not empty"], in: directory)
    try Command.fail(
      ["convert", "mini", "-o", "full/file"] + export, 73, saying: ["not a directory"],
      in: directory)
    try Command.fail(
      ["convert", "mini", "-o", "no/where"] + export, 73, saying: ["no/where"], in: directory)
    try Command.fail(
      ["convert", "mini-lnfree", "-o", "x", "--dtype", "float16"] + export, 65,
      saying: ["float16", "bfloat16"], in: directory)
    try Command.fail(
      ["convert", "mini", "-o", "x.h5", "--dtype", "bfloat16"], 64, saying: ["bfloat16"],
      usage: true, in: directory)
    try Command.fail(
      ["convert", "mini", "-o", "x", "--name", "n"] + export, 64, saying: ["--name"], usage: true,
      in: directory)
  }
}
