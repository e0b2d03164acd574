import ArgumentParser
import NormLens

/// `normlens inspect`: what a model is.
struct InspectCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "inspect",
    abstract: "Show a model's configuration, normalization, parameters, provenance.")

  @OptionGroup var model: ModelOptions
  @Flag(help: "List every tensor.") var tensors = false
  @Flag(help: "Print JSON.") var json = false

  func run() throws {
    let checkpoint = try model.open()
    let model = try checkpoint.model()
    let facts = try self.facts(checkpoint, model)
    if json {
      let list = checkpoint.tensors.map { name, tensor in
        JSONText.object([
          ("name", JSONText.quoted(name)),
          ("shape", JSONText.list(tensor.shape.map(String.init))),
        ])
      }
      Terminal.print(
        JSONText.object(
          facts.map { ($0.0, $0.2 ? $0.1 : JSONText.quoted($0.1)) }
            + [("tensors", JSONText.list(list))]))
      return
    }
    let width = facts.map(\.0.count).max() ?? 0
    for (name, value, _) in facts where !value.isEmpty {
      Terminal.print(name + String(repeating: " ", count: width + 2 - name.count) + value)
    }
    if tensors {
      var table = TextTable([("tensor", .left), ("shape", .left), ("largest", .right)])
      for (name, tensor) in checkpoint.tensors {
        table.add([name, "\(tensor.shape)", compact(Double(tensor.maximumMagnitude))])
      }
      Terminal.print("\n" + table.text)
    }
  }

  /// Name, value, and whether the value is a number.
  private func facts(
    _ checkpoint: Checkpoint, _ model: GPT2
  ) throws -> [(String, String, Bool)] {
    let (config, identity) = (model.config, model.identity)
    func number(_ name: String, _ value: some CustomStringConvertible) -> (String, String, Bool) {
      (name, "\(value)", true)
    }
    func text(_ name: String, _ value: String) -> (String, String, Bool) { (name, value, false) }
    let folded = identity.weightProcessing.contains("fold_affine_norms")
    let check = try checkpoint.selfCheck(model)
    return [
      text("name", identity.name), text("architecture", "gpt2"),
      number("n_layers", config.nLayers), number("n_heads", config.nHeads),
      number("d_model", config.dModel), number("d_head", config.dHead),
      number("d_mlp", config.dMLP), number("n_ctx", config.nCtx),
      number("d_vocab", config.dVocab), text("activation", config.activation.rawValue),
      text("normalization", config.normalization.rawValue),
      text(
        "normalization_found",
        config.normalization == .layerNorm
          ? "LayerNorm with epsilon \(config.layerNormEpsilon)"
          : "none"
            + (folded
              ? ": the checkpoint's epsilon \(config.layerNormEpsilon) means that its "
                + "LayerNorms were removed; the fixed affine maps were folded into the weights"
              : "")),
      text("scale_attn_weights", "\(config.scaleAttnWeights)"),
      text("scale_attn_by_inverse_layer_idx", "\(config.scaleAttnByInverseLayerIdx)"),
      text("unembedding", config.tiedUnembed ? "tied to the embedding" : "its own matrix"),
      number("parameters", model.weights.parameterCount),
      text("tokenizer", tokenizer(checkpoint)),
      text("prepend_bos", "\(model.defaultPrependBOS)"),
      text("weight_processing", identity.weightProcessing.joined(separator: ", ")),
      text("weights_sha256", identity.weightsSHA256), text("source", identity.source),
      text("license", identity.license),
      text(
        "self_check",
        check.map {
          "\($0.difference <= 1e-4 * $0.scale ? "passed" : "FAILED"): logits within "
            + "\(compact($0.difference)) of those stored at conversion"
        } ?? "no reference logits in the source; convert it to store some"),
    ]
  }

  private func tokenizer(_ checkpoint: Checkpoint) -> String {
    guard let payload = checkpoint.tokenizer else { return "none" }
    return "byte-level BPE, \(payload.tokenCount) tokens, \(payload.mergeCount) merges"
  }
}
