public import HookedGPT2
import Tensors

/// What the neurons of one MLP write, as the unembedding reads it: from the weights alone.
///
/// **What it shows.** An entropy neuron writes with a large norm into directions that the unembedding
/// hardly reads: its logits are nearly the same for all tokens, and what it changes is the length of the
/// stream that the final norm divides by.
///
/// **What it does not.** That it does so in the model: only ablation tells (``NeuronAblation``).
///
/// All measures are those of a model with `fold_ln`, `center_writing_weights` and `center_unembed`,
/// whether or not these were applied: W_U is taken as the normalised stream reads it, less its mean over the
/// vocabulary, which moves all logits alike; W_out is centred where the norm, or the folded weights
/// of a model without norms, take the mean of the stream away.
///
/// Stolfo et al. 2024, arXiv:2406.16254; Baroni et al. 2025, arXiv:2507.02559, §5.4.
public struct NeuronWeights: Sendable {
  /// The MLP.
  public let layer: Int
  /// `‖w_i‖` of each neuron's row of W_out.
  public let norm: [Double]
  /// The variance over the vocabulary of `(w_i/‖w_i‖)·(u_v/‖u_v‖)`, unbiased; NaN of a neuron that
  /// writes nothing.
  public let logitVariance: [Double]
  /// How much of `w_i` lies in the last ``nullSpace`` left singular directions of W_U:
  /// `‖V₀ᵀw_i‖/‖w_i‖`.
  public let nullSpaceShare: [Double]
  /// The singular values of W_U, largest first.
  public let singularValues: [Double]
  /// How many of the smallest count as the null space.
  public let nullSpace: Int
  /// The tokens whose unembedding is zero: they have no direction and do not count for
  /// ``logitVariance``.
  public let tokensWithoutDirection: Int
  /// `w_i` of each neuron, d scalars, one after another.
  private let writes: [Double]
  /// The left singular vectors of W_U, d scalars, one after another.
  private let singularVectors: [Double]

  /// `norm ÷ logit variance`: large for entropy neurons.
  public var score: [Double] { zip(norm, logitVariance).map { $0 / $1 } }

  /// The neurons by falling score; those without one last.
  public var ranking: [Int] {
    let score = score
    return score.indices.sorted { a, b in
      if score[a].isNaN || score[b].isNaN {
        return score[a].isNaN == score[b].isNaN ? a < b : score[b].isNaN
      }
      return score[a] == score[b] ? a < b : score[a] > score[b]
    }
  }

  /// The cosines of a neuron's write with each left singular direction of W_U, without sign.
  public func singularCosines(of neuron: Int) -> [Double] {
    let d = singularValues.count
    return (0..<d).map { index in
      var product = 0.0
      for i in 0..<d { product += singularVectors[index * d + i] * writes[neuron * d + i] }
      return abs(product) / norm[neuron]
    }
  }

  /// The measures of a layer's neurons.
  ///
  /// - Parameters:
  ///   - model: any model.
  ///   - layer: the MLP.
  ///   - nullSpace: how many of the smallest singular directions count as the null space; round(d/64) by
  ///     default, at least one.
  /// - Throws: `ModelError.layerOutOfRange`; `AnalysisError.unsuitable` for a null space of fewer than one or
  ///   of all directions, `.nonFinite` for weights that are not numbers.
  /// - Complexity: 2·d_vocab·d² FLOPs in double precision.
  public init(_ model: GPT2, layer: Int, nullSpace: Int? = nil) throws {
    guard model.weights.blocks.indices.contains(layer) else {
      throw ModelError.layerOutOfRange(
        hook: "neurons", layer: layer, layers: model.config.nLayers)
    }
    let stream = ReadStream(model)
    let written = stream.writes(model.weights.blocks[layer].W_out)
    let d = written.rowCount
    let dimensions = nullSpace ?? max(1, Int((Double(d) / 64).rounded()))
    guard (1...max(d - 1, 1)).contains(dimensions) else {
      throw AnalysisError.unsuitable(
        analysis: "neurons",
        problem: "a null space of \(dimensions) of \(d) directions; expected 1 to \(max(d - 1, 1))")
    }
    let (unembedding, directions) = stream.unembedding(width: d)
    guard written.isFinite,
      let (values, vectors) = symmetricEigenvectors(unembedding.products, order: d)
    else {
      throw AnalysisError.nonFinite(
        analysis: "neurons", what: "W_out of layer \(layer), or the unembedding")
    }
    self.layer = layer
    self.nullSpace = dimensions
    singularVectors = vectors
    // Rounding leaves zeros on either side of 0.
    singularValues = values.map { max($0, 0).squareRoot() }
    tokensWithoutDirection = model.config.dVocab - directions.count
    writes = written.scalars.map(Double.init)

    let (rows, centered) = (writes, directions.centered)
    let degrees = directions.count - 1
    let measures = parallelMap(written.shape[0]) { neuron in
      let w = rows[neuron * d..<(neuron + 1) * d]
      let squares = w.reduce(0) { $0 + $1 * $1 }
      // wᵀ·Σ(û − mean)(û − mean)ᵀ·w, of which the variance is the share of one.
      var form = 0.0
      for i in 0..<d {
        var sum = 0.0
        for j in 0..<d { sum += centered[i * d + j] * w[w.startIndex + j] }
        form += w[w.startIndex + i] * sum
      }
      var inside = 0.0
      for index in d - dimensions..<d {
        var product = 0.0
        for i in 0..<d { product += vectors[index * d + i] * w[w.startIndex + i] }
        inside += product * product
      }
      return NeuronMeasures(
        norm: squares.squareRoot(),
        variance: degrees < 1 ? .nan : max(form, 0) / Double(degrees) / squares,
        share: (inside / squares).squareRoot())
    }
    norm = measures.map(\.norm)
    logitVariance = measures.map(\.variance)
    nullSpaceShare = measures.map(\.share)
  }
}

private struct NeuronMeasures {
  let norm: Double
  let variance: Double
  let share: Double
}

/// The final stream as the norm before the unembedding sees it: without its mean where that is taken
/// away, and in coordinates in which lengths and angles are those of the model before processing.
struct ReadStream {
  private let model: GPT2

  /// The final stream of a model.
  init(_ model: GPT2) { self.model = model }

  /// Whether a coordinate of a stream of mean zero was dropped: minus the sum of the others.
  private var lacksLast: Bool {
    model.config.normalization == .crmsNorm
      || model.identity.weightProcessing.contains("crmsnorm")
  }

  /// Vectors of the stream, one a row, `[rows, d_model]`: centred where the mean is not seen, with one more
  /// coordinate where the stream has lost one. The sum of a row's squares over the norm's width is what
  /// the norm divides by the root of.
  func writes(_ x: Tensor) -> Tensor {
    if !model.config.hasOnesDirection {
      // In an orthonormal basis the ones direction is one more, along which there is nothing.
      return Self.appending(to: x) { lacksLast ? -$0 : 0 }
    }
    switch model.config.normalization {
    case .layerNorm, .none: return x.centeringRows()
    case .rmsNorm, .crmsNorm: return x
    }
  }

  /// The sums over the vocabulary of the unembedding less its mean, and of its directions.
  func unembedding(width: Int) -> (vectors: GramMatrix, directions: GramMatrix) {
    let vocabulary = model.config.dVocab
    let block = 8192
    func blocks(_ body: (Tensor) -> Void) {
      for start in stride(from: 0, to: vocabulary, by: block) {
        var part = model.weights.readUnembedding(start..<min(vocabulary, start + block))
        if !model.config.hasOnesDirection {
          part = Self.appending(to: part) { _ in 0 }
          // The map of sum zero that reads the same of vectors of sum zero.
          if lacksLast { part = part.centeringRows() }
        }
        body(part)
      }
    }
    var sums = [Double](repeating: 0, count: width)
    blocks { part in
      let own = part.sumOfRows(weightedBy: Array(repeating: 1, count: part.shape[0]))
      for i in 0..<width { sums[i] += own[i] }
    }
    let mean = sums.map { $0 / Double(vocabulary) }
    var (vectors, directions) = (GramMatrix(width: width), GramMatrix(width: width))
    blocks { part in
      vectors.add(part, subtracting: mean)
      directions.add(part, subtracting: mean, normalized: true)
    }
    return (vectors, directions)
  }

  /// Rows with one more scalar, made of their sum.
  private static func appending(to x: Tensor, _ last: (Double) -> Double) -> Tensor {
    let (rows, width) = (x.shape[0], x.rowCount)
    var result: [Float] = []
    result.reserveCapacity(rows * (width + 1))
    let source = x.span
    for row in 0..<rows {
      var sum = 0.0
      for i in 0..<width {
        let value = source[row * width + i]
        result.append(value)
        sum += Double(value)
      }
      result.append(Float(last(sum)))
    }
    return Tensor(result, shape: [rows, width + 1])
  }
}
