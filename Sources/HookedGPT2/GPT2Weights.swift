public import Tensors

/// The parameters of a model; vectors multiply from the left (`x·W`).
///
/// Matrices are kept as the checkpoint has them and are usually mapped from its file; `W_Q` of one
/// head is a view into the fused `c_attn`.
public struct GPT2Weights: Sendable {
  /// A LayerNorm, RMSNorm or CRMSNorm.
  public struct Norm: Sendable {
    /// Which of them.
    public let normalization: RowNormalization
    /// What the sum of squares is divided by; see ``GPT2Config/normWidth``.
    public let width: Int
    /// ε.
    public let epsilon: Float
    /// γ, shape `[d_model]`.
    public let gain: Tensor
    /// β, shape `[d_model]`.
    public let bias: Tensor

    /// The rows of `x`, normalised, with gain and bias: `[rows, d_model]` → `[rows, d_model]`.
    public func callAsFunction(_ x: Tensor) -> Tensor {
      normalization(x, width: width, epsilon: epsilon, gain: gain, bias: bias)
    }

    /// The same together with scale and normalised input.
    public func parts(_ x: Tensor) -> RowNormalizationParts {
      normalization.parts(x, width: width, epsilon: epsilon, gain: gain, bias: bias)
    }

    /// What a gradient at the output becomes at the input `x`; see ``RowNormalization``.
    func gradient(
      _ gradient: Tensor, at x: Tensor, fixedScale: Bool, keepingNormalized: Bool = false
    ) -> RowNormalizationGradient {
      normalization.gradient(
        gradient, at: x, width: width, epsilon: epsilon, gain: gain, fixedScale: fixedScale,
        keepingNormalized: keepingNormalized)
    }

    /// The normalised input for scales that are given, before gain and bias.
    func normalized(_ x: Tensor, scale: Tensor) -> Tensor {
      switch normalization {
      case .layerNorm: x.centeringRows().dividingRows(by: scale)
      case .rmsNorm, .crmsNorm: x.dividingRows(by: scale)
      }
    }

    /// Gain and bias on a normalised input.
    func affine(_ normalized: Tensor) -> Tensor {
      normalized.multiplyingRows(gain).addingToRows(bias)
    }
  }

  /// The parameters of one block.
  public struct Block: Sendable {
    /// The norm before attention; nil without norms.
    public let ln1: Norm?
    /// Queries, keys and values side by side, shape `[d_model, 3·n_heads·d_head]`, heads within each.
    public let W_QKV: Tensor
    /// Their biases, shape `[3·n_heads·d_head]`.
    public let b_QKV: Tensor
    /// From the heads' values back to the stream, shape `[n_heads·d_head, d_model]`.
    public let W_O: Tensor
    /// Its bias, shape `[d_model]`.
    public let b_O: Tensor
    /// The norm before the MLP; nil without norms.
    public let ln2: Norm?
    /// From the stream to the neurons, shape `[d_model, d_mlp]`.
    public let W_in: Tensor
    /// Its bias, shape `[d_mlp]`.
    public let b_in: Tensor
    /// From the neurons to the stream, shape `[d_mlp, d_model]`.
    public let W_out: Tensor
    /// Its bias, shape `[d_model]`.
    public let b_out: Tensor
  }

  /// Token embeddings, shape `[d_vocab, d_model]`.
  public let W_E: Tensor
  /// Position embeddings, shape `[n_ctx, d_model]`.
  public let W_pos: Tensor
  /// The blocks.
  public let blocks: [Block]
  /// The norm before the unembedding; nil without norms.
  public let lnFinal: Norm?
  /// The unembedding transposed, `W_Uᵀ`, shape `[d_vocab, d_model]`; `W_E` itself when tied.
  public let W_U_transposed: Tensor
  /// The unembedding's bias, shape `[d_vocab]`; nil where it is zero.
  public let b_U: Tensor?

  /// Takes the parameters from `tensors`, named as Hugging Face names them without `transformer.`
  /// (`h.0.attn.c_attn.weight`), plus `unembed.weight` and `unembed.bias` when untied.
  ///
  /// - Throws: `ModelError.missingTensor`, `.tensorShape`, `.unusedTensors`.
  public init(_ tensors: [String: Tensor], config: GPT2Config) throws(ModelError) {
    var reader = Reader(
      tensors: tensors, epsilon: Float(config.layerNormEpsilon), normWidth: config.normWidth)
    let (d, a, m) = (config.dModel, config.dAttn, config.dMLP)
    let norm: RowNormalization? =
      switch config.normalization {
      case .layerNorm: .layerNorm
      case .rmsNorm: .rmsNorm
      case .crmsNorm: .crmsNorm
      case .none: nil
      }

    W_E = try reader.take("wte.weight", [config.dVocab, d])
    W_pos = try reader.take("wpe.weight", [config.nCtx, d])
    var blocks: [Block] = []
    for layer in 0..<config.nLayers {
      let h = "h.\(layer)"
      blocks.append(
        Block(
          ln1: try reader.take(norm, "\(h).ln_1", d),
          W_QKV: try reader.take("\(h).attn.c_attn.weight", [d, 3 * a]),
          b_QKV: try reader.take("\(h).attn.c_attn.bias", [3 * a]),
          W_O: try reader.take("\(h).attn.c_proj.weight", [a, d]),
          b_O: try reader.take("\(h).attn.c_proj.bias", [d]),
          ln2: try reader.take(norm, "\(h).ln_2", d),
          W_in: try reader.take("\(h).mlp.c_fc.weight", [d, m]),
          b_in: try reader.take("\(h).mlp.c_fc.bias", [m]),
          W_out: try reader.take("\(h).mlp.c_proj.weight", [m, d]),
          b_out: try reader.take("\(h).mlp.c_proj.bias", [d])))
    }
    self.blocks = blocks
    lnFinal = try reader.take(norm, "ln_f", d)
    if config.tiedUnembed {
      W_U_transposed = W_E
      b_U = nil
    } else {
      W_U_transposed = try reader.take("unembed.weight", [config.dVocab, d])
      b_U = try reader.takeIfPresent("unembed.bias", [config.dVocab])
    }
    try reader.finish()
  }

  /// The number of scalars.
  public var parameterCount: Int {
    var count = W_E.count + W_pos.count + (b_U?.count ?? 0)
    // A tied unembedding is the embedding and counts once.
    if !W_U_transposed.sharesStorage(with: W_E) { count += W_U_transposed.count }
    for block in blocks {
      let norms = [block.ln1, block.ln2].compactMap { $0 }
      count += norms.reduce(0) { $0 + $1.gain.count + $1.bias.count }
      count += [
        block.W_QKV, block.b_QKV, block.W_O, block.b_O, block.W_in, block.b_in, block.W_out,
        block.b_out,
      ].reduce(0) { $0 + $1.count }
    }
    if let lnFinal { count += lnFinal.gain.count + lnFinal.bias.count }
    return count
  }

  /// The unembedding direction of `token`, `W_U[:, token]`, shape `[d_model]`.
  public func unembedding(of token: Int) -> Tensor { W_U_transposed.row(token) }

  /// Takes tensors out of a dictionary until none is left.
  private struct Reader {
    var tensors: [String: Tensor]
    let epsilon: Float
    let normWidth: Int

    mutating func take(_ name: String, _ shape: [Int]) throws(ModelError) -> Tensor {
      guard let tensor = try takeIfPresent(name, shape) else {
        throw .missingTensor(name: name)
      }
      return tensor
    }

    mutating func takeIfPresent(_ name: String, _ shape: [Int]) throws(ModelError) -> Tensor? {
      guard let tensor = tensors.removeValue(forKey: name) else { return nil }
      guard tensor.shape == shape else {
        throw .tensorShape(name: name, expected: shape, found: tensor.shape)
      }
      return tensor
    }

    mutating func take(
      _ normalization: RowNormalization?, _ name: String, _ d: Int
    ) throws(ModelError) -> Norm? {
      guard let normalization else { return nil }
      return Norm(
        normalization: normalization, width: normWidth, epsilon: epsilon,
        gain: try take("\(name).weight", [d]), bias: try take("\(name).bias", [d]))
    }

    func finish() throws(ModelError) {
      if !tensors.isEmpty { throw .unusedTensors(names: tensors.keys.sorted()) }
    }
  }
}
