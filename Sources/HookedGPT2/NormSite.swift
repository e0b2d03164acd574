/// One of the 2L + 1 places where a model normalises its residual stream: `L0.ln1`, `L0.ln2`, …,
/// `ln_final`.
public struct NormSite: Sendable {
  /// The block; nil at the end.
  public let layer: Int?
  /// `L3.ln2`, `ln_final`.
  public let label: String
  /// The stream that is read: `resid_pre`, `resid_mid`, the last block's `resid_post`.
  public let input: HookName
  /// Gain, bias and ε; nil where normalization is none: what is read is then the stream itself,
  /// through weights that annihilate its mean.
  public let norm: GPT2Weights.Norm?
}

extension GPT2 {
  /// The places where the stream is normalised, in the order of the stream.
  public var normSites: [NormSite] {
    weights.blocks.enumerated().flatMap { layer, block in
      [
        NormSite(
          layer: layer, label: "L\(layer).ln1", input: HookName(.residPre, layer: layer),
          norm: block.ln1),
        NormSite(
          layer: layer, label: "L\(layer).ln2", input: HookName(.residMid, layer: layer),
          norm: block.ln2),
      ]
    } + [
      NormSite(
        layer: nil, label: "ln_final",
        input: HookName(.residPost, layer: config.nLayers - 1), norm: weights.lnFinal)
    ]
  }
}
