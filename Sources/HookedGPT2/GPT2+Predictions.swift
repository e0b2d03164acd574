public import Tensors

// What final residual streams predict.

extension GPT2Config {
  /// How many tokens' logits are made at once where only what they say is kept: 64 MB of them.
  public var logitBlock: Int { max(1, (1 << 24) / dVocab) }
}

extension GPT2 {
  /// The logits that a residual stream would give if it were the final one.
  ///
  /// - Parameters:
  ///   - stream: shape `[rows, d_model]`.
  ///   - other: the stream whose rows' scales the final norm divides by, of the same shape:
  ///     `stream` itself for the model's own arithmetic, the real final stream to freeze its scale.
  /// - Returns: shape `[rows, d_vocab]`.
  /// - Precondition: the shapes agree.
  public func unembed(_ stream: Tensor, scaleOf other: Tensor) -> Tensor {
    precondition(
      stream.shape == other.shape, "unembed: shapes \(stream.shape) and \(other.shape)")
    return unembed(
      stream,
      scale: stream.sharesStorage(with: other) ? nil : weights.lnFinal?.parts(other).scale)
  }

  /// The logits of final residual streams whose last norm divides by given scales.
  ///
  /// - Parameters:
  ///   - stream: shape `[rows, d_model]`.
  ///   - scale: what each row is divided by, shape `[rows, 1]`; nil for the norm's own.
  /// - Returns: shape `[rows, d_vocab]`.
  /// - Precondition: the shapes agree, and there is a norm if scales are given.
  public func unembed(_ stream: Tensor, scale: Tensor?) -> Tensor {
    precondition(scale == nil || weights.lnFinal != nil, "unembed: a scale without a norm")
    var x = stream
    if let ln = weights.lnFinal {
      x = scale.map { ln.affine(ln.normalized(stream, scale: $0)) } ?? ln(stream)
    }
    return matmulTransposed(x, MatrixView(weights.W_U_transposed), bias: weights.b_U)
  }

  /// How well final residual streams predict the tokens that follow: loss, entropy, the prediction and its
  /// confidence.
  ///
  /// - Parameters:
  ///   - stream: final streams before the last norm, shape `[rows, d_model]`.
  ///   - targets: the token that follows each row.
  ///   - scale: what the last norm divides each row by, shape `[rows, 1]`; nil for its own.
  /// - Returns: the statistics of each row.
  /// - Precondition: there are as many targets as rows, and all are tokens; a norm if scales are given.
  /// - Complexity: `2·d_model·d_vocab` FLOPs a row; memory for some rows' logits, however many rows
  ///   there are.
  public func predictions(
    _ stream: Tensor, targets: [Int], scale: Tensor? = nil
  ) -> [RowStatistics] {
    blocks(stream, targets).flatMap { rows in
      rowStatistics(
        unembed(stream.rows(rows), scale: scale?.rows(rows)), targets: Array(targets[rows]))
    }
  }

  /// What final residual streams predict beside those of another model, or others of the same model, and
  /// how far both distributions are apart.
  ///
  /// - Parameters:
  ///   - stream: this model's final streams, shape `[rows, d_model]`.
  ///   - other: the other model.
  ///   - otherStream: the other's final streams, `[rows, d_model]` of its own width.
  ///   - targets: the token that follows each row.
  /// - Returns: the statistics of each row in both, and the divergence of this one from the other.
  /// - Precondition: there are as many targets as rows of both, and all are tokens; the vocabularies agree.
  /// - Complexity: as twice ``predictions(_:targets:scale:)``.
  public func predictions(
    _ stream: Tensor, against other: GPT2, _ otherStream: Tensor, targets: [Int]
  ) -> (own: [RowStatistics], other: [RowStatistics], apart: [RowDivergence]) {
    precondition(
      otherStream.shape[0] == targets.count,
      "predictions: \(targets.count) targets of a stream of shape \(otherStream.shape)")
    var result: (own: [RowStatistics], other: [RowStatistics], apart: [RowDivergence]) = (
      [], [], []
    )
    for rows in blocks(stream, targets) {
      let logits = unembed(stream.rows(rows), scale: nil)
      let otherLogits = other.unembed(otherStream.rows(rows), scale: nil)
      let own = rowStatistics(logits, targets: Array(targets[rows]))
      let second = rowStatistics(otherLogits, targets: Array(targets[rows]))
      result.own += own
      result.other += second
      result.apart += rowDivergences(
        logits, otherLogits, normalizers: own.map(\.logSumExp),
        otherNormalizers: second.map(\.logSumExp))
    }
    return result
  }

  /// The rows whose logits are made together.
  private func blocks(_ stream: Tensor, _ targets: [Int]) -> [Range<Int>] {
    precondition(
      stream.shape[0] == targets.count,
      "predictions: \(targets.count) targets of a stream of shape \(stream.shape)")
    let size = config.logitBlock
    return stride(from: 0, to: targets.count, by: size).map {
      $0..<min(targets.count, $0 + size)
    }
  }
}

extension Tensor {
  /// The rows of streams that have a next token, all but the last of each, one prompt after another.
  ///
  /// - Parameter streams: each prompt's stream, shape `[pos, d_model]`.
  /// - Precondition: there is a prompt, and each has a position.
  public static func predicting(_ streams: [Tensor]) -> Tensor {
    concatenating(streams.map { $0.rows(0..<$0.shape[0] - 1) })
  }
}
