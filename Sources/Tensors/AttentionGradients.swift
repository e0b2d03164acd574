import CKernels

/// How much of a gradient each factor of attention's two products gets, `pattern·v` and `q·k`.
public struct AttentionGradientShares: Sendable, Hashable {
  /// Of the gradient at z, the pattern's; 0 where the pattern is a constant.
  public var pattern: Float
  /// Of the gradient at z, the values'.
  public var values: Float
  /// Of the gradient at the scores, that of the queries and that of the keys.
  public var queriesAndKeys: Float

  /// Shares; all of it to each by default, which is the derivative.
  public init(pattern: Float = 1, values: Float = 1, queriesAndKeys: Float = 1) {
    self.pattern = pattern
    self.values = values
    self.queriesAndKeys = queriesAndKeys
  }
}

/// One run in the backward pass of attention.
public struct AttentionGradientSegment: Sendable {
  /// Its queries, keys and values at all positions.
  public let inputs: AttentionInputs
  /// The positions whose z has a gradient.
  public let queries: Range<Int>
  /// The row of the first of them in the gradient at z.
  public let queryRow: Int
  /// The positions whose q, k and v get gradients.
  public let positions: Range<Int>
  /// The row of the first of them in the gradients.
  public let row: Int

  /// A run.
  ///
  /// - Precondition: `queries` lies within `positions`, or is empty; both lie within the run.
  public init(
    _ inputs: AttentionInputs, queries: Range<Int>, at queryRow: Int, positions: Range<Int>,
    at row: Int
  ) {
    precondition(
      (queries.isEmpty
        || queries.lowerBound >= positions.lowerBound
          && queries.upperBound <= positions.upperBound)
        && positions.upperBound <= inputs.k.shape[0],
      "AttentionGradientSegment: queries \(queries), positions \(positions) of "
        + "\(inputs.k.shape[0])")
    self.inputs = inputs
    self.queries = queries
    self.queryRow = queryRow
    self.positions = positions
    self.row = row
  }
}

/// The gradients of causal attention, `z = softmax(scale·q·kᵀ)·v`, from that at z:
///
///     g_pattern = g_z·vᵀ        g_scores = pattern ⊙ (g_pattern − Σ pattern ⊙ g_pattern)
///     g_v = patternᵀ·g_z        g_q = scale·g_scores·k        g_k = scale·g_scoresᵀ·q
///
/// The pattern is computed again and exists only for a few query rows of one head at a time.
///
/// - Parameters:
///   - gradient: that at z, shape `[query rows, head, d_head]`.
///   - segments: the runs.
///   - scale: the factor of the scores.
///   - shares: what the factors of products get.
///   - gradients: those at q, k and v side by side, shape `[rows, 3, head, d_head]`, to which the
///     segments' rows are added.
/// - Complexity: about `5·T²·d_head` FLOPs a head and run, 5/2 of the forward pass.
public func addAttentionGradients(
  _ gradient: Tensor, _ segments: [AttentionGradientSegment], scale: Float,
  shares: AttentionGradientShares = AttentionGradientShares(), to gradients: inout Tensor
) {
  compute(gradient, segments, scale, shares, to: &gradients, nil)
}

/// The same for one run with the gradients at the scores and at the pattern kept.
///
/// - Returns: shape `[head, query_pos, key_pos]` each, the queries being the segment's positions; zero
///   where z has no gradient. That of the scores is 0 where a key lies after the query; that of the
///   pattern is not.
public func addAttentionGradientParts(
  _ gradient: Tensor, _ segment: AttentionGradientSegment, scale: Float,
  shares: AttentionGradientShares = AttentionGradientShares(), to gradients: inout Tensor
) -> (scores: Tensor, pattern: Tensor) {
  let (positions, length) = (segment.positions, segment.inputs.k.shape[0])
  let shape = [segment.inputs.k.shape[1], positions.count, length]
  var scores = Tensor(zeros: shape)
  var pattern = Tensor(zeros: shape)
  scores.withUnsafeMutableBufferPointer { ss in
    pattern.withUnsafeMutableBufferPointer { ps in
      guard let s = ss.baseAddress, let p = ps.baseAddress else { return }
      compute(
        gradient, [segment], scale, shares, to: &gradients,
        KeptGradients(scores: s, pattern: p, headStride: positions.count * length))
    }
  }
  return (scores, pattern)
}

/// Where the gradients of one run's scores and pattern go, `[head, positions, length]`.
private struct KeptGradients {
  var scores: UnsafeMutablePointer<Float>
  var pattern: UnsafeMutablePointer<Float>
  let headStride: Int
}

private func compute(
  _ gradient: Tensor, _ segments: [AttentionGradientSegment], _ scale: Float,
  _ shares: AttentionGradientShares, to gradients: inout Tensor, _ kept: KeptGradients?
) {
  let (heads, dHead) = (gradient.shape[1], gradient.shape[2])
  precondition(
    gradients.shape.dropFirst() == [3, heads, dHead],
    "attention gradients: shape \(gradients.shape) for a gradient \(gradient.shape) at z")
  BLAS.prepare()
  gradient.withUnsafeBufferPointer { gs in
    gradients.withUnsafeMutableBufferPointer { targets in
      guard let g = gs.baseAddress, let target = targets.baseAddress else { return }
      // Few small heads are not worth a thread of their own.
      let batch = Swift.max(1, heads / 4)
      let perSegment = (heads + batch - 1) / batch
      parallelChunks(segments.count * perSegment) { chunk in
        let segment = segments[chunk / perSegment]
        if segment.queries.isEmpty { return }
        let first = chunk % perSegment * batch
        let ownHeads = first..<Swift.min(heads, first + batch)
        let pass = RunGradients(
          segment: segment, heads: heads, dHead: dHead, scale: scale, shares: shares, g: g,
          target: target)
        var scratch = Tensor(uninitialized: [2 * pass.block * segment.queries.upperBound])
        scratch.withUnsafeMutableBufferPointer { buffer in
          guard let scratch = buffer.baseAddress else { return }
          for head in ownHeads { pass.add(head: head, scratch, kept) }
        }
      }
    }
  }
}

/// The backward pass of one run's attention, a head at a time.
private struct RunGradients {
  let segment: AttentionGradientSegment
  let heads: Int
  let dHead: Int
  let scale: Float
  let shares: AttentionGradientShares
  /// The gradient at z.
  let g: UnsafePointer<Float>
  let target: UnsafeMutablePointer<Float>

  /// How many query rows are worked on at a time, so that their scores stay in cache.
  var block: Int { segment.queries.count <= 96 ? segment.queries.count : 64 }

  func add(head: Int, _ scratch: UnsafeMutablePointer<Float>, _ kept: KeptGradients?) {
    let (width, column) = (heads * dHead, head * dHead)
    let inputs = segment.inputs
    defer { withExtendedLifetime(inputs) {} }
    let q = UnsafePointer(inputs.q.storage.base + inputs.q.offset) + column
    let k = UnsafePointer(inputs.k.storage.base + inputs.k.offset) + column
    let v = UnsafePointer(inputs.v.storage.base + inputs.v.offset) + column
    let length = inputs.k.shape[0]
    let first = segment.positions.lowerBound
    let g_q = target + segment.row * 3 * width + column
    let (g_k, g_v) = (g_q + width, g_q + 2 * width)
    let toScores = scale * shares.queriesAndKeys

    for start in stride(
      from: segment.queries.lowerBound, to: segment.queries.upperBound, by: block)
    {
      let end = Swift.min(segment.queries.upperBound, start + block)
      let (rows, visible) = (end - start, end)
      let g_z = g + (segment.queryRow + start - segment.queries.lowerBound) * width + column
      let query = q + start * width
      let p = scratch
      sgemm(
        m: rows, n: visible, k: dHead, query, width, k, width, transposed: true, beta: 0, p,
        visible)
      nl_softmax(rows, visible, visible, p, visible, p, scale, start, 1)
      if visible > first {
        sgemm(
          m: visible - first, n: dHead, k: rows, alpha: shares.values, p + first, visible,
          leftTransposed: true, g_z, width, beta: 1, g_v, 3 * width)
      }
      if shares.pattern == 0 { continue }

      // Of a pattern that is asked for, the keys after the query, too.
      let place = kept.map { head * $0.headStride + (start - first) * length }
      let g_p = kept.map { $0.pattern + (place ?? 0) } ?? scratch + block * visible
      let stride = kept == nil ? visible : length
      sgemm(
        m: rows, n: stride, k: dHead, alpha: shares.pattern, g_z, width, v, width,
        transposed: true, beta: 0, g_p, stride)
      for row in 0..<rows {
        softmaxGradient(start + row + 1, g_p + row * stride, p + row * visible)
      }
      if let kept {
        for row in 0..<rows {
          (kept.scores + (place ?? 0) + row * length).update(
            from: p + row * visible, count: visible)
        }
      }
      sgemm(
        m: rows, n: dHead, k: visible, alpha: toScores, p, visible, k, width, beta: 1,
        g_q + (start - first) * 3 * width, 3 * width)
      if visible > first {
        sgemm(
          m: visible - first, n: dHead, k: rows, alpha: toScores, p + first, visible,
          leftTransposed: true, query, width, beta: 1, g_k, 3 * width)
      }
    }
  }
}

/// One row: `p` holds the pattern and gets the gradient at the scores, `p ⊙ (g − Σ p ⊙ g)`.
private func softmaxGradient(
  _ count: Int, _ g: UnsafePointer<Float>, _ p: UnsafeMutablePointer<Float>
) {
  var sums = SIMD4<Double>.zero
  var i = 0
  while i + 4 <= count {
    sums +=
      SIMD4(Double(p[i]), Double(p[i + 1]), Double(p[i + 2]), Double(p[i + 3]))
      * SIMD4(Double(g[i]), Double(g[i + 1]), Double(g[i + 2]), Double(g[i + 3]))
    i += 4
  }
  var sum = sums.sum()
  while i < count {
    sum += Double(p[i]) * Double(g[i])
    i += 1
  }
  let mean = Float(sum)
  for i in 0..<count { p[i] *= g[i] - mean }
}
