import CKernels

extension Activation {
  /// What a gradient at the activation's output becomes at its input.
  ///
  /// - Parameters:
  ///   - gradient: the gradient at the output.
  ///   - x: the input.
  ///   - share: in place of the slope `activation′(x)` the share `activation(x)/x` that the activation
  ///     lets through: `½(1 + tanh(√(2/π)(x + 0.044715x³)))` of gelu_new, the normal distribution
  ///     function of GELU, 1 or 0 of ReLU, whose slope it is too (0 at 0).
  /// - Returns: shape as `x`.
  /// - Precondition: the shapes agree.
  public func gradient(_ gradient: Tensor, at x: Tensor, share: Bool = false) -> Tensor {
    precondition(
      gradient.shape == x.shape, "\(self): gradient \(gradient.shape) at an input \(x.shape)")
    var result = Tensor(uninitialized: x.shape)
    x.withUnsafeBufferPointer { xs in
      gradient.withUnsafeBufferPointer { gs in
        result.withUnsafeMutableBufferPointer { results in
          guard let x = xs.baseAddress, let g = gs.baseAddress, let y = results.baseAddress else {
            return
          }
          parallelRows(xs.count, rowWork: 1) { range in
            let (start, n) = (range.lowerBound, range.count)
            switch self {
            case .geluNew, .gelu:
              nl_gelu_gradient(
                n, x + start, g + start, y + start, self == .gelu ? 1 : 0, share ? 1 : 0)
            case .relu: for i in range { y[i] = x[i] > 0 ? g[i] : 0 }
            }
          }
        }
      }
    }
    return result
  }
}

/// The gradients of a normalisation of rows.
public struct RowNormalizationGradient: Sendable {
  /// At the input, shape `[rows, d]`.
  public let input: Tensor
  /// At the normalised input before the gain, shape `[rows, d]`; empty where not asked for.
  public let normalized: Tensor
  /// At the scale, shape `[rows, 1]`.
  public let scale: Tensor
}

extension RowNormalization {
  /// What a gradient at the normalisation's output becomes at its input.
  ///
  /// With ĝ = gradient ⊙ gain, x̂ the normalised input and s its scale:
  ///
  ///     LayerNorm   dx = (ĝ − mean ĝ − x̂·mean(ĝ ⊙ x̂))/s       ds = −Σ ĝ ⊙ x̂ / s
  ///     RMSNorm     dx = (ĝ − x̂·mean(ĝ ⊙ x̂))/s
  ///     CRMSNorm    dx = (ĝ − (x̂ + Σx̂)·mean(ĝ ⊙ x̂))/s
  ///
  /// - Parameters:
  ///   - gradient: shape `[rows, d]`.
  ///   - x: the input, shape `[rows, d]`.
  ///   - width: what sums over a row are divided by to get their mean; `d` by default.
  ///   - epsilon: ε.
  ///   - gain: shape `[d]`.
  ///   - fixedScale: whether the scale is a constant: the last term of dx and ds are then 0.
  ///   - keepingNormalized: whether the gradient at the normalised input is wanted.
  /// - Precondition: the shapes agree.
  public func gradient(
    _ gradient: Tensor, at x: Tensor, width: Int? = nil, epsilon: Float, gain: Tensor,
    fixedScale: Bool, keepingNormalized: Bool = false
  ) -> RowNormalizationGradient {
    let (rows, d) = (x.shape[0], x.rowCount)
    precondition(
      gradient.shape == x.shape && gain.count == d,
      "\(self): gradient \(gradient.shape) at an input \(x.shape), gain \(gain.shape)")
    checkWidth(width, d)
    var input = Tensor(uninitialized: x.shape)
    var normalized = Tensor(uninitialized: keepingNormalized ? x.shape : [0])
    var scale = Tensor(uninitialized: [rows, 1])
    x.withUnsafeBufferPointer { xs in
      gradient.withUnsafeBufferPointer { gradients in
        gain.withUnsafeBufferPointer { gains in
          input.withUnsafeMutableBufferPointer { inputs in
            normalized.withUnsafeMutableBufferPointer { normals in
              scale.withUnsafeMutableBufferPointer { scales in
                guard let x = xs.baseAddress, let g = gradients.baseAddress,
                  let gain = gains.baseAddress, let dx = inputs.baseAddress,
                  let s = scales.baseAddress
                else { return }
                parallelRows(rows, rowWork: 4 * d) { range in
                  let first = range.lowerBound
                  // The normalised input stands where dx will.
                  normalize(
                    range.count, d, width: width, x + first * d, epsilon, nil, nil,
                    dx + first * d, s + first, nil)
                  for row in range {
                    let kept = keepingNormalized ? normals.baseAddress.map { $0 + row * d } : nil
                    if let kept {
                      for i in 0..<d { kept[i] = g[row * d + i] * gain[i] }
                    }
                    s[row] = rowGradient(
                      d, width: width ?? d, g + row * d, gain, scale: s[row],
                      fixedScale: fixedScale, dx + row * d)
                  }
                }
              }
            }
          }
        }
      }
    }
    return RowNormalizationGradient(input: input, normalized: normalized, scale: scale)
  }
}

extension RowNormalization {
  /// One row: `dx` holds the normalised input and gets the gradient; returns that at the scale.
  fileprivate func rowGradient(
    _ d: Int, width: Int, _ g: UnsafePointer<Float>, _ gain: UnsafePointer<Float>, scale: Float,
    fixedScale: Bool, _ dx: UnsafeMutablePointer<Float>
  ) -> Float {
    // Several sums, because each addition has to wait for the one before it.
    var sum = SIMD4<Double>.zero
    var product = SIMD4<Double>.zero
    var i = 0
    while i + 4 <= d {
      let a = SIMD4(
        Double(g[i] * gain[i]), Double(g[i + 1] * gain[i + 1]), Double(g[i + 2] * gain[i + 2]),
        Double(g[i + 3] * gain[i + 3]))
      sum += a
      product +=
        a * SIMD4(Double(dx[i]), Double(dx[i + 1]), Double(dx[i + 2]), Double(dx[i + 3]))
      i += 4
    }
    var (total, inner) = (sum.sum(), product.sum())
    while i < d {
      let a = Double(g[i] * gain[i])
      total += a
      inner += a * Double(dx[i])
      i += 1
    }
    let along = fixedScale ? 0 : Float(inner / Double(width))
    // What is taken from all alike: by LayerNorm the mean, by CRMSNorm its share of the scale.
    var common: Float = 0
    switch self {
    case .layerNorm: common = Float(total / Double(d))
    case .rmsNorm: break
    case .crmsNorm:
      var sum = 0.0
      for i in 0..<d { sum += Double(dx[i]) }
      common = Float(sum) * along
    }
    let inverse = 1 / scale
    for i in 0..<d { dx[i] = (g[i] * gain[i] - common - dx[i] * along) * inverse }
    return fixedScale ? 0 : -Float(inner / Double(scale))
  }
}
