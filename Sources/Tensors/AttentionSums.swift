import CKernels
import RealModule

/// Where the tokens of a prompt stand before.
public struct TokenRepeats: Sendable {
  /// For each position the last earlier one with its token; −1 where there is none.
  let previous: [Int]
  /// How many pairs (query, earlier key) of one token there are whose key is not the first position.
  public let duplicates: Int
  /// How many of these pairs have the first position as their key.
  public let duplicatesOfFirst: Int
  /// How many pairs (query, key) there are whose key stands behind an earlier place of the query's token, the
  /// query itself left out.
  public let inductions: Int
  /// How many queries have their own token right before them: there the key behind it is the query's own.
  public let inductionsOfOwn: Int

  /// The repeats in a prompt.
  ///
  /// - Complexity: O(tokens).
  public init(_ tokens: [Int]) {
    var last: [Int: Int] = [:]
    var seen: [Int: Int] = [:]
    var previous: [Int] = []
    var (pairs, ofFirst, ofOwn) = (0, 0, 0)
    for (position, token) in tokens.enumerated() {
      previous.append(last[token] ?? -1)
      pairs += seen[token, default: 0]
      if position > 0 && token == tokens[0] { ofFirst += 1 }
      if position > 0 && token == tokens[position - 1] { ofOwn += 1 }
      last[token] = position
      seen[token, default: 0] += 1
    }
    self.previous = previous
    (duplicates, duplicatesOfFirst) = (pairs - ofFirst, ofFirst)
    (inductions, inductionsOfOwn) = (pairs - ofOwn, ofOwn)
  }

  /// How many positions the prompt has.
  public var count: Int { previous.count }
}

/// Sums over the queries of one head's attention pattern a, without the first query, which attends to
/// itself alone.
public struct AttentionSums: Sendable, Equatable {
  /// Of the entropies H_i = −Σ_j a_ij·ln a_ij, in nats; NaN where a score of any query is not finite.
  public var entropy = 0.0
  /// Of H_i/ln(i + 1).
  public var entropyShare = 0.0
  /// Of the weights on the first key.
  public var first = 0.0
  /// Of the weights on the query's own key.
  public var own = 0.0
  /// Of the weights on the keys between these two.
  public var between = 0.0
  /// How many queries give the first key more than the threshold.
  public var sinks = 0
  /// Of the weights on the key before the query's own, that of the second query left out.
  public var previous = 0.0
  /// The second query's weight on the first key.
  public var previousFirst = 0.0
  /// Of the weights on earlier places of the query's token but the first position.
  public var duplicate = 0.0
  /// Of the weights on the first position where it has the query's token.
  public var duplicateFirst = 0.0
  /// Of the weights on keys that stand behind an earlier place of the query's token, the query's own left out.
  public var induction = 0.0
  /// Of the weights on the query's own key where the token before is the same.
  public var inductionOwn = 0.0
  /// Of the weights on the key `period` − 1 before the query, over the last `period` queries.
  public var offset = 0.0

  static func += (sums: inout AttentionSums, other: AttentionSums) {
    sums.entropy += other.entropy
    sums.entropyShare += other.entropyShare
    sums.first += other.first
    sums.own += other.own
    sums.between += other.between
    sums.sinks += other.sinks
    sums.previous += other.previous
    sums.previousFirst += other.previousFirst
    sums.duplicate += other.duplicate
    sums.duplicateFirst += other.duplicateFirst
    sums.induction += other.induction
    sums.inductionOwn += other.inductionOwn
    sums.offset += other.offset
  }
}

/// Sums over each head's attention pattern of one prompt, made of queries and keys a few rows at a time:
/// no pattern is kept.
///
/// - Parameters:
///   - q: shape `[pos, head, d_head]`.
///   - k: shape `[pos, head, d_head]`.
///   - scale: the factor of the scores.
///   - repeats: where the prompt's tokens stand before.
///   - sinkThreshold: from which weight on the first key a query counts as one of a sink.
///   - period: the distance at which the prompt's end repeats itself, for ``AttentionSums/offset``.
/// - Returns: the sums of each head.
/// - Precondition: the shapes agree, the repeats are of as many positions, and a period is 1 or more and at
///   most half of them.
/// - Complexity: pos²·d_head FLOPs and pos²/2 exponentials a head.
public func attentionSums(
  q: Tensor, k: Tensor, scale: Float, repeats: TokenRepeats, sinkThreshold: Double,
  period: Int? = nil
) -> [AttentionSums] {
  precondition(
    q.rank == 3 && q.shape == k.shape && q.shape[0] == repeats.count,
    "attentionSums: q has shape \(q.shape), k \(k.shape), \(repeats.count) tokens")
  let (length, heads, dHead) = (q.shape[0], q.shape[1], q.shape[2])
  precondition(
    period.map { $0 >= 1 && 2 * $0 <= length } ?? true,
    "attentionSums: period \(period ?? 0) of \(length) tokens")
  let width = heads * dHead
  let blocks = stride(from: 0, to: length, by: 64).map { $0..<Swift.min(length, $0 + 64) }
  let logarithms = (0..<length).map { Double.log(Double($0 + 1)) }
  let tasks = heads * blocks.count
  let batch = Swift.max(1, Swift.min(heads / 4, tasks / 16))
  var partial = [AttentionSums](repeating: AttentionSums(), count: tasks)
  BLAS.prepare()

  q.withUnsafeBufferPointer { qs in
    k.withUnsafeBufferPointer { ks in
      repeats.previous.withUnsafeBufferPointer { previous in
        logarithms.withUnsafeBufferPointer { logarithms in
          partial.withUnsafeMutableBufferPointer { partials in
            guard let q = qs.baseAddress, let k = ks.baseAddress,
              let partial = partials.baseAddress, let previous = previous.baseAddress,
              let logarithms = logarithms.baseAddress
            else { return }
            parallelChunks((tasks + batch - 1) / batch) { chunk in
              // A block's scores, then what the kernel says of each row.
              var memory = Tensor(uninitialized: [64 * (length + 3)])
              memory.withUnsafeMutableBufferPointer { memory in
                guard let scores = memory.baseAddress else { return }
                let rowValues = scores + 64 * length
                for task in chunk * batch..<Swift.min(tasks, (chunk + 1) * batch) {
                  let (head, rows) = (task / blocks.count, blocks[task % blocks.count])
                  let keys = rows.upperBound
                  sgemm(
                    m: rows.count, n: keys, k: dHead,
                    q + rows.lowerBound * width + head * dHead, width, k + head * dHead, width,
                    transposed: true, beta: 0, scores, keys)
                  nl_pattern_rows(
                    rows.count, keys, scores, scale, rows.lowerBound, rowValues, rowValues + 64,
                    rowValues + 128)
                  partial[task] = PatternBlock(
                    rows: rows, weights: scores, inverse: rowValues, between: rowValues + 64,
                    entropy: rowValues + 128, previous: previous, logarithms: logarithms
                  ).sums(sinkThreshold: sinkThreshold, period: period, length: length)
                }
              }
            }
          }
        }
      }
    }
  }
  return (0..<heads).map { head in
    var sums = AttentionSums()
    for block in blocks.indices { sums += partial[head * blocks.count + block] }
    return sums
  }
}

/// Some rows of a pattern: `weights` times the row's `inverse`.
private struct PatternBlock {
  let rows: Range<Int>
  let weights: UnsafePointer<Float>
  let inverse: UnsafePointer<Float>
  let between: UnsafePointer<Float>
  let entropy: UnsafePointer<Float>
  let previous: UnsafePointer<Int>
  let logarithms: UnsafePointer<Double>

  func sums(sinkThreshold: Double, period: Int?, length: Int) -> AttentionSums {
    var sums = AttentionSums()
    for i in rows {
      let row = i - rows.lowerBound
      let (e, factor) = (weights + row * rows.upperBound, Double(inverse[row]))
      let (first, own) = (Double(e[0]) * factor, Double(e[i]) * factor)
      let entropy = Double(entropy[row])
      // The first query's is 0, or not a number.
      sums.entropy += entropy
      if i == 0 { continue }
      sums.entropyShare += entropy / logarithms[i]
      sums.first += first
      sums.own += own
      sums.between += Double(between[row])
      if first > sinkThreshold { sums.sinks += 1 }
      if i == 1 {
        sums.previousFirst += first
      } else {
        sums.previous += Double(e[i - 1]) * factor
      }
      var (duplicate, induction) = (0.0, 0.0)
      var j = previous[i]
      while j >= 0 {
        if j == 0 { sums.duplicateFirst += first } else { duplicate += Double(e[j]) }
        if j + 1 == i { sums.inductionOwn += own } else { induction += Double(e[j + 1]) }
        j = previous[j]
      }
      sums.duplicate += duplicate * factor
      sums.induction += induction * factor
      if let period, i >= length - period { sums.offset += Double(e[i + 1 - period]) * factor }
    }
    return sums
  }
}
