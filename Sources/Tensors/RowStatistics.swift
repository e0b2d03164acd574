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
  for i in 1..<Swift.max(count, 1) where x[i] > x[result.top] { result.top = i }
  let largest = Double(x[result.top])
  // Σ e^(x − max) and Σ (x − max)·e^(x − max) give the normaliser and the entropy.
  var (sum, weighted) = (0.0, 0.0)
  for i in 0..<count {
    let difference = Double(x[i]) - largest
    // Below e^-60 nothing is left that a sum near 1 could show.
    if difference < -60 { continue }
    let weight = Double.exp(difference)
    sum += weight
    weighted += weight * difference
  }
  let logSum = Double.log(sum)
  result.logSumExp = largest + logSum
  result.entropy = logSum - weighted / sum
  result.topProbability = 1 / sum
  if let target {
    let logit = x[target]
    result.targetLogit = Double(logit)
    result.targetProbability = Double.exp(Double(logit) - result.logSumExp)
    for i in 0..<count where x[i] > logit { result.targetRank += 1 }
  }
  return result
}
