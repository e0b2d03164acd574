public import Tensors

// The matrices of the heads' circuits as the stream meets them: weights that read it with the norm's gain and
// without the mean where the norm takes it away, weights that write to it without what no norm reads.
// So they are the same before and after `fold_ln` and `center_writing_weights`. Biases are no part of
// them, and neither is the division by the norm's scale.
extension GPT2 {
  /// `W_Qᵀ`, `W_Kᵀ` and `W_Vᵀ` of all heads of a layer as they read the stream, shape `[n_heads·d_head, d_model]`
  /// each.
  ///
  /// - Precondition: the layer exists.
  public func headReaders(layer: Int) -> (q: Tensor, k: Tensor, v: Tensor) {
    let (block, width) = (weights.blocks[layer], config.dAttn)
    let all = weights.reading(block.W_QKV.transposed(), through: block.ln1)
    return (
      all.rows(0..<width), all.rows(width..<2 * width), all.rows(2 * width..<3 * width)
    )
  }

  /// `W_O` of all heads of a layer, without the part along the ones vector where no later layer reads it,
  /// shape `[n_heads·d_head, d_model]`.
  ///
  /// - Precondition: the layer exists.
  public func headWriters(layer: Int) -> Tensor {
    let W_O = weights.blocks[layer].W_O
    return readsMean ? W_O : W_O.centeringRows()
  }

  /// Whether anything reads the mean of the stream's coordinates: not behind LayerNorm, and not where its
  /// projection is folded into the weights. A compressed stream has no mean to take away.
  public var readsMean: Bool {
    config.normalization == .rmsNorm || !config.hasOnesDirection
  }

  /// `W_OV` = `W_V·W_O` of one head: what it writes for what it reads. Shape `[d_model, d_model]`.
  ///
  /// - Precondition: the layer and the head exist.
  public func W_OV(layer: Int, head: Int) -> FactoredMatrix {
    let rows = headRows(head)
    return FactoredMatrix(
      headReaders(layer: layer).v.rows(rows).transposed(), headWriters(layer: layer).rows(rows))
  }

  /// `W_QK` = `W_Q·W_Kᵀ` of one head: what it looks for from where it stands. Shape `[d_model, d_model]`.
  ///
  /// - Precondition: the layer and the head exist.
  public func W_QK(layer: Int, head: Int) -> FactoredMatrix {
    let (readers, rows) = (headReaders(layer: layer), headRows(head))
    return FactoredMatrix(readers.q.rows(rows).transposed(), readers.k.rows(rows))
  }

  private func headRows(_ head: Int) -> Range<Int> {
    precondition(head >= 0 && head < config.nHeads, "GPT2: head \(head) of \(config.nHeads)")
    return head * config.dHead..<(head + 1) * config.dHead
  }
}
