import ArgumentParser
import NormLens

/// `normlens inspect`: what a model is.
struct InspectCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "inspect",
    abstract: "Show what a model is: configuration, normalization, parameters, provenance, checks.",
    discussion: """
      The logits that were stored at conversion are computed again; where they are not the same, \
      the exit status is 65.
      """)

  @OptionGroup var model: ModelOptions
  @Flag(help: "List every tensor with its largest magnitude.") var tensors = false
  @Flag(help: "Print JSON.") var json = false

  func run() throws {
    let checkpoint = try model.open()
    let card = try ModelCard(checkpoint, try checkpoint.model())
    if json {
      Terminal.print(card.json(checkpoint).text)
    } else {
      Terminal.print(card.text)
      Terminal.print(
        "\n" + (tensors ? Self.allTensors(checkpoint) : Self.kindsOfTensors(checkpoint)))
    }
    if let problem = card.problem { throw CommandError(problem, status: .data) }
  }

  /// Every tensor.
  private static func allTensors(_ checkpoint: Checkpoint) -> String {
    var table = TextTable([("tensor", .left), ("shape", .left), ("largest", .right)])
    for (name, tensor) in checkpoint.tensors {
      table.add([name, "\(tensor.shape)", compact(Double(tensor.maximumMagnitude))])
    }
    return table.text
  }

  /// A line for the same tensor of all layers.
  private static func kindsOfTensors(_ checkpoint: Checkpoint) -> String {
    var kinds: OrderedDictionary<[String], (count: Int, parameters: Int)> = [:]
    for (name, tensor) in checkpoint.tensors {
      let kind = name.replacing(#/^h\.\d+\./#, with: "h.*.")
      kinds[[kind, "\(tensor.shape)"], default: (0, 0)].count += 1
      kinds[[kind, "\(tensor.shape)"], default: (0, 0)].parameters += tensor.count
    }
    var table = TextTable([
      ("tensor", .left), ("shape", .left), ("layers", .right), ("parameters", .right),
    ])
    for (kind, found) in kinds {
      let layers = kind[0].hasPrefix("h.") ? "\(found.count)" : ""
      table.add(kind + [layers, "\(found.parameters)"])
    }
    return table.text
  }
}

/// What is known of a model, as lines for people and as JSON.
private struct ModelCard {
  /// A line of the card and a member of the JSON object; no line without text.
  private typealias Fact = (name: String, text: String, json: JSONValue)

  /// The facts in groups.
  private let groups: [[Fact]]
  /// Why the model is not to be trusted, if so.
  let problem: String?

  init(_ checkpoint: Checkpoint, _ model: GPT2) throws {
    let (config, identity) = (model.config, model.identity)
    let check = try checkpoint.selfCheck(model)
    let isGood = check.map { $0.difference <= 1e-4 * $0.scale } ?? true
    problem =
      isGood
      ? nil
      : "self-check: the logits differ from those stored at conversion by "
        + "\(compact(check?.difference ?? .nan)), expected at most 1e-4 of the largest; "
        + "convert the model again"

    let shape: [Fact] = [
      ("n_layers", config.nLayers), ("n_heads", config.nHeads), ("d_model", config.dModel),
      ("d_head", config.dHead), ("d_mlp", config.dMLP), ("n_ctx", config.nCtx),
      ("d_vocab", config.dVocab),
    ].map(Self.number)
    let width: Fact = (
      "norm_width",
      config.hasOnesDirection
        ? "" : "\(config.normWidth): the stream has lost the direction of its mean",
      .integer(config.normWidth)
    )
    let arithmetic = [
      Self.text("activation", config.activation.rawValue),
      Self.text("normalization", config.normalization.rawValue),
      Self.text("normalization_found", Self.reason(checkpoint)), width,
      Self.flag("scale_attn_weights", config.scaleAttnWeights),
      Self.flag("scale_attn_by_inverse_layer_idx", config.scaleAttnByInverseLayerIdx),
      Self.text("unembedding", Self.unembedding(model)),
    ]
    groups = [
      [Self.text("name", identity.name), Self.text("architecture", "gpt2")] + shape, arithmetic,
      Self.parameters(model), Self.tokenizer(checkpoint, model),
      [
        Self.processing(checkpoint), Self.unknownFields(checkpoint),
        Self.text("source", identity.source), Self.text("license", identity.license),
        Self.text("weights_sha256", identity.weightsSHA256), Self.selfCheck(check, isGood),
      ],
    ]
  }

  // MARK: facts

  private static func reason(_ checkpoint: Checkpoint) -> String {
    let config = checkpoint.config
    switch config.normalization {
    case .layerNorm: return "LayerNorm with epsilon \(config.layerNormEpsilon)"
    case .rmsNorm: return "RMSNorm with epsilon \(config.layerNormEpsilon)"
    case .crmsNorm: return "CRMSNorm with epsilon \(config.layerNormEpsilon)"
    case .none:
      return checkpoint.identity.weightProcessing.contains("fold_affine_norms")
        ? "none: the checkpoint's epsilon \(config.layerNormEpsilon) means that its LayerNorms were "
          + "removed; the fixed affine maps were folded into the weights" : "none"
    }
  }

  private static func unembedding(_ model: GPT2) -> String {
    if model.config.tiedUnembed { return "tied to the embedding" }
    return "its own matrix" + (model.weights.b_U == nil ? "" : " and bias")
  }

  private static func parameters(_ model: GPT2) -> [Fact] {
    let weights = model.weights
    func count(_ tensors: [Tensor?]) -> Int { tensors.reduce(0) { $0 + ($1?.count ?? 0) } }
    let norms =
      (weights.blocks.flatMap { [$0.ln1, $0.ln2] } + [weights.lnFinal]).compactMap { $0 }
    let unembed = model.config.tiedUnembed ? [] : [weights.W_U_transposed, weights.b_U]
    let parts = [
      ("embed", count([weights.W_E])), ("pos_embed", count([weights.W_pos])),
      ("attn", count(weights.blocks.flatMap { [$0.W_QKV, $0.b_QKV, $0.W_O, $0.b_O] })),
      ("mlp", count(weights.blocks.flatMap { [$0.W_in, $0.b_in, $0.W_out, $0.b_out] })),
      ("norms", count(norms.flatMap { [$0.gain, $0.bias] })), ("unembed", count(unembed)),
    ].filter { $0.1 > 0 }
    return [
      number("parameters", weights.parameterCount),
      (
        "parameters_by_part", parts.map { "\($0.0) \($0.1)" }.joined(separator: ", "),
        .object(OrderedDictionary(uniqueKeysWithValues: parts.map { ($0.0, .integer($0.1)) }))
      ),
    ]
  }

  private static func tokenizer(_ checkpoint: Checkpoint, _ model: GPT2) -> [Fact] {
    let special = checkpoint.specialTokens
    var kind = "none"
    var counts: OrderedDictionary<String, JSONValue> = [:]
    func id(_ token: Int?) -> JSONValue { token.map { .integer($0) } ?? .null }
    if let payload = checkpoint.tokenizer {
      kind =
        "byte-level BPE, \(payload.tokenCount) tokens, \(payload.mergeCount) merges"
        + (special.bos.map { ", bos \($0)" } ?? "") + (special.eos.map { ", eos \($0)" } ?? "")
        + (special.added.isEmpty ? "" : ", \(special.added.count) added")
      let unused = checkpoint.config.dVocab - payload.tokenCount
      if unused > 0 { kind += "; \(unused) rows of the embedding have no token" }
      counts = [
        "kind": .string("byte-level BPE"), "tokens": .integer(payload.tokenCount),
        "merges": .integer(payload.mergeCount),
      ]
    }
    counts["bos"] = id(special.bos)
    counts["eos"] = id(special.eos)
    counts["added"] = .array(special.added.map { .integer($0) })
    return [
      ("tokenizer", kind, checkpoint.tokenizer == nil ? .null : .object(counts)),
      flag(
        "prepend_bos", model.defaultPrependBOS,
        special.bos == nil ? ": the model has no BOS token" : ""),
    ]
  }

  private static func processing(_ checkpoint: Checkpoint) -> Fact {
    let steps = checkpoint.identity.weightProcessing
    let checks = Dictionary(
      checkpoint.processingChecks.map { ($0.step, $0) }, uniquingKeysWith: { first, _ in first })
    let lines = steps.map { step in
      step
        + (checks[step].map {
          ": log-probabilities within \(compact($0.logits)) of the largest logit, "
            + "probabilities within \(compact($0.probabilities))"
        } ?? "")
    }
    let list = steps.map { step -> JSONValue in
      var members: OrderedDictionary<String, JSONValue> = ["step": .string(step)]
      if let check = checks[step] {
        members["logit_difference"] = .double(check.logits)
        members["probability_difference"] = .double(check.probabilities)
      }
      return .object(members)
    }
    return (
      "weight_processing", lines.isEmpty ? "none" : lines.joined(separator: "\n"), .array(list)
    )
  }

  private static func unknownFields(_ checkpoint: Checkpoint) -> Fact {
    let fields = checkpoint.unknownConfigFields
    return (
      "unknown_config_fields",
      fields.isEmpty ? "" : fields.joined(separator: ", ") + ": not known here, not used",
      .array(fields.map { .string($0) })
    )
  }

  private static func selfCheck(
    _ check: (difference: Double, scale: Double)?, _ isGood: Bool
  ) -> Fact {
    guard let check else {
      return (
        "self_check", "no reference logits in the source; convert it to store some", .null
      )
    }
    let difference = check.difference.isFinite ? JSONValue.double(check.difference) : .null
    return (
      "self_check",
      "\(isGood ? "passed" : "FAILED"): logits within \(compact(check.difference)) of those stored "
        + "at conversion",
      .object(["passed": .bool(isGood), "logit_difference": difference])
    )
  }

  private static func number(_ name: String, _ value: Int) -> Fact {
    (name, "\(value)", .integer(value))
  }
  private static func text(_ name: String, _ value: String) -> Fact {
    (name, value, .string(value))
  }
  private static func flag(_ name: String, _ value: Bool, _ why: String = "") -> Fact {
    (name, "\(value)\(why)", .bool(value))
  }

  // MARK: forms

  /// Lines for people, an empty one between groups.
  var text: String {
    let shown = groups.map { $0.filter { !$0.text.isEmpty } }.filter { !$0.isEmpty }
    let width = shown.joined().map(\.name.count).max() ?? 0
    let margin = String(repeating: " ", count: width + 2)
    return shown.map { facts in
      facts.map { fact in
        fact.name + margin.dropFirst(fact.name.count)
          + fact.text.replacing("\n", with: "\n" + margin)
      }.joined(separator: "\n")
    }.joined(separator: "\n\n")
  }

  /// One object, the tensors included.
  func json(_ checkpoint: Checkpoint) -> JSONValue {
    var members: OrderedDictionary<String, JSONValue> = [:]
    for fact in groups.joined() { members[fact.name] = fact.json }
    members["tensors"] = .array(
      checkpoint.tensors.map { name, tensor in
        .object([
          "name": .string(name), "shape": .array(tensor.shape.map { .integer($0) }),
          "largest": tensor.isFinite ? .double(Double(tensor.maximumMagnitude)) : .null,
        ])
      })
    return .object(members)
  }
}
