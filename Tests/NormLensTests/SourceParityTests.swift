import Foundation
import NormLens
import OrderedCollections
import TestSupport
import Testing

/// Every form in which a checkpoint is published gives PyTorch's logits on the same weights.
@Suite struct SourceParityTests {
  /// The largest |difference| ÷ max(1, |logit|).
  static func difference(_ logits: Tensor, _ golden: [Double]) -> Double {
    #expect(logits.count == golden.count)
    return zip(logits.scalars, golden).map { abs(Double($0) - $1) / max(1, abs($1)) }.max() ?? .nan
  }

  @Test(arguments: Sources.forms)
  func logits(_ form: String) throws {
    let model = try GPT2.load(Sources.directory(form))
    let difference = Self.difference(
      try model.run(try Sources.tokens(form)), try Sources.logits(form))
    print("\(form): max |difference| / max(1, |logit|) \(difference)")
    #expect(difference <= 2e-5)
  }

  /// The two published LayerNorm-free families against the ε-trick as PyTorch runs it.
  @Test(arguments: ["tiny-lnfree", "tiny-apollo"])
  func layerNormFree(_ name: String) throws {
    let model = try GPT2.load(Fixtures.checkpoint(name))
    #expect(model.config.normalization == .none && !model.config.tiedUnembed)
    #expect(model.weights.b_U != nil)
    let logits = try model.run(try Sources.tokens(name))
    let golden = try Sources.logits(name)
    let scale = golden.map(abs).max() ?? 1
    let worst = zip(logits.scalars, golden).map { abs(Double($0) - $1) / scale }.max() ?? .nan
    var probability = 0.0
    let vocabulary = model.config.dVocab
    for row in 0..<logits.shape[0] {
      let place = row * vocabulary..<(row + 1) * vocabulary
      let ours = Self.softmax(logits.scalars[place].map(Double.init))
      let theirs = Self.softmax(Array(golden[place]))
      probability = max(probability, zip(ours, theirs).map { abs($0 - $1) }.max() ?? .nan)
    }
    print("\(name) as published: logits within \(worst), probabilities within \(probability)")
    #expect(worst <= 1e-4 && probability <= 1e-6)
  }

  private static func softmax(_ logits: [Double]) -> [Double] {
    let largest = logits.max() ?? 0
    let exponentials = logits.map { exp($0 - largest) }
    let sum = exponentials.reduce(0, +)
    return exponentials.map { $0 / sum }
  }

  @Test func whatWasFoundIsSaid() throws {
    for (form, parts) in [
      ("sharded", ["model.safetensors.index.json", "float32"]), ("bfloat16", ["bfloat16"]),
      ("float64", ["float64, rounded to float32"]), ("nanogpt", ["nn.Linear", "transposed"]),
      ("keras", ["tf_model.h5", "float32"]), ("keras-model", ["float16, float64, rounded"]),
    ] {
      let source = try Checkpoint.open(Sources.directory(form)).identity.source
      #expect(parts.allSatisfy { source.contains($0) }, "\(source)")
    }
  }

  /// A file given by itself is its directory's checkpoint.
  @Test func filesGivenByThemselves() throws {
    for (form, file) in [
      ("old", "model.safetensors"), ("keras", "tf_model.h5"),
      ("sharded", "model.safetensors.index.json"),
    ] {
      let directory = Sources.directory(form)
      let whole = try Checkpoint.open(directory)
      let alone = try Checkpoint.open("\(directory)/\(file)")
      #expect(alone.identity == whole.identity && alone.config == whole.config)
      // The working directory, too, is a directory.
      #expect(Checkpoint.files(of: "\(directory)/\(file)").contains("\(directory)/config.json"))
    }
    // Whatever it is called.
    let scratch = try TemporaryDirectory()
    let directory = try scratch.form("keras")
    try FileManager.default.moveItem(
      atPath: "\(directory)/tf_model.h5", toPath: "\(directory)/weights.bin")
    let renamed = try Checkpoint.open("\(directory)/weights.bin")
    #expect(renamed.tensors.count == 28)
  }

  @Test func filesThatAreRead() throws {
    let directory = Sources.directory("sharded")
    let files = Checkpoint.files(of: directory)
    for name in [
      "model.safetensors.index.json", "config.json", "vocab.json", "merges.txt", "tokenizer.json",
      "model-00001-of-00003.safetensors", "model-00003-of-00003.safetensors",
    ] {
      #expect(files.contains("\(directory)/\(name)"), "\(name)")
    }
  }

  /// Hugging Face's cache is made of links.
  @Test func linksAreFollowed() throws {
    let scratch = try TemporaryDirectory()
    let manager = FileManager.default
    let snapshot = "models--someone--gpt2-tiny/snapshots/607a30d7"
    for path in ["blobs", snapshot] {
      try manager.createDirectory(atPath: scratch.file(path), withIntermediateDirectories: true)
    }
    let source = Sources.directory("sharded")
    for (index, name) in try manager.contentsOfDirectory(atPath: source).enumerated() {
      try manager.copyItem(atPath: "\(source)/\(name)", toPath: scratch.file("blobs/\(index)"))
      try manager.createSymbolicLink(
        atPath: scratch.file("\(snapshot)/\(name)"), withDestinationPath: "../../../blobs/\(index)")
    }
    let linked = try Checkpoint.open(scratch.file(snapshot))
    let plain = try Checkpoint.open(source)
    #expect(linked.tensors == plain.tensors)
    #expect(linked.identity.name == "gpt2-tiny")
    #expect(linked.identity.source.contains("'someone/gpt2-tiny' at 607a30d7"))
    try manager.createSymbolicLink(
      atPath: scratch.file("link"), withDestinationPath: snapshot)
    #expect(try Checkpoint.open(scratch.file("link")).tensors == linked.tensors)
  }

  /// Float32 weights stay where they lie.
  @Test func weightsAreMapped() throws {
    for source in [
      Fixtures.checkpoint("tiny-ln"), Sources.directory("sharded"), Sources.directory("keras"),
    ] {
      let tensors = try Checkpoint.open(source).tensors
      let copied = tensors.filter { !$0.value.isBorrowed }.keys
      #expect(copied.isEmpty, "\(source): \(copied)")
    }
  }

  // MARK: names and layouts

  /// Each name with another prefix is the same model, bit for bit.
  @Test(arguments: [
    "", "transformer.", "_orig_mod.", "module.", "_orig_mod.transformer.",
    "module._orig_mod.transformer.", "_orig_mod.module.transformer.",
  ])
  func prefixes(_ prefix: String) throws {
    let scratch = try TemporaryDirectory()
    let plain = try Checkpoint.open(Fixtures.checkpoint("tiny-ln"))
    let renamed = try Checkpoint.open(
      try scratch.checkpoint { tensors in
        tensors.rename { prefix + $0.replacingOccurrences(of: "transformer.", with: "") }
      })
    #expect(renamed.tensors == plain.tensors)
  }

  @Test func masksAndATiedHeadAreNothingNew() throws {
    let scratch = try TemporaryDirectory()
    let plain = try Checkpoint.open(Fixtures.checkpoint("tiny-ln"))
    let path = try scratch.checkpoint { tensors in
      tensors.add("transformer.h.0.attn.bias", zeros: [1, 1, 16, 16], type: "BOOL", scalarBytes: 1)
      tensors.add("transformer.h.1.attn.masked_bias", zeros: [])
      var head = tensors["transformer.wte.weight"]
      head.name = "lm_head.weight"
      tensors.entries.append(head)
    }
    #expect(try Checkpoint.open(path).tensors == plain.tensors)
  }

  @Test func matricesOfNanoGPT() throws {
    let scratch = try TemporaryDirectory()
    let plain = try Checkpoint.open(Fixtures.checkpoint("tiny-ln"))
    let path = try scratch.checkpoint { tensors in
      for name in Self.matrices { tensors.transpose(name) }
    }
    let turned = try Checkpoint.open(path)
    #expect(turned.tensors == plain.tensors)
    #expect(turned.identity.source.contains("transposed"))
    #expect(turned.identity.weightsSHA256 == plain.identity.weightsSHA256)
  }

  /// The matrices of tiny-ln's two blocks.
  static let matrices = (0..<2).flatMap { layer in
    ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"].map {
      "transformer.h.\(layer).\($0).weight"
    }
  }
}

/// Bit for bit.
private func == (
  a: OrderedDictionary<String, Tensor>, b: OrderedDictionary<String, Tensor>
) -> Bool {
  Set(a.keys) == Set(b.keys)
    && a.allSatisfy { name, tensor in
      guard let other = b[name], other.shape == tensor.shape else { return false }
      return tensor.scalars.map(\.bitPattern) == other.scalars.map(\.bitPattern)
    }
}
