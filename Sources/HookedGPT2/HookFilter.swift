/// Which layers of a site.
public enum LayerSelection: Sendable, Hashable, ExpressibleByIntegerLiteral {
  /// Every layer.
  case all
  /// One layer; negative numbers count from the last.
  case layer(Int)
  /// Several layers.
  case layers([Int])

  /// One layer.
  public init(integerLiteral value: Int) { self = .layer(value) }
}

/// Which positions of a prompt.
public enum PositionSelection: Sendable, Hashable {
  /// Every position.
  case all
  /// Positions; negative numbers count from the prompt's end.
  case at([Int])

  /// The last position.
  public static let last = PositionSelection.at([-1])

  /// The positions in a prompt of `length` tokens, in the order asked for.
  ///
  /// - Throws: `ModelError.nothingMatches` where a position lies outside the prompt.
  public func resolved(length: Int, hook: String) throws(ModelError) -> [Int] {
    switch self {
    case .all: return Array(0..<length)
    case .at(let positions):
      if positions.isEmpty {
        throw .nothingMatches(filter: hook, reason: "the list of positions is empty")
      }
      var result: [Int] = []
      for position in positions {
        let resolved = position < 0 ? position + length : position
        guard resolved >= 0 && resolved < length else {
          throw .nothingMatches(
            filter: hook, reason: "position \(position) of a prompt of \(length) tokens")
        }
        result.append(resolved)
      }
      return result
    }
  }
}

/// A choice of activations: a site, its layers and, for interventions, positions and a head.
///
/// ```swift
/// .residPost(.all)            // every layer's stream
/// .pattern(.layer(3))         // one layer's attention
/// .z(layer: 5, head: 1)       // one head
/// ```
public struct HookFilter: Sendable, Hashable, CustomStringConvertible {
  /// Which activation.
  public var site: Site
  /// Which layers; ignored where the site belongs to the whole model.
  public var layers: LayerSelection
  /// One head, or all; negative numbers are not allowed.
  public var head: Int?
  /// Which positions: the token positions, or the query positions of an attention site.
  public var positions: PositionSelection
  /// One element of the innermost axis, or all: a neuron of an MLP site, a key position of an
  /// attention site. For interventions only.
  public var element: Int?
  /// Whether the gradients at these activations are meant, which `GPT2.runWithGradients` records; a
  /// forward pass refuses them.
  public var isGradient = false

  /// A choice of activations.
  public init(
    _ site: Site, layers: LayerSelection = .all, head: Int? = nil,
    positions: PositionSelection = .all, element: Int? = nil
  ) {
    self.site = site
    self.layers = layers
    self.head = head
    self.positions = positions
    self.element = element
  }

  /// The one hook `name`.
  public init(_ name: HookName) {
    self.init(name.site, layers: name.layer.map { .layer($0) } ?? .all)
    isGradient = name.isGradient
  }

  /// The gradients at these activations, without the activations themselves.
  public var gradient: HookFilter {
    var copy = self
    copy.isGradient = true
    return copy
  }

  /// This choice at `positions` only.
  public func at(_ positions: PositionSelection) -> HookFilter {
    var copy = self
    copy.positions = positions
    return copy
  }

  /// One element of the innermost axis of this choice: a neuron, a key position.
  public func element(_ index: Int) -> HookFilter {
    var copy = self
    copy.element = index
    return copy
  }

  /// This choice at the given positions only; negative numbers count from the end.
  public func at(_ positions: Int...) -> HookFilter { at(.at(positions)) }

  /// How a person would write it.
  public var description: String {
    var text = site.rawValue + (isGradient ? HookName.gradientSuffix : "")
    if site.isPerLayer {
      switch layers {
      case .all: break
      case .layer(let layer): text += " layer \(layer)"
      case .layers(let layers): text += " layers \(layers)"
      }
    }
    if let head { text += " head \(head)" }
    if case .at(let positions) = positions { text += " positions \(positions)" }
    if let element { text += " element \(element)" }
    return text
  }

  /// The hooks this choice means in a model of this configuration.
  ///
  /// - Throws: `.layerOutOfRange`, or `.nothingMatches` for gradients, an empty list of layers or a
  ///   head that does not exist.
  public func names(_ config: GPT2Config) throws(ModelError) -> [HookName] {
    if isGradient {
      throw .nothingMatches(
        filter: description, reason: "a forward pass has no gradients; use runWithGradients")
    }
    if let head {
      guard site.hasHeadAxis || site.isAttention else {
        throw .nothingMatches(filter: description, reason: "'\(site.rawValue)' has no head axis")
      }
      guard head >= 0 && head < config.nHeads else {
        throw .nothingMatches(
          filter: description, reason: "the model has heads 0 to \(config.nHeads - 1)")
      }
    }
    guard site.isPerLayer else { return [HookName(site)] }
    let layers: [Int]
    switch self.layers {
    case .all: layers = Array(0..<config.nLayers)
    case .layer(let layer): layers = [layer]
    case .layers(let several): layers = several
    }
    if layers.isEmpty {
      throw .nothingMatches(filter: description, reason: "the list of layers is empty")
    }
    var names: [HookName] = []
    for layer in layers {
      let name = HookName(site, layer: layer < 0 ? layer + config.nLayers : layer)
      // 1 and -1 may be one layer: an intervention must not act there twice.
      let checked = try name.checked(nLayers: config.nLayers, written: description)
      if !names.contains(checked) { names.append(checked) }
    }
    return names
  }
}

// One name a site, so that a choice reads like the activation's name.
extension HookFilter {
  /// Token embeddings.
  public static let embed = HookFilter(.embed)
  /// Position embeddings.
  public static let posEmbed = HookFilter(.posEmbed)
  /// The residual stream before blocks.
  public static func residPre(_ layers: LayerSelection) -> Self { Self(.residPre, layers: layers) }
  /// The residual stream between attention and MLP.
  public static func residMid(_ layers: LayerSelection) -> Self { Self(.residMid, layers: layers) }
  /// The residual stream after blocks.
  public static func residPost(_ layers: LayerSelection) -> Self {
    Self(.residPost, layers: layers)
  }
  /// What attention adds to the stream.
  public static func attnOut(_ layers: LayerSelection) -> Self { Self(.attnOut, layers: layers) }
  /// What MLPs add to the stream.
  public static func mlpOut(_ layers: LayerSelection) -> Self { Self(.mlpOut, layers: layers) }
  /// The stream as each head reads it.
  public static func attnIn(_ layers: LayerSelection) -> Self { Self(.attnIn, layers: layers) }
  /// The stream as one head reads it.
  public static func attnIn(layer: Int, head: Int) -> Self {
    Self(.attnIn, layers: .layer(layer), head: head)
  }
  /// The stream as each head's query reads it.
  public static func qInput(_ layers: LayerSelection) -> Self { Self(.qInput, layers: layers) }
  /// The stream as one head's query reads it.
  public static func qInput(layer: Int, head: Int) -> Self {
    Self(.qInput, layers: .layer(layer), head: head)
  }
  /// The stream as each head's key reads it.
  public static func kInput(_ layers: LayerSelection) -> Self { Self(.kInput, layers: layers) }
  /// The stream as one head's key reads it.
  public static func kInput(layer: Int, head: Int) -> Self {
    Self(.kInput, layers: .layer(layer), head: head)
  }
  /// The stream as each head's value reads it.
  public static func vInput(_ layers: LayerSelection) -> Self { Self(.vInput, layers: layers) }
  /// The stream as one head's value reads it.
  public static func vInput(layer: Int, head: Int) -> Self {
    Self(.vInput, layers: .layer(layer), head: head)
  }
  /// The stream as MLPs read it.
  public static func mlpIn(_ layers: LayerSelection) -> Self { Self(.mlpIn, layers: layers) }
  /// ln1's scale.
  public static func ln1Scale(_ layers: LayerSelection) -> Self { Self(.ln1Scale, layers: layers) }
  /// ln1's normalised input.
  public static func ln1Normalized(_ layers: LayerSelection) -> Self {
    Self(.ln1Normalized, layers: layers)
  }
  /// ln2's scale.
  public static func ln2Scale(_ layers: LayerSelection) -> Self { Self(.ln2Scale, layers: layers) }
  /// ln2's normalised input.
  public static func ln2Normalized(_ layers: LayerSelection) -> Self {
    Self(.ln2Normalized, layers: layers)
  }
  /// Queries.
  public static func q(_ layers: LayerSelection) -> Self { Self(.q, layers: layers) }
  /// One head's queries.
  public static func q(layer: Int, head: Int) -> Self {
    Self(.q, layers: .layer(layer), head: head)
  }
  /// Keys.
  public static func k(_ layers: LayerSelection) -> Self { Self(.k, layers: layers) }
  /// One head's keys.
  public static func k(layer: Int, head: Int) -> Self {
    Self(.k, layers: .layer(layer), head: head)
  }
  /// Values.
  public static func v(_ layers: LayerSelection) -> Self { Self(.v, layers: layers) }
  /// One head's values.
  public static func v(layer: Int, head: Int) -> Self {
    Self(.v, layers: .layer(layer), head: head)
  }
  /// Attention scores.
  public static func attnScores(_ layers: LayerSelection) -> Self {
    Self(.attnScores, layers: layers)
  }
  /// One head's attention scores.
  public static func attnScores(layer: Int, head: Int) -> Self {
    Self(.attnScores, layers: .layer(layer), head: head)
  }
  /// Attention patterns.
  public static func pattern(_ layers: LayerSelection) -> Self { Self(.pattern, layers: layers) }
  /// One head's attention pattern.
  public static func pattern(layer: Int, head: Int) -> Self {
    Self(.pattern, layers: .layer(layer), head: head)
  }
  /// Values mixed by the pattern.
  public static func z(_ layers: LayerSelection) -> Self { Self(.z, layers: layers) }
  /// One head's mixed values.
  public static func z(layer: Int, head: Int) -> Self {
    Self(.z, layers: .layer(layer), head: head)
  }
  /// What each head writes.
  public static func result(_ layers: LayerSelection) -> Self { Self(.result, layers: layers) }
  /// What one head writes.
  public static func result(layer: Int, head: Int) -> Self {
    Self(.result, layers: .layer(layer), head: head)
  }
  /// Neurons before the non-linearity.
  public static func mlpPre(_ layers: LayerSelection) -> Self { Self(.mlpPre, layers: layers) }
  /// Neurons after the non-linearity.
  public static func mlpPost(_ layers: LayerSelection) -> Self { Self(.mlpPost, layers: layers) }
  /// The final norm's scale.
  public static let lnFinalScale = HookFilter(.lnFinalScale)
  /// The final norm's normalised input.
  public static let lnFinalNormalized = HookFilter(.lnFinalNormalized)
  /// What the unembedding reads.
  public static let unembedIn = HookFilter(.unembedIn)
  /// The logits.
  public static let unembedOut = HookFilter(.unembedOut)
}
