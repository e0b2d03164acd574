/// The names of a GPT-2's tensors, and those that say that a checkpoint is something else.
enum TensorNames {
  /// What programs put before a name: transformers, `torch.compile`, `DataParallel`.
  private static let prefixes = ["transformer.", "_orig_mod.", "module."]

  /// The name without prefixes, in any order and number.
  static func canonical(_ name: String) -> String {
    var rest = name[...]
    while let prefix = prefixes.first(where: { rest.hasPrefix($0) }) {
      rest = rest.dropFirst(prefix.count)
    }
    return String(rest)
  }

  /// Whether a tensor is one of the masks that older checkpoints carry along: the causal mask is
  /// computed.
  static func isMask(_ name: String, shape: [Int]) -> Bool {
    let parts = name.split(separator: ".", omittingEmptySubsequences: false)
    guard parts.count == 4, parts[0] == "h", Int(parts[1]) != nil, parts[2] == "attn" else {
      return false
    }
    return parts[3] == "bias" && shape.count == 4 || parts[3] == "masked_bias" && shape.count <= 1
  }

  /// Refuses names that belong to something else than a GPT-2 language model.
  static func refuse(_ name: String, path: String) throws(ModelSourceError) {
    let parts = name.split(separator: ".").map(String.init)
    for kind in kinds where kind.has(parts) {
      throw .unsupported(
        path: path, kind: "\(kind.description), to which tensor '\(name)' belongs,",
        advice: kind.advice)
    }
  }

  private struct Kind: Sendable {
    let description: String
    let advice: String
    let has: @Sendable ([String]) -> Bool
  }

  private static let fakeNorm: Set<String> = [
    "is_fake", "attn_v_is_fake", "bos_special_treatment", "real_average_std", "real_bos_std",
    "grad_acc_steps", "momentum", "average_std_buffer", "bos_std_buffer",
  ]
  private static let lens: Set<String> = [
    "W_E", "W_pos", "W_Q", "W_K", "W_V", "W_O", "W_in", "W_out", "W_U",
  ]
  private static let heads: Set<String> = [
    "score", "classifier", "multiple_choice_head", "qa_outputs", "v_head", "value_head",
  ]
  private static let quantized: Set<String> = [
    "qweight", "qzeros", "scales", "g_idx", "SCB", "absmax", "quant_map", "nested_absmax",
  ]

  private static let kinds = [
    Kind(
      description: "a checkpoint from the midst of LayerNorm removal",
      advice: "its scales lie in buffers and its gains are without them: finish it with the "
        + "authors' remove_layernorm_by_scaling and save_pretrained"
    ) { $0.last.map(fakeNorm.contains) ?? false },
    Kind(
      description: "a TransformerLens state dict",
      advice: "save the Hugging Face model that it was made of with save_pretrained"
    ) { $0.last.map(lens.contains) ?? false },
    Kind(
      description: "a model with cross-attention",
      advice: "give a GPT-2 that reads nothing but its own tokens"
    ) { $0.contains("crossattention") || $0.contains("ln_cross_attn") },
    Kind(
      description: "a model with a head that is no language model's",
      advice: "save its language model alone: GPT2LMHeadModel.from_pretrained(dir)"
        + ".save_pretrained(dir2)"
    ) { !heads.isDisjoint(with: $0) },
    Kind(
      description: "a model with adapters",
      advice: "merge them with merge_and_unload() and save that"
    ) { parts in
      parts.contains { $0.hasPrefix("lora_") || $0.hasPrefix("adapter") || $0 == "base_layer" }
    },
    Kind(
      description: "a model with quantized weights",
      advice: "give the checkpoint that it was made of"
    ) { $0.last.map(quantized.contains) ?? false },
  ]
}
