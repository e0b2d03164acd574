public import HDF5Store
import HookedGPT2
import Tensors

/// `config.json`: every field that changes the arithmetic is honoured or refused by name.
///
/// transformers knows some fields by two names (`n_embd`, `hidden_size`); both are read, and must
/// agree. A field that no release of transformers writes for a GPT-2 changes nothing here and is
/// listed by ``unknownFields(of:)``.
public struct HuggingFaceConfig {
  let path: String
  let json: JSONValue

  /// The most bytes of a `config.json`.
  static let byteLimit = 1 << 20

  /// Reads the file at `path`.
  ///
  /// - Throws: `HDF5Error`; `ModelSourceError.field` where it holds no object.
  init(path: String) throws {
    self.path = path
    json = try JSONScanner.parseFile(path, limit: Self.byteLimit)
    guard json.keys != nil else {
      throw ModelSourceError.field(
        path: path, field: "configuration", expected: "an object", found: json.kindName)
    }
  }

  /// The model's configuration.
  ///
  /// - Throws: `ModelSourceError.field` with the field that cannot be honoured.
  func config() throws -> GPT2Config {
    try refuseOtherArithmetic()
    let name = try text("activation_function", default: "gelu_new")
    guard let activation = Self.activations[name] else {
      throw wrong("activation_function", "one of \(Self.activationNames)")
    }
    let (nLayers, dModel) = (try size("n_layer"), try size("n_embd"))
    let nHeads = try size("n_head")
    guard dModel % nHeads == 0 else { throw wrong("n_head", "a divisor of n_embd = \(dModel)") }
    let dMLP = try isNull("n_inner") ? 4 * dModel : size("n_inner")
    guard dMLP <= 1 << 24 else { throw wrong("n_embd", "at most \(1 << 22) without n_inner") }
    let nCtx = try size("n_positions", default: 1024)
    let epsilon = try number("layer_norm_epsilon", default: 1e-5)
    if epsilon < 0 || epsilon > 0.1 && !LayerNormFolding.isLayerNormFree(epsilon: epsilon) {
      throw wrong(
        "layer_norm_epsilon",
        "0 to 0.1 with LayerNorms, or at least 1e6 where they were removed")
    }
    // Other names for what has been read. transformers does not look at them; whoever wrote them
    // meant something by them.
    for (field, value) in [
      ("head_dim", dModel / nHeads), ("d_head", dModel / nHeads), ("num_key_value_heads", nHeads),
      ("n_head_kv", nHeads), ("intermediate_size", dMLP), ("ffn_dim", dMLP),
      ("word_embed_proj_dim", dModel), ("embed_dim", dModel),
    ] where try !isNull(field) && integer(field) != value {
      throw wrong(field, "\(value), as the other fields have")
    }
    for field in ["layer_norm_eps", "norm_epsilon", "norm_eps"]
    where try !isNull(field) && number(field, default: epsilon) != epsilon {
      throw wrong(field, "\(epsilon), as layer_norm_epsilon has")
    }
    for field in ["hidden_act", "activation"]
    where try !isNull(field) && Self.activations[text(field, default: name)] != activation {
      throw wrong(field, "'\(name)', as activation_function has")
    }
    return try GPT2Config(
      nLayers: nLayers, dModel: dModel, nHeads: nHeads, dMLP: dMLP, nCtx: nCtx,
      dVocab: size("vocab_size", default: 50257), activation: activation,
      layerNormEpsilon: epsilon, scaleAttnWeights: flag("scale_attn_weights", true),
      scaleAttnByInverseLayerIdx: flag("scale_attn_by_inverse_layer_idx", false),
      tiedUnembed: flag("tie_word_embeddings", true))
  }

  /// Whether the file says what the non-linearity is.
  var namesActivation: Bool { json["activation_function"] != nil }

  /// Fails if the file leaves the non-linearity open although the weights are nanoGPT's.
  func requireActivation() throws(ModelSourceError) {
    if namesActivation { return }
    throw wrong(
      "activation_function",
      "'gelu' or 'gelu_new': the matrices are nanoGPT's, whose versions differ in it")
  }

  /// The id of a special token, if there is one: null means none. A small model may keep GPT-2's
  /// 50256, written or as the default, without having such a token.
  func token(_ field: String, vocabulary: Int) throws(ModelSourceError) -> Int? {
    if json[field] == .null { return nil }
    let usual = 50256
    let id = json[field] == nil ? usual : try integer(field)
    if (0..<vocabulary).contains(id) { return id }
    guard id == usual else {
      throw wrong(field, "a token id from 0 to \(vocabulary - 1), or null")
    }
    return nil
  }

  // MARK: other arithmetic

  private func refuseOtherArithmetic() throws(ModelSourceError) {
    if let type = json["model_type"], type != .string("gpt2") {
      throw wrong("model_type", "'gpt2'")
    }
    if let classes = json["architectures"], classes != .null {
      guard let names = classes.array, names.allSatisfy({ $0.string != nil }) else {
        throw wrong("architectures", "a list of names")
      }
      if let other = names.compactMap(\.string).first(where: { !Self.isGPT2($0) }) {
        throw .field(
          path: path, field: "architectures", expected: "GPT2LMHeadModel or GPT2Model",
          found: "'\(other)'")
      }
    }
    if let code = json["auto_map"]?.keys?.first(where: { $0.hasPrefix("AutoModel") }) {
      throw .field(
        path: path, field: "auto_map", expected: "no model class: Python code is not run",
        found: "code for \(code)")
    }
    // Empty or not, it says that the weights are quantized.
    if !isNull("quantization_config") {
      throw wrong("quantization_config", "none: quantized weights are not opened")
    }
    for (field, usual) in Self.fixed where !isNull(field) && json[field] != usual {
      throw wrong(field, Self.text(of: usual))
    }
    for field in json.keys ?? [] where Self.isExtension(field) {
      if let value = json[field], !Self.isOff(value) {
        throw wrong(field, "nothing: it is no part of GPT-2's arithmetic")
      }
    }
  }

  private static func isGPT2(_ name: String) -> Bool {
    let heads = [
      "Model", "LMHeadModel", "DoubleHeadsModel", "ForSequenceClassification",
      "ForTokenClassification", "ForQuestionAnswering",
    ]
    return ["", "TF", "Flax"].contains { prefix in
      heads.contains { name == "\(prefix)GPT2\($0)" }
    }
  }

  /// Fields with the one value that GPT-2's arithmetic has.
  private static let fixed: [String: JSONValue] = [
    "is_encoder_decoder": .bool(false), "add_cross_attention": .bool(false),
    "tie_encoder_decoder": .bool(false), "position_embedding_type": .string("absolute"),
    "bias": .bool(true), "use_bias": .bool(true), "attention_bias": .bool(true),
    "mlp_bias": .bool(true), "do_layer_norm_before": .bool(true),
    "apply_residual_connection_post_layernorm": .bool(false), "multi_query": .bool(false),
  ]

  /// Fields of GPT-2's descendants that change the arithmetic unless they are off.
  private static let extensions: Set<String> = [
    "pruned_heads", "cross_attention_hidden_size", "attention_types", "attention_layers",
    "window_size", "logit_scale", "logits_scaling", "embedding_multiplier", "residual_multiplier",
    "attention_multiplier", "norm_type",
    "normalization_type", "no_ln", "gated_mlp",
  ]

  /// How the names of further such fields begin, an optional `use_` or `is_` taken away.
  private static let extensionStems = [
    "rope", "rotary", "alibi", "sliding_window", "rms_norm", "rmsnorm", "qk_norm", "qk_layer",
    "q_norm", "k_norm", "parallel_attn", "parallel_residual", "moe", "num_experts", "num_local_exp",
    "glu", "swiglu", "lora", "mup", "final_logit_soft", "attn_logit_soft", "logit_softcap",
    "scale_embed", "post_norm", "linear_attn", "flash_norm", "dyt", "tanh_norm", "no_layer_norm",
  ]

  private static func isExtension(_ field: String) -> Bool {
    if extensions.contains(field) { return true }
    var stem = field.lowercased()[...]
    for prefix in ["use_", "is_"] where stem.hasPrefix(prefix) {
      stem = stem.dropFirst(prefix.count)
    }
    return extensionStems.contains { stem.hasPrefix($0) }
  }

  private static func isOff(_ value: JSONValue) -> Bool {
    switch value {
    case .null, .bool(false): true
    case .array(let elements): elements.isEmpty
    case .object(let members): members.isEmpty
    case .number(let number): number.double == 0
    default: false
    }
  }

  // MARK: what changes nothing

  /// The fields of a `config.json` that are neither honoured nor known to change nothing.
  ///
  /// - Parameter json: the file's object.
  public static func unknownFields(of json: JSONValue) -> [String] {
    (json.keys ?? []).filter { field in
      !known.contains(field) && fixed[field] == nil && !isExtension(field)
    }
  }

  private static let known: Set<String> = Set(
    """
    activation_function activation hidden_act n_layer num_hidden_layers n_embd hidden_size n_head \
    num_attention_heads n_inner n_positions n_ctx max_position_embeddings block_size vocab_size \
    layer_norm_epsilon layer_norm_eps norm_epsilon norm_eps scale_attn_weights \
    scale_attn_by_inverse_layer_idx tie_word_embeddings head_dim d_head num_key_value_heads \
    n_head_kv intermediate_size ffn_dim word_embed_proj_dim embed_dim bos_token_id eos_token_id \
    model_type architectures auto_map quantization_config \
    attn_pdrop embd_pdrop resid_pdrop dropout summary_activation summary_first_dropout \
    summary_proj_to_labels summary_type summary_use_proj initializer_range use_cache pad_token_id \
    sep_token_id unk_token_id mask_token_id decoder_start_token_id dtype torch_dtype \
    transformers_version task_specific_params gradient_checkpointing reorder_and_upcast_attn \
    output_attentions output_hidden_states output_past return_dict torchscript use_bfloat16 \
    tf_legacy_loss chunk_size_feed_forward finetuning_task id2label label2id num_labels \
    problem_type prefix tokenizer_class is_decoder predict_special_tokens n_special \
    max_length min_length do_sample early_stopping num_beams num_beam_groups diversity_penalty \
    temperature top_k top_p typical_p repetition_penalty length_penalty no_repeat_ngram_size \
    encoder_no_repeat_ngram_size bad_words_ids num_return_sequences output_scores \
    return_dict_in_generate forced_bos_token_id forced_eos_token_id remove_invalid_values \
    exponential_decay_length_penalty suppress_tokens begin_suppress_tokens \
    _name_or_path _commit_hash _attn_implementation _attn_implementation_autoset \
    attn_implementation attn_implementation_autoset _attn_implementation_internal \
    _num_labels __version__ language license
    """.split(separator: " ").map(String.init))

  // MARK: fields

  /// Hugging Face's names of the non-linearities that are known.
  static let activations: [String: Activation] = [
    "gelu_new": .geluNew, "gelu_pytorch_tanh": .geluNew, "gelu": .gelu, "relu": .relu,
  ]
  private static let activationNames = activations.keys.sorted().joined(separator: ", ")

  /// Other names of a size, which must agree with it.
  private static let aliases = [
    "n_layer": ["num_hidden_layers"], "n_embd": ["hidden_size"], "n_head": ["num_attention_heads"],
    "n_positions": ["n_ctx", "max_position_embeddings", "block_size"],
  ]

  /// A size under any of its names.
  private func size(
    _ field: String, default fallback: Int? = nil
  ) throws(ModelSourceError) -> Int {
    var found: (field: String, value: Int)?
    for name in [field] + (Self.aliases[field] ?? []) where json[name] != nil {
      let value = try integer(name)
      guard (1...1 << 24).contains(value) else { throw wrong(name, "1 to \(1 << 24)") }
      if let found, found.value != value {
        throw wrong(name, "\(found.value), as \(found.field) has")
      }
      found = found ?? (name, value)
    }
    if let found { return found.value }
    guard let fallback else { throw wrong(field, "a whole number") }
    return fallback
  }

  private func isNull(_ field: String) -> Bool { json[field] == nil || json[field] == .null }

  private func integer(_ field: String) throws(ModelSourceError) -> Int {
    guard let number = json[field]?.integer else { throw wrong(field, "a whole number") }
    return number
  }

  private func number(_ field: String, default fallback: Double) throws(ModelSourceError) -> Double
  {
    guard let value = json[field] else { return fallback }
    guard let number = value.double else { throw wrong(field, "a number") }
    return number
  }

  private func text(_ field: String, default fallback: String) throws(ModelSourceError) -> String {
    guard let value = json[field] else { return fallback }
    guard let text = value.string else { throw wrong(field, "text") }
    return text
  }

  private func flag(_ field: String, _ fallback: Bool) throws(ModelSourceError) -> Bool {
    guard let value = json[field] else { return fallback }
    guard let flag = value.bool else { throw wrong(field, "true or false") }
    return flag
  }

  private func wrong(_ field: String, _ expected: String) -> ModelSourceError {
    .field(
      path: path, field: field, expected: expected,
      found: json[field].map(Self.text(of:)) ?? "missing")
  }

  private static func text(of value: JSONValue) -> String {
    switch value {
    case .string(let text): "'\(text)'"
    case .number(let number): "\(number.integer.map(String.init) ?? "\(number.double)")"
    case .bool(let value): "\(value)"
    default: value.kindName
    }
  }
}

extension Checkpoint {
  /// The fields of the published configuration that are not known here, and so not used.
  public var unknownConfigFields: [String] {
    publishedConfig.map { HuggingFaceConfig.unknownFields(of: $0) } ?? []
  }
}
