import Tensors

/// A model's tensors while ``WeightProcessing`` changes them.
///
/// The steps know the weights by what they do: *readers* read the stream through a norm, *writers*
/// write to it.
struct ProcessedWeights {
  private(set) var tensors: [String: Tensor]
  private(set) var config: GPT2Config

  /// Tensors that fit their configuration; ``GPT2Weights`` has checked them.
  init(tensors: [String: Tensor], config: GPT2Config) {
    self.tensors = tensors
    self.config = config
  }

  private var d: Int { config.dModel }

  // MARK: the steps

  /// `W ← (I − 11ᵀ/d)·diag(γ/√ε)·W`, `c ← c + βᵀW`; then there are no norms any more.
  mutating func foldAffineNorms() throws(ModelError) {
    guard config.normalization == .layerNorm else {
      throw .processing(
        step: WeightProcessing.foldAffineNorms.rawValue,
        problem: "normalization is \(config.normalization.rawValue); expected layernorm")
    }
    let root = config.layerNormEpsilon.squareRoot()
    untieUnembedding()
    for reader in readers {
      fold(reader, gain: doubles(reader.gain).map { $0 / root }, centering: true)
      tensors[reader.gain] = nil
      tensors[reader.shift] = nil
    }
    config.normalization = .none
  }

  mutating func foldNorms() throws(ModelError) {
    if config.normalization == .none { throw noNorm(.foldLN) }
    untieUnembedding()
    for reader in readers {
      fold(
        reader, gain: doubles(reader.gain), centering: config.normalization == .layerNorm)
      tensors[reader.gain] = Tensor(repeating: 1, shape: [d])
      tensors[reader.shift] = Tensor(zeros: [d])
    }
  }

  mutating func centerReadingWeights() throws(ModelError) {
    try requireOnesDirection(.centerReadingWeights)
    try requireNormsWithoutMean(.centerReadingWeights)
    try requireNoMeanIsRead()
    untieUnembedding()
    let mean = [Double](repeating: 1 / Double(d), count: d)
    for reader in readers {
      change(reader.matrix) { W in
        let means = reader.sums(over: W, weights: mean)
        reader.rescale(&W, by: nil, subtracting: means)
      }
    }
  }

  mutating func centerWritingWeights() throws(ModelError) {
    try requireOnesDirection(.centerWritingWeights)
    switch config.normalization {
    case .layerNorm: break
    case .rmsNorm, .crmsNorm:
      if let writer = uncenteredWriter() {
        throw .processing(
          step: WeightProcessing.centerWritingWeights.rawValue,
          problem: "RMSNorm divides by the stream with its mean, and \(writer); exact only with "
            + "LayerNorm or without a norm")
      }
    case .none:
      if let reader = readerOfTheMean() {
        throw .processing(
          step: WeightProcessing.centerWritingWeights.rawValue,
          problem: "without a norm the mean of the stream is read: \(reader)")
      }
    }
    untieUnembedding()
    let mean = [Double](repeating: 1 / Double(d), count: d)
    for writer in writers {
      change(writer) { W in
        let means = W.sumOfColumns(weightedBy: mean)
        W.scaleColumns(by: nil, subtracting: means)
      }
    }
  }

  mutating func replaceLayerNormByRMSNorm() throws(ModelError) {
    switch config.normalization {
    case .rmsNorm: return
    case .none: throw noNorm(.rmsNorm)
    case .crmsNorm: try requireOnesDirection(.rmsNorm)
    case .layerNorm:
      try requireStreamWithoutMean(
        .rmsNorm, otherwise: "which LayerNorm removes and RMSNorm does not")
      config.normalization = .rmsNorm
    }
  }

  /// Writes the stream in the d − 1 coordinates of a basis of the vectors of mean zero.
  mutating func compress(
    _ step: WeightProcessing, _ basis: ZeroSumBasis
  ) throws(ModelError) {
    try requireOnesDirection(step)
    if config.normalization == .none {
      if step == .crmsNorm { throw noNorm(step) }
      if let reader = readerOfTheMean() {
        throw .processing(
          step: step.rawValue,
          problem: "without a norm the mean of the stream is read: \(reader)")
      }
    } else {
      try requireNormsWithoutMean(step)
    }
    try requireStreamWithoutMean(step, otherwise: "for which d_model − 1 numbers have no room")
    guard d > 1 else {
      throw .processing(step: step.rawValue, problem: "d_model is 1, which leaves nothing")
    }
    untieUnembedding()
    for writer in writers {
      tensors[writer] = tensors[writer]?.coordinates(in: basis)
    }
    for reader in readers {
      tensors[reader.matrix] = tensors[reader.matrix].map {
        reader.transposed
          ? $0.readingCoordinates(in: basis) : $0.columnsReadingCoordinates(in: basis)
      }
      if let gain = tensors[reader.gain] {
        tensors[reader.gain] = gain.rows(0..<d - 1)
        tensors[reader.shift] = Tensor(zeros: [d - 1])
      }
    }
    config.dModel -= 1
    switch (config.normalization, step) {
    case (.none, _): break
    case (_, .crmsNorm): config.normalization = .crmsNorm
    default: config.normalization = .rmsNorm
    }
  }

  mutating func centerUnembed() {
    untieUnembedding()
    let mean = [Double](repeating: 1 / Double(config.dVocab), count: config.dVocab)
    change("unembed.weight") { W in
      let means = W.sumOfRows(weightedBy: mean)
      W.scaleRows(by: nil, subtracting: means)
    }
    change("unembed.bias") { b in
      let means = b.sumOfColumns(weightedBy: mean)
      b.scaleColumns(by: nil, subtracting: means)
    }
  }

  mutating func foldValueBiases() {
    for layer in 0..<config.nLayers {
      let attention = "h.\(layer).attn"
      guard let W_O = tensors["\(attention).c_proj.weight"] else { continue }
      let valueBias = Array(doubles("\(attention).c_attn.bias").suffix(config.dAttn))
      let written = W_O.sumOfRows(weightedBy: valueBias)
      change("\(attention).c_proj.bias") { b in
        b.scaleRows(by: nil, subtracting: written.map { -$0 })
      }
      change("\(attention).c_attn.bias") { b in
        var span = b.mutableSpan
        for i in span.count - valueBias.count..<span.count { span[i] = 0 }
      }
    }
  }

  // MARK: readers

  /// A matrix with a bias that reads the stream through a norm.
  private struct Reader {
    let norm: String
    let matrix: String
    let bias: String
    /// Whether it is kept as `[n, d_model]` instead of `[d_model, n]`.
    let transposed: Bool

    var gain: String { "\(norm).weight" }
    var shift: String { "\(norm).bias" }

    /// `Σ_i weights_i·W_ij` over d_model, one sum for each output.
    func sums(over W: Tensor, weights: [Double], magnitudes: Bool = false) -> [Double] {
      transposed
        ? W.sumOfColumns(weightedBy: weights, magnitudes: magnitudes)
        : W.sumOfRows(weightedBy: weights, magnitudes: magnitudes)
    }

    /// `W_ij ← factors_i·W_ij − shifts_j`, i over d_model.
    func rescale(_ W: inout Tensor, by factors: [Double]?, subtracting shifts: [Double]?) {
      if transposed {
        W.scaleColumns(by: factors, subtracting: shifts)
      } else {
        W.scaleRows(by: factors, subtracting: shifts)
      }
    }
  }

  private var readers: [Reader] {
    (0..<config.nLayers).flatMap { layer in
      [("ln_1", "attn.c_attn"), ("ln_2", "mlp.c_fc")].map { norm, linear in
        let h = "h.\(layer)"
        return Reader(
          norm: "\(h).\(norm)", matrix: "\(h).\(linear).weight", bias: "\(h).\(linear).bias",
          transposed: false)
      }
    } + [
      Reader(norm: "ln_f", matrix: unembedding, bias: "unembed.bias", transposed: true)
    ]
  }

  /// Folds a gain, and the bias of its norm, into what reads it.
  private mutating func fold(_ reader: Reader, gain: [Double], centering: Bool) {
    let shift = doubles(reader.shift)
    var added: [Double] = []
    change(reader.matrix) { W in
      added = reader.sums(over: W, weights: shift)
      let means =
        centering ? reader.sums(over: W, weights: gain.map { $0 / Double(gain.count) }) : nil
      reader.rescale(&W, by: gain, subtracting: means)
    }
    if tensors[reader.bias] == nil { tensors[reader.bias] = Tensor(zeros: [added.count]) }
    change(reader.bias) { c in c.scaleRows(by: nil, subtracting: added.map { -$0 }) }
  }

  /// Gives the unembedding a matrix of its own; until one of the two changes they share their memory.
  private mutating func untieUnembedding() {
    if !config.tiedUnembed { return }
    tensors["unembed.weight"] = tensors["wte.weight"]
    config.tiedUnembed = false
  }

  private var unembedding: String { config.tiedUnembed ? "wte.weight" : "unembed.weight" }

  // MARK: writers

  /// What writes rows of d_model numbers to the stream.
  private var writers: [String] {
    ["wte.weight", "wpe.weight"]
      + (0..<config.nLayers).flatMap { layer in
        ["attn.c_proj.weight", "attn.c_proj.bias", "mlp.c_proj.weight", "mlp.c_proj.bias"]
          .map { "h.\(layer).\($0)" }
      }
  }

  // MARK: conditions

  /// What a sum of numbers that should cancel may amount to, relative to the sum of their
  /// magnitudes. Rounding to float32 leaves 6e-8. Of numbers that were stored as float16 each is off
  /// by up to 2⁻¹¹ of itself, and so may be their sum.
  private static func cancellation(_ W: Tensor) -> Double {
    let span = W.span
    for i in 0..<span.count where Float(Float16(span[i])) != span[i] { return 1e-4 }
    return 0x1p-11
  }

  /// The first writer whose rows do not sum to zero, in words; nil if all do.
  private func uncenteredWriter() -> String? {
    let ones = [Double](repeating: 1, count: d)
    return writers.lazy.compactMap { name in
      guard let W = tensors[name] else { return nil }
      return excess(
        W.sumOfColumns(weightedBy: ones), W.sumOfColumns(weightedBy: ones, magnitudes: true),
        limit: Self.cancellation(W)
      ).map { "a row of \(name) \($0)" }
    }.first
  }

  /// The first reader that answers to a constant, in words; nil if none does.
  func readerOfTheMean() -> String? {
    let ones = [Double](repeating: 1, count: d)
    return readers.lazy.compactMap { reader in
      guard let W = tensors[reader.matrix] else { return nil }
      return excess(
        reader.sums(over: W, weights: ones), reader.sums(over: W, weights: ones, magnitudes: true),
        limit: Self.cancellation(W)
      ).map { "a column of \(reader.matrix) \($0)" }
    }.first
  }

  /// How far the worst of `sums` is from cancelling, in words; nil if all do.
  private func excess(_ sums: [Double], _ magnitudes: [Double], limit: Double) -> String? {
    let largest = magnitudes.max() ?? 0
    for (sum, magnitude) in zip(sums, magnitudes)
    where !(Swift.abs(sum) <= limit * magnitude + 1e-7 * largest) {
      let share = Float(Swift.abs(sum) / magnitude)
      return "sums to \(share) of its magnitudes (expected 0 within \(limit))"
    }
    return nil
  }

  /// The stream must have all its coordinates.
  private func requireOnesDirection(_ step: WeightProcessing) throws(ModelError) {
    if config.hasOnesDirection { return }
    throw .processing(
      step: step.rawValue,
      problem:
        "the stream has d_model = \(d) of \(config.normWidth) coordinates, and the direction of "
        + "its mean is gone already; leave the step out")
  }

  /// What the norms give must have a mean of zero wherever what they read has one.
  private func requireNormsWithoutMean(_ step: WeightProcessing) throws(ModelError) {
    if config.normalization == .none { return }
    for reader in readers {
      let (gain, shift) = (doubles(reader.gain), doubles(reader.shift))
      let range = (gain.min() ?? 1, gain.max() ?? 1)
      if range.0 != range.1 || shift.contains(where: { $0 != 0 }) {
        let found =
          range.0 == range.1
          ? "a bias" : "gains from \(Float(range.0)) to \(Float(range.1)) (expected one)"
        throw .processing(
          step: step.rawValue,
          problem: "\(reader.norm) has \(found), so what it gives has a mean; add "
            + (step == .centerReadingWeights ? "fold_ln" : "fold_ln, center_writing_weights"))
      }
    }
  }

  /// Nothing may write a mean to the stream.
  private func requireStreamWithoutMean(
    _ step: WeightProcessing, otherwise: String
  ) throws(ModelError) {
    if let writer = uncenteredWriter() {
      throw .processing(
        step: step.rawValue,
        problem: "the stream has a mean, \(otherwise): \(writer); add center_writing_weights")
    }
  }

  private func requireNoMeanIsRead() throws(ModelError) {
    if config.normalization == .layerNorm || readerOfTheMean() == nil { return }
    if let writer = uncenteredWriter() {
      throw .processing(
        step: WeightProcessing.centerReadingWeights.rawValue,
        problem: "the stream has a mean, and without LayerNorm it is read: \(writer); process the "
          + "original model with LayerNorm instead")
    }
  }

  private func noNorm(_ step: WeightProcessing) -> ModelError {
    .processing(
      step: step.rawValue,
      problem: "the model has no norm; expected "
        + (step == .foldLN ? "LayerNorm or RMSNorm" : "LayerNorm") + "; leave the step out"
        + (step == .crmsNorm ? " (isometric is for such a model, too)" : ""))
  }

  // MARK: tensors

  private func doubles(_ name: String) -> [Double] {
    (tensors[name]?.scalars ?? []).map(Double.init)
  }

  /// Changes one tensor, in place if nobody else holds it; a tensor that does not exist stays so.
  private mutating func change(_ name: String, _ body: (inout Tensor) -> Void) {
    guard var tensor = tensors.removeValue(forKey: name) else { return }
    body(&tensor)
    tensors[name] = tensor
  }
}
