import Foundation
import HDF5Store
import HookedGPT2
import OrderedCollections
import Tensors

/// Reads a checkpoint directory in Hugging Face's layout: `config.json`, `model.safetensors`,
/// `vocab.json`, `merges.txt`.
enum HuggingFaceDirectory {
  /// What is read of a directory.
  static let fileNames = ["config.json", "model.safetensors", "vocab.json", "merges.txt"]

  static func read(_ directory: String) throws -> Checkpoint {
    let configPath = "\(directory)/config.json"
    guard FileManager.default.fileExists(atPath: configPath) else {
      throw ModelSourceError.noCheckpoint(
        directory: directory, expected: "config.json and model.safetensors in it")
    }
    let file = Config(path: configPath, json: try JSONScanner.parseFile(configPath))
    var config = try file.config()
    var tensors = try readTensors(directory, config: &config)
    var processing: [String] = []
    if LayerNormFolding.isLayerNormFree(epsilon: config.layerNormEpsilon) {
      let folded = try LayerNormFolding.folded(
        Dictionary(uniqueKeysWithValues: tensors.map { ($0.key, $0.value) }), config: config)
      config = folded.config
      var ordered: OrderedDictionary<String, Tensor> = [:]
      for name in tensors.keys { ordered[name] = folded.tensors[name] }
      for name in ["unembed.weight", "unembed.bias"] { ordered[name] = folded.tensors[name] }
      tensors = ordered
      processing.append("fold_affine_norms")
    }
    let special = Checkpoint.SpecialTokens(
      bos: try file.token("bos_token_id", vocabulary: config.dVocab),
      eos: try file.token("eos_token_id", vocabulary: config.dVocab))
    let payload = try readTokenizer(directory, special)
    if let payload, payload.tokenCount != config.dVocab {
      throw ModelSourceError.field(
        path: configPath, field: "vocab_size", expected: "\(payload.tokenCount), as vocab.json has",
        found: "\(config.dVocab)")
    }
    let name = URL(fileURLWithPath: directory).standardizedFileURL.lastPathComponent
    return Checkpoint(
      config: config, tensors: tensors, tokenizer: payload,
      specialTokens: special,
      identity: GPT2.Identity(
        name: name,
        weightsSHA256: ModelArchive.weightsSHA256(
          tensors.map { (name: $0.key, tensor: $0.value) }),
        weightProcessing: processing, source: "Hugging Face directory '\(name)'", license: ""))
  }

  // MARK: tensors

  private static func readTensors(
    _ directory: String, config: inout GPT2Config
  ) throws -> OrderedDictionary<String, Tensor> {
    let path = "\(directory)/model.safetensors"
    guard FileManager.default.fileExists(atPath: path) else {
      let pickle = "\(directory)/pytorch_model.bin"
      if FileManager.default.fileExists(atPath: pickle) {
        throw ModelSourceError.unsupported(
          path: pickle, kind: "a PyTorch pickle, which can run code,",
          advice: "save it with model.save_pretrained(dir, safe_serialization=True)")
      }
      throw ModelSourceError.noCheckpoint(directory: directory, expected: "model.safetensors in it")
    }
    let file = try SafetensorsFile(path: path)
    var tensors: OrderedDictionary<String, Tensor> = [:]
    var head: Tensor?
    for full in file.names {
      let prefix = "transformer."
      let name = full.hasPrefix(prefix) ? String(full.dropFirst(prefix.count)) : full
      // Masks that old checkpoints carry along; the causal mask is computed.
      if name.hasSuffix(".attn.bias") || name.hasSuffix(".attn.masked_bias") { continue }
      let tensor = try file.tensor(named: full)
      if !tensor.isFinite { throw ModelError.nonFiniteTensor(name: full) }
      if name == "lm_head.weight" {
        head = tensor
      } else if tensors.updateValue(tensor, forKey: name) != nil {
        throw ModelSourceError.weights(
          path: path, problem: "tensor '\(name)' stands in the file with and without '\(prefix)'")
      }
    }
    // Hugging Face's layout for position tables: the configuration may promise fewer positions.
    if let head {
      if !config.tiedUnembed {
        tensors["unembed.weight"] = head
      } else if let embedding = tensors["wte.weight"], !equal(head, embedding) {
        throw ModelSourceError.weights(
          path: path,
          problem: "lm_head.weight differs from wte.weight although the configuration ties them; "
            + "set tie_word_embeddings to false to use it")
      }
    } else if !config.tiedUnembed {
      throw ModelError.missingTensor(name: "lm_head.weight")
    }
    return tensors
  }

  private static func equal(_ a: Tensor, _ b: Tensor) -> Bool {
    guard a.shape == b.shape else { return false }
    let (a, b) = (a.span, b.span)
    for i in 0..<a.count where a[i] != b[i] { return false }
    return true
  }

  // MARK: tokenizer

  /// The tokenizer of `vocab.json` and `merges.txt`; nil where the directory has neither.
  static func readTokenizer(
    _ directory: String, _ special: Checkpoint.SpecialTokens
  ) throws -> TokenizerPayload? {
    let (vocabPath, mergesPath) = ("\(directory)/vocab.json", "\(directory)/merges.txt")
    let found = [vocabPath, mergesPath].filter { FileManager.default.fileExists(atPath: $0) }
    if found.isEmpty { return nil }
    if found.count == 1 {
      throw ModelSourceError.noCheckpoint(
        directory: directory, expected: "vocab.json and merges.txt, found only \(found[0])")
    }
    let (vocab, merges) = (try readBytes(vocabPath), try readBytes(mergesPath))
    var vocabulary: [(String, Int)] = []
    do {
      try JSONScanner.forEachMember(of: vocab.span) { key, id in
        var bytes: [UInt8] = []
        bytes.reserveCapacity(key.count)
        for i in 0..<key.count { bytes.append(key[i]) }
        vocabulary.append((String(decoding: bytes, as: UTF8.self), id))
      }
    } catch {
      throw ModelSourceError.field(
        path: vocabPath, field: "vocabulary", expected: "an object of tokens and ids",
        found: "\(error)")
    }
    let tables = try TokenizerTables(vocabulary: vocabulary, merges: merges)
    try checkMerges(tables, special, path: mergesPath)
    return TokenizerPayload(
      vocabJSON: vocab, mergesText: merges, tokenBytes: tables.tokenBytes,
      tokenOffsets: tables.tokenOffsets.map { Int($0) }, mergePairs: tables.mergePairs)
  }

  /// Every token but a byte's and special ones is what some merge makes. Without its merge no text is
  /// ever cut into it: a merges.txt that is empty or cut would turn texts into bytes in silence.
  private static func checkMerges(
    _ tables: TokenizerTables, _ special: Checkpoint.SpecialTokens, path: String
  ) throws(ModelSourceError) {
    func bytes(_ id: Int) -> ArraySlice<UInt8> {
      tables.tokenBytes[Int(tables.tokenOffsets[id])..<Int(tables.tokenOffsets[id + 1])]
    }
    let pairs = tables.mergePairs
    let made = Set(
      stride(from: 0, to: pairs.count, by: 2)
        .map { bytes(Int(pairs[$0])) + bytes(Int(pairs[$0 + 1])) })
    let unmerged = Set(tables.special.values).union([special.bos, special.eos].compactMap { $0 })
    let lost = (0..<tables.count).filter { id in
      let token = bytes(id)
      // <pad>, [UNK] and the like are special whether or not a configuration says so.
      let ends = (token.first, token.last)
      let isMark =
        ends == (UInt8(ascii: "<"), UInt8(ascii: ">"))
        || ends == (UInt8(ascii: "["), UInt8(ascii: "]"))
      return token.count > 1 && !isMark && !unmerged.contains(id) && !made.contains(token)
    }
    guard let first = lost.first else { return }
    throw .weights(
      path: path,
      problem: "no merge makes \(lost.count) of the tokens in vocab.json, the first "
        + "'\(String(decoding: bytes(first), as: UTF8.self))' (id \(first)); the file is cut or "
        + "belongs to another vocab.json")
  }

  static func readBytes(_ path: String) throws(ModelSourceError) -> [UInt8] {
    do {
      return [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
    } catch {
      throw .unreadable(path)
    }
  }

  // MARK: config.json

  /// `config.json`: every field that changes the arithmetic is honoured or refused by name.
  private struct Config {
    let path: String
    let json: JSONValue

    func config() throws -> GPT2Config {
      if let type = json["model_type"]?.string, type != "gpt2" {
        throw wrong("model_type", "'gpt2'")
      }
      for field in ["add_cross_attention", "is_encoder_decoder"] where try flag(field, false) {
        throw wrong(field, "false")
      }
      let name = try text("activation_function", default: "gelu_new")
      guard let activation = Self.activations[name] else {
        throw wrong(
          "activation_function", "one of \(Self.activations.keys.sorted().joined(separator: ", "))")
      }
      if let quantization = json["quantization_config"], quantization != .null {
        throw wrong("quantization_config", "none: quantized weights are not opened")
      }
      let positions = json["n_positions"] == nil && json["n_ctx"] != nil ? "n_ctx" : "n_positions"
      let nCtx = try integer(positions, default: 1024)
      if try integer("n_ctx", default: nCtx) != nCtx {
        throw wrong("n_ctx", "\(nCtx), as n_positions has")
      }
      let epsilon = try number("layer_norm_epsilon", default: 1e-5)
      if epsilon > 0.1 && !LayerNormFolding.isLayerNormFree(epsilon: epsilon) {
        throw wrong(
          "layer_norm_epsilon",
          "at most 0.1 with LayerNorms, or at least 1e6 where they were removed")
      }
      return try GPT2Config(
        nLayers: integer("n_layer", default: nil), dModel: integer("n_embd", default: nil),
        nHeads: integer("n_head", default: nil),
        dMLP: json["n_inner"].flatMap { $0 == .null ? nil : $0 } == nil
          ? nil : integer("n_inner", default: nil),
        nCtx: nCtx, dVocab: integer("vocab_size", default: 50257),
        activation: activation,
        layerNormEpsilon: epsilon,
        scaleAttnWeights: flag("scale_attn_weights", true),
        scaleAttnByInverseLayerIdx: flag("scale_attn_by_inverse_layer_idx", false),
        tiedUnembed: flag("tie_word_embeddings", true))
    }

    /// Hugging Face's names of the non-linearities that are known.
    private static let activations: [String: Activation] = [
      "gelu_new": .geluNew, "gelu_pytorch_tanh": .geluNew, "gelu": .gelu, "relu": .relu,
    ]

    private func integer(_ field: String, default fallback: Int?) throws(ModelSourceError) -> Int {
      guard let value = json[field], value != .null else {
        if let fallback { return fallback }
        throw wrong(field, "a whole number")
      }
      guard let number = value.integer else { throw wrong(field, "a whole number") }
      return number
    }

    /// The id of a special token, if there is one: null means none. A small model may keep GPT-2's
    /// 50256, written or as the default, without having such a token.
    func token(_ field: String, vocabulary: Int) throws(ModelSourceError) -> Int? {
      if json[field] == .null { return nil }
      let usual = 50256
      let id = try integer(field, default: usual)
      if (0..<vocabulary).contains(id) { return id }
      guard id == usual else {
        throw wrong(field, "a token id from 0 to \(vocabulary - 1), or null")
      }
      return nil
    }

    private func number(_ field: String, default fallback: Double) throws -> Double {
      guard let value = json[field] else { return fallback }
      guard let number = value.double else { throw wrong(field, "a number") }
      return number
    }

    private func text(_ field: String, default fallback: String) throws -> String {
      guard let value = json[field] else { return fallback }
      guard let text = value.string else { throw wrong(field, "text") }
      return text
    }

    private func flag(_ field: String, _ fallback: Bool) throws -> Bool {
      guard let value = json[field] else { return fallback }
      guard let flag = value.bool else { throw wrong(field, "true or false") }
      return flag
    }

    private func wrong(_ field: String, _ expected: String) -> ModelSourceError {
      let found: String =
        switch json[field] {
        case nil: "missing"
        case .string(let text)?: "'\(text)'"
        case .number(let number)?: "\(number.integer.map(String.init) ?? "\(number.double)")"
        case .bool(let value)?: "\(value)"
        case let other?: other.kindName
        }
      return .field(path: path, field: field, expected: expected, found: found)
    }
  }
}
