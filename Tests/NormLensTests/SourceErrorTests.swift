import Foundation
import NormLens
import TestSupport
import Testing

/// What is no checkpoint, or a damaged one, is refused in one line that says what it is.
@Suite struct SourceErrorTests {
  static let pickleAdvice = "save_pretrained(dir, safe_serialization=True)"

  // MARK: formats

  /// Files with their first bytes, and what the refusal says.
  static let foreign: [(name: String, bytes: [UInt8], parts: [String])] = [
    ("model.bin", Array("PK\u{3}\u{4}".utf8) + zip("archive/data.pkl"), ["pickle", pickleAdvice]),
    ("odd", Array("PK\u{3}\u{4}".utf8) + zip("archive/data.pkl"), ["pickle", pickleAdvice]),
    ("odd", [0x80, 2, 0x8a, 0x0a, 0x6c, 0xfc], ["pickle", pickleAdvice]),
    ("odd", [0x80, 4, 0x95, 1, 2, 3], ["pickle"]),
    ("ckpt.pt", Array("(dp0".utf8), ["pickle", pickleAdvice]),
    ("odd", Array("PK\u{3}\u{4}".utf8) + zip("wte.npy"), ["NumPy"]),
    ("odd", [0x93] + Array("NUMPY".utf8), ["NumPy"]),
    ("odd", Array("PK\u{3}\u{4}".utf8) + zip("notes.txt"), ["a zip archive"]),
    ("gpt2.q4", Array("GGUF".utf8) + [3, 0, 0, 0], ["GGUF"]),
    ("flax_model.msgpack", [0x81, 0xa1], ["Flax", "from_flax=True"]),
    ("model.onnx", [8, 7, 18], ["ONNX"]),
    ("model.ckpt.index", [0, 0], ["TensorFlow checkpoint"]),
    ("model.ckpt.data-00000-of-00001", [0, 0], ["TensorFlow checkpoint"]),
    (
      "model.safetensors", Array("version https://git-lfs.github.com/spec/v1\n".utf8),
      ["git lfs pull"]
    ),
    ("config.json", Array("{\"n_layer\": 2}".utf8), ["JSON", "directory"]),
    ("pytorch_model.bin.index.json", Array("{}".utf8), ["index of PyTorch pickles", pickleAdvice]),
  ]

  /// A member's header in a zip archive, after the signature.
  private static func zip(_ name: String) -> [UInt8] {
    [UInt8](repeating: 0, count: 22) + [UInt8(name.utf8.count), 0, 0, 0] + Array(name.utf8)
  }

  @Test(arguments: foreign)
  func foreignFiles(_ name: String, _ bytes: [UInt8], _ parts: [String]) throws {
    let scratch = try TemporaryDirectory()
    let path = try scratch.put(bytes, as: name)
    expectRefusal(path, saying: [path] + parts)
  }

  /// The directory of a repository in Hugging Face's cache, not of one of its revisions.
  @Test func aRepositoryOfTheCache() throws {
    let scratch = try TemporaryDirectory()
    for name in ["refs", "blobs", "snapshots"] {
      try FileManager.default.createDirectory(
        atPath: scratch.file("models--a--b/\(name)"), withIntermediateDirectories: true)
    }
    expectRefusal(
      scratch.file("models--a--b"), missing: true, saying: ["cache", "a revision in", "snapshots"])
  }

  /// The same as the only weights of a directory.
  @Test func directoriesWithoutWeights() throws {
    for (name, parts) in [
      ("pytorch_model.bin", ["pickle", Self.pickleAdvice]),
      ("pytorch_model.bin.index.json", ["pickles", Self.pickleAdvice]),
      ("ckpt.pt", ["pickle"]), ("flax_model.msgpack", ["Flax"]), ("model.gguf", ["GGUF"]),
      ("weights.npz", ["NumPy"]), ("model.onnx", ["ONNX"]),
      ("model.ckpt.index", ["TensorFlow"]), ("saved_model.pb", ["TensorFlow"]),
      ("tf_model.h5.index.json", ["Keras weights in several files"]),
      ("adapter_model.safetensors", ["adapter", "merge_and_unload"]),
    ] {
      let scratch = try TemporaryDirectory()
      try scratch.write("{}", as: "config.json")
      try scratch.write("", as: name)
      expectRefusal(scratch.path, saying: ["\(scratch.path)/\(name)"] + parts)
    }
    let empty = try TemporaryDirectory()
    expectRefusal(
      empty.path, missing: true, saying: ["config.json", "model.safetensors", "tf_model.h5"])
    try empty.write("", as: "other.safetensors")
    expectRefusal(empty.path, missing: true, saying: ["give '\(empty.path)/other.safetensors'"])
  }

  @Test func aPickleUnderAnotherName() throws {
    let scratch = try TemporaryDirectory()
    let directory = try scratch.checkpoint { _ in }
    try scratch.put([0x80, 2, 0x8a, 0x0a], as: "d/model.safetensors")
    expectRefusal(directory, saying: ["model.safetensors", "pickle", Self.pickleAdvice])
  }

  /// A header of 640 bytes begins with the bytes of a pickle of protocol 2.
  @Test func aHeaderThatLooksLikeAPickle() throws {
    let scratch = try TemporaryDirectory()
    let text = "{\"x\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}"
    let path = try scratch.put(
      [0x80, 2, 0, 0, 0, 0, 0, 0] + Array(text.utf8)
        + [UInt8](repeating: 0x20, count: 640 - text.utf8.count) + [0, 0, 0, 0], as: "m")
    expectRefusal(path, missing: true, saying: ["config.json beside m"])
  }

  @Test func whatIsNotThere() throws {
    let scratch = try TemporaryDirectory()
    let directory = try scratch.checkpoint { _ in }
    try FileManager.default.removeItem(atPath: scratch.file("d/config.json"))
    expectRefusal(directory, missing: true, saying: [directory, "config.json"])
    try FileManager.default.removeItem(atPath: scratch.file("d/model.safetensors"))
    try FileManager.default.createSymbolicLink(
      atPath: scratch.file("d/model.safetensors"), withDestinationPath: "../blobs/0")
    expectRefusal(directory, missing: true, saying: ["model.safetensors", "a link to a file"])
    try FileManager.default.createSymbolicLink(
      atPath: scratch.file("away"), withDestinationPath: "nowhere")
    expectRefusal(scratch.file("away"), missing: true, saying: ["a link to a file"])
    try FileManager.default.removeItem(atPath: scratch.file("d/model.safetensors"))
    try FileManager.default.createDirectory(
      atPath: scratch.file("d/model.safetensors"), withIntermediateDirectories: false)
    expectRefusal(directory, missing: true, saying: ["model.safetensors", "is a directory"])
  }

  @Test func otherHDF5Files() throws {
    // HDF5 that is neither a model nor Keras'.
    expectRefusal(
      Sources.directory("logits.h5"), saying: ["logits.h5", "NormLens did not write"])
  }

  // MARK: shards

  /// Changes of the index's text, and what the refusal says.
  static let indices: [(from: String, to: String, parts: [String])] = [
    ("model-00001-of-00003", "../model-00001-of-00003", ["index.json", "'../model", "'/'"]),
    ("model-00001-of-00003", "sub/model-00001-of-00003", ["'sub/model"]),
    ("model-00001-of-00003", "a\\\\b", ["'a\\b"]),
    ("model-00001-of-00003.safetensors", "", ["into ''"]),
    ("model-00001-of-00003.safetensors", "..", ["into '..'"]),
    ("model-00001-of-00003", "a\\u0000b", ["weight_map puts"]),
    (
      "\"transformer.wte.weight\":", "\"transformer.wte.other\":",
      ["wte.weight", "not in the weight_map"]
    ),
    ("\"weight_map\"", "\"other\"", ["weight_map", "missing"]),
    ("\"total_size\": ", "\"total_size\": 1", ["total_size", "bytes of the tensors"]),
    ("\"total_size\": ", "\"total_size\": -", ["total_size"]),
    ("\"metadata\": {", "\"metadata\": [", ["index.json", "JSON"]),
    ("\"weight_map\": {", "\"weight_map\": {\"a\": 7, ", ["index.json", "JSON", "text"]),
    (
      "\"weight_map\": {", "\"weight_map\": {\"b\": \"x\", \"b\": \"x\", ",
      ["expected each key once", "'b'"]
    ),
    (
      "\"weight_map\": {", "\"weight_map\": {\"more\": \"model-00002-of-00003.safetensors\", ",
      ["model-00002-of-00003", "'more' is missing"]
    ),
  ]

  @Test(arguments: indices)
  func indexFault(_ from: String, _ to: String, _ parts: [String]) throws {
    let scratch = try TemporaryDirectory()
    let directory = try scratch.form("sharded")
    let index = "\(directory)/model.safetensors.index.json"
    let text = try String(contentsOfFile: index, encoding: .utf8)
    let changed = text.replacingOccurrences(of: from, with: to)
    #expect(changed != text)
    try scratch.write(changed, as: "sharded/model.safetensors.index.json")
    expectRefusal(directory, saying: parts)
  }

  @Test func shardsThatDisagree() throws {
    let scratch = try TemporaryDirectory()
    let directory = try scratch.form("sharded")
    let names = (1...3).map { "\(directory)/model-0000\($0)-of-00003.safetensors" }
    expectRefusal(names[1], saying: ["one of the 3 files", "give '\(directory)'"])

    let tensor = try SafetensorsFile(path: names[2]).names[0]
    var third = try RawSafetensors(names[2])
    var second = try RawSafetensors(names[1])
    second.entries.append(third[tensor])
    try second.write(names[1])
    expectRefusal(directory, saying: [names[1], tensor, "puts it into 'model-00003-of-00003"])
    second.remove(tensor)
    try second.write(names[1])
    #expect(throws: Never.self) { try Checkpoint.open(directory) }

    third.remove(tensor)
    try third.write(names[2])
    expectRefusal(directory, saying: [names[2], tensor, "is missing"])
    try FileManager.default.removeItem(atPath: names[2])
    expectRefusal(directory, missing: true, saying: [names[2], "index.json names it"])
    try FileManager.default.createDirectory(atPath: names[2], withIntermediateDirectories: false)
    expectRefusal(directory, missing: true, saying: [names[2], "directory"])
  }

  @Test func anEnormousIndex() throws {
    let scratch = try TemporaryDirectory()
    let directory = try scratch.form("sharded")
    let entries = (0..<100_001).map { "\"t\($0)\": \"x\"" }.joined(separator: ",")
    try scratch.write(
      "{\"weight_map\": {\(entries)}}", as: "sharded/model.safetensors.index.json")
    expectRefusal(directory, saying: ["more than 100000 tensors"])
    try scratch.write(
      String(repeating: " ", count: 17 << 20), as: "sharded/model.safetensors.index.json")
    expectRefusal(directory, saying: ["index.json", "bytes"])
    try scratch.write(
      String(repeating: "{\"a\":", count: 100_000), as: "sharded/model.safetensors.index.json")
    expectRefusal(directory, saying: ["index.json", "levels"])
  }

  // MARK: tensors

  /// Tensors that say that a checkpoint is something else, and what the refusal says.
  static let strangers: [(name: String, parts: [String])] = [
    (
      "transformer.h.0.ln_1.average_std_buffer",
      ["LayerNorm removal", "remove_layernorm_by_scaling"]
    ),
    ("transformer.h.1.ln_2.is_fake", ["LayerNorm removal"]),
    ("blocks.0.attn.W_Q", ["TransformerLens", "save_pretrained"]),
    ("unembed.W_U", ["TransformerLens"]),
    ("transformer.h.0.crossattention.c_attn.weight", ["cross-attention"]),
    ("transformer.h.0.ln_cross_attn.weight", ["cross-attention"]),
    ("score.weight", ["no language model's"]), ("classifier.weight", ["no language model's"]),
    ("v_head.summary.weight", ["no language model's"]),
    (
      "base_model.model.transformer.h.0.attn.c_attn.lora_A.weight",
      ["adapters", "merge_and_unload"]
    ),
    ("transformer.h.0.attn.c_attn.qweight", ["quantized"]),
    ("transformer.h.0.attn.q_norm.weight", ["h.0.attn.q_norm.weight", "no use for"]),
    ("transformer.h.2.ln_1.weight", ["h.2.ln_1.weight", "no use for"]),
    ("wte.weight", ["wte.weight", "twice", "'transformer.wte.weight'", "'wte.weight'"]),
    ("_orig_mod.transformer.ln_f.bias", ["twice", "'_orig_mod.transformer.ln_f.bias'"]),
    // A mask has its shape; a bias of that name would be another architecture's.
    ("transformer.h.0.attn.bias", ["h.0.attn.bias", "no use for"]),
  ]

  @Test(arguments: strangers)
  func stranger(_ name: String, _ parts: [String]) throws {
    let scratch = try TemporaryDirectory()
    let directory = try scratch.checkpoint { $0.add(name, zeros: [24]) }
    expectRefusal(directory, saying: ["model.safetensors"] + parts)
  }

  @Test(arguments: ["I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL", "F8_E4M3"])
  func typesThatAreNoWeights(_ type: String) throws {
    let scratch = try TemporaryDirectory()
    let size = type.contains("64") ? 8 : type.contains("32") ? 4 : type.contains("16") ? 2 : 1
    let directory = try scratch.checkpoint { tensors in
      tensors.remove("transformer.ln_f.bias")
      tensors.add("transformer.ln_f.bias", zeros: [24], type: type, scalarBytes: size)
    }
    expectRefusal(
      directory, saying: ["model.safetensors", "'transformer.ln_f.bias' holds \(type)", "float32"])
  }

  @Test func shapesAndNumbers() throws {
    for (name, shape, parts) in [
      ("transformer.ln_f.bias", [23], ["ln_f.bias", "[23]", "[24]"]),
      ("transformer.wpe.weight", [17, 24], ["wpe.weight", "[17, 24]", "[16, 24]"]),
      ("transformer.wpe.weight", [8, 24], ["wpe.weight", "[8, 24]", "[16, 24]"]),
      ("transformer.wte.weight", [64, 24], ["wte.weight", "[64, 24]", "[53, 24]"]),
      ("transformer.h.1.attn.c_attn.weight", [24, 73], ["c_attn.weight", "[24, 73]", "[24, 72]"]),
      ("transformer.h.1.ln_2.weight", [24, 1], ["h.1.ln_2.weight", "[24, 1]", "[24]"]),
    ] {
      let scratch = try TemporaryDirectory()
      let directory = try scratch.checkpoint { tensors in
        tensors.remove(name)
        tensors.add(name, zeros: shape)
      }
      expectRefusal(directory, saying: ["model.safetensors"] + parts)
    }
    for bits: [UInt8] in [
      [0, 0, 0xc0, 0x7f], [0, 0, 0x80, 0x7f], [0, 0, 0x80, 0xff], [1, 0, 0x80, 0x7f],
    ] {
      let scratch = try TemporaryDirectory()
      let directory = try scratch.checkpoint { tensors in
        let name = "transformer.h.1.mlp.c_proj.weight"
        let last = tensors[name].bytes.count - 4
        tensors[name].bytes.replaceSubrange(last..., with: bits)
      }
      expectRefusal(directory, saying: ["'transformer.h.1.mlp.c_proj.weight' holds a NaN"])
    }
    let scratch = try TemporaryDirectory()
    let missing = try scratch.checkpoint { $0.remove("transformer.h.1.mlp.c_fc.bias") }
    expectRefusal(missing, saying: ["model.safetensors", "h.1.mlp.c_fc.bias", "missing"])
  }

  /// A float64 that float32 cannot hold.
  @Test func numbersBeyondFloat32() throws {
    let scratch = try TemporaryDirectory()
    let directory = try scratch.checkpoint { tensors in
      tensors.remove("transformer.ln_f.bias")
      tensors.add("transformer.ln_f.bias", zeros: [24], type: "F64", scalarBytes: 8)
      let bytes = withUnsafeBytes(of: (1e300).bitPattern.littleEndian) { Array($0) }
      tensors["transformer.ln_f.bias"].bytes.replaceSubrange(0..<8, with: bytes)
    }
    expectRefusal(directory, saying: ["'transformer.ln_f.bias'", "beyond float32's range"])
  }

  @Test func unembeddings() throws {
    let scratch = try TemporaryDirectory()
    let differs = try scratch.checkpoint { $0.add("lm_head.weight", zeros: [53, 24]) }
    expectRefusal(differs, saying: ["lm_head.weight differs", "tie_word_embeddings"])
    let lost = try scratch.checkpoint("tiny-relu-untied", as: "u") { $0.remove("lm_head.weight") }
    expectRefusal(lost, saying: ["'lm_head.weight' is missing", "tie_word_embeddings"])
    let misshapen = try scratch.checkpoint(as: "s") { $0.add("lm_head.weight", zeros: [24, 53]) }
    expectRefusal(misshapen, saying: ["lm_head.weight"])
  }

  @Test func matricesBothWaysRound() throws {
    for turned in [
      ["transformer.h.1.attn.c_attn.weight"], ["transformer.h.0.mlp.c_fc.weight"],
      ["transformer.h.0.mlp.c_proj.weight", "transformer.h.1.mlp.c_proj.weight"],
    ] {
      let scratch = try TemporaryDirectory()
      let directory = try scratch.checkpoint { tensors in
        for name in turned { tensors.transpose(name) }
      }
      expectRefusal(
        directory, saying: ["transformer.h.", "[in, out]", "[out, in]", "expected one layout"])
    }
    // nanoGPT's versions differ in the non-linearity: it must be named.
    let scratch = try TemporaryDirectory()
    let directory = try scratch.checkpoint { tensors in
      for name in SourceParityTests.matrices { tensors.transpose(name) }
    }
    try scratch.setField("activation_function", nil)
    expectRefusal(
      directory, saying: ["config.json", "'activation_function' is missing", "nanoGPT"])
  }

  /// A model file whose tensors are not those that its attributes ask for is named.
  @Test func modelFilesThatContradictThemselves() throws {
    let scratch = try TemporaryDirectory()
    let path = scratch.file("m.h5")
    var checkpoint = try Checkpoint.open(Fixtures.bundled("mini"))
    try ModelFile.write(checkpoint, to: path)
    let attributes = try ModelArchive.open(path).attributes
    checkpoint.tensors["h.0.ln_1.weight"] = nil
    try ModelArchive.write(
      attributes: attributes.filter { $0.key != "weights_sha256" },
      tensors: checkpoint.tensors.map { (name: $0.key, tensor: $0.value) }, tokenizer: nil, to: path
    )
    expectRefusal(path, saying: [path, "'h.0.ln_1.weight' is missing"])
  }

  @Test func noPathIsNotTheCurrentDirectory() {
    expectRefusal("", missing: true, saying: ["no model ''"])
  }

  // MARK: Keras

  /// HDF5 reads zeros where it was never given a place for an array's values.
  @Test func aKerasArrayThatWasNeverWritten() throws {
    let scratch = try TemporaryDirectory()
    let directory = try scratch.form("keras")
    let path = "\(directory)/tf_model.h5"
    // HDF5 would keep in mind what it has seen of a file that stays open.
    let file = try HDF5File(path: Sources.directory("keras/tf_model.h5"))
    let name = try #require(try file.datasets().first { $0.hasSuffix("ln_f/beta:0") })
    func bytes(_ value: some FixedWidthInteger) -> [UInt8] {
      withUnsafeBytes(of: value.littleEndian) { Array($0) }
    }
    let values = try file.tensor(name).scalars.flatMap { bytes($0.bitPattern) }
    var data = try Data(contentsOf: URL(fileURLWithPath: path))
    let place = try #require(data.range(of: Data(values))).lowerBound
    // The layout message: version 3, contiguous, the address.
    let layout = try #require(data.range(of: Data([3, 1] + bytes(UInt64(place)))))
    data.replaceSubrange(layout, with: [3, 1] + [UInt8](repeating: 0xff, count: 8))
    try data.write(to: URL(fileURLWithPath: path))
    expectRefusal(directory, saying: ["tf_model.h5", name, "none were ever written"])
  }

  @Test func kerasFaults() throws {
    let keras = Sources.directory("keras/tf_model.h5")
    // The groups' names lie in the file as text of a fixed length: others of that length are put in
    // their place.
    for (from, to, parts) in [
      ("h_._1", "h_._7", ["tf_model.h5", "h.1.ln_1.weight", "missing"]),
      ("c_fc", "c_fx", ["h_._0/mlp/c_fx", "no part of a GPT-2"]),
      ("ln_f", "ln_g", ["no part of a GPT-2", "ln_g"]),
      ("gamma:0", "score:0", ["no language model's", "score"]),
    ] {
      let scratch = try TemporaryDirectory()
      let directory = try scratch.form("keras")
      var bytes = try Data(contentsOf: URL(fileURLWithPath: keras))
      var start = bytes.startIndex
      while let found = bytes.range(of: Data(from.utf8), in: start..<bytes.endIndex) {
        bytes.replaceSubrange(found, with: Data(to.utf8))
        start = found.upperBound
      }
      try bytes.write(to: URL(fileURLWithPath: "\(directory)/tf_model.h5"))
      expectRefusal(directory, saying: parts)
    }
    let scratch = try TemporaryDirectory()
    let directory = try scratch.form("keras")
    try scratch.write("no HDF5", as: "keras/tf_model.h5")
    expectRefusal(directory, saying: ["tf_model.h5", "HDF5"])
    try FileManager.default.removeItem(atPath: "\(directory)/tf_model.h5")
    try FileManager.default.copyItem(
      atPath: Sources.directory("logits.h5"), toPath: "\(directory)/tf_model.h5")
    expectRefusal(directory, saying: ["tf_model.h5", "no part of a GPT-2"])
  }
}
