// Coordinates of the vectors that sum to zero, one fewer than they have scalars, in double precision
// over all threads.

/// A basis of the d − 1 dimensional space of vectors of d scalars that sum to zero.
public enum ZeroSumBasis: Sendable {
  /// Helmert's orthonormal basis: vector k = 1 … d − 1 is `(1, …, 1, −k, 0, …)/√(k(k+1))` with k ones.
  /// Norms and angles stay what they are.
  case helmert
  /// The first d − 1 scalars are the coordinates, the last is minus their sum. Norms and angles change.
  case dropLast
}

extension Tensor {
  /// The coordinates of each row less its mean: `[…, d]` → `[…, d − 1]`.
  ///
  /// - Precondition: rows of two scalars or more.
  public func coordinates(in basis: ZeroSumBasis) -> Tensor {
    rowwise { d, x, y in
      switch basis {
      case .helmert: helmert(d, { Double(x[$0]) }, { y[$0] = $1 })
      case .dropLast:
        var sum = 0.0
        for i in 0..<d { sum += Double(x[i]) }
        for i in 0..<d - 1 { y[i] = Float(Double(x[i]) - sum / Double(d)) }
      }
    }
  }

  /// The linear maps that give for coordinates what each row, a linear map of vectors of sum zero, gives
  /// for the vector itself: `[…, d]` → `[…, d − 1]`.
  ///
  /// - Precondition: rows of two scalars or more.
  public func readingCoordinates(in basis: ZeroSumBasis) -> Tensor {
    rowwise { d, x, y in
      switch basis {
      case .helmert: helmert(d, { Double(x[$0]) }, { y[$0] = $1 })
      case .dropLast: for i in 0..<d - 1 { y[i] = Float(Double(x[i]) - Double(x[d - 1])) }
      }
    }
  }

  /// The same of a matrix whose columns are the linear maps: `[d, n]` → `[d − 1, n]`.
  ///
  /// - Precondition: two rows or more.
  public func columnsReadingCoordinates(in basis: ZeroSumBasis) -> Tensor {
    let (d, columns) = (shape[0], rowCount)
    precondition(rank == 2 && d > 1, "columnsReadingCoordinates: shape \(shape)")
    var result = Tensor(uninitialized: [d - 1, columns])
    withUnsafeBufferPointer { source in
      result.withUnsafeMutableBufferPointer { target in
        guard let x = source.baseAddress, let y = target.baseAddress else { return }
        parallelRows(columns, rowWork: 4 * d) { range in
          // Row by row, as the memory lies.
          var sums = [Double](repeating: 0, count: range.count)
          for row in 0..<d - 1 {
            let (own, next) = (x + row * columns, x + (row + 1) * columns)
            let k = Double(row + 1)
            let scale = 1 / (k * (k + 1)).squareRoot()
            let last = x + (d - 1) * columns
            for j in range {
              switch basis {
              case .helmert:
                sums[j - range.lowerBound] += Double(own[j])
                y[row * columns + j] = Float(
                  (sums[j - range.lowerBound] - k * Double(next[j])) * scale)
              case .dropLast: y[row * columns + j] = Float(Double(own[j]) - Double(last[j]))
              }
            }
          }
        }
      }
    }
    return result
  }

  /// Each row of d scalars made one of d − 1.
  @inline(__always)
  private func rowwise(
    _ body: (Int, UnsafePointer<Float>, UnsafeMutablePointer<Float>) -> Void
  ) -> Tensor {
    let d = shape.last ?? 0
    precondition(d > 1, "coordinates of rows of shape \(shape)")
    let rows = count / d
    var result = Tensor(uninitialized: shape.dropLast() + [d - 1])
    withUnsafeBufferPointer { source in
      result.withUnsafeMutableBufferPointer { target in
        guard let x = source.baseAddress, let y = target.baseAddress else { return }
        parallelRows(rows, rowWork: 4 * d) { range in
          for row in range { body(d, x + row * d, y + row * (d - 1)) }
        }
      }
    }
    return result
  }
}

/// `y_k = (x_1 + … + x_k − k·x_{k+1})/√(k(k+1))`.
@inline(__always)
private func helmert(_ d: Int, _ x: (Int) -> Double, _ set: (Int, Float) -> Void) {
  var sum = 0.0
  for i in 0..<d - 1 {
    sum += x(i)
    let k = Double(i + 1)
    set(i, Float((sum - k * x(i + 1)) / (k * (k + 1)).squareRoot()))
  }
}
