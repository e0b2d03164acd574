public import Tensors

/// How a model normalises the residual stream before each block reads it.
public enum Normalization: String, Sendable {
  /// LayerNorm: centre, divide by the row's own standard deviation, gain and bias.
  case layerNorm = "layernorm"
  /// RMSNorm: divide by the root of the row's own mean square, gain and bias. On a stream of mean
  /// zero it is LayerNorm.
  case rmsNorm = "rmsnorm"
  /// CRMSNorm: RMSNorm of a stream of mean zero whose last coordinate, minus the sum of the others x̃,
  /// is left out: `x̃/√((Σx̃² + (Σx̃)²)/d + ε)`, gain and bias. Jiang et al. 2023, arXiv:2305.14858.
  case crmsNorm = "crmsnorm"
  /// None: the residual stream is read as it is. Checkpoints whose LayerNorms were removed keep a
  /// fixed affine map in their place; it is folded into the weights that follow.
  case none
}

/// The shape and the arithmetic of a GPT-2 style transformer.
public struct GPT2Config: Sendable, Equatable {
  /// `n_layers`: how many blocks.
  public var nLayers: Int
  /// `d_model`: the width of the residual stream.
  public var dModel: Int
  /// `n_heads`: attention heads in a block.
  public var nHeads: Int
  /// `d_head`: the width of one head, d_model / n_heads unless the stream was compressed.
  public var dHead: Int
  /// `d_mlp`: neurons in a block.
  public var dMLP: Int
  /// `n_ctx`: the longest sequence.
  public var nCtx: Int
  /// `d_vocab`: tokens in the vocabulary.
  public var dVocab: Int
  /// The MLPs' non-linearity.
  public var activation: Activation
  /// What stands before each block.
  public var normalization: Normalization
  /// What a norm divides the sum of squares by to get their mean: d_model, or d_model + 1 where the
  /// stream has lost the direction of the ones; see ``hasOnesDirection``.
  public var normWidth: Int
  /// ε under the norm's square root.
  public var layerNormEpsilon: Double
  /// Whether attention scores are divided by √d_head.
  public var scaleAttnWeights: Bool
  /// Whether the scores of block ℓ are divided by ℓ + 1 as well.
  public var scaleAttnByInverseLayerIdx: Bool
  /// Whether `W_U` is the transposed embedding.
  public var tiedUnembed: Bool

  /// n_heads·d_head: the width of all heads side by side.
  public var dAttn: Int { nHeads * dHead }

  /// Whether the stream has as many coordinates as the model was trained with. Where it does not
  /// (``WeightProcessing/isometric``, ``WeightProcessing/crmsNorm``), the direction of the ones, along
  /// which a stream of mean zero has nothing, is gone, and the mean of the coordinates means nothing.
  public var hasOnesDirection: Bool { normWidth == dModel }

  /// A configuration; the defaults are GPT-2's.
  public init(
    nLayers: Int, dModel: Int, nHeads: Int, dHead: Int? = nil, dMLP: Int? = nil, nCtx: Int = 1024,
    dVocab: Int = 50257, activation: Activation = .geluNew,
    normalization: Normalization = .layerNorm, normWidth: Int? = nil,
    layerNormEpsilon: Double = 1e-5,
    scaleAttnWeights: Bool = true, scaleAttnByInverseLayerIdx: Bool = false,
    tiedUnembed: Bool = true
  ) throws(ModelError) {
    self.nLayers = nLayers
    self.dModel = dModel
    self.nHeads = nHeads
    self.dHead = dHead ?? (nHeads > 0 ? dModel / nHeads : 0)
    // An absurd d_model is refused below; four times it may not be a number.
    self.dMLP = dMLP ?? (dModel.magnitude <= 1 << 24 ? 4 * dModel : dModel)
    self.nCtx = nCtx
    self.dVocab = dVocab
    self.activation = activation
    self.normalization = normalization
    self.normWidth = normWidth ?? dModel
    self.layerNormEpsilon = layerNormEpsilon
    self.scaleAttnWeights = scaleAttnWeights
    self.scaleAttnByInverseLayerIdx = scaleAttnByInverseLayerIdx
    self.tiedUnembed = tiedUnembed
    try validate(headsFillTheStream: dHead == nil)
  }

  /// The published sizes by name: `gpt2-small`, `gpt2-medium`, `gpt2-large`, `gpt2-xl`.
  public static let presets: [(name: String, nLayers: Int, nHeads: Int, dModel: Int)] = [
    ("gpt2-small", 12, 12, 768), ("gpt2-medium", 24, 16, 1024), ("gpt2-large", 36, 20, 1280),
    ("gpt2-xl", 48, 25, 1600),
  ]

  /// The published size called `name`.
  public static func preset(_ name: String) throws(ModelError) -> GPT2Config {
    guard let preset = presets.first(where: { $0.name == name }) else {
      throw .configuration(
        field: "config", found: "'\(name)'",
        expected: "one of \(presets.map(\.name).joined(separator: ", "))")
    }
    return try GPT2Config(
      nLayers: preset.nLayers, dModel: preset.dModel, nHeads: preset.nHeads)
  }

  /// The factor of the attention scores of block `layer`.
  public func attentionScale(layer: Int) -> Float {
    var scale = scaleAttnWeights ? 1 / Double(dHead).squareRoot() : 1
    if scaleAttnByInverseLayerIdx { scale /= Double(layer + 1) }
    return Float(scale)
  }

  private func validate(headsFillTheStream: Bool) throws(ModelError) {
    let sizes = [
      ("n_layers", nLayers), ("d_model", dModel), ("n_heads", nHeads), ("d_mlp", dMLP),
      ("n_ctx", nCtx), ("d_vocab", dVocab),
    ]
    for (field, value) in sizes where value < 1 || value > 1 << 24 {
      throw .configuration(field: field, found: "\(value)", expected: "between 1 and \(1 << 24)")
    }
    if headsFillTheStream && dModel % nHeads != 0 {
      throw .configuration(
        field: "n_heads", found: "\(nHeads)", expected: "a divisor of d_model = \(dModel)")
    }
    if dHead < 1 || dHead > (1 << 24) / nHeads {
      throw .configuration(
        field: "d_head", found: "\(dHead)",
        expected: "between 1 and \((1 << 24) / nHeads), for n_heads = \(nHeads)")
    }
    let widths =
      switch normalization {
      case .layerNorm: [dModel]
      case .rmsNorm, .none: [dModel, dModel + 1]
      case .crmsNorm: [dModel + 1]
      }
    if !widths.contains(normWidth) {
      throw .configuration(
        field: "norm_width", found: "\(normWidth)",
        expected: widths.map { "\($0)" }.joined(separator: " or ")
          + ", for d_model = \(dModel) and \(normalization.rawValue)")
    }
    if !(layerNormEpsilon >= 0 && layerNormEpsilon.isFinite) {
      throw .configuration(
        field: "layer_norm_epsilon", found: "\(layerNormEpsilon)",
        expected: "a number that is 0 or larger")
    }
  }
}
