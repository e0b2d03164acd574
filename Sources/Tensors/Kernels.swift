import CKernels

/// The non-linearity of an MLP.
public enum Activation: String, Sendable, CaseIterable {
  /// GELU in its tanh form, `0.5·x·(1 + tanh(√(2/π)·(x + 0.044715·x³)))`: GPT-2's own.
  case geluNew = "gelu_new"
  /// GELU with the error function.
  case gelu
  /// `max(0, x)`.
  case relu

  /// The activation of every scalar.
  ///
  /// - Returns: `x`'s shape.
  public func callAsFunction(_ x: Tensor) -> Tensor {
    var y = Tensor(uninitialized: x.shape)
    x.withUnsafeBufferPointer { xs in
      y.withUnsafeMutableBufferPointer { ys in
        guard let x = xs.baseAddress, let y = ys.baseAddress else { return }
        compute(xs.count, x, y)
      }
    }
    return y
  }

  /// Puts the activation of every scalar in its place.
  public func apply(to x: inout Tensor) {
    x.withUnsafeMutableBufferPointer { xs in
      guard let x = xs.baseAddress else { return }
      compute(xs.count, x, x)
    }
  }

  private func compute(_ count: Int, _ x: UnsafePointer<Float>, _ y: UnsafeMutablePointer<Float>) {
    parallelRows(count, rowWork: 1) { range in
      let (from, to, n) = (x + range.lowerBound, y + range.lowerBound, range.count)
      switch self {
      case .geluNew: nl_gelu(n, from, to, 0)
      case .gelu: nl_gelu(n, from, to, 1)
      case .relu: for i in 0..<n { to[i] = from[i] < 0 ? 0 : from[i] }
      }
    }
  }
}

/// A normalisation of rows, with gain and bias.
public enum RowNormalization: Sendable {
  /// `(x − mean(x)) / √(var(x) + ε) ⊙ gain + bias`, with the biased variance.
  case layerNorm
  /// `x / √(mean(x²) + ε) ⊙ gain + bias`.
  case rmsNorm
  /// `x / √((Σx² + (Σx)²)/width + ε) ⊙ gain + bias`: RMSNorm of a row of sum 0 without its last scalar,
  /// which is −Σx.
  case crmsNorm

  /// The normalisation of each row.
  ///
  /// - Parameters:
  ///   - x: shape `[rows, d]`.
  ///   - width: what sums over a row are divided by to get their mean; `d` by default, and always of
  ///     LayerNorm.
  ///   - epsilon: ε.
  ///   - gain: shape `[d]`.
  ///   - bias: shape `[d]`.
  /// - Returns: shape `[rows, d]`.
  /// - Precondition: `gain` and `bias` have `d` scalars.
  public func callAsFunction(
    _ x: Tensor, width: Int? = nil, epsilon: Float, gain: Tensor, bias: Tensor
  ) -> Tensor {
    compute(x, width, epsilon, gain, bias, keepParts: false).output
  }

  /// The normalisation together with its scale and its normalised input; shapes as above.
  public func parts(
    _ x: Tensor, width: Int? = nil, epsilon: Float, gain: Tensor, bias: Tensor
  ) -> RowNormalizationParts {
    compute(x, width, epsilon, gain, bias, keepParts: true)
  }

  /// The kernel on some rows; arguments as in C.
  func normalize(
    _ rows: Int, _ d: Int, width: Int?, _ x: UnsafePointer<Float>, _ epsilon: Float,
    _ gain: UnsafePointer<Float>?, _ bias: UnsafePointer<Float>?, _ y: UnsafeMutablePointer<Float>,
    _ scale: UnsafeMutablePointer<Float>?, _ normalized: UnsafeMutablePointer<Float>?
  ) {
    switch self {
    case .layerNorm: nl_layer_norm(rows, d, x, epsilon, gain, bias, y, scale, normalized)
    case .rmsNorm, .crmsNorm:
      nl_rms_norm(
        rows, d, width ?? d, self == .crmsNorm ? 1 : 0, x, epsilon, gain, bias, y, scale, normalized
      )
    }
  }

  private func compute(
    _ x: Tensor, _ width: Int?, _ epsilon: Float, _ gain: Tensor, _ bias: Tensor, keepParts: Bool
  ) -> RowNormalizationParts {
    let (rows, d) = (x.shape[0], x.rowCount)
    precondition(
      gain.count == d && bias.count == d,
      "\(self): x has shape \(x.shape), gain \(gain.shape), bias \(bias.shape)")
    checkWidth(width, d)
    var output = Tensor(uninitialized: x.shape)
    var scale = Tensor(uninitialized: [keepParts ? rows : 0, 1])
    var normalized = Tensor(uninitialized: keepParts ? x.shape : [0])
    x.withUnsafeBufferPointer { xs in
      gain.withUnsafeBufferPointer { gains in
        bias.withUnsafeBufferPointer { biases in
          output.withUnsafeMutableBufferPointer { ys in
            scale.withUnsafeMutableBufferPointer { scales in
              normalized.withUnsafeMutableBufferPointer { normals in
                guard let x = xs.baseAddress, let y = ys.baseAddress else { return }
                parallelRows(rows, rowWork: d) { range in
                  let first = range.lowerBound
                  normalize(
                    range.count, d, width: width, x + first * d, epsilon, gains.baseAddress,
                    biases.baseAddress, y + first * d,
                    keepParts ? scales.baseAddress.map { $0 + first } : nil,
                    keepParts ? normals.baseAddress.map { $0 + first * d } : nil)
                }
              }
            }
          }
        }
      }
    }
    return RowNormalizationParts(output: output, scale: scale, normalized: normalized)
  }
}

extension RowNormalization {
  func checkWidth(_ width: Int?, _ d: Int) {
    precondition(
      width.map { self == .layerNorm ? $0 == d : $0 > 0 } ?? true,
      "\(self): width \(width ?? d) of rows of \(d)")
  }
}

/// What a normalisation of rows computes on its way.
public struct RowNormalizationParts: Sendable {
  /// `normalized ⊙ gain + bias`, the input's shape.
  public var output: Tensor
  /// What each row is divided by, shape `[rows, 1]`.
  public var scale: Tensor
  /// The input (centred by LayerNorm) divided by the scale, the input's shape.
  public var normalized: Tensor
}

/// The softmax of each row; a row whose entries are all −∞ gives zeros.
///
/// - Parameter x: shape `[…, columns]`.
/// - Returns: `x`'s shape.
public func softmax(_ x: Tensor) -> Tensor {
  let columns = x.shape.last ?? 0
  var y = Tensor(uninitialized: x.shape)
  guard x.count > 0 else { return y }
  x.withUnsafeBufferPointer { xs in
    y.withUnsafeMutableBufferPointer { ys in
      guard let x = xs.baseAddress, let y = ys.baseAddress else { return }
      parallelRows(xs.count / columns, rowWork: columns) { range in
        let start = range.lowerBound * columns
        nl_softmax(range.count, columns, columns, x + start, columns, y + start, 1, 0, 0)
      }
    }
  }
  return y
}
