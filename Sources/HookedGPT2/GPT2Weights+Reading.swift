public import Tensors

extension GPT2Weights {
  /// The unembedding of some tokens as the normalised stream is read by it: each token's vector times the
  /// final norm's gain, without its mean where the norm takes the stream's away. The stored weights
  /// of a model without norms are that already.
  ///
  /// With `u` a row, x the final stream and σ its scale, the token's logit is `x·u/σ` plus what does not
  /// depend on the stream.
  ///
  /// - Returns: shape `[tokens, d_model]`.
  /// - Precondition: the range is one of tokens.
  public func readUnembedding(_ tokens: Range<Int>) -> Tensor {
    reading(W_U_transposed.rows(tokens), through: lnFinal)
  }

  /// Directions that read the output of a norm, one a row, as they read its input before the division by
  /// the scale: `d_model` scalars each.
  ///
  /// - Returns: the shape of `directions`, `[rows, d_model]`; `directions` themselves without a norm.
  public func reading(_ directions: Tensor, through norm: Norm?) -> Tensor {
    guard let norm else { return directions }
    let gained = directions.multiplyingRows(norm.gain)
    return norm.normalization == .layerNorm ? gained.centeringRows() : gained
  }
}
