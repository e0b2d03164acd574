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
          facts.map { ($0.name, $0.json) }
            + [("tensors", JSONText.list(list))]))
      return
    }
    let width = facts.map(\.name.count).max() ?? 0
    for fact in facts where !fact.text.isEmpty {
      let gap = String(repeating: " ", count: width + 2 - fact.name.count)
      Terminal.print(fact.name + gap + fact.text)
    }
    if tensors {
      var table = TextTable([("tensor", .left), ("shape", .left), ("largest", .right)])
      for (name, tensor) in checkpoint.tensors {
        table.add([name, "\(tensor.shape)", compact(Double(tensor.maximumMagnitude))])
      }
      Terminal.print("\n" + table.text)
    }
  }

  /// A line of the table and a member of the JSON object.
  private typealias Fact = (name: String, text: String, json: String)

  private func facts(_ checkpoint: Checkpoint, _ model: GPT2) throws -> [Fact] {
    let (config, identity) = (model.config, model.identity)
    func number(_ name: String, _ value: Int) -> Fact { (name, "\(value)", "\(value)") }
    func text(_ name: String, _ value: String) -> Fact { (name, value, JSONText.quoted(value)) }
    func flag(_ name: String, _ value: Bool, _ why: String = "") -> Fact {
      (name, "\(value)\(why)", "\(value)")
    }
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
        config.normalization != .none
          ? "\(config.normalization == .rmsNorm ? "RMSNorm" : "LayerNorm") with epsilon "
            + "\(config.layerNormEpsilon)"
          : "none"
            + (folded
              ? ": the checkpoint's epsilon \(config.layerNormEpsilon) means that its "
                + "LayerNorms were removed; the fixed affine maps were folded into the weights"
              : "")),
      flag("scale_attn_weights", config.scaleAttnWeights),
      flag("scale_attn_by_inverse_layer_idx", config.scaleAttnByInverseLayerIdx),
      text("unembedding", config.tiedUnembed ? "tied to the embedding" : "its own matrix"),
      number("parameters", model.weights.parameterCount),
      text("tokenizer", tokenizer(checkpoint)),
      flag(
        "prepend_bos", model.defaultPrependBOS,
        checkpoint.specialTokens.bos == nil ? ": the model has no BOS token" : ""),
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
