public import Tensors

/// Turns a LayerNorm-free checkpoint as it is published into a model without LayerNorms.
///
/// LayerNorm removal leaves a fixed affine map in each LayerNorm's place,
/// `(x − mean x)/σ ⊙ γ + β` with one constant σ. To run in unmodified software it is stored as a
/// LayerNorm with ε = 1e12 and gain γ·1e6/σ: next to such an ε the variance is nothing. A tool that
/// takes it for a LayerNorm, or overwrites ε, computes something else entirely.
///
/// With g = gain/√ε and b = bias, folded in double precision into the matrix W, c that follows:
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

  /// The tensors of a model without LayerNorms.
  ///
  /// - Parameters:
  ///   - tensors: a checkpoint's tensors by their Hugging Face names without `transformer.`.
  ///   - config: its configuration, with the ε of the file.
  /// - Returns: the tensors without `ln_*`, with `unembed.weight` and `unembed.bias`, and the
  ///   configuration with `normalization` none.
  /// - Throws: `ModelError.missingTensor`, `.tensorShape`.
  public static func folded(
    _ tensors: [String: Tensor], config: GPT2Config
  ) throws(ModelError) -> (tensors: [String: Tensor], config: GPT2Config) {
    // Checks every name and shape before anything is folded.
    var asLayerNorm = config
    asLayerNorm.normalization = .layerNorm
    let weights = try GPT2Weights(tensors, config: asLayerNorm)
    let epsilon = config.layerNormEpsilon

    var result = tensors
    for (layer, block) in weights.blocks.enumerated() {
      let h = "h.\(layer)"
      if let ln1 = block.ln1 {
        let (W, c) = fold(ln1, epsilon, into: block.W_QKV, bias: block.b_QKV)
        result["\(h).attn.c_attn.weight"] = W
        result["\(h).attn.c_attn.bias"] = c
      }
      if let ln2 = block.ln2 {
        let (W, c) = fold(ln2, epsilon, into: block.W_in, bias: block.b_in)
        result["\(h).mlp.c_fc.weight"] = W
        result["\(h).mlp.c_fc.bias"] = c
      }
      for name in ["ln_1.weight", "ln_1.bias", "ln_2.weight", "ln_2.bias"] {
        result["\(h).\(name)"] = nil
      }
    }
    if let lnFinal = weights.lnFinal {
      let (W, c) = foldRows(lnFinal, epsilon, into: weights.W_U_transposed, bias: weights.b_U)
      result["unembed.weight"] = W
      result["unembed.bias"] = c
    }
    result["ln_f.weight"] = nil
    result["ln_f.bias"] = nil

    var foldedConfig = config
    foldedConfig.normalization = .none
    foldedConfig.tiedUnembed = false
    return (result, foldedConfig)
  }

  /// Folds into `W [d, n]`, `c [n]`.
  private static func fold(
    _ ln: GPT2Weights.LayerNorm, _ epsilon: Double, into W: Tensor, bias c: Tensor
  ) -> (Tensor, Tensor) {
    let (d, n) = (W.shape[0], W.shape[1])
    let root = epsilon.squareRoot()
    var columnMeans = [Double](repeating: 0, count: n)
    var biases = c.scalars.map(Double.init)
    var folded = W
    let (gain, bias) = (ln.gain.scalars, ln.bias.scalars)
    let source = W.span
    for i in 0..<d {
      let (g, b) = (Double(gain[i]) / root, Double(bias[i]))
      for j in 0..<n {
        let w = Double(source[i * n + j])
        columnMeans[j] += g * w
        biases[j] += b * w
      }
    }
    for j in 0..<n { columnMeans[j] /= Double(d) }
    var target = folded.mutableSpan
    for i in 0..<d {
      let g = Double(gain[i]) / root
      for j in 0..<n {
        target[i * n + j] = Float(g * Double(source[i * n + j]) - columnMeans[j])
      }
    }
    return (folded, Tensor(biases.map { Float($0) }, shape: [n]))
  }

  /// Folds into a transposed matrix `Wᵀ [n, d]`, `c [n]`.
  private static func foldRows(
    _ ln: GPT2Weights.LayerNorm, _ epsilon: Double, into W: Tensor, bias c: Tensor?
  ) -> (Tensor, Tensor) {
    let (n, d) = (W.shape[0], W.shape[1])
    let root = epsilon.squareRoot()
    let gain = ln.gain.scalars.map { Double($0) / root }
    let bias = ln.bias.scalars.map(Double.init)
    var folded = W
    var biases = c?.scalars ?? [Float](repeating: 0, count: n)
    let source = W.span
    var target = folded.mutableSpan
    for j in 0..<n {
      var (mean, shift) = (0.0, 0.0)
      for i in 0..<d {
        let w = Double(source[j * d + i])
        mean += gain[i] * w
        shift += bias[i] * w
      }
      mean /= Double(d)
      for i in 0..<d {
        target[j * d + i] = Float(gain[i] * Double(source[j * d + i]) - mean)
      }
      biases[j] = Float(Double(biases[j]) + shift)
    }
    return (folded, Tensor(biases, shape: [n]))
  }
}
