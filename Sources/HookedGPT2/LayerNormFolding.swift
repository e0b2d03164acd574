/// Checkpoints whose LayerNorms were removed, as they are published.
///
/// LayerNorm removal leaves a fixed affine map in each LayerNorm's place,
/// `(x − mean x)/σ ⊙ γ + β` with one constant σ. To run in unmodified software it is stored as a
/// LayerNorm with ε = 1e12 and gain γ·1e6/σ: next to such an ε the variance is nothing. A tool that
/// takes it for a LayerNorm, or overwrites ε, computes something else entirely.
///
/// ``WeightProcessing/foldAffineNorms`` makes it a model without LayerNorms. With g = gain/√ε and
/// b = bias, folded in double precision into the matrix W, c that follows:
///
///     W′ = (I − 11ᵀ/d)·diag(g)·W        W′_ij = g_i·W_ij − (1/d)·Σ_k g_k·W_kj
///     c′ = c + bᵀ·W
///
/// and likewise the final one into the unembedding, which is no longer the embedding and has a bias.
/// Baroni et al. 2025 (arXiv:2507.02559), Heimersheim 2024.
public enum LayerNormFolding {
  /// From this ε on a LayerNorm is none; published checkpoints have 1e12, real LayerNorms 1e-5.
  public static let epsilonThreshold = 1e6

  /// Whether a checkpoint with this `layer_norm_epsilon` has no LayerNorms.
  public static func isLayerNormFree(epsilon: Double) -> Bool { epsilon >= epsilonThreshold }
}
