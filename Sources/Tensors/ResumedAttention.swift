import CKernels

/// Which rows a run has of its own, by position; at all other positions it has its base's.
public struct OwnRows: Sendable {
  /// The positions; empty where the run has none of its own.
  public let positions: Range<Int>
  /// The row of the first of them in the packed tensor.
  public let start: Int

  /// Rows from `start` on for `positions`.
  public init(_ positions: Range<Int>, at start: Int) {
    self.positions = positions
    self.start = start
  }

  /// None.
  public static let none = OwnRows(0..<0, at: 0)

  /// The pieces of `range` that lie together in memory, in order: in the packed tensor, or in the
  /// base.
  fileprivate func forEachPiece(
    of range: Range<Int>, _ body: (_ positions: Range<Int>, _ own: Bool, _ row: Int) -> Void
  ) {
    let shared = positions.clamped(to: range)
    if shared.isEmpty { return body(range, false, range.lowerBound) }
    if range.lowerBound < shared.lowerBound {
      body(range.lowerBound..<shared.lowerBound, false, range.lowerBound)
    }
    body(shared, true, start + shared.lowerBound - positions.lowerBound)
    if shared.upperBound < range.upperBound {
      body(shared.upperBound..<range.upperBound, false, shared.upperBound)
    }
  }
}

/// A run that has some queries, keys and values of its own and shares all others with a base run.
public struct ResumedSegment: Sendable {
  /// Which base.
  public let base: Int
  /// The positions whose attention is wanted.
  public let positions: Range<Int>
  /// Its own queries.
  public let queries: OwnRows
  /// Its own keys.
  public let keys: OwnRows
  /// Its own values.
  public let values: OwnRows

  /// A run on top of base number `base`.
  public init(
    base: Int, positions: Range<Int>, queries: OwnRows, keys: OwnRows, values: OwnRows
  ) {
    self.base = base
    self.positions = positions
    self.queries = queries
    self.keys = keys
    self.values = values
  }
}

/// Queries, keys and values of some rows, or of a whole run.
public struct AttentionInputs: Sendable {
  /// Queries, shape `[rows, head, d_head]`.
  public let q: Tensor
  /// Keys, likewise; any number of rows.
  public let k: Tensor
  /// Values, likewise.
  public let v: Tensor

  /// The three.
  public init(q: Tensor, k: Tensor, v: Tensor) {
    self.q = q
    self.k = k
    self.v = v
  }
}

/// Causal attention of runs that resume base runs: `z = softmax(scale·q·kᵀ)·v` of their wanted
/// positions, with the keys and values of the bases read where they are.
///
/// - Parameters:
///   - own: the runs' own rows, packed.
///   - bases: the base runs, whole.
///   - patterns: of each base the pattern to use in place of the softmax, shape
///     `[head, query_pos, key_pos]`; nil computes it.
///   - segments: the runs.
///   - scale: the factor of the scores.
/// - Returns: shape `[rows, head, d_head]`, the segments' positions one after another.
/// - Precondition: rank 3, and heads and `d_head` agree.
public func resumedAttention(
  _ own: AttentionInputs, bases: [AttentionInputs], patterns: [Tensor]?,
  segments: [ResumedSegment], scale: Float
) -> Tensor {
  let (heads, dHead) = (own.q.shape[1], own.q.shape[2])
  for inputs in bases + [own] {
    precondition(
      [inputs.q, inputs.k, inputs.v].allSatisfy { $0.shape.dropFirst() == [heads, dHead] },
      "resumedAttention: q has shape \(inputs.q.shape), k \(inputs.k.shape), v \(inputs.v.shape)")
  }
  let width = heads * dHead

  // One task is a block of one run's queries, with all of its heads.
  struct Task {
    let segment: ResumedSegment
    let positions: Range<Int>
    let row: Int
  }
  var tasks: [Task] = []
  var row = 0
  for segment in segments {
    for first in stride(
      from: segment.positions.lowerBound, to: segment.positions.upperBound, by: 64)
    {
      let end = Swift.min(segment.positions.upperBound, first + 64)
      tasks.append(Task(segment: segment, positions: first..<end, row: row))
      row += end - first
    }
  }
  var z = Tensor(uninitialized: [row, heads, dHead])
  BLAS.prepare()
  let ownRows = AttentionPointers(own)
  let baseRows = bases.map { AttentionPointers($0) }
  z.withUnsafeMutableBufferPointer { zs in
    guard let z = zs.baseAddress else { return }
    // Few tasks are cut by heads, too.
    let headBlocks = tasks.count < 64 ? Swift.min(heads, 4) : 1
    let batch = Swift.max(1, tasks.count / 64)
    let batches = (tasks.count + batch - 1) / batch
    parallelChunks(batches * headBlocks) { chunk in
      let part = chunk % headBlocks
      let ownHeads = part * heads / headBlocks..<(part + 1) * heads / headBlocks
      let first = chunk / headBlocks * batch
      var scores = Tensor(uninitialized: [0])
      for task in tasks[first..<Swift.min(tasks.count, first + batch)] {
        let (segment, positions) = (task.segment, task.positions)
        let (count, keys) = (positions.count, positions.upperBound)
        if scores.count < count * keys { scores = Tensor(uninitialized: [count * keys]) }
        let base = baseRows[segment.base]
        scores.withUnsafeMutableBufferPointer { buffer in
          guard let buffer = buffer.baseAddress else { return }
          for head in ownHeads {
            let column = head * dHead
            var (weights, stride) = (UnsafePointer(buffer), keys)
            if let patterns {
              let pattern = patterns[segment.base]
              stride = pattern.shape[2]
              weights = UnsafePointer(
                pattern.storage.base + pattern.offset
                  + (head * pattern.shape[1] + positions.lowerBound) * stride)
            } else {
              segment.queries.forEachPiece(of: positions) { queries, isOwn, queryRow in
                let q = (isOwn ? ownRows : base).q + queryRow * width + column
                segment.keys.forEachPiece(of: 0..<keys) { keyPositions, isOwn, keyRow in
                  // Keys after the last of these queries are masked anyway.
                  let visible = Swift.min(keyPositions.upperBound, queries.upperBound)
                  if visible <= keyPositions.lowerBound { return }
                  sgemm(
                    m: queries.count, n: visible - keyPositions.lowerBound, k: dHead, q, width,
                    (isOwn ? ownRows : base).k + keyRow * width + column, width, transposed: true,
                    beta: 0,
                    buffer + (queries.lowerBound - positions.lowerBound) * keys
                      + keyPositions.lowerBound, keys)
                }
              }
              nl_softmax(count, keys, keys, buffer, keys, buffer, scale, positions.lowerBound, 1)
            }
            segment.values.forEachPiece(of: 0..<keys) { valuePositions, isOwn, valueRow in
              sgemm(
                m: count, n: dHead, k: valuePositions.count, weights + valuePositions.lowerBound,
                stride, (isOwn ? ownRows : base).v + valueRow * width + column, width,
                beta: valuePositions.lowerBound == 0 ? 0 : 1, z + task.row * width + column, width)
            }
          }
        }
      }
    }
  }
  withExtendedLifetime((own, bases, patterns)) {}
  return z
}

/// Where queries, keys and values lie.
private struct AttentionPointers {
  let q: UnsafePointer<Float>
  let k: UnsafePointer<Float>
  let v: UnsafePointer<Float>

  init(_ inputs: AttentionInputs) {
    q = UnsafePointer(inputs.q.storage.base + inputs.q.offset)
    k = UnsafePointer(inputs.k.storage.base + inputs.k.offset)
    v = UnsafePointer(inputs.v.storage.base + inputs.v.offset)
  }
}
