import Foundation
import HDF5Store
import HookedGPT2

/// Reads a checkpoint in Hugging Face's layout: weights, with `config.json` and the tokenizer's files
/// beside them.
enum HuggingFaceDirectory {
  /// Reads the checkpoint whose weights have been found.
  ///
  /// - Throws: `ModelSourceError`, `HDF5Error`, `ModelError`, `TokenizerError`.
  static func read(_ directory: String, weights source: ModelSource.Weights) throws -> Checkpoint {
    let configPath = "\(directory)/config.json"
    guard FileManager.default.fileExists(atPath: configPath) else {
      throw ModelSourceError.noCheckpoint(
        directory: directory,
        expected: "config.json beside \((source.path as NSString).lastPathComponent)")
    }
    let file = try HuggingFaceConfig(path: configPath)
    let config = try file.config()
    let published =
      switch source {
      case .safetensors(let path): try SafetensorsWeights.tensors(path: path)
      case .shards(let index): try SafetensorsWeights.tensors(index: index)
      case .keras(let file): try KerasWeights.tensors(file)
      }
    let weights = try PublishedWeights(published, path: source.path, config: config)
    if weights.layout == .outIn { try file.requireActivation() }
    var special = Checkpoint.SpecialTokens(
      bos: try file.token("bos_token_id", vocabulary: config.dVocab),
      eos: try file.token("eos_token_id", vocabulary: config.dVocab))
    let payload = try HuggingFaceTokenizer.read(directory, &special)
    // A vocabulary padded to a round number has rows that no token uses.
    if let payload, payload.tokenCount > config.dVocab {
      throw ModelSourceError.field(
        path: configPath, field: "vocab_size",
        expected: "at least \(payload.tokenCount), the tokens of the tokenizer beside it",
        found: "\(config.dVocab)")
    }
    let (name, origin) = Self.name(of: directory)
    let fileName = (source.path as NSString).lastPathComponent
    return Checkpoint(
      config: config, tensors: weights.tensors, tokenizer: payload, specialTokens: special,
      identity: GPT2.Identity(name: name, source: "\(origin), \(fileName): \(weights.facts)"),
      publishedConfig: file.json)
  }

  /// The name of the model in a directory and where it comes from. Hugging Face's cache has
  /// `models--OWNER--NAME/snapshots/REVISION`.
  private static func name(of directory: String) -> (name: String, origin: String) {
    let path = URL(fileURLWithPath: directory).standardizedFileURL.pathComponents
    let last = path.last ?? directory
    if path.count > 2, path[path.count - 2] == "snapshots" {
      let repository = path[path.count - 3].components(separatedBy: "--")
      if repository.count > 1, repository[0] == "models", let name = repository.last {
        let owned = repository.dropFirst().joined(separator: "/")
        return (name, "Hugging Face repository '\(owned)' at \(last)")
      }
    }
    return (last, "Hugging Face directory '\(last)'")
  }
}
