import RealModule

/// The tokens of a prompt as points of a path: what their rows, `[tokens, d]`, say in double precision.
extension Tensor {
  /// The rows less their mean, each divided by its length; a row equal to the mean becomes zeros.
  ///
  /// A row whose length is a ten-millionth of the longest row's before centring is rounding, and counts
  /// as equal to the mean.
  ///
  /// - Returns: this tensor's shape.
  /// - Precondition: rank 2, at least one row.
  public func centredUnitRows() -> Tensor {
    precondition(rank == 2 && shape[0] > 0, "centredUnitRows: shape \(shape)")
    let (rows, d) = (shape[0], rowCount)
    let mean = sumOfRows(weightedBy: Array(repeating: 1 / Double(rows), count: rows))
    var result = Tensor(uninitialized: shape)
    withUnsafeBufferPointer { source in
      result.withUnsafeMutableBufferPointer { target in
        guard let x = source.baseAddress, let z = target.baseAddress else { return }
        var longest = 0.0
        for row in 0..<rows { longest = Swift.max(longest, squareSum(x + row * d, d)) }
        for row in 0..<rows {
          let (x, z) = (x + row * d, z + row * d)
          var square = 0.0
          for i in 0..<d {
            let value = Double(x[i]) - mean[i]
            square = Relaxed.multiplyAdd(value, value, square)
          }
          let inverse = square > 1e-14 * longest ? 1 / square.squareRoot() : 0
          for i in 0..<d { z[i] = Float((Double(x[i]) - mean[i]) * inverse) }
        }
      }
    }
    return result
  }

  /// The mean angle in radians between each step from row to row and the next; NaN where there are no
  /// two steps that have a direction.
  ///
  /// - Precondition: rank 2.
  public func meanTurnOfSteps() -> Double {
    precondition(rank == 2, "meanTurnOfSteps: shape \(shape)")
    let (rows, d) = (shape[0], rowCount)
    if rows < 3 { return .nan }
    return withUnsafeBufferPointer { source in
      guard let base = source.baseAddress else { return .nan }
      return meanAngle(count: rows - 2) { k in
        let (x, y, z) = (base + k * d, base + (k + 1) * d, base + (k + 2) * d)
        var (first, second, product) = (0.0, 0.0, 0.0)
        for i in 0..<d {
          let middle = Double(y[i])
          let (a, b) = (middle - Double(x[i]), Double(z[i]) - middle)
          first = Relaxed.multiplyAdd(a, a, first)
          second = Relaxed.multiplyAdd(b, b, second)
          product = Relaxed.multiplyAdd(a, b, product)
        }
        return (first, second, product)
      }
    }
  }

  /// The mean angle in radians between each row and the next; NaN where there are no two neighbours that
  /// have a direction.
  ///
  /// - Precondition: rank 2.
  public func meanNeighbourAngle() -> Double {
    precondition(rank == 2, "meanNeighbourAngle: shape \(shape)")
    let (rows, d) = (shape[0], rowCount)
    return withUnsafeBufferPointer { source in
      guard let base = source.baseAddress else { return .nan }
      return meanAngle(count: rows - 1) { k in
        let (x, y) = (base + k * d, base + (k + 1) * d)
        var product = 0.0
        for i in 0..<d { product = Relaxed.multiplyAdd(Double(x[i]), Double(y[i]), product) }
        return (squareSum(x, d), squareSum(y, d), product)
      }
    }
  }
}

private func squareSum(_ x: UnsafePointer<Float>, _ count: Int) -> Double {
  var sum = 0.0
  for i in 0..<count { sum = Relaxed.multiplyAdd(Double(x[i]), Double(x[i]), sum) }
  return sum
}

/// The mean of the angles of pairs of vectors, given by their squares and product; pairs with a zero
/// vector do not count.
@inline(__always)
private func meanAngle(
  count: Int, _ pair: (Int) -> (first: Double, second: Double, product: Double)
) -> Double {
  var (sum, angles) = (0.0, 0)
  for k in 0..<Swift.max(count, 0) {
    let (first, second, product) = pair(k)
    if !(first > 0 && second > 0) { continue }
    let cosine = product / (first.squareRoot() * second.squareRoot())
    sum += Double.acos(Swift.min(Swift.max(cosine, -1), 1))
    angles += 1
  }
  return angles == 0 ? .nan : sum / Double(angles)
}
