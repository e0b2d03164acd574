import RealModule

/// What one row of the residual stream is, and how the write that made it changed the row before.
///
/// With x the row before the write, Δ = y − x the write, y the row itself. What does not exist (the
/// angle of a zero vector) is NaN.
public struct StreamStep: Sendable, Equatable {
  /// ‖y‖².
  public var square = 0.0
  /// The mean of y's squared coordinates about their mean.
  public var variance = 0.0
  /// ⟨Py, Pz⟩ with z the row of another stream, P = I − ûûᵀ; 0 without one.
  public var centredProduct = 0.0
  /// ‖x‖²; NaN where there is no row before.
  public var squareBefore = Double.nan
  /// ‖Δ‖².
  public var writeSquare = Double.nan
  /// ⟨x, Δ⟩.
  public var writeProduct = Double.nan

  /// ∠(x, y) in degrees.
  public var turnAngle: Double {
    if !(squareBefore > 0 && square > 0) { return .nan }
    // ‖x × y‖ = ‖x × Δ‖: nothing cancels where the write is small.
    let cross = squareBefore * writeSquare - writeProduct * writeProduct
    return Double.atan2(y: Swift.max(cross, 0).squareRoot(), x: squareBefore + writeProduct)
      * (180 / .pi)
  }

  /// ‖Δ‖/‖x‖.
  public var relativeWrite: Double {
    squareBefore > 0 ? (writeSquare / squareBefore).squareRoot() : .nan
  }

  /// cos(Δ, x).
  public var writeCosine: Double {
    guard squareBefore > 0, writeSquare > 0 else { return .nan }
    let cosine = writeProduct / (squareBefore.squareRoot() * writeSquare.squareRoot())
    return Swift.min(Swift.max(cosine, -1), 1)
  }

  /// cos(x, y).
  public var cosine: Double {
    guard squareBefore > 0, square > 0 else { return .nan }
    let cosine =
      (squareBefore + writeProduct) / (squareBefore.squareRoot() * square.squareRoot())
    return Swift.min(Swift.max(cosine, -1), 1)
  }
}

/// How each row came about, in double precision.
///
/// - Parameters:
///   - after: the stream y, shape `[rows, d]`.
///   - before: the stream x before the write; nil for none.
///   - other: the stream z of ``StreamStep/centredProduct``; nil for none.
/// - Precondition: the streams have the same shape.
/// - Complexity: one pass over the streams.
public func streamSteps(_ after: Tensor, from before: Tensor?, along other: Tensor? = nil)
  -> [StreamStep]
{
  let (rows, d) = (after.shape[0], after.rowCount)
  for tensor in [before, other].compactMap({ $0 }) {
    precondition(
      tensor.shape == after.shape, "streamSteps: shapes \(after.shape) and \(tensor.shape)")
  }
  return [StreamStep](unsafeUninitializedCapacity: rows) { steps, count in
    after.withUnsafeBufferPointer { y in
      (before ?? after).withUnsafeBufferPointer { x in
        (other ?? after).withUnsafeBufferPointer { z in
          guard let y = y.baseAddress, let x = x.baseAddress, let z = z.baseAddress,
            let steps = steps.baseAddress
          else { return }
          parallelRows(rows, rowWork: 4 * d) { range in
            for row in range {
              let start = row * d
              var step = StreamStep()
              addState(y + start, d, &step)
              if other != nil { addProduct(y + start, z + start, d, &step) }
              if before != nil { addWrite(x + start, y + start, d, &step) }
              (steps + row).initialize(to: step)
            }
          }
        }
      }
    }
    count = rows
  }
}

private func addState(_ y: UnsafePointer<Float>, _ d: Int, _ step: inout StreamStep) {
  var (sum, square, deviations) = (0.0, 0.0, 0.0)
  // About the first coordinate: equal coordinates vary by exactly 0.
  let shift = Double(y[0])
  for i in 0..<d {
    let v = Double(y[i])
    let deviation = v - shift
    square = Relaxed.multiplyAdd(v, v, square)
    sum = Relaxed.sum(sum, deviation)
    deviations = Relaxed.multiplyAdd(deviation, deviation, deviations)
  }
  step.square = square
  let mean = sum / Double(d)
  step.variance = Swift.max(0, deviations / Double(d) - mean * mean)
}

private func addProduct(
  _ y: UnsafePointer<Float>, _ z: UnsafePointer<Float>, _ d: Int, _ step: inout StreamStep
) {
  var (ySum, zSum, product) = (0.0, 0.0, 0.0)
  for i in 0..<d {
    let (v, w) = (Double(y[i]), Double(z[i]))
    ySum = Relaxed.sum(ySum, v)
    zSum = Relaxed.sum(zSum, w)
    product = Relaxed.multiplyAdd(v, w, product)
  }
  step.centredProduct = product - ySum * zSum / Double(d)
}

private func addWrite(
  _ x: UnsafePointer<Float>, _ y: UnsafePointer<Float>, _ d: Int, _ step: inout StreamStep
) {
  var (before, write, product) = (0.0, 0.0, 0.0)
  for i in 0..<d {
    let v = Double(x[i])
    let change = Double(y[i]) - v
    before = Relaxed.multiplyAdd(v, v, before)
    write = Relaxed.multiplyAdd(change, change, write)
    product = Relaxed.multiplyAdd(v, change, product)
  }
  (step.squareBefore, step.writeSquare, step.writeProduct) = (before, write, product)
}
