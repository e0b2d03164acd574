import CKernels

/// Where one prompt's queries and keys lie in packed rows.
///
/// Query row `queries.lowerBound + i` sees the keys `keys.lowerBound ... keys.lowerBound + past + i`.
public struct AttentionSegment: Sendable {
  /// The rows of the queries.
  public let queries: Range<Int>
  /// The rows of the keys and values: those of the past, then one for each query.
  public let keys: Range<Int>

  /// One prompt's rows.
  ///
  /// - Precondition: at least as many keys as queries.
  public init(queries: Range<Int>, keys: Range<Int>) {
    precondition(
      keys.count >= queries.count, "AttentionSegment: \(queries) queries against \(keys) keys")
    self.queries = queries
    self.keys = keys
  }

  /// How many keys lie before the first query's own.
  public var past: Int { keys.count - queries.count }
}

/// Causal attention of every head over packed rows: `z = softmax(scale·q·kᵀ)·v`.
///
/// The scores exist only for a few query rows of one head at a time.
///
/// - Parameters:
///   - q: shape `[rows, head, d_head]`.
///   - k: shape `[key rows, head, d_head]`.
///   - v: shape `[key rows, head, d_head]`.
///   - segments: each prompt's rows; together they cover the rows of `q`.
///   - scale: the factor of the scores, usually `1/√d_head`.
/// - Returns: shape `[rows, head, d_head]`.
/// - Precondition: rank 3, and heads and `d_head` agree.
/// - Complexity: about `2·T²·d_head` FLOPs a head and prompt.
public func causalAttention(
  q: Tensor, k: Tensor, v: Tensor, segments: [AttentionSegment], scale: Float
) -> Tensor {
  checkHeads(q, k, v)
  let (heads, dHead) = (q.shape[1], q.shape[2])
  let width = heads * dHead
  var z = Tensor(uninitialized: q.shape)
  BLAS.prepare()

  // One task is a block of query rows of one head: small enough for its scores to stay in cache,
  // and it ends at its last row's own key, which saves almost half of a long prompt's work.
  struct Task {
    let head: Int
    let segment: AttentionSegment
    let rows: Range<Int>
  }
  var tasks: [Task] = []
  for segment in segments {
    let block = segment.queries.count <= 96 ? 96 : 64
    for head in 0..<heads {
      var first = 0
      while first < segment.queries.count {
        let end = Swift.min(segment.queries.count, first + block)
        tasks.append(Task(head: head, segment: segment, rows: first..<end))
        first = end
      }
    }
  }
  // Small tasks are taken several at a time.
  let batch = Swift.max(1, Swift.min(heads / 4, tasks.count / 16))

  q.withUnsafeBufferPointer { qs in
    k.withUnsafeBufferPointer { ks in
      v.withUnsafeBufferPointer { vs in
        z.withUnsafeMutableBufferPointer { zs in
          guard let q = qs.baseAddress, let k = ks.baseAddress, let v = vs.baseAddress,
            let z = zs.baseAddress
          else { return }
          parallelChunks((tasks.count + batch - 1) / batch) { chunk in
            var scores = Tensor(uninitialized: [0])
            for task in tasks[chunk * batch..<Swift.min(tasks.count, (chunk + 1) * batch)] {
              let rows = task.rows.count
              let keys = task.segment.past + task.rows.upperBound
              if scores.count < rows * keys { scores = Tensor(uninitialized: [rows * keys]) }
              let column = task.head * dHead
              let query = (task.segment.queries.lowerBound + task.rows.lowerBound) * width + column
              let key = task.segment.keys.lowerBound * width + column
              scores.withUnsafeMutableBufferPointer { buffer in
                guard let s = buffer.baseAddress else { return }
                sgemm(
                  m: rows, n: keys, k: dHead, q + query, width, k + key, width, transposed: true,
                  beta: 0, s, keys)
                nl_softmax(
                  rows, keys, keys, s, keys, s, scale, task.segment.past + task.rows.lowerBound, 1)
                sgemm(
                  m: rows, n: dHead, k: keys, s, keys, v + key, width, beta: 0, z + query, width)
              }
            }
          }
        }
      }
    }
  }
  return z
}

/// Causal attention of one prompt with its scores and its pattern kept.
///
/// Each block of query rows goes from scores to values while it is in cache, so that keeping both
/// costs little more than writing them.
///
/// - Parameters:
///   - q: shape `[rows, head, d_head]`.
///   - k: shape `[key rows, head, d_head]`.
///   - v: shape `[key rows, head, d_head]`.
///   - segment: the prompt's rows.
///   - scale: the factor of the scores.
///   - z: shape `[rows, head, d_head]`; the prompt's rows are written.
/// - Returns: scores (−∞ where a key lies after the query) and pattern, shape
///   `[head, query_pos, key_pos]` each.
public func causalAttentionParts(
  q: Tensor, k: Tensor, v: Tensor, segment: AttentionSegment, scale: Float, into z: inout Tensor
) -> (scores: Tensor, pattern: Tensor) {
  checkHeads(q, k, v)
  precondition(z.shape == q.shape, "attention: z has shape \(z.shape), q \(q.shape)")
  let (heads, dHead) = (q.shape[1], q.shape[2])
  let width = heads * dHead
  let (queries, keys, past) = (segment.queries.count, segment.keys.count, segment.past)
  var scores = Tensor(uninitialized: [heads, queries, keys])
  var pattern = Tensor(uninitialized: [heads, queries, keys])
  BLAS.prepare()
  q.withUnsafeBufferPointer { qs in
    k.withUnsafeBufferPointer { ks in
      v.withUnsafeBufferPointer { vs in
        scores.withUnsafeMutableBufferPointer { ss in
          pattern.withUnsafeMutableBufferPointer { ps in
            z.withUnsafeMutableBufferPointer { zs in
              guard let q = qs.baseAddress, let k = ks.baseAddress, let v = vs.baseAddress,
                let scores = ss.baseAddress, let pattern = ps.baseAddress,
                let z = zs.baseAddress
              else { return }
              let blocks = attentionBlocks(queries)
              parallelChunks(heads * blocks.count) { chunk in
                let (head, rows) = (chunk / blocks.count, blocks[chunk % blocks.count])
                let visible = past + rows.upperBound
                let start = (head * queries + rows.lowerBound) * keys
                let query = (segment.queries.lowerBound + rows.lowerBound) * width + head * dHead
                let key = segment.keys.lowerBound * width + head * dHead
                let (s, p) = (scores + start, pattern + start)
                sgemm(
                  m: rows.count, n: visible, k: dHead, alpha: scale, q + query, width, k + key,
                  width, transposed: true, beta: 0, s, keys)
                maskLaterKeys(s, rows, past: past, keys: keys)
                nl_softmax(rows.count, keys, keys, s, keys, p, 1, past + rows.lowerBound, 1)
                sgemm(
                  m: rows.count, n: dHead, k: visible, p, keys, v + key, width, beta: 0,
                  z + query, width)
              }
            }
          }
        }
      }
    }
  }
  return (scores, pattern)
}

/// Writes −∞ over the keys after each query of a block of rows.
private func maskLaterKeys(
  _ scores: UnsafeMutablePointer<Float>, _ rows: Range<Int>, past: Int, keys: Int
) {
  for row in rows {
    let ownKey = past + row
    (scores + (row - rows.lowerBound) * keys + ownKey + 1)
      .update(repeating: -.infinity, count: keys - ownKey - 1)
  }
}

/// One prompt's attention scores, `scale·q·kᵀ`, −∞ where a key lies after the query.
///
/// - Returns: shape `[head, query_pos, key_pos]`.
public func attentionScores(
  q: Tensor, k: Tensor, segment: AttentionSegment, scale: Float
) -> Tensor {
  checkHeads(q, k, k)
  let (heads, dHead) = (q.shape[1], q.shape[2])
  let width = heads * dHead
  let (queries, keys, past) = (segment.queries.count, segment.keys.count, segment.past)
  var scores = Tensor(uninitialized: [heads, queries, keys])
  BLAS.prepare()
  q.withUnsafeBufferPointer { qs in
    k.withUnsafeBufferPointer { ks in
      scores.withUnsafeMutableBufferPointer { ss in
        guard let q = qs.baseAddress, let k = ks.baseAddress, let scores = ss.baseAddress else {
          return
        }
        let blocks = attentionBlocks(queries)
        parallelChunks(heads * blocks.count) { chunk in
          let (head, rows) = (chunk / blocks.count, blocks[chunk % blocks.count])
          let visible = past + rows.upperBound
          let s = scores + (head * queries + rows.lowerBound) * keys
          sgemm(
            m: rows.count, n: visible, k: dHead, alpha: scale,
            q + (segment.queries.lowerBound + rows.lowerBound) * width + head * dHead, width,
            k + segment.keys.lowerBound * width + head * dHead, width, transposed: true,
            beta: 0, s, keys)
          maskLaterKeys(s, rows, past: past, keys: keys)
        }
      }
    }
  }
  return scores
}

/// The attention pattern of one prompt's causal scores; faster than `softmax` since everything
/// after the query is known to be zero.
///
/// - Parameter scores: shape `[head, query_pos, key_pos]`.
/// - Returns: shape `[head, query_pos, key_pos]`.
public func causalSoftmax(_ scores: Tensor) -> Tensor {
  let (heads, queries, keys) = (scores.shape[0], scores.shape[1], scores.shape[2])
  var pattern = Tensor(uninitialized: scores.shape)
  scores.withUnsafeBufferPointer { ss in
    pattern.withUnsafeMutableBufferPointer { ps in
      guard let s = ss.baseAddress, let p = ps.baseAddress else { return }
      let blocks = attentionBlocks(queries)
      parallelChunks(heads * blocks.count) { chunk in
        let (head, rows) = (chunk / blocks.count, blocks[chunk % blocks.count])
        let start = (head * queries + rows.lowerBound) * keys
        nl_softmax(
          rows.count, keys, keys, s + start, keys, p + start, 1,
          keys - queries + rows.lowerBound, 1)
      }
    }
  }
  return pattern
}

/// Writes `z = pattern·v` of one prompt into its rows of `z`.
///
/// - Parameters:
///   - pattern: shape `[head, query_pos, key_pos]`.
///   - v: shape `[key rows, head, d_head]`.
///   - segment: the prompt's rows.
///   - z: shape `[rows, head, d_head]`.
public func applyAttention(
  pattern: Tensor, v: Tensor, segment: AttentionSegment, into z: inout Tensor
) {
  let (heads, dHead) = (v.shape[1], v.shape[2])
  let width = heads * dHead
  let (queries, keys) = (segment.queries.count, segment.keys.count)
  precondition(
    pattern.shape == [heads, queries, keys],
    "applyAttention: pattern has shape \(pattern.shape), expected \([heads, queries, keys])")
  BLAS.prepare()
  pattern.withUnsafeBufferPointer { ps in
    v.withUnsafeBufferPointer { vs in
      z.withUnsafeMutableBufferPointer { zs in
        guard let p = ps.baseAddress, let v = vs.baseAddress, let z = zs.baseAddress else { return }
        let blocks = attentionBlocks(queries)
        parallelChunks(heads * blocks.count) { chunk in
          let (head, rows) = (chunk / blocks.count, blocks[chunk % blocks.count])
          sgemm(
            m: rows.count, n: dHead, k: keys,
            p + (head * queries + rows.lowerBound) * keys, keys,
            v + segment.keys.lowerBound * width + head * dHead, width,
            beta: 0, z + (segment.queries.lowerBound + rows.lowerBound) * width + head * dHead,
            width)
        }
      }
    }
  }
}

/// Query rows in blocks: one head's block of scores stays in cache.
private func attentionBlocks(_ queries: Int) -> [Range<Int>] {
  stride(from: 0, to: queries, by: 64).map { $0..<Swift.min(queries, $0 + 64) }
}

private func checkHeads(_ q: Tensor, _ k: Tensor, _ v: Tensor) {
  precondition(
    q.rank == 3 && q.shape.dropFirst() == k.shape.dropFirst() && k.shape == v.shape,
    "attention: q has shape \(q.shape), k \(k.shape), v \(v.shape)")
}
