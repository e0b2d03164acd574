/// The name of one activation of one block (or of the whole model): TransformerLens' string, typed.
///
/// `HookName(.pattern, layer: 3).rawValue` is `blocks.3.attn.hook_pattern`; its gradient's name is
/// `blocks.3.attn.hook_pattern_grad`.
public struct HookName: Hashable, Sendable, CustomStringConvertible {
  /// Which activation.
  public let site: Site
  /// Which block; nil where the site belongs to the whole model.
  public let layer: Int?
  /// Whether the gradient at the activation is meant, which a backward pass finds.
  public let isGradient: Bool

  /// The hook of `site` in block `layer`.
  ///
  /// - Precondition: `layer` is given exactly if the site belongs to a block.
  public init(_ site: Site, layer: Int? = nil) {
    precondition(
      (layer != nil) == site.isPerLayer,
      "HookName: \(site) \(site.isPerLayer ? "needs a layer" : "has no layer")")
    self.init(site, layer: layer, isGradient: false)
  }

  private init(_ site: Site, layer: Int?, isGradient: Bool) {
    self.site = site
    self.layer = layer
    self.isGradient = isGradient
  }

  /// The name of the gradient at this activation: the same with `_grad` behind it.
  public var gradient: HookName { HookName(site, layer: layer, isGradient: true) }

  /// TransformerLens' name: `blocks.3.attn.hook_pattern`, `ln_final.hook_scale`.
  public var rawValue: String {
    (layer.map { "blocks.\($0).\(site.path)" } ?? site.path)
      + (isGradient ? Self.gradientSuffix : "")
  }

  /// What stands behind the name of a gradient.
  static let gradientSuffix = "_grad"

  /// TransformerLens' name.
  public var description: String { rawValue }

  /// Every hook of a model with `nLayers` blocks in the order in which they fire.
  ///
  /// - Parameter optional: whether the larger hooks that nobody records by default are among them.
  public static func all(nLayers: Int, optional: Bool = false) -> [HookName] {
    let sites = Site.allCases.filter { optional || !$0.isOptional }
    let before = sites.filter { $0 == .embed || $0 == .posEmbed }
    let perLayer = sites.filter(\.isPerLayer)
    let after = sites.filter { !$0.isPerLayer && $0 != .embed && $0 != .posEmbed }
    return before.map { HookName($0) }
      + (0..<nLayers).flatMap { layer in perLayer.map { HookName($0, layer: layer) } }
      + after.map { HookName($0) }
  }
}

/// The activations of a forward pass, in the order in which they are computed.
///
/// Shapes are those of one prompt; a batch adds an axis in front.
public enum Site: String, CaseIterable, Hashable, Sendable {
  /// `W_E[token]`, shape `[pos, d_model]`.
  case embed
  /// `W_pos[pos]`, shape `[pos, d_model]`.
  case posEmbed = "pos_embed"

  /// The residual stream before the block, shape `[pos, d_model]`.
  case residPre = "resid_pre"
  /// The stream as each head reads it, before ln1, shape `[pos, head, d_model]`; optional.
  case attnIn = "attn_in"
  /// The stream as each head's query reads it, before ln1, shape `[pos, head, d_model]`; optional.
  case qInput = "q_input"
  /// The stream as each head's key reads it, before ln1, shape `[pos, head, d_model]`; optional.
  case kInput = "k_input"
  /// The stream as each head's value reads it, before ln1, shape `[pos, head, d_model]`; optional.
  case vInput = "v_input"
  /// ln1's `√(var + ε)`, RMSNorm's `√(mean x² + ε)`, shape `[pos, 1]`; 1 without norms.
  case ln1Scale = "ln1_scale"
  /// ln1's `(x − mean)/scale` before gain and bias, shape `[pos, d_model]`.
  case ln1Normalized = "ln1_normalized"
  /// Queries, shape `[pos, head, d_head]`.
  case q
  /// Keys, shape `[pos, head, d_head]`.
  case k
  /// Values, shape `[pos, head, d_head]`.
  case v
  /// Attention scores before the softmax, scaled and masked with −∞, `[head, query_pos, key_pos]`.
  case attnScores = "attn_scores"
  /// The attention pattern, shape `[head, query_pos, key_pos]`.
  case pattern
  /// The values mixed by the pattern, shape `[pos, head, d_head]`.
  case z
  /// What each head writes, `z·W_O` without `b_O`, shape `[pos, head, d_model]`; optional.
  case result
  /// What attention adds to the stream, `b_O` included, shape `[pos, d_model]`.
  case attnOut = "attn_out"
  /// The residual stream between attention and MLP, shape `[pos, d_model]`.
  case residMid = "resid_mid"
  /// The stream as the MLP reads it, before ln2, shape `[pos, d_model]`; optional.
  case mlpIn = "mlp_in"
  /// ln2's, likewise.
  case ln2Scale = "ln2_scale"
  /// ln2's `(x − mean)/scale` before gain and bias, shape `[pos, d_model]`.
  case ln2Normalized = "ln2_normalized"
  /// Neurons before the non-linearity, shape `[pos, d_mlp]`.
  case mlpPre = "mlp_pre"
  /// Neurons after the non-linearity, shape `[pos, d_mlp]`.
  case mlpPost = "mlp_post"
  /// What the MLP adds to the stream, shape `[pos, d_model]`.
  case mlpOut = "mlp_out"
  /// The residual stream after the block, shape `[pos, d_model]`.
  case residPost = "resid_post"

  /// ln_final's, likewise.
  case lnFinalScale = "ln_final_scale"
  /// ln_final's `(x − mean)/scale` before gain and bias, shape `[pos, d_model]`.
  case lnFinalNormalized = "ln_final_normalized"
  /// What the unembedding reads, shape `[pos, d_model]`.
  case unembedIn = "unembed_in"
  /// The logits, shape `[pos, d_vocab]`.
  case unembedOut = "unembed_out"

  /// The end of the hook's name: `attn.hook_pattern`.
  public var path: String {
    switch self {
    case .embed, .posEmbed, .residPre, .attnIn, .qInput, .kInput, .vInput, .attnOut, .residMid,
      .mlpIn, .mlpOut, .residPost:
      "hook_\(rawValue)"
    case .q, .k, .v, .attnScores, .pattern, .z, .result: "attn.hook_\(rawValue)"
    case .mlpPre: "mlp.hook_pre"
    case .mlpPost: "mlp.hook_post"
    case .ln1Scale: "ln1.hook_scale"
    case .ln1Normalized: "ln1.hook_normalized"
    case .ln2Scale: "ln2.hook_scale"
    case .ln2Normalized: "ln2.hook_normalized"
    case .lnFinalScale: "ln_final.hook_scale"
    case .lnFinalNormalized: "ln_final.hook_normalized"
    case .unembedIn: "unembed.hook_in"
    case .unembedOut: "unembed.hook_out"
    }
  }

  /// Whether every block has one.
  public var isPerLayer: Bool {
    switch self {
    case .embed, .posEmbed, .lnFinalScale, .lnFinalNormalized, .unembedIn, .unembedOut: false
    default: true
    }
  }

  /// Whether it is computed only for those who name it: a copy of the stream for every head.
  public var isOptional: Bool {
    switch self {
    case .attnIn, .qInput, .kInput, .vInput, .result, .mlpIn: true
    default: false
    }
  }

  /// Whether the shape is `[head, query_pos, key_pos]`.
  public var isAttention: Bool { self == .attnScores || self == .pattern }

  /// Whether the shape is `[pos, head, …]`.
  public var hasHeadAxis: Bool {
    switch self {
    case .attnIn, .qInput, .kInput, .vInput, .q, .k, .v, .z, .result: true
    default: false
    }
  }

  /// The names of one prompt's axes.
  public var axes: [String] {
    switch self {
    case .attnIn, .qInput, .kInput, .vInput, .result: ["pos", "head", "d_model"]
    case .q, .k, .v, .z: ["pos", "head", "d_head"]
    case .attnScores, .pattern: ["head", "query_pos", "key_pos"]
    case .ln1Scale, .ln2Scale, .lnFinalScale: ["pos", "1"]
    case .mlpPre, .mlpPost: ["pos", "d_mlp"]
    case .unembedOut: ["pos", "vocab"]
    default: ["pos", "d_model"]
    }
  }

  /// The extents of the axes after the positions: `[head, d_head]`, `[d_model]`, …
  ///
  /// - Precondition: not an attention site.
  func featureShape(_ config: GPT2Config) -> [Int] {
    axes.dropFirst().map { axis in
      switch axis {
      case "head": config.nHeads
      case "d_head": config.dHead
      case "d_mlp": config.dMLP
      case "vocab": config.dVocab
      case "1": 1
      default: config.dModel
      }
    }
  }

  /// One prompt's shape with `positions` tokens.
  public func shape(_ config: GPT2Config, positions: Int) -> [Int] {
    isAttention ? [config.nHeads, positions, positions] : [positions] + featureShape(config)
  }
}
