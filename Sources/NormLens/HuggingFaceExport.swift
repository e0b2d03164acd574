public import HDF5Store
import HookedGPT2
import OrderedCollections
import Tensors

/// Writes a model as a directory that `transformers` opens: `config.json`, `model.safetensors`, and
/// the tokenizer's files.
///
/// An unprocessed model comes back bit for bit. What `GPT2LMHeadModel` has no place for takes a form
/// that computes the same:
///
/// - No LayerNorm: a LayerNorm with ε = G² and gain G = 1e6, as LayerNorm-free models are published.
///   Next to such an ε the variance is nothing, so it leaves x − mean(x), and the weights that read
///   it annihilate the mean in any case.
/// - A bias b_U of the unembedding, which `lm_head` lacks: the final LayerNorm's output is orthogonal
///   to the all-ones vector 1 if its gain is constant and its bias 0. With the bias 1 instead, and
///   the row w_v − mean(w_v) + b_v/d in place of w_v, the logit of v is z·w_v + b_v as before.
public enum HuggingFaceExport {
  /// Writes `checkpoint` to `directory`, which appears complete or not at all.
  ///
  /// - Parameters:
  ///   - checkpoint: a model with LayerNorm, or without any norm.
  ///   - directory: must be missing or empty.
  ///   - type: F32, F16 or BF16.
  /// - Throws: `ModelSourceError.inexpressible` where `GPT2LMHeadModel` has no place for the model;
  ///   `HDF5Error.unstorable` for numbers beyond the type; `cannotCreate`; `ioFailed`.
  public static func write(
    _ checkpoint: Checkpoint, to directory: String, as type: SafetensorsFile.ScalarType = .F32
  ) throws {
    let form = try Form(checkpoint, type)
    let output = try AtomicDirectory(path: directory)
    try output.file("model.safetensors") { path throws(HDF5Error) in
      try SafetensorsFile.write(
        tensors: form.tensors.map { (name: $0.key, tensor: $0.value) }, as: type,
        metadata: ["format": "pt"], to: path)
    }
    func put(_ bytes: [UInt8], as name: String) throws {
      try output.file(name) { path throws(HDF5Error) in try FileBytes.write(bytes, to: path) }
    }
    func put(_ value: JSONValue, as name: String) throws {
      try put(Array((value.indentedText + "\n").utf8), as: name)
    }
    try put(form.config, as: "config.json")
    if let tokenizer = checkpoint.tokenizer {
      try put(tokenizer.vocabJSON, as: "vocab.json")
      try put(tokenizer.mergesText, as: "merges.txt")
      try put(tokenizerConfig(checkpoint, tokenizer), as: "tokenizer_config.json")
    }
    try output.commit()
  }

  // MARK: tensors

  /// A model as `GPT2LMHeadModel` has it.
  fileprivate struct Form {
    private(set) var tensors: OrderedDictionary<String, Tensor> = [:]
    private(set) var config: JSONValue = .null

    init(_ checkpoint: Checkpoint, _ type: SafetensorsFile.ScalarType) throws {
      let model = checkpoint.config
      guard model.hasOnesDirection && model.dAttn == model.dModel else {
        let reason =
          model.hasOnesDirection
          ? "its heads are d_model / n_heads wide, not \(model.dHead)"
          : "its stream has no d_model of \(model.dModel) with norms over \(model.normWidth); convert the "
            + "model before 'crmsnorm' or 'isometric'"
        throw ModelSourceError.inexpressible(format: "GPT2LMHeadModel", problem: reason)
      }
      let gain = Form.affineGain(type)
      switch model.normalization {
      case .layerNorm:
        for (name, tensor) in checkpoint.tensors where !name.hasPrefix("unembed.") {
          tensors["transformer.\(name)"] = tensor
        }
      case .rmsNorm, .crmsNorm:
        throw ModelSourceError.inexpressible(
          format: "GPT2LMHeadModel",
          problem: "it has no RMSNorm; convert the model before 'rmsnorm'")
      case .none:
        guard type != .F16 else {
          throw ModelSourceError.inexpressible(
            format: "GPT2LMHeadModel",
            problem: "float16 cannot hold the gain 1e6 of a model without LayerNorms; "
              + "use bfloat16 or float32")
        }
        // A LayerNorm cannot but remove the mean: the weights that read the stream must ignore it.
        if let reader = WeightProcessing.readerOfTheMean(
          checkpoint.tensors.unordered, config: model)
        {
          throw ModelSourceError.inexpressible(
            format: "GPT2LMHeadModel",
            problem: "it always removes the stream's mean, which this model reads: \(reader)")
        }
        for (name, tensor) in checkpoint.tensors where !name.hasPrefix("unembed.") {
          // The order of `save_pretrained`: each norm before the weights that read it.
          if let norm = Form.norm(before: name) { addNorm(norm, gain, model.dModel) }
          tensors["transformer.\(name)"] = tensor
        }
        addNorm("ln_f", gain, model.dModel)
      }
      try addHead(checkpoint)
      let isFree = model.normalization == .none
      config = HuggingFaceExport.config(
        checkpoint, type,
        epsilon: isFree ? Double(gain) * Double(gain) : model.layerNormEpsilon)
    }

    /// The largest number near 1e6 that the type holds exactly.
    private static func affineGain(_ type: SafetensorsFile.ScalarType) -> Float {
      type == .BF16 ? 999_424 : 1_000_000
    }

    private static func norm(before name: String) -> String? {
      for (suffix, norm) in [("attn.c_attn.weight", "ln_1"), ("mlp.c_fc.weight", "ln_2")]
      where name.hasSuffix(suffix) {
        return name.dropLast(suffix.count) + norm
      }
      return nil
    }

    private mutating func addNorm(_ name: String, _ gain: Float, _ width: Int) {
      tensors["transformer.\(name).weight"] = Tensor(repeating: gain, shape: [width])
      tensors["transformer.\(name).bias"] = Tensor(zeros: [width])
    }

    /// `lm_head`, with the unembedding's bias worked into it and the final norm.
    private mutating func addHead(_ checkpoint: Checkpoint) throws {
      guard !checkpoint.config.tiedUnembed, let W = checkpoint.tensors["unembed.weight"] else {
        return
      }
      guard let b = checkpoint.tensors["unembed.bias"], b.maximumMagnitude > 0 else {
        tensors["lm_head.weight"] = W
        return
      }
      if checkpoint.config.normalization == .layerNorm {
        let gain = checkpoint.tensors["ln_f.weight"]?.scalars ?? []
        let bias = checkpoint.tensors["ln_f.bias"]?.scalars ?? []
        guard Set(gain).count == 1, bias.allSatisfy({ $0 == 0 }) else {
          throw ModelSourceError.inexpressible(
            format: "GPT2LMHeadModel",
            problem:
              "a bias of the unembedding needs a final LayerNorm of constant gain and bias 0; "
              + "add fold_ln")
        }
      }
      let (vocabulary, d) = (W.shape[0], W.shape[1])
      let biases = b.scalars
      var head = W
      var span = head.mutableSpan
      for v in 0..<vocabulary {
        var sum = 0.0
        for i in 0..<d { sum += Double(span[v * d + i]) }
        let shift = (Double(biases[v]) - sum) / Double(d)
        for i in 0..<d { span[v * d + i] = Float(Double(span[v * d + i]) + shift) }
      }
      tensors["lm_head.weight"] = head
      tensors["transformer.ln_f.bias"] = Tensor(repeating: 1, shape: [d])
    }
  }

  // MARK: configuration

  /// `config.json`: the published one, where there is one, with every field that this model decides.
  private static func config(
    _ checkpoint: Checkpoint, _ type: SafetensorsFile.ScalarType, epsilon: Double
  ) -> JSONValue {
    let (model, special) = (checkpoint.config, checkpoint.specialTokens)
    var members: OrderedDictionary<String, JSONValue> = [:]
    if case .object(let published)? = checkpoint.publishedConfig { members = published }
    func id(_ token: Int?) -> JSONValue { token.map { .integer($0) } ?? .null }
    /// Keeps another spelling of the same: 1e-05 for 0.00001, gelu_pytorch_tanh for gelu_new.
    func set(
      _ field: String, _ value: JSONValue, unless isSame: (JSONValue) -> Bool = { _ in false }
    ) {
      if let found = members[field], isSame(found) { return }
      members[field] = value
    }
    set("architectures", .array([.string("GPT2LMHeadModel")]))
    set("model_type", .string("gpt2"))
    set("n_layer", .integer(model.nLayers))
    set("n_embd", .integer(model.dModel))
    set("n_head", .integer(model.nHeads))
    set("n_inner", model.dMLP == 4 * model.dModel ? .null : .integer(model.dMLP)) {
      $0.integer == model.dMLP
    }
    set("n_positions", .integer(model.nCtx))
    set("n_ctx", .integer(model.nCtx))
    set("vocab_size", .integer(model.dVocab))
    set("activation_function", .string(model.activation.rawValue)) {
      $0.string.map { HuggingFaceConfig.activations[$0] == model.activation } ?? false
    }
    // transformers takes no whole number, such as 1000000000000, for it.
    set("layer_norm_epsilon", .double(epsilon)) {
      if case .number(let number) = $0 {
        number.isFractional && number.double == epsilon
      } else {
        false
      }
    }
    // Other names of it, which transformers does not look at.
    for field in ["layer_norm_eps", "norm_epsilon", "norm_eps"] { members[field] = nil }
    set("scale_attn_weights", .bool(model.scaleAttnWeights))
    set("scale_attn_by_inverse_layer_idx", .bool(model.scaleAttnByInverseLayerIdx))
    set("tie_word_embeddings", .bool(model.tiedUnembed))
    set("bos_token_id", id(special.bos))
    set("eos_token_id", id(special.eos))
    let names: [SafetensorsFile.ScalarType: String] = [.F16: "float16", .BF16: "bfloat16"]
    members["dtype"] = nil
    set("torch_dtype", .string(names[type] ?? "float32"))
    return .object(members)
  }

  /// `tokenizer_config.json`: the special tokens, and those that `vocab.json` does not know.
  private static func tokenizerConfig(
    _ checkpoint: Checkpoint, _ tokenizer: TokenizerPayload
  ) -> JSONValue {
    let (bytes, offsets) = (tokenizer.tokenBytes, tokenizer.tokenOffsets)
    func text(_ id: Int) -> JSONValue {
      .string(String(decoding: bytes[offsets[id]..<offsets[id + 1]], as: UTF8.self))
    }
    let special = checkpoint.specialTokens
    var members: OrderedDictionary<String, JSONValue> = [
      "tokenizer_class": .string("GPT2Tokenizer"), "add_prefix_space": .bool(false),
      "model_max_length": .integer(checkpoint.config.nCtx),
    ]
    if let bos = special.bos { members["bos_token"] = text(bos) }
    if let eos = special.eos { members["eos_token"] = text(eos) }
    if !special.added.isEmpty {
      let added = special.added.map { id in
        (
          "\(id)",
          JSONValue.object([
            "content": text(id), "lstrip": .bool(false), "normalized": .bool(false),
            "rstrip": .bool(false), "single_word": .bool(false), "special": .bool(true),
          ])
        )
      }
      members["added_tokens_decoder"] = .object(OrderedDictionary(uniqueKeysWithValues: added))
    }
    return .object(members)
  }
}
