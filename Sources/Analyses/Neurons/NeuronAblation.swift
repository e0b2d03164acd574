import HookedGPT2
import Results
import Tensors

/// What becomes of the predictions when a neuron of the last MLP is held at its mean.
///
/// **What it shows.** The total effect lets the final norm divide by the new stream's scale; the direct
/// effect keeps the old scale. A neuron that acts through the norm has a total effect far above its
/// direct one; without LayerNorm the two are the same number.
///
/// **What it does not.** Effects through layers in between: there are none behind the last MLP.
///
/// The stream changes along one direction, `x′ = x + a·w` with `a = mean − m`: the changed logits are
/// `(σ/σ′)·(ℓ − c) + (a/σ′)·w·W_U + c`, and a neuron costs one pass over the vocabulary for each token.
///
/// Stolfo et al. 2024, arXiv:2406.16254; Baroni et al. 2025, arXiv:2507.02559, §5.4 and appendix H.
struct NeuronAblation: Collector {
  private let model: GPT2
  private let means: [Double]
  private let neurons: [Int]
  /// The places in `neurons` of those that are ablated together, one more at a time.
  private let cumulated: [Int]
  private let skipFirst: Int
  private let last: Int
  /// What the neurons write, as the final norm sees it, `[neurons, d]`, and their inner products.
  private let writes: Tensor
  private let gram: Tensor
  /// What they write, as the unembedding reads it, `[neurons, d_model]`.
  private let readable: Tensor
  /// The logits along each neuron's write, where there are few neurons.
  private let logits: Tensor?
  /// The part of the logits that does not depend on the stream, `[d_vocab]`; nil where it is zero.
  private let constant: Tensor?

  /// The sums of each neuron's effects over tokens.
  private(set) var total: [EffectSum]
  /// The same with the norm's scale as it was.
  private(set) var direct: [EffectSum]
  /// The same of the first k neurons of `cumulated` together, k = 1, ….
  private(set) var cumulative: [EffectSum]
  /// Each neuron's |total effect on the loss| of a sample of the tokens.
  private(set) var sample: QuantileSample
  /// The predictions' own loss and entropy.
  private(set) var baseLoss = 0.0
  private(set) var baseEntropy = 0.0
  /// The predictions that count.
  private(set) var count = 0

  /// Sums of an effect over tokens.
  struct EffectSum {
    var loss = 0.0
    var entropy = 0.0
    var lossMagnitude = 0.0
    var entropyMagnitude = 0.0

    static func += (sum: inout EffectSum, change: PredictionChange) {
      sum.loss += change.loss
      sum.entropy += change.entropy
      sum.lossMagnitude += abs(change.loss)
      sum.entropyMagnitude += abs(change.entropy)
    }
  }

  /// The bytes of logits that are kept in a few copies at once.
  private static let blockBytes = 48 << 20
  /// The neurons whose logits are made at once.
  private static let neuronBlock = 256

  /// A collector that has seen no tokens.
  ///
  /// - Parameters:
  ///   - means: what each neuron of the layer is set to.
  ///   - neurons: the neurons to ablate, one at a time.
  ///   - cumulated: those of them that are ablated together, in order.
  ///   - skipFirst: how many positions at a prompt's start do not count.
  ///   - seed: decides which tokens the medians are of where there are too many.
  init(
    _ model: GPT2, means: [Double], neurons: [Int], cumulated: [Int], skipFirst: Int, seed: UInt64
  ) {
    self.model = model
    self.means = means
    self.neurons = neurons
    self.skipFirst = skipFirst
    let places = Dictionary(uniqueKeysWithValues: neurons.enumerated().map { ($1, $0) })
    self.cumulated = cumulated.compactMap { places[$0] }
    last = model.config.nLayers - 1
    let (weights, norm) = (model.weights, model.weights.lnFinal)
    let rows = weights.blocks[last].W_out.gatheringRows(neurons)
    writes = ReadStream(model).writes(rows)
    let together = writes.gatheringRows(self.cumulated)
    gram = matmulTransposed(together, MatrixView(together))
    // Centring and gain, which the unembedding would apply to what it reads, applied to what is written.
    let centered = norm?.normalization == .layerNorm ? rows.centeringRows() : rows
    readable = norm.map { centered.multiplyingRows($0.gain) } ?? centered
    constant = norm.map { norm in
      let bias = norm.bias.reshaped([1, norm.bias.count])
      return matmulTransposed(bias, MatrixView(weights.W_U_transposed), bias: weights.b_U).row(0)
    }
    logits =
      neurons.count <= 2 * Self.neuronBlock
      ? matmulTransposed(readable, MatrixView(weights.W_U_transposed)) : nil
    total = Array(repeating: EffectSum(), count: neurons.count)
    direct = total
    cumulative = Array(repeating: EffectSum(), count: self.cumulated.count)
    sample = QuantileSample(measures: neurons.count, seed: seed)
  }

  /// The last MLP's neurons and the final stream.
  var hooks: [HookFilter] {
    [HookFilter(HookName(.mlpPost, layer: last)), HookFilter(HookName(.residPost, layer: last))]
  }

  /// Nothing of its own.
  func findings() -> [ResultGroup] { [] }

  /// Takes the positions that have a next token.
  ///
  /// - Throws: `AnalysisError.nonFinite`.
  mutating func collect(_ batch: CollectedBatch, into sink: any PromptSink) throws {
    var (streams, activations, targets): ([Tensor], [Tensor], [Int]) = ([], [], [])
    for index in 0..<batch.count {
      let rows = min(skipFirst, batch.length(index) - 1)..<batch.length(index) - 1
      if rows.isEmpty { continue }
      let stream = try batch.cache.tensor(.residPost, layer: last, prompt: index)
      if !stream.isFinite {
        throw AnalysisError.nonFinite(
          analysis: "neurons", what: "the final stream of prompt \(batch.firstPrompt + index)")
      }
      streams.append(stream.rows(rows))
      activations.append(try batch.cache.tensor(.mlpPost, layer: last, prompt: index).rows(rows))
      targets += rows.map { batch.cache.tokens[index][$0 + 1] }
    }
    if targets.isEmpty { return }
    let (stream, activation) = (Tensor.concatenating(streams), Tensor.concatenating(activations))
    let block = min(1024, max(16, Self.blockBytes / (4 * model.config.dVocab)))
    for start in stride(from: 0, to: targets.count, by: block) {
      let rows = start..<min(targets.count, start + block)
      try collect(stream.rows(rows), activation.rows(rows), Array(targets[rows]))
    }
  }

  private mutating func collect(_ stream: Tensor, _ activation: Tensor, _ targets: [Int]) throws {
    let (scaled, whole) = logits(of: stream)
    guard whole.isFinite else {
      throw AnalysisError.nonFinite(analysis: "neurons", what: "a logit")
    }
    let predicted = PredictedRows(whole, targets: targets, stretching: scaled)
    let shifts = StreamShifts(model, stream, ReadStream(model).writes(stream))
    let admitted = sample.admit(0..<targets.count)
    for statistics in predicted.statistics {
      baseLoss += statistics.loss
      baseEntropy += statistics.entropy
    }
    count += targets.count

    for first in stride(from: 0, to: neurons.count, by: Self.neuronBlock) {
      let places = first..<min(neurons.count, first + Self.neuronBlock)
      let directions =
        logits?.rows(places)
        ?? matmulTransposed(readable.rows(places), MatrixView(model.weights.W_U_transposed))
      let amounts = amounts(activation, places.map { neurons[$0] })
      let step = shifts.alone(amounts, writes.rows(places))
      let changes = predicted.changes(
        along: directions, shift: step.total, stretch: step.stretch)
      // Without a norm both are the same numbers.
      let frozen =
        step.stretch == nil ? changes : predicted.changes(along: directions, shift: step.direct)
      var magnitudes = [Float](repeating: 0, count: targets.count)
      for (column, place) in places.enumerated() {
        for row in targets.indices {
          let cell = row * places.count + column
          total[place] += changes[cell]
          direct[place] += frozen[cell]
          magnitudes[row] = Float(abs(changes[cell].loss))
        }
        sample.put(place, magnitudes.span, from: 0, admitted)
      }
    }
    collectTogether(predicted, shifts, activation)
  }

  /// The first neurons of the list together, one more at a time.
  private mutating func collectTogether(
    _ predicted: PredictedRows, _ shifts: StreamShifts, _ activation: Tensor
  ) {
    if cumulated.isEmpty { return }
    let amounts = amounts(activation, cumulated.map { neurons[$0] })
    let directions =
      logits?.gatheringRows(cumulated)
      ?? matmulTransposed(
        readable.gatheringRows(cumulated), MatrixView(model.weights.W_U_transposed))
    let step = shifts.together(amounts, writes.gatheringRows(cumulated), gram)
    let changes = predicted.changes(
      along: directions, shift: step.total, stretch: step.stretch, cumulating: amounts)
    for (cell, change) in changes.enumerated() { cumulative[cell % cumulated.count] += change }
  }

  /// `mean − m` of some neurons, row-major `[rows, neurons]`.
  private func amounts(_ activation: Tensor, _ neurons: [Int]) -> [Double] {
    let (values, width) = (activation.span, activation.rowCount)
    var result: [Double] = []
    result.reserveCapacity(activation.shape[0] * neurons.count)
    for row in 0..<activation.shape[0] {
      for neuron in neurons { result.append(means[neuron] - Double(values[row * width + neuron])) }
    }
    return result
  }

  /// The logits of streams without and with what does not depend on the stream.
  private func logits(of stream: Tensor) -> (scaled: Tensor, whole: Tensor) {
    let weights = model.weights
    guard let norm = weights.lnFinal, let constant else {
      let logits = matmulTransposed(stream, MatrixView(weights.W_U_transposed), bias: weights.b_U)
      return (logits, logits)
    }
    let scaled = matmulTransposed(
      norm.parts(stream).normalized.multiplyingRows(norm.gain), MatrixView(weights.W_U_transposed))
    return (scaled, scaled.addingToRows(constant))
  }
}

/// How much the final norm's division changes with the stream, in double precision.
private struct StreamShifts {
  private let norm: GPT2Weights.Norm?
  /// The streams as the norm sees them.
  private let read: Tensor
  /// The norm's scale of each, and its square.
  private let squares: [Double]

  /// What multiplies the logits along the ablated neurons, and what stretches the rest.
  struct Step {
    var total: [Double]
    var direct: [Double]
    /// σ/σ′ − 1; nil without a norm.
    var stretch: [Double]?
  }

  init(_ model: GPT2, _ stream: Tensor, _ read: Tensor) {
    norm = model.weights.lnFinal
    self.read = read
    guard let norm else {
      squares = []
      return
    }
    squares = (0..<read.shape[0]).map { row in
      let x = read.row(row)
      return x.dot(x) / Double(norm.width) + Double(norm.epsilon)
    }
  }

  /// Of each neuron by itself.
  ///
  /// - Parameter amounts: a, row-major `[rows, neurons]`.
  func alone(_ amounts: [Double], _ writes: Tensor) -> Step {
    guard let norm else { return Step(total: amounts, direct: amounts, stretch: nil) }
    let count = writes.shape[0]
    let lengths = (0..<count).map { index in
      let w = writes.row(index)
      return w.dot(w)
    }
    let products = matmulTransposed(read, MatrixView(writes))
    return step(
      norm,
      amounts.indices.map { cell in
        let (a, product) = (amounts[cell], Double(products.span[cell]))
        return (a, 2 * a * product + a * a * lengths[cell % count])
      }, count)
  }

  /// Of the first neurons together; the amounts multiply the sum of what is shifted.
  func together(_ amounts: [Double], _ writes: Tensor, _ gram: Tensor) -> Step {
    let ones = amounts.map { _ in 1.0 }
    guard let norm else { return Step(total: ones, direct: ones, stretch: nil) }
    let count = writes.shape[0]
    let products = matmulTransposed(read, MatrixView(writes))
    var changes: [(amount: Double, change: Double)] = []
    var change = 0.0
    for cell in amounts.indices {
      let (row, column) = (cell / count, cell % count)
      if column == 0 { change = 0 }
      let a = amounts[cell]
      var cross = Double(products.span[cell])
      for other in 0..<column {
        cross += amounts[row * count + other] * Double(gram[column, other])
      }
      change += 2 * a * cross + a * a * Double(gram[column, column])
      changes.append((1, change))
    }
    return step(norm, changes, count)
  }

  /// - Parameter changes: of each cell the amount, and what is added to the sum of squares.
  private func step(
    _ norm: GPT2Weights.Norm, _ changes: [(amount: Double, change: Double)], _ count: Int
  ) -> Step {
    var result = Step(total: [], direct: [], stretch: [])
    var stretch: [Double] = []
    for (cell, (amount, change)) in changes.enumerated() {
      let square = squares[cell / count]
      // Rounding must not leave a square below ε.
      let next = max(square + change / Double(norm.width), Double(norm.epsilon))
      let (scale, nextScale) = (square.squareRoot(), next.squareRoot())
      result.total.append(amount / nextScale)
      result.direct.append(amount / scale)
      stretch.append((square - next) / (nextScale * (scale + nextScale)))
    }
    result.stretch = stretch
    return result
  }
}
