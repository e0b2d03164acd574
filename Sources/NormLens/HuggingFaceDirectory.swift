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
    let file = HuggingFaceConfig(path: configPath, json: try JSONScanner.parseFile(configPath))
    let config = try file.config()
    let tensors = try readTensors(directory, config: config)
    let special = Checkpoint.SpecialTokens(
      bos: try file.token("bos_token_id", vocabulary: config.dVocab),
      eos: try file.token("eos_token_id", vocabulary: config.dVocab))
    let payload = try HuggingFaceTokenizer.read(directory, special)
    if let payload, payload.tokenCount != config.dVocab {
      throw ModelSourceError.field(
        path: configPath, field: "vocab_size", expected: "\(payload.tokenCount), as vocab.json has",
        found: "\(config.dVocab)")
    }
    let name = URL(fileURLWithPath: directory).standardizedFileURL.lastPathComponent
    return Checkpoint(
      config: config, tensors: tensors, tokenizer: payload, specialTokens: special,
      identity: GPT2.Identity(name: name, source: "Hugging Face directory '\(name)'"),
      publishedConfig: file.json)
  }

  // MARK: tensors

  private static func readTensors(
    _ directory: String, config: GPT2Config
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
      if let index = tensor.firstNonFiniteIndex {
        throw ModelError.nonFiniteTensor(name: full, index: index)
      }
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
}
