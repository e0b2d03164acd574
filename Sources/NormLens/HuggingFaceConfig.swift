import HDF5Store
import HookedGPT2
import Tensors

/// `config.json`: every field that changes the arithmetic is honoured or refused by name.
struct HuggingFaceConfig {
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
  static let activations: [String: Activation] = [
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

extension Checkpoint {
  /// The fields of the published configuration that are not known here, and so not used.
  public var unknownConfigFields: [String] { [] }
}
