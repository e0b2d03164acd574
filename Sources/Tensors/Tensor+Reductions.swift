import RealModule

extension Tensor {
  /// The largest absolute value; 0 if there is none.
  public var maximumMagnitude: Float {
    withUnsafeBufferPointer { source in
      var result: Float = 0
      for scalar in source { result = Swift.max(result, Swift.abs(scalar)) }
      return result
    }
  }

  /// The sum of all scalars, in double precision.
  public var sum: Double {
    withUnsafeBufferPointer { source in
      var result = 0.0
      for scalar in source { result += Double(scalar) }
      return result
    }
  }

  /// The index of the largest scalar, the first of equals; nil if there is none.
  public var indexOfMaximum: Int? {
    withUnsafeBufferPointer { source in
      guard var best = source.first else { return nil }
      var index = 0
      for i in 1..<source.count where source[i] > best {
        best = source[i]
        index = i
      }
      return index
    }
  }

  /// The indices of the `k` largest scalars, largest first, the lower index first among equals.
  ///
  /// - Complexity: O(n·log k).
  public func topIndices(_ k: Int) -> [Int] {
    withUnsafeBufferPointer { source in
      // `kept` is sorted, best first; most scalars are turned away by its last element.
      var kept: [Int] = []
      for index in source.indices {
        if kept.count == k {
          guard let last = kept.last, source[index] > source[last] else { continue }
          kept.removeLast()
        }
        var (low, high) = (0, kept.count)
        while low < high {
          let middle = (low + high) / 2
          if source[kept[middle]] >= source[index] { low = middle + 1 } else { high = middle }
        }
        if k > 0 { kept.insert(index, at: low) }
      }
      return kept
    }
  }

  /// The inner product of two tensors of as many scalars, in double precision.
  ///
  /// - Precondition: the counts agree.
  public func dot(_ other: Tensor) -> Double {
    precondition(count == other.count, "dot: shapes \(shape) and \(other.shape)")
    return withUnsafeBufferPointer { a in
      other.withUnsafeBufferPointer { b in
        var result = 0.0
        for i in a.indices { result += Double(a[i]) * Double(b[i]) }
        return result
      }
    }
  }

  /// The mean over the first axis, in double precision: `[rows, …]` → `[…]`.
  ///
  /// - Precondition: at least one row.
  public func meanOverRows() -> Tensor {
    precondition(rank > 0 && shape[0] > 0, "meanOverRows: shape \(shape)")
    let width = rowCount
    let rows = shape[0]
    var sums = [Double](repeating: 0, count: width)
    withUnsafeBufferPointer { source in
      for row in 0..<rows {
        for i in 0..<width { sums[i] += Double(source[row * width + i]) }
      }
    }
    return Tensor(sums.map { Float($0 / Double(rows)) }, shape: Array(shape.dropFirst()))
  }
}

extension Tensor {
  /// The inner products of corresponding groups of scalars: `Σ_j self[row, group, j]·other[row, group, j]`.
  ///
  /// - Parameters:
  ///   - other: this tensor's shape, or one row's, which then meets every row.
  ///   - groups: how many groups a row is cut into.
  /// - Returns: shape `[rows, groups]`; each product summed in double precision.
  /// - Precondition: the shapes agree and a row can be cut.
  public func groupDots(_ other: Tensor, groups: Int) -> Tensor {
    let (rows, width) = (shape[0], rowCount)
    let isRow = other.count == width
    precondition(
      width % groups == 0 && (isRow || other.count == count),
      "groupDots: shapes \(shape) and \(other.shape) in \(groups) groups")
    let size = width / groups
    var result = Tensor(uninitialized: [rows, groups])
    withUnsafeBufferPointer { a in
      other.withUnsafeBufferPointer { b in
        result.withUnsafeMutableBufferPointer { out in
          guard let a = a.baseAddress, let b = b.baseAddress, let out = out.baseAddress else {
            return
          }
          parallelRows(rows, rowWork: width) { range in
            for row in range {
              for group in 0..<groups {
                let start = group * size
                let (x, y) = (a + row * width + start, b + (isRow ? 0 : row * width) + start)
                var sum = 0.0
                for j in 0..<size { sum = Relaxed.multiplyAdd(Double(x[j]), Double(y[j]), sum) }
                out[row * groups + group] = Float(sum)
              }
            }
          }
        }
      }
    }
    return result
  }
}

extension Tensor {
  /// The sum of the rows' unit vectors, `Σ y/‖y‖` with `y = row ⊙ gain + bias`, in double precision.
  ///
  /// - Parameters:
  ///   - gain: shape `[d]`; nil for 1.
  ///   - bias: shape `[d]`; nil for 0.
  /// - Returns: the sum, and how many rows have a direction: those of zeros have none.
  /// - Precondition: rank 2; gain and bias have as many scalars as a row.
  public func sumOfDirections(
    gain: Tensor? = nil, bias: Tensor? = nil
  ) -> (sum: [Double], count: Int) {
    let (rows, d) = (shape[0], rowCount)
    precondition(
      rank == 2 && (gain?.count ?? d) == d && (bias?.count ?? d) == d,
      "sumOfDirections: shape \(shape), gain \(gain?.shape ?? []), bias \(bias?.shape ?? [])")
    let gain = gain ?? Tensor(repeating: 1, shape: [d])
    let bias = bias ?? Tensor(zeros: [d])
    var weights = [Double](repeating: 0, count: rows)
    withUnsafeBufferPointer { source in
      gain.withUnsafeBufferPointer { gain in
        bias.withUnsafeBufferPointer { bias in
          weights.withUnsafeMutableBufferPointer { weights in
            guard let x = source.baseAddress, let gain = gain.baseAddress,
              let bias = bias.baseAddress, let weights = weights.baseAddress
            else { return }
            parallelRows(rows, rowWork: d) { range in
              for row in range {
                let norm = gainedNorm(x + row * d, gain, bias, d)
                weights[row] = norm > 0 ? 1 / norm : 0
              }
            }
          }
        }
      }
    }
    let sum = sumOfRows(weightedBy: weights)
    let total = weights.reduce(0, +)
    return (
      (0..<d).map { sum[$0] * Double(gain.span[$0]) + total * Double(bias.span[$0]) },
      weights.count { $0 > 0 }
    )
  }
}

/// ‖x ⊙ gain + bias‖.
private func gainedNorm(
  _ x: UnsafePointer<Float>, _ gain: UnsafePointer<Float>, _ bias: UnsafePointer<Float>,
  _ count: Int
) -> Double {
  // Eight sums in turn, each a plain float32 sum of an eighth: they fill a vector register.
  var sums = SIMD8<Float>(repeating: 0)
  var i = 0
  while i + 8 <= count {
    var y = SIMD8<Float>()
    for j in 0..<8 { y[j] = x[i + j] * gain[i + j] + bias[i + j] }
    sums += y * y
    i += 8
  }
  var total = 0.0
  for j in 0..<8 { total += Double(sums[j]) }
  while i < count {
    let y = Double(x[i] * gain[i] + bias[i])
    total += y * y
    i += 1
  }
  return total.squareRoot()
}
