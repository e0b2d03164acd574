import CKernels
import RealModule

/// How much a change of the logits changes a prediction.
public struct PredictionChange: Sendable, Equatable {
  /// Of the cross-entropy of the target, in nats.
  public var loss: Double
  /// Of the entropy, in nats.
  public var entropy: Double

  /// A change.
  public init(loss: Double, entropy: Double) {
    self.loss = loss
    self.entropy = entropy
  }
}

/// Rows of logits that are asked what changes along few directions do to their predictions: each change
/// costs one pass over the vocabulary and no matrix product.
///
/// With probabilities p and a change Δ of the logits, `ζ = Σ p·(e^Δ − 1)` and
/// `D = Σ p·((e^Δ − 1)·(ln p + Δ) + Δ)`, the loss changes by `ln(1 + ζ) − Δ_target` and the entropy H by
/// `ln(1 + ζ) − (D + H·ζ)/(1 + ζ)`: a small change is found to its own relative precision, not to that
/// of the loss.
public struct PredictedRows: Sendable {
  /// What each row says before any change.
  public let statistics: [RowStatistics]
  private let targets: [Int]
  private let columns: Int
  /// `ln p` and p, shape `[rows, d_vocab]`.
  private let logProbabilities: Tensor
  private let probabilities: Tensor
  /// What is stretched, less its mean under p.
  private let base: Tensor

  /// The directions whose part of the vocabulary stays in a processor's cache, and that part.
  private static let directionBlock = 64
  private static let tile = 2048

  /// Rows of logits.
  ///
  /// - Parameters:
  ///   - logits: shape `[rows, d_vocab]`.
  ///   - targets: of each row the index whose loss is wanted.
  ///   - base: what changes may stretch, the logits without a constant part; `logits` itself if nil.
  /// - Precondition: the shapes agree, and all targets are columns.
  public init(_ logits: Tensor, targets: [Int], stretching base: Tensor? = nil) {
    let base = base ?? logits
    precondition(
      logits.rank == 2 && base.shape == logits.shape,
      "PredictedRows: logits of shape \(logits.shape), stretched part \(base.shape)")
    statistics = rowStatistics(logits, targets: targets)
    self.targets = targets
    columns = logits.shape[1]
    var (logs, shares) = (Tensor(uninitialized: logits.shape), Tensor(uninitialized: logits.shape))
    var centered = Tensor(uninitialized: logits.shape)
    Self.prepare(logits, base, statistics, &logs, &shares, &centered)
    (logProbabilities, probabilities, self.base) = (logs, shares, centered)
  }

  private static func prepare(
    _ logits: Tensor, _ base: Tensor, _ statistics: [RowStatistics], _ logs: inout Tensor,
    _ shares: inout Tensor, _ centered: inout Tensor
  ) {
    let (rows, columns) = (logits.shape[0], logits.shape[1])
    logits.withUnsafeBufferPointer { logits in
      base.withUnsafeBufferPointer { base in
        logs.withUnsafeMutableBufferPointer { logs in
          shares.withUnsafeMutableBufferPointer { shares in
            centered.withUnsafeMutableBufferPointer { centered in
              guard let x = logits.baseAddress, let b = base.baseAddress,
                let l = logs.baseAddress, let p = shares.baseAddress, let c = centered.baseAddress
              else { return }
              parallelRows(rows, rowWork: columns) { range in
                for row in range {
                  let start = row * columns
                  let normalizer = statistics[row].logSumExp
                  var mean = 0.0
                  for i in start..<start + columns {
                    let log = Double(x[i]) - normalizer
                    let share = Double.exp(log)
                    l[i] = Float(log)
                    p[i] = Float(share)
                    mean += share * Double(b[i])
                  }
                  let common = Float(mean)
                  for i in start..<start + columns { c[i] = b[i] - common }
                }
              }
            }
          }
        }
      }
    }
  }

  /// What changes do to each row: change j of row r adds `shift[r, j]·directions[j]` to the logits and
  /// stretches what may be stretched by `1 + stretch[r, j]`.
  ///
  /// - Parameters:
  ///   - directions: shape `[changes, d_vocab]`.
  ///   - shift: row-major `[rows, changes]`.
  ///   - stretch: likewise; nil for none.
  ///   - weights: if given, likewise: change j adds `shift[r, j]·Σ_{i ≤ j} weights[r, i]·directions[i]`
  ///     instead.
  /// - Returns: row-major `[rows, changes]`.
  /// - Precondition: the counts agree.
  /// - Complexity: one exponential a row, change and entry of the vocabulary.
  public func changes(
    along directions: Tensor, shift: [Double], stretch: [Double]? = nil,
    cumulating weights: [Double]? = nil
  ) -> [PredictionChange] {
    let (rows, count) = (targets.count, directions.shape[0])
    let cells = rows * count
    precondition(
      directions.rank == 2 && directions.shape[1] == columns && shift.count == cells
        && stretch?.count ?? cells == cells && weights?.count ?? cells == cells,
      "changes: directions of shape \(directions.shape), \(shift.count) shifts of \(rows) rows")
    let (shifts, stretches) = (
      shift.map { Float($0) }, stretch?.map { Float($0) } ?? Array(repeating: 0, count: cells)
    )
    var sums = [Double](repeating: 0, count: 3 * cells)
    var results = Array(repeating: PredictionChange(loss: 0, entropy: 0), count: cells)
    logProbabilities.withUnsafeBufferPointer { logs in
      probabilities.withUnsafeBufferPointer { shares in
        base.withUnsafeBufferPointer { base in
          directions.withUnsafeBufferPointer { u in
            shifts.withUnsafeBufferPointer { shifts in
              stretches.withUnsafeBufferPointer { stretches in
                sums.withUnsafeMutableBufferPointer { sums in
                  results.withUnsafeMutableBufferPointer { results in
                    guard cells > 0, let l = logs.baseAddress, let p = shares.baseAddress,
                      let b = base.baseAddress, let u = u.baseAddress,
                      let shift = shifts.baseAddress, let stretch = stretches.baseAddress,
                      let sums = sums.baseAddress, let results = results.baseAddress
                    else { return }
                    let work = Work(
                      count: count, columns: columns, logs: l, shares: p, base: b, directions: u,
                      shift: shift, stretch: stretch, weights: weights, sums: sums,
                      statistics: statistics, targets: targets)
                    // Sixteen rows share what they read of the directions.
                    parallelChunks((rows + 15) / 16) { chunk in
                      let range = chunk * 16..<Swift.min(rows, chunk * 16 + 16)
                      work.addUp(range, block: Self.directionBlock, tile: Self.tile)
                      for row in range {
                        for change in 0..<count {
                          results[row * count + change] = work.result(row, change)
                        }
                      }
                    }
                  }
                }
              }
            }
          }
        }
      }
    }
    return results
  }
}

/// Rows and changes as pointers.
private struct Work {
  let count: Int
  let columns: Int
  let logs: UnsafePointer<Float>
  let shares: UnsafePointer<Float>
  let base: UnsafePointer<Float>
  let directions: UnsafePointer<Float>
  let shift: UnsafePointer<Float>
  let stretch: UnsafePointer<Float>
  let weights: [Double]?
  let sums: UnsafeMutablePointer<Double>
  let statistics: [RowStatistics]
  let targets: [Int]

  func addUp(_ rows: Range<Int>, block: Int, tile: Int) {
    for first in stride(from: 0, to: columns, by: tile) {
      let width = Swift.min(tile, columns - first)
      if let weights {
        addUp(rows, cumulating: weights, block: block, first, width)
        continue
      }
      for start in stride(from: 0, to: count, by: block) {
        let changes = Swift.min(block, count - start)
        for row in rows {
          kernel(row, start, changes, first, width, directions + start * columns + first, columns)
        }
      }
    }
  }

  private func addUp(
    _ rows: Range<Int>, cumulating weights: [Double], block: Int, _ first: Int, _ width: Int
  ) {
    withUnsafeTemporaryAllocation(of: Float.self, capacity: (block + 1) * width) { scratch in
      guard let scratch = scratch.baseAddress else { return }
      for row in rows {
        // The first row of the scratch is the sum so far.
        scratch.update(repeating: 0, count: width)
        for start in stride(from: 0, to: count, by: block) {
          let changes = Swift.min(block, count - start)
          for change in 0..<changes {
            let weight = Float(weights[row * count + start + change])
            let from = directions + (start + change) * columns + first
            let (before, to) = (scratch + change * width, scratch + (change + 1) * width)
            for i in 0..<width { to[i] = before[i] + weight * from[i] }
          }
          kernel(row, start, changes, first, width, scratch + width, width)
          scratch.update(from: scratch + changes * width, count: width)
        }
      }
    }
  }

  private func kernel(
    _ row: Int, _ start: Int, _ changes: Int, _ first: Int, _ width: Int,
    _ u: UnsafePointer<Float>, _ ldu: Int
  ) {
    let (entry, cell) = (row * columns + first, row * count + start)
    nl_softmax_changes(
      changes, width, logs + entry, shares + entry, base + entry, u, ldu, stretch + cell,
      shift + cell, sums + 3 * cell)
  }

  /// What a change adds to a row's logit, in double precision.
  private func delta(_ row: Int, _ change: Int, _ column: Int) -> Double {
    let cell = row * count + change
    var u = 0.0
    if let weights {
      for i in 0...change {
        u += weights[row * count + i] * Double(directions[i * columns + column])
      }
    } else {
      u = Double(directions[change * columns + column])
    }
    return Double(stretch[cell]) * Double(base[row * columns + column]) + Double(shift[cell]) * u
  }

  func result(_ row: Int, _ change: Int) -> PredictionChange {
    let cell = row * count + change
    let (mass, surprise, largest) = (sums[3 * cell], sums[3 * cell + 1], sums[3 * cell + 2])
    // Large changes, and those that leave little of what was likely, are summed anew from the maximum on.
    guard largest <= 16, mass > -0.98 else { return exactly(row, change) }
    let log = Double.log(onePlus: mass)
    return PredictionChange(
      loss: log - delta(row, change, targets[row]),
      entropy: log - (surprise + statistics[row].entropy * mass) / (1 + mass))
  }

  private func exactly(_ row: Int, _ change: Int) -> PredictionChange {
    let logits = (0..<columns).map { Double(logs[row * columns + $0]) + delta(row, change, $0) }
    let largest = logits.max() ?? 0
    var (sum, weighted) = (0.0, 0.0)
    for logit in logits where logit - largest > -700 {
      let weight = Double.exp(logit - largest)
      sum += weight
      weighted += weight * (logit - largest)
    }
    let log = Double.log(sum)
    return PredictionChange(
      loss: largest + log - logits[targets[row]] - statistics[row].loss,
      entropy: log - weighted / sum - statistics[row].entropy)
  }
}
