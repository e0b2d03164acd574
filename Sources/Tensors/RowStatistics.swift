import CKernels
import RealModule

/// What one row of logits says.
public struct RowStatistics: Sendable, Equatable {
  /// The most likely index, the first of equals.
  public var top = 0
  /// Its probability.
  public var topProbability = 0.0
  /// `−Σ p·ln p`, in nats.
  public var entropy = 0.0
  /// `ln Σ exp(x)`.
  public var logSumExp = 0.0
  /// The target's logit; 0 without a target.
  public var targetLogit = 0.0
  /// The target's probability.
  public var targetProbability = 0.0
  /// How many entries are strictly larger than the target's.
  public var targetRank = 0

  /// The cross-entropy of the target, `−ln p`, in nats.
  public var loss: Double { logSumExp - targetLogit }
}

/// The statistics of each row of logits, in double precision.
///
/// - Parameters:
///   - logits: shape `[rows, d_vocab]`.
///   - target: the index whose logit, probability and rank are wanted.
/// - Precondition: `target` is a column.
/// - Complexity: one exponential a scalar.
public func rowStatistics(_ logits: Tensor, target: Int?) -> [RowStatistics] {
  statistics(logits) { _ in target }
}

/// The statistics of each row of logits with a target of its own, in double precision.
///
/// - Parameters:
///   - logits: shape `[rows, d_vocab]`.
///   - targets: of each row the index whose logit, probability and rank are wanted.
/// - Precondition: there are as many targets as rows, and all are columns.
/// - Complexity: one exponential a scalar.
public func rowStatistics(_ logits: Tensor, targets: [Int]) -> [RowStatistics] {
  precondition(
    targets.count == logits.shape[0],
    "rowStatistics: \(targets.count) targets of \(logits.shape[0]) rows")
  return statistics(logits) { targets[$0] }
}

private func statistics(_ logits: Tensor, target: (Int) -> Int?) -> [RowStatistics] {
  let (rows, columns) = (logits.shape[0], logits.rowCount)
  for row in 0..<rows {
    let target = target(row) ?? 0
    precondition(
      target >= 0 && target < columns, "rowStatistics: target \(target) of \(columns) columns")
  }
  return [RowStatistics](unsafeUninitializedCapacity: rows) { results, count in
    logits.withUnsafeBufferPointer { source in
      guard let base = source.baseAddress, let results = results.baseAddress else { return }
      parallelRows(rows, rowWork: columns) { range in
        for row in range {
          (results + row).initialize(to: statistics(base + row * columns, columns, target(row)))
        }
      }
    }
    count = rows
  }
}

private func statistics(
  _ x: UnsafePointer<Float>, _ count: Int, _ target: Int?
) -> RowStatistics {
  var result = RowStatistics()
  if count == 0 { return result }
  // Σ e^(x − max) and Σ (x − max)·e^(x − max) give the normaliser and the entropy.
  var (sum, weighted) = (0.0, 0.0)
  nl_logit_row(
    count, x, target.map { x[$0] } ?? .infinity, &result.top, &result.targetRank, &sum, &weighted)
  let logSum = Double.log(sum)
  result.logSumExp = Double(x[result.top]) + logSum
  result.entropy = logSum - weighted / sum
  result.topProbability = 1 / sum
  if let target {
    result.targetLogit = Double(x[target])
    result.targetProbability = Double.exp(result.targetLogit - result.logSumExp)
  }
  return result
}

/// How far two distributions over the same tokens are apart, in nats.
public struct RowDivergence: Sendable, Equatable {
  /// `½·KL(p‖m) + ½·KL(q‖m)` with `m = (p + q)/2`: from 0 to ln 2.
  public var jensenShannon = 0.0
  /// `KL(p‖q) = Σ p·ln(p/q)`.
  public var kullbackLeibler = 0.0
  /// `KL(q‖p)`.
  public var reverse = 0.0
}

/// The divergence of each row of logits from the same row of others, in double precision; exactly 0 where
/// the rows are equal.
///
/// - Parameters:
///   - logits: shape `[rows, d_vocab]`; their softmax is p.
///   - other: the same shape; their softmax is q.
///   - normalizers: `ln Σ exp` of each row of `logits`.
///   - otherNormalizers: the same of `other`.
/// - Precondition: the shapes agree, and there are as many normalizers as rows.
/// - Complexity: two exponentials and a logarithm a scalar.
public func rowDivergences(
  _ logits: Tensor, _ other: Tensor, normalizers: [Double], otherNormalizers: [Double]
) -> [RowDivergence] {
  let (rows, columns) = (logits.shape[0], logits.rowCount)
  precondition(
    logits.shape == other.shape && normalizers.count == rows && otherNormalizers.count == rows,
    "rowDivergences: shapes \(logits.shape), \(other.shape), \(normalizers.count) and "
      + "\(otherNormalizers.count) normalizers")
  return [RowDivergence](unsafeUninitializedCapacity: rows) { results, count in
    logits.withUnsafeBufferPointer { logits in
      other.withUnsafeBufferPointer { other in
        guard let a = logits.baseAddress, let b = other.baseAddress,
          let results = results.baseAddress
        else { return }
        parallelRows(rows, rowWork: columns) { range in
          for row in range {
            var found = RowDivergence()
            nl_divergence_row(
              columns, a + row * columns, b + row * columns, normalizers[row],
              otherNormalizers[row], &found.jensenShannon, &found.kullbackLeibler, &found.reverse)
            // Rounding may leave a little less than nothing; a NaN stays.
            if found.jensenShannon < 0 { found.jensenShannon = 0 }
            if found.kullbackLeibler < 0 { found.kullbackLeibler = 0 }
            if found.reverse < 0 { found.reverse = 0 }
            (results + row).initialize(to: found)
          }
        }
      }
    }
    count = rows
  }
}
