import HookedGPT2
import Tensors

/// How the end of a model reads a direction out of the residual stream, in double precision.
///
/// A logit (or a difference of two) at one position is
///
///     target = Σ_c (c − mean c)·(γ ⊙ w)/σ(r) + β·w + b        r = Σ_c c
///
/// for the components c of the stream r, w the unembedding direction, γ and β the final
/// LayerNorm's. With u = (γ ⊙ w) − mean(γ ⊙ w) that is Σ_c c·u/σ(r) + bias: linear in c once the
/// scale σ(r) is frozen. RMSNorm does not centre: u = γ ⊙ w and σ(r) = √(mean r² + ε), and CRMSNorm has
/// (Σr² + (Σr)²)/d in the mean's place. Without a norm u = w, σ ≡ 1 and it is linear without freezing
/// anything.
struct FinalReadout {
  /// u, shape `[d_model]`.
  let direction: [Double]
  /// β·w + b_U.
  let bias: Double
  private let epsilon: Double
  private let normalization: Normalization
  private let width: Double

  /// The readout of the logit of `answer`, less that of `wrong` if there is one.
  init(_ model: GPT2, answer: Int, wrong: Int?) {
    let weights = model.weights
    var w = weights.unembedding(of: answer).scalars.map(Double.init)
    var bias = Double(weights.b_U?[answer] ?? 0)
    if let wrong {
      for (i, value) in weights.unembedding(of: wrong).scalars.enumerated() {
        w[i] -= Double(value)
      }
      bias -= Double(weights.b_U?[wrong] ?? 0)
    }
    if let ln = weights.lnFinal {
      let (gain, shift) = (ln.gain.scalars, ln.bias.scalars)
      for i in w.indices {
        bias += Double(shift[i]) * w[i]
        w[i] *= Double(gain[i])
      }
    }
    if model.config.normalization == .layerNorm {
      let mean = w.reduce(0, +) / Double(w.count)
      for i in w.indices { w[i] -= mean }
    }
    normalization = model.config.normalization
    width = Double(model.config.normWidth)
    epsilon = model.config.layerNormEpsilon
    direction = w
    self.bias = bias
  }

  /// `c·u`: what a component adds to the target before the division by the scale.
  func project(_ component: Span<Float>) -> Double {
    var sum = 0.0
    for i in 0..<component.count { sum += Double(component[i]) * direction[i] }
    return sum
  }

  /// The scale that the final norm divides `stream` by; 1 without one.
  func scale(_ stream: Span<Float>) -> Double {
    scale(stream.count) { Double(stream[$0]) }
  }

  /// The direct effect of a component: what the target loses when it is taken out of the stream
  /// and the final norm works with what is left.
  func directEffect(of component: Span<Float>, in stream: Span<Float>, scale: Double) -> Double {
    let whole = project(stream)
    let part = project(component)
    let rest = self.scale(stream.count) { Double(stream[$0]) - Double(component[$0]) }
    return whole / scale - (whole - part) / rest
  }

  private func scale(_ count: Int, _ value: (Int) -> Double) -> Double {
    if normalization == .none { return 1 }
    var sum = 0.0
    for i in 0..<count { sum += value(i) }
    let mean = normalization == .layerNorm ? sum / width : 0
    var squares = normalization == .crmsNorm ? sum * sum : 0
    for i in 0..<count {
      let deviation = value(i) - mean
      squares += deviation * deviation
    }
    return (squares / width + epsilon).squareRoot()
  }
}
