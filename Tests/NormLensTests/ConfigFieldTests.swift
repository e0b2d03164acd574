import Foundation
import NormLens
import TestSupport
import Testing

/// Fields of `config.json` that change the arithmetic are honoured or refused by name.
@Suite struct ConfigFieldTests {
  /// Fields of tiny-ln (2 layers, width 24, 3 heads, 16 positions) with values that are refused.
  static let refused: [(field: String, value: String, part: String)] = [
    ("n_inner", "0", "1 to"), ("n_inner", "-4", "1 to"), ("n_inner", "1e99", "whole number"),
    ("n_inner", "\"many\"", "whole number"), ("n_inner", "96.5", "whole number"),
    ("n_layer", "0", "1 to"), ("n_layer", "99999999999", "1 to"), ("n_layer", "null", "whole"),
    ("n_embd", "true", "whole number"), ("n_head", "5", "divisor of n_embd = 24"),
    ("n_head", "0", "1 to"), ("n_positions", "0", "1 to"), ("vocab_size", "-1", "1 to"),
    ("hidden_size", "32", "24, as n_embd"), ("num_hidden_layers", "3", "2, as n_layer"),
    ("num_attention_heads", "4", "3, as n_head"),
    ("max_position_embeddings", "32", "16, as n_positions"), ("block_size", "8", "16, as n_pos"),
    ("head_dim", "16", "8, as the other"), ("num_key_value_heads", "1", "3, as the other"),
    ("intermediate_size", "64", "96"), ("embed_dim", "12", "24"),
    ("activation_function", "\"swish\"", "gelu_new"), ("activation_function", "null", "text"),
    ("hidden_act", "\"relu\"", "as activation_function"),
    ("layer_norm_epsilon", "-1e-5", "0 to 0.1"), ("layer_norm_epsilon", "10", "1e6"),
    ("layer_norm_epsilon", "\"1e-5\"", "a number"),
    ("layer_norm_eps", "1e-6", "layer_norm_epsilon"),
    ("scale_attn_weights", "1", "true or false"), ("tie_word_embeddings", "null", "true or false"),
    ("scale_attn_by_inverse_layer_idx", "\"no\"", "true or false"),
    ("model_type", "\"gpt_neo\"", "'gpt2'"), ("model_type", "null", "'gpt2'"),
    ("architectures", "[\"GPTNeoForCausalLM\"]", "GPT2LMHeadModel"),
    ("architectures", "\"GPT2LMHeadModel\"", "list of names"),
    ("auto_map", "{\"AutoModelForCausalLM\": \"m.py\"}", "AutoModelForCausalLM"),
    ("is_encoder_decoder", "true", "false"), ("add_cross_attention", "true", "false"),
    ("position_embedding_type", "\"relative_key\"", "'absolute'"), ("bias", "false", "true"),
    ("multi_query", "true", "false"), ("do_layer_norm_before", "false", "true"),
    ("quantization_config", "{\"bits\": 4}", "quantized"),
    ("quantization_config", "{}", "quantized"),
    ("pruned_heads", "{\"0\": [1]}", "no part of GPT-2"),
    ("cross_attention_hidden_size", "24", "no part of GPT-2"),
    ("rope_theta", "10000.0", "no part of GPT-2"), ("rotary_dim", "8", "no part of GPT-2"),
    ("rope_scaling", "{\"type\": \"linear\"}", "no part of GPT-2"),
    ("use_rotary", "true", "no part"), ("alibi", "true", "no part"),
    ("use_alibi", "true", "no part"),
    ("sliding_window", "256", "no part"), ("rms_norm", "true", "no part"),
    ("use_rms_norm", "true", "no part"), ("qk_norm", "true", "no part"),
    ("parallel_attn", "true", "no part"), ("use_parallel_residual", "true", "no part"),
    ("num_experts", "8", "no part"), ("attention_types", "[[\"local\"], 2]", "no part"),
    ("final_logit_softcapping", "30.0", "no part"), ("logit_scale", "0.5", "no part"),
    ("bos_token_id", "53", "0 to 52"), ("eos_token_id", "[1, 2]", "whole number"),
  ]

  @Test(arguments: refused)
  func refusal(_ field: String, _ value: String, _ part: String) throws {
    let scratch = try TemporaryDirectory()
    let directory = try scratch.checkpoint { _ in }
    try scratch.setField(field, value)
    expectRefusal(directory, saying: ["\(directory)/config.json", "'\(field)'", part])
  }

  /// Values that say what GPT-2 does anyway.
  static let harmless: [(field: String, value: String)] = [
    ("hidden_size", "24"), ("max_position_embeddings", "16"), ("block_size", "16"),
    ("head_dim", "8"), ("num_key_value_heads", "3"), ("intermediate_size", "96"),
    ("n_inner", "96"), ("n_inner", "96.0"), ("hidden_act", "\"gelu_pytorch_tanh\""),
    ("layer_norm_eps", "1e-5"), ("rope_theta", "null"), ("rope_scaling", "null"),
    ("alibi", "false"), ("sliding_window", "null"), ("pruned_heads", "{}"), ("bias", "true"),
    ("position_embedding_type", "\"absolute\""), ("architectures", "null"),
    ("architectures", "[\"TFGPT2LMHeadModel\"]"), ("auto_map", "{\"AutoTokenizer\": \"t.py\"}"),
    ("attn_pdrop", "0.9"), ("reorder_and_upcast_attn", "true"), ("torch_dtype", "\"float16\""),
    ("bos_token_id", "null"), ("favourite_colour", "\"blue\""),
  ]

  @Test(arguments: harmless)
  func acceptance(_ field: String, _ value: String) throws {
    let scratch = try TemporaryDirectory()
    let directory = try scratch.checkpoint { _ in }
    try scratch.setField(field, value)
    let expected = try Checkpoint.open(Fixtures.checkpoint("tiny-ln")).config
    let found = try Checkpoint.open(directory)
    #expect(found.config == expected)
    #expect(found.publishedConfig?[field] != nil)
  }

  /// Sizes under the names that transformers also knows.
  @Test func otherNamesOfSizes() throws {
    let scratch = try TemporaryDirectory()
    let directory = try scratch.checkpoint { _ in }
    for (field, other, value) in [
      ("n_layer", "num_hidden_layers", "2"), ("n_embd", "hidden_size", "24"),
      ("n_head", "num_attention_heads", "3"), ("n_positions", "n_ctx", "16"),
    ] {
      try scratch.setField(field, nil)
      try scratch.setField(other, value)
    }
    let expected = try Checkpoint.open(Fixtures.checkpoint("tiny-ln")).config
    #expect(try Checkpoint.open(directory).config == expected)
    try scratch.setField("num_hidden_layers", nil)
    expectRefusal(directory, saying: ["'n_layer' is missing"])
  }

  @Test func everyPublishedFieldIsKnown() throws {
    for directory in Fixtures.checkpoints.map(Fixtures.checkpoint)
      + Sources.forms.map(Sources.directory)
    {
      let json = try #require(try Checkpoint.open(directory).publishedConfig)
      #expect(HuggingFaceConfig.unknownFields(of: json) == [], "\(directory)")
    }
    let json = try JSONScanner.parse(
      "{\"zeta\": 1, \"n_layer\": 2, \"alpha\": null, \"rope\": null}")
    #expect(HuggingFaceConfig.unknownFields(of: json) == ["zeta", "alpha"])
  }

  @Test func textsThatAreNoConfiguration() throws {
    let scratch = try TemporaryDirectory()
    let directory = try scratch.checkpoint { _ in }
    for (text, parts) in [
      ("", ["JSON"]), ("[]", ["an object"]), ("{\"n_layer\": NaN}", ["JSON line 1"]),
      ("{\"n_layer\": Infinity}", ["JSON line 1"]), ("{\"n_layer\": 1e999}", ["Double's range"]),
      ("{\"n_layer\": 2, \"n_layer\": 3}", ["each key once", "n_layer"]),
      ("{\"a\":" + String(repeating: "[", count: 1000), ["levels"]),
      (String(repeating: " ", count: 1 << 20) + "{}", ["at most 1048576 bytes"]),
      ("{\"n_layer\": 2", ["JSON"]), ("{\"n\\ud800\": 1}", ["surrogate"]),
    ] {
      try scratch.write(text, as: "d/config.json")
      expectRefusal(directory, saying: ["\(directory)/config.json"] + parts)
    }
    try FileManager.default.removeItem(atPath: scratch.file("d/config.json"))
    try FileManager.default.createDirectory(
      atPath: scratch.file("d/config.json"), withIntermediateDirectories: false)
    expectRefusal(directory, missing: true, saying: ["config.json", "directory"])
  }

  // MARK: tokenizers

  /// nanoGPT pads its vocabulary to a round number.
  @Test func aVocabularyLargerThanTheTokenizer() throws {
    let scratch = try TemporaryDirectory()
    let tokenizer = "\(Fixtures.repository)/Tests/Fixtures/tokenizer/mini"
    for (size, isLarge) in [(2050, true), (2048, true), (2047, false)] {
      let config = try GPT2Config(nLayers: 1, dModel: 8, nHeads: 1, nCtx: 16, dVocab: size)
      let checkpoint = try Checkpoint.random(config, name: "padded", seed: 0)
      let directory = "padded-\(size)"
      try scratch.copy(tokenizer, as: directory)
      try scratch.write(
        """
        {"model_type": "gpt2", "n_layer": 1, "n_embd": 8, "n_head": 1, "n_positions": 16,
         "vocab_size": \(size), "bos_token_id": 0, "eos_token_id": 0}
        """, as: "\(directory)/config.json")
      try SafetensorsFile.write(
        tensors: checkpoint.tensors.map { (name: $0.key, tensor: $0.value) },
        to: scratch.file("\(directory)/model.safetensors"))
      let path = scratch.file(directory)
      if isLarge {
        let opened = try Checkpoint.open(path)
        #expect(opened.tokenizer?.tokenCount == 2048 && opened.config.dVocab == size)
        _ = try opened.model().tokens("hello")
      } else {
        expectRefusal(path, saying: ["'vocab_size' is 2047", "at least 2048"])
      }
    }
  }
}
