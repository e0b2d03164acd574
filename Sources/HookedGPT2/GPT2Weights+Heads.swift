public import Tensors

// The matrices of single heads, named as in the field; vectors multiply from the left (`x·W_Q`).
extension GPT2 {
  /// `W_Q` of one head, shape `[d_model, d_head]`, copied.
  ///
  /// - Precondition: the layer and the head exist.
  public func W_Q(layer: Int, head: Int) -> Tensor { fused(0, layer, head) }

  /// `W_K` of one head, shape `[d_model, d_head]`, copied.
  ///
  /// - Precondition: the layer and the head exist.
  public func W_K(layer: Int, head: Int) -> Tensor { fused(1, layer, head) }

  /// `W_V` of one head, shape `[d_model, d_head]`, copied.
  ///
  /// - Precondition: the layer and the head exist.
  public func W_V(layer: Int, head: Int) -> Tensor { fused(2, layer, head) }

  /// `W_O` of one head, shape `[d_head, d_model]`; shares the storage.
  ///
  /// - Precondition: the layer and the head exist.
  public func W_O(layer: Int, head: Int) -> Tensor {
    weights.blocks[layer].W_O.rows(columns(head))
  }

  /// The columns of `head` in a matrix with all heads side by side.
  private func columns(_ head: Int) -> Range<Int> {
    precondition(
      head >= 0 && head < config.nHeads, "GPT2: head \(head) of \(config.nHeads)")
    return head * config.dHead..<(head + 1) * config.dHead
  }

  private func fused(_ part: Int, _ layer: Int, _ head: Int) -> Tensor {
    let own = columns(head)
    let start = part * config.dAttn
    return MatrixView(weights.blocks[layer].W_QKV)
      .columns(start + own.lowerBound..<start + own.upperBound).copied()
  }
}
