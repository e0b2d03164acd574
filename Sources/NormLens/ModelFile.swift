public import HDF5Store
public import HookedGPT2
public import OrderedCollections
import Results
public import Tensors

/// A GPT-2 on its way from a checkpoint to a model or a file: configuration, tensors, tokenizer.
public struct Checkpoint: Sendable {
  /// The configuration.
  public var config: GPT2Config
  /// The tensors by Hugging Face's names without `transformer.`, in the order of the file.
  public var tensors: OrderedDictionary<String, Tensor>
  /// The tokenizer, if there is one.
  public var tokenizer: TokenizerPayload?
  /// The ids of the special tokens.
  public var specialTokens: SpecialTokens
  /// Whether text gets the BOS token in front unless asked otherwise.
  public var prependBOS = true
  /// Who the model is.
  public var identity: GPT2.Identity
  /// A short run's logits that the file was written with, if there is one.
  public var reference: Reference?

  /// The ids of the tokens that begin and end a text.
  public struct SpecialTokens: Sendable, Equatable {
    /// The token that stands before a text.
    public var bos: Int?
    /// The token that ends it.
    public var eos: Int?
  }

  /// Some of the last logits of a short run, to tell whether a model still computes the same.
  public struct Reference: Sendable, Equatable {
    /// The tokens.
    public var tokens: [Int]
    /// The ids whose logits are kept.
    public var ids: [Int]
    /// Their logits at the last position.
    public var logits: [Double]
  }

  /// The model.
  ///
  /// - Throws: `ModelError` where tensors and configuration disagree.
  public func model() throws(ModelError) -> GPT2 {
    let weights = try GPT2Weights(
      Dictionary(uniqueKeysWithValues: tensors.map { ($0.key, $0.value) }), config: config)
    let (payload, special) = (tokenizer, specialTokens)
    return GPT2(
      config: config, weights: weights, identity: identity,
      defaultPrependBOS: prependBOS && special.bos != nil
    ) {
      guard let payload else { throw ModelError.noTokenizer }
      let tables = TokenizerTables(
        tokenBytes: payload.tokenBytes, tokenOffsets: payload.tokenOffsets.map { Int32($0) },
        mergePairs: payload.mergePairs, special: Checkpoint.specialTexts(payload, special))
      return try Tokenizer(tables: tables, bos: special.bos, eos: special.eos)
    }
  }

  /// The special tokens' texts, which are found in a text before it is cut.
  ///
  /// A token that a text is cut into anyway, a byte's or one that a merge makes, is not among them:
  /// special, it would tear words that it begins or leave its byte without a token.
  private static func specialTexts(
    _ payload: TokenizerPayload, _ special: SpecialTokens
  ) -> [String: Int] {
    let (all, offsets, pairs) = (payload.tokenBytes, payload.tokenOffsets, payload.mergePairs)
    // Tables that contradict themselves are refused once a tokenizer is made of them.
    func bytes(_ id: Int) -> ArraySlice<UInt8> {
      guard id >= 0 && id < offsets.count - 1, 0 <= offsets[id], offsets[id] <= offsets[id + 1],
        offsets[id + 1] <= all.count
      else { return [] }
      return all[offsets[id]..<offsets[id + 1]]
    }
    var texts: [String: Int] = [:]
    for id in [special.bos, special.eos].compactMap({ $0 }) {
      let token = bytes(id)
      let isMerged = stride(from: 1, to: pairs.count, by: 2).contains { right in
        let (left, right) = (bytes(Int(pairs[right - 1])), bytes(Int(pairs[right])))
        return left.count + right.count == token.count && (left + right).elementsEqual(token)
      }
      if token.count > 1 && !isMerged { texts[String(decoding: token, as: UTF8.self)] = id }
    }
    return texts
  }

  /// The short run that is kept with a file.
  static func reference(_ model: GPT2) throws -> Reference {
    let vocabulary = model.config.dVocab
    let length = min(8, model.config.nCtx)
    let tokens = (0..<length).map { ($0 * 7919 + 11) % vocabulary }
    let count = min(64, vocabulary)
    let ids = (0..<count).map { $0 * vocabulary / count }
    let logits = try model.run(batch: [tokens], logits: .last)[0]
    return Reference(tokens: tokens, ids: ids, logits: ids.map { Double(logits[0, $0]) })
  }

  /// How far the model's logits are now from those it was written with; nil without a reference.
  public func selfCheck(_ model: GPT2) throws -> (difference: Double, scale: Double)? {
    guard let reference else { return nil }
    let now = try model.run(batch: [reference.tokens], logits: .last)[0]
    let differences = zip(reference.ids, reference.logits).map { id, logit in
      Swift.abs(Double(now[0, id]) - logit)
    }
    return (differences.max() ?? 0, max(1, reference.logits.map(Swift.abs).max() ?? 1))
  }
}

/// Model files: one HDF5 file with everything a model needs.
public enum ModelFile {
  /// Reads a model file; its tensors stay in the mapped file.
  ///
  /// - Parameters:
  ///   - path: the file.
  ///   - verify: whether every dataset's checksum is compared.
  /// - Throws: `HDF5Error`, `ModelSourceError.field`, `ModelError.configuration`.
  public static func read(_ path: String, verify: Bool = true) throws -> Checkpoint {
    let archive = try ModelArchive.open(path, verify: verify)
    let fields = Fields(path: path, attributes: archive.attributes)
    let architecture = try fields.text("architecture")
    guard architecture == "gpt2" else {
      throw ModelSourceError.field(
        path: path, field: "architecture", expected: "'gpt2'", found: "'\(architecture)'")
    }
    let config = try GPT2Config(
      nLayers: fields.integer("n_layers"), dModel: fields.integer("d_model"),
      nHeads: fields.integer("n_heads"), dMLP: fields.integer("d_mlp"),
      nCtx: fields.integer("n_ctx"), dVocab: fields.integer("d_vocab"),
      activation: fields.choice("activation", Activation.self),
      normalization: fields.choice("normalization", Normalization.self),
      layerNormEpsilon: fields.number("layer_norm_epsilon"),
      scaleAttnWeights: fields.flag("scale_attn_weights"),
      scaleAttnByInverseLayerIdx: fields.flag("scale_attn_by_inverse_layer_idx"),
      tiedUnembed: fields.flag("tied_unembed"))
    guard try fields.integer("d_head") == config.dHead else {
      throw ModelSourceError.field(
        path: path, field: "d_head", expected: "d_model / n_heads = \(config.dHead)",
        found: "\(try fields.integer("d_head"))")
    }
    let prepend = try fields.flag("default_prepend_bos")
    let special = try fields.json("special_tokens")
    var reference: Checkpoint.Reference?
    if case .integers(let tokens)? = archive[attribute: "reference_tokens"],
      case .integers(let ids)? = archive[attribute: "reference_ids"],
      case .numbers(let logits)? = archive[attribute: "reference_logits"],
      ids.count == logits.count, ids.allSatisfy({ $0 >= 0 && $0 < config.dVocab })
    {
      reference = Checkpoint.Reference(tokens: tokens, ids: ids, logits: logits)
    }
    return Checkpoint(
      config: config, tensors: archive.tensors, tokenizer: archive.tokenizer,
      specialTokens: Checkpoint.SpecialTokens(
        bos: special["bos"]?.integer, eos: special["eos"]?.integer),
      prependBOS: prepend,
      identity: GPT2.Identity(
        name: try fields.text("name"), weightsSHA256: try fields.text("weights_sha256"),
        weightProcessing: try fields.json("weight_processing").array?.compactMap(\.string) ?? [],
        source: try fields.text("source"), license: try fields.text("license")),
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
    for (name, tensor) in checkpoint.tensors where !tensor.isFinite {
      throw ModelError.nonFiniteTensor(name: name)
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
    let specialText = special.map { "\"\($0.key)\": \($0.value)" } + ["\"added\": []"]
    let processing = checkpoint.identity.weightProcessing.map { "\"\($0)\"" }
    try ModelArchive.write(
      attributes: [
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
      ],
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
