import RealModule

/// What a norm does to one row x of the stream on its way to LN(x) = z ⊙ g + b.
///
/// Angles are in degrees; a quantity that does not exist (the angle of a zero vector) is NaN.
public enum NormStatistic: Int, CaseIterable, Sendable {
  /// mean(x).
  case mean
  /// The standard deviation of x's coordinates, without ε.
  case std
  /// ‖x‖.
  case norm
  /// (x·û)²/‖x‖², the share of ‖x‖² along the ones vector.
  case meanShare
  /// ∠(x, 1), 0 … 180.
  case angleToOnes
  /// ∠(x, x − mean(x)); 0 where nothing is centred.
  case angleProjection
  /// ∠(z, g ⊙ z).
  case angleGain
  /// ∠(g ⊙ z, g ⊙ z + b).
  case angleBias
  /// ∠(x, LN(x)).
  case angleTotal
  /// ‖z‖/√d.
  case radiusRatio
  /// max|z_i| over the most that a row could have there.
  case saturation
  /// The excess kurtosis of x's coordinates.
  case kurtosis
  /// (Σx²)²/Σx⁴, the number of coordinates that carry x.
  case participation
  /// The share of ‖x‖² in the ⌊d/3⌋ (at least one) coordinates of largest |x|.
  case topThirdShare
}

/// What a norm does to each row of `x`, in double precision.
///
/// - Parameters:
///   - x: shape `[rows, d]`.
///   - normalization: LayerNorm centres, RMSNorm does not; nil stands for a norm whose fixed divisor
///     is folded away: rows are centred and divided by 1, and `saturation` is held against the row's
///     own deviation.
///   - epsilon: ε.
///   - gain: g, shape `[d]`; nil for ones.
///   - bias: b, shape `[d]`; nil for zeros.
/// - Returns: shape `[statistic, rows]`, in the order of `NormStatistic`.
/// - Precondition: gain and bias have `d` scalars, and `normalization` is not CRMSNorm, whose rows lack a
///   coordinate.
/// - Complexity: three passes over a row, and about fifteen counts for its upper third.
public func normGeometry(
  _ x: Tensor, _ normalization: RowNormalization?, epsilon: Float = 0, gain: Tensor? = nil,
  bias: Tensor? = nil
) -> Tensor {
  let (rows, d) = (x.shape[0], x.rowCount)
  precondition(
    d > 0 && (gain?.count ?? d) == d && (bias?.count ?? d) == d,
    "normGeometry: x has shape \(x.shape), gain \(gain?.shape ?? []), bias \(bias?.shape ?? [])")
  let gain = gain ?? Tensor(repeating: 1, shape: [d])
  let bias = bias ?? Tensor(zeros: [d])
  let kind: NormRow.Kind =
    switch normalization {
    case nil: .folded
    case .layerNorm: .layerNorm
    case .rmsNorm: .rmsNorm
    case .crmsNorm: preconditionFailure("normGeometry: the rows lack a coordinate")
    }
  let statistics = NormStatistic.allCases.count
  var result = Tensor(uninitialized: [statistics, rows])
  x.withUnsafeBufferPointer { xs in
    gain.withUnsafeBufferPointer { gains in
      bias.withUnsafeBufferPointer { biases in
        result.withUnsafeMutableBufferPointer { results in
          guard let x = xs.baseAddress, let g = gains.baseAddress, let b = biases.baseAddress,
            let out = results.baseAddress
          else { return }
          let row = NormRow(d: d, kind: kind, epsilon: Double(epsilon), gain: g, bias: b)
          parallelRows(rows, rowWork: 32 * d) { range in
            withUnsafeTemporaryAllocation(of: Int32.self, capacity: d) { scratch in
              guard let magnitudes = scratch.baseAddress else { return }
              for r in range {
                row.measure(x + r * d, magnitudes) { out[$0.rawValue * rows + r] = Float($1) }
              }
            }
          }
        }
      }
    }
  }
  return result
}

/// One norm, ready to measure rows.
private struct NormRow {
  enum Kind { case layerNorm, rmsNorm, folded }

  let d: Int
  let kind: Kind
  let epsilon: Double
  let gain: UnsafePointer<Float>
  let bias: UnsafePointer<Float>
  let biasSquare: Double
  let meanGain: Double

  init(
    d: Int, kind: Kind, epsilon: Double, gain: UnsafePointer<Float>, bias: UnsafePointer<Float>
  ) {
    (self.d, self.kind, self.epsilon, self.gain, self.bias) = (d, kind, epsilon, gain, bias)
    let indices = 0..<d
    biasSquare = indices.reduce(0) { $0 + Double(bias[$1]) * Double(bias[$1]) }
    meanGain = indices.reduce(0) { $0 + Double(gain[$1]) } / Double(d)
  }

  /// Calls `store` with each statistic of the row.
  @inline(__always)
  func measure(
    _ x: UnsafePointer<Float>, _ magnitudes: UnsafeMutablePointer<Int32>,
    _ store: (NormStatistic, Double) -> Void
  ) {
    let n = Double(d)
    let power = powers(x)
    let mean = power.sum / n
    let moment = moments(x, about: mean)
    let center = kind == .rmsNorm ? 0 : mean
    // Σ(x − center)², which the norm divides by d and takes the root of.
    let spread = kind == .rmsNorm ? power.square : moment.second
    let scale = kind == .folded ? 1 : (spread / n + epsilon).squareRoot()
    let image = images(x, center: center, scale: scale)
    let largest = Swift.max(moment.high - center, center - moment.low)

    let alongOnes = mean * n.squareRoot()
    let across = moment.second.squareRoot()
    store(.mean, mean)
    store(.std, (moment.second / n).squareRoot())
    store(.norm, power.square.squareRoot())
    store(.meanShare, Swift.min(alongOnes * alongOnes / power.square, 1))
    store(.angleToOnes, degrees(across, alongOnes))
    store(
      .angleProjection,
      kind == .rmsNorm ? degrees(0, spread) : degrees(Swift.abs(alongOnes), across))
    // g ⊙ z and (g − mean g) ⊙ z have the same cross product with z, and the second is small where the
    // gains are nearly equal.
    let turnSquare = image.zSquare * image.tiltedSquare - image.zTilted * image.zTilted
    store(
      .angleGain,
      image.zSquare == 0 || image.gainedSquare == 0
        ? .nan
        : degrees(
          Swift.max(turnSquare, 0).squareRoot(), meanGain * image.zSquare + image.zTilted))
    // ‖u × (u + b)‖ = ‖u × b‖: nothing cancels where the bias is small.
    let crossSquare = image.gainedSquare * biasSquare - image.gainedBias * image.gainedBias
    store(
      .angleBias,
      image.gainedSquare == 0 || image.outputSquare == 0
        ? .nan
        : degrees(
          Swift.max(crossSquare, 0).squareRoot(), image.gainedSquare + image.gainedBias))
    store(.angleTotal, angle(image.inputOutput, power.square, image.outputSquare))
    store(.radiusRatio, (image.zSquare / n).squareRoot())
    let most =
      switch kind {
      case .layerNorm: scale * (n - 1).squareRoot()
      case .rmsNorm: scale * n.squareRoot()
      case .folded: (spread / n * (n - 1)).squareRoot()
      }
    store(.saturation, largest / most)
    store(.kurtosis, n * moment.fourth / (moment.second * moment.second) - 3)
    store(.participation, power.square * power.square / power.fourth)
    store(.topThirdShare, largestShare(x, Swift.max(d / 3, 1), magnitudes) / power.square)
  }

  /// The angle of two vectors from their inner product and squares.
  private func angle(_ dot: Double, _ a: Double, _ b: Double) -> Double {
    if a == 0 || b == 0 { return .nan }
    // Where the angle is small, 1 − cos² keeps half of the digits, acos of the cosine no more.
    return degrees(Swift.max(a * b - dot * dot, 0).squareRoot(), dot)
  }

  /// The angle whose sine and cosine are in this proportion; NaN for the zero vector.
  private func degrees(_ sine: Double, _ cosine: Double) -> Double {
    sine == 0 && cosine == 0 ? .nan : Double.atan2(y: sine, x: cosine) * (180 / .pi)
  }

  /// Σx, Σx², Σx⁴.
  private func powers(
    _ x: UnsafePointer<Float>
  ) -> (sum: Double, square: Double, fourth: Double) {
    var (sum, square, fourth) = (0.0, 0.0, 0.0)
    for i in 0..<d {
      let v = Double(x[i])
      let v2 = v * v
      sum = Relaxed.sum(sum, v)
      square = Relaxed.sum(square, v2)
      fourth = Relaxed.multiplyAdd(v2, v2, fourth)
    }
    return (sum, square, fourth)
  }

  /// Σ(x − mean)², Σ(x − mean)⁴, and the largest and smallest coordinate.
  private func moments(
    _ x: UnsafePointer<Float>, about mean: Double
  ) -> (second: Double, fourth: Double, high: Double, low: Double) {
    var (second, fourth) = (0.0, 0.0)
    for i in 0..<d {
      let v = Double(x[i]) - mean
      let v2 = v * v
      second = Relaxed.sum(second, v2)
      fourth = Relaxed.multiplyAdd(v2, v2, fourth)
    }
    // As whole numbers of the same order floats have a maximum that vectorises.
    var (high, low) = (Int32.min, Int32.max)
    for i in 0..<d {
      let bits = Int32(bitPattern: x[i].bitPattern)
      let key = bits ^ ((bits >> 31) & 0x7fff_ffff)
      high = Swift.max(high, key)
      low = Swift.min(low, key)
    }
    func value(_ key: Int32) -> Double {
      Double(Float(bitPattern: UInt32(bitPattern: key ^ ((key >> 31) & 0x7fff_ffff))))
    }
    return (second, fourth, value(high), value(low))
  }

  private struct Images {
    /// ‖z‖².
    var zSquare = 0.0
    /// ⟨z, (g − mean g)⊙z⟩.
    var zTilted = 0.0
    /// ‖(g − mean g)⊙z‖².
    var tiltedSquare = 0.0
    /// ‖g⊙z‖².
    var gainedSquare = 0.0
    /// ⟨g⊙z, b⟩.
    var gainedBias = 0.0
    /// ‖g⊙z + b‖².
    var outputSquare = 0.0
    /// ⟨x, g⊙z + b⟩.
    var inputOutput = 0.0
  }

  private func images(_ x: UnsafePointer<Float>, center: Double, scale: Double) -> Images {
    var (zSquare, zTilted, tiltedSquare) = (0.0, 0.0, 0.0)
    var (gainedSquare, gainedBias) = (0.0, 0.0)
    var (outputSquare, inputOutput) = (0.0, 0.0)
    let inverse = 1 / scale
    for i in 0..<d {
      let v = Double(x[i])
      let z = (v - center) * inverse
      let g = Double(gain[i])
      let gained = z * g
      let tilted = z * (g - meanGain)
      let b = Double(bias[i])
      let output = gained + b
      zSquare = Relaxed.multiplyAdd(z, z, zSquare)
      zTilted = Relaxed.multiplyAdd(z, tilted, zTilted)
      tiltedSquare = Relaxed.multiplyAdd(tilted, tilted, tiltedSquare)
      gainedSquare = Relaxed.multiplyAdd(gained, gained, gainedSquare)
      gainedBias = Relaxed.multiplyAdd(gained, b, gainedBias)
      outputSquare = Relaxed.multiplyAdd(output, output, outputSquare)
      inputOutput = Relaxed.multiplyAdd(v, output, inputOutput)
    }
    return Images(
      zSquare: zSquare, zTilted: zTilted, tiltedSquare: tiltedSquare, gainedSquare: gainedSquare,
      gainedBias: gainedBias,
      outputSquare: outputSquare, inputOutput: inputOutput)
  }

  /// Σx² over the `k` coordinates of largest |x|.
  ///
  /// - Parameter magnitudes: room for `d` numbers.
  private func largestShare(
    _ x: UnsafePointer<Float>, _ k: Int, _ magnitudes: UnsafeMutablePointer<Int32>
  ) -> Double {
    // The bits of |x| are in its order: halve their range until k coordinates lie above.
    for i in 0..<d { magnitudes[i] = Int32(truncatingIfNeeded: x[i].bitPattern & 0x7fff_ffff) }
    var (low, high) = (Int32(0), Int32.max)
    while high &- low > 1 {
      let middle = low &+ (high &- low) / 2
      let above = Self.count(magnitudes, d, above: middle &- 1)
      if above >= k { low = middle } else { high = middle }
      if above == k { break }
    }
    let above = Self.count(magnitudes, d, above: low)
    var sum = 0.0
    for i in 0..<d {
      // All ones for a larger coordinate, else 0.
      let mask = UInt32(bitPattern: (low &- magnitudes[i]) >> 31)
      let v = Double(Float(bitPattern: x[i].bitPattern & mask))
      sum = Relaxed.multiplyAdd(v, v, sum)
    }
    // Equal coordinates at the border count as often as is left.
    let border = Double(Float(bitPattern: UInt32(bitPattern: low)))
    return sum + Double(k - above) * border * border
  }

  /// How many values are larger than `limit`; neither they nor `limit + 1` are below 0.
  @inline(never)
  private static func count(
    _ values: UnsafePointer<Int32>, _ count: Int, above limit: Int32
  ) -> Int {
    // A larger value leaves a negative difference, all ones when shifted: no branch, so that the loop
    // becomes vector instructions.
    var (result, i) = (Int32(0), 0)
    while i < count {
      result &-= (limit &- values[i]) >> 31
      i &+= 1
    }
    return Int(result)
  }
}
