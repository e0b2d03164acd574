public import HDF5Store
import HookedGPT2
import OrderedCollections
import Results

/// Model files: one HDF5 file with everything a model needs.
public enum ModelFile {
  /// Reads a model file; its tensors stay in the mapped file.
  ///
  /// - Parameters:
  ///   - path: the file.
  ///   - verify: whether every dataset's checksum is compared.
  /// - Throws: `HDF5Error`, `ModelSourceError.field`; `ModelSourceError.weights` where tensors and
  ///   configuration disagree.
  public static func read(_ path: String, verify: Bool = true) throws -> Checkpoint {
    do {
      let checkpoint = try checkpoint(try ModelArchive.open(path, verify: verify), path)
      _ = try checkpoint.weights()
      return checkpoint
    } catch let error as ModelError {
      throw ModelSourceError.weights(path: path, problem: error.description)
    }
  }

  private static func checkpoint(_ archive: ModelArchive, _ path: String) throws -> Checkpoint {
    let fields = Fields(path: path, attributes: archive.attributes)
    let architecture = try fields.text("architecture")
    guard architecture == "gpt2" else {
      throw ModelSourceError.field(
        path: path, field: "architecture", expected: "'gpt2'", found: "'\(architecture)'")
    }
    let config = try GPT2Config(
      nLayers: fields.integer("n_layers"), dModel: fields.integer("d_model"),
      nHeads: fields.integer("n_heads"), dHead: fields.integer("d_head"),
      dMLP: fields.integer("d_mlp"),
      nCtx: fields.integer("n_ctx"), dVocab: fields.integer("d_vocab"),
      activation: fields.choice("activation", Activation.self),
      normalization: fields.choice("normalization", Normalization.self),
      normWidth: archive[attribute: "norm_width"] == nil ? nil : fields.integer("norm_width"),
      layerNormEpsilon: fields.number("layer_norm_epsilon"),
      scaleAttnWeights: fields.flag("scale_attn_weights"),
      scaleAttnByInverseLayerIdx: fields.flag("scale_attn_by_inverse_layer_idx"),
      tiedUnembed: fields.flag("tied_unembed"))
    let prepend = try fields.flag("default_prepend_bos")
    let special = try fields.json("special_tokens")
    let tokenCount = archive.tokenizer?.tokenCount ?? 0
    guard tokenCount <= config.dVocab else {
      throw ModelSourceError.field(
        path: path, field: "d_vocab", expected: "at least \(tokenCount), the tokenizer's tokens",
        found: "\(config.dVocab)")
    }
    let added = try (special["added"]?.array ?? []).map { value in
      guard let id = value.integer, (0..<tokenCount).contains(id) else {
        throw ModelSourceError.field(
          path: path, field: "special_tokens", expected: "ids of the tokenizer in 'added'",
          found: value.integer.map { "\($0)" } ?? value.kindName)
      }
      return id
    }
    var reference: Checkpoint.Reference?
    if case .integers(let tokens)? = archive[attribute: "reference_tokens"],
      case .integers(let ids)? = archive[attribute: "reference_ids"],
      case .numbers(let logits)? = archive[attribute: "reference_logits"],
      ids.count == logits.count, ids.allSatisfy({ $0 >= 0 && $0 < config.dVocab })
    {
      reference = Checkpoint.Reference(tokens: tokens, ids: ids, logits: logits)
    }
    let weightProcessing = try fields.json("weight_processing").array?.compactMap(\.string) ?? []
    return Checkpoint(
      config: config, tensors: archive.tensors, tokenizer: archive.tokenizer,
      specialTokens: Checkpoint.SpecialTokens(
        bos: special["bos"]?.integer, eos: special["eos"]?.integer, added: added),
      prependBOS: prepend,
      identity: GPT2.Identity(
        name: try fields.text("name"), weightsSHA256: try fields.text("weights_sha256"),
        weightProcessing: weightProcessing,
        source: try fields.text("source"), license: try fields.text("license")),
      publishedConfig: archive[attribute: "published_config"] == nil
        ? nil : try fields.json("published_config"),
      processingChecks: ProcessingCheck.read(
        steps: weightProcessing, attributes: archive.attributes),
      reference: reference)
  }

  /// Writes a model file; it appears complete or not at all.
  ///
  /// - Parameters:
  ///   - checkpoint: what to write; its reference is computed anew.
  ///   - path: replaced if it exists.
  ///   - dtype: how the scalars are stored.
  /// - Throws: `HDF5Error`; `ModelError` where tensors and configuration disagree.
  public static func write(
    _ checkpoint: Checkpoint, to path: String, dtype: ModelArchive.StoredType = .float32
  ) throws {
    for (name, tensor) in checkpoint.tensors {
      if let index = tensor.firstNonFiniteIndex {
        throw ModelError.nonFiniteTensor(name: name, index: index)
      }
    }
    let config = checkpoint.config
    // The reference is that of the numbers as they will be read back.
    var stored = checkpoint
    if dtype == .float16 {
      stored.tensors = checkpoint.tensors.mapValues { $0.map { Float(Float16($0)) } }
    }
    let reference = try Checkpoint.reference(try stored.model())
    var special: OrderedDictionary<String, AttributeValue> = [:]
    special["bos"] = checkpoint.specialTokens.bos.map { .integer($0) }
    special["eos"] = checkpoint.specialTokens.eos.map { .integer($0) }
    let specialText =
      special.map { "\"\($0.key)\": \($0.value)" }
      + ["\"added\": \(checkpoint.specialTokens.added)"]
    let processing = checkpoint.identity.weightProcessing.map { "\"\($0)\"" }
    var attributes: OrderedDictionary<String, AttributeValue> = [
      "name": .string(checkpoint.identity.name),
      "architecture": .string("gpt2"),
      "n_layers": .integer(config.nLayers),
      "d_model": .integer(config.dModel),
      "n_heads": .integer(config.nHeads),
      "d_head": .integer(config.dHead),
      "d_mlp": .integer(config.dMLP),
      "n_ctx": .integer(config.nCtx),
      "d_vocab": .integer(config.dVocab),
      "activation": .string(config.activation.rawValue),
      "normalization": .string(config.normalization.rawValue),
      "layer_norm_epsilon": .number(config.layerNormEpsilon),
      "scale_attn_weights": .integer(config.scaleAttnWeights ? 1 : 0),
      "scale_attn_by_inverse_layer_idx": .integer(config.scaleAttnByInverseLayerIdx ? 1 : 0),
      "tied_unembed": .integer(config.tiedUnembed ? 1 : 0),
      "default_prepend_bos": .integer(checkpoint.prependBOS ? 1 : 0),
      "special_tokens": .string("{\(specialText.joined(separator: ", "))}"),
      "weight_processing": .string("[\(processing.joined(separator: ", "))]"),
      "source": .string(checkpoint.identity.source),
      "license": .string(checkpoint.identity.license),
      "reference_tokens": .integers(reference.tokens),
      "reference_ids": .integers(reference.ids),
      "reference_logits": .numbers(reference.logits),
    ]
    if !config.hasOnesDirection { attributes["norm_width"] = .integer(config.normWidth) }
    attributes["published_config"] = checkpoint.publishedConfig.map { .string($0.text) }
    try ModelArchive.write(
      attributes: attributes.merging(checkpoint.processingAttributes) { $1 },
      tensors: checkpoint.tensors.map { (name: $0.key, tensor: $0.value) },
      tokenizer: checkpoint.tokenizer, to: path, dtype: dtype)
  }

  /// The root attributes with errors that name the field.
  private struct Fields {
    let path: String
    let attributes: OrderedDictionary<String, AttributeValue>

    func text(_ name: String) throws -> String {
      guard case .string(let value)? = attributes[name] else { throw wrong(name, "text") }
      return value
    }

    func integer(_ name: String) throws -> Int {
      guard case .integer(let value)? = attributes[name] else {
        throw wrong(name, "a whole number")
      }
      return value
    }

    func number(_ name: String) throws -> Double {
      switch attributes[name] {
      case .number(let value): return value
      case .integer(let value): return Double(value)
      default: throw wrong(name, "a number")
      }
    }

    func flag(_ name: String) throws -> Bool {
      let value = try integer(name)
      guard value == 0 || value == 1 else { throw wrong(name, "0 or 1") }
      return value == 1
    }

    func choice<Choice: RawRepresentable>(
      _ name: String, _ type: Choice.Type
    ) throws -> Choice where Choice.RawValue == String {
      guard let value = Choice(rawValue: try text(name)) else {
        throw wrong(name, "a value this version knows")
      }
      return value
    }

    func json(_ name: String) throws -> JSONValue {
      do {
        return try JSONScanner.parse(try text(name))
      } catch let error as JSONError {
        throw wrong(name, "JSON (\(error))")
      }
    }

    private func wrong(_ name: String, _ expected: String) -> ModelSourceError {
      .field(
        path: path, field: name, expected: expected,
        found: attributes[name].map { "'\($0)'" } ?? "missing")
    }
  }
}
