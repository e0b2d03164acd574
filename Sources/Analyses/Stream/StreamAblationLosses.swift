import OrderedCollections
import Results
import Tensors

/// The losses of the changed models over all tokens: means, and medians of a bounded sample.
struct AblationLosses {
  /// A changed model.
  enum Kind {
    case base
    /// Blocks `layer ..< layer + length` left out.
    case skip(layer: Int, length: Int)
    case parallel
    /// All writes multiplied by the λ of this index.
    case scaled(Int)
    case massiveZero
    case massiveMean

    var name: String {
      switch self {
      case .base: "as it is"
      case .skip(let layer, let length): "without blocks \(layer) to \(layer + length - 1)"
      case .parallel: "with all blocks in parallel"
      case .scaled(let index): "with writes scaled by the lambda of index \(index)"
      case .massiveZero: "with massive activations set to zero"
      case .massiveMean: "with massive activations set to their means"
      }
    }
  }

  private let layers: Int
  private let lambdas: [Double]
  private var sums: [Double]
  private var sample: QuantileSample
  private var admitted: [(token: Int, slot: Int)] = []
  private var tokens = 0
  private var divergence = 0.0
  /// `[position class, layer]` of sums, and how many there are.
  private var errors: [Double]
  private var errorCounts: [Int]

  init(layers: Int, lambdas: [Double], seed: UInt64) {
    self.layers = layers
    self.lambdas = lambdas
    let conditions = 4 + layers * layers + lambdas.count
    sums = Array(repeating: 0, count: conditions)
    sample = QuantileSample(measures: conditions, seed: seed)
    errors = Array(repeating: 0, count: 2 * layers)
    errorCounts = Array(repeating: 0, count: 2 * layers)
  }

  var isSampled: Bool { sample.isSampled }

  private func place(_ kind: Kind) -> Int {
    switch kind {
    case .base: 0
    case .parallel: 1
    case .massiveZero: 2
    case .massiveMean: 3
    case .skip(let layer, let length): 4 + layer * layers + length - 1
    case .scaled(let index): 4 + layers * layers + index
    }
  }

  /// Begins a batch of so many tokens, for which every changed model's losses follow.
  mutating func begin(tokens: Int) {
    admitted = sample.admit(0..<tokens)
    self.tokens += tokens
  }

  /// - Throws: `AnalysisError.nonFinite`.
  mutating func add(_ kind: Kind, _ losses: [Double]) throws {
    let sum = losses.reduce(0, +)
    guard sum.isFinite else {
      throw AnalysisError.nonFinite(analysis: "stream", what: "the loss \(kind.name)")
    }
    sums[place(kind)] += sum
    let values = losses.map { Float($0) }
    sample.put(place(kind), values.span, from: 0, admitted)
  }

  /// - Throws: `AnalysisError.nonFinite`.
  mutating func addDivergence(_ values: [Double]) throws {
    divergence += values.reduce(0, +)
    guard divergence.isFinite else {
      throw AnalysisError.nonFinite(
        analysis: "stream", what: "the divergence with all blocks in parallel")
    }
  }

  /// Takes the relative errors of the parallel model behind a block.
  mutating func addErrors(_ layer: Int, _ values: (first: [Double], rest: [Double])) {
    for (kind, values) in [values.first, values.rest].enumerated() {
      // A stream of zeros has no relative error.
      for value in values where value.isFinite {
        errors[kind * layers + layer] += value
        errorCounts[kind * layers + layer] += 1
      }
    }
  }

  private func mean(_ kind: Kind) -> Double {
    tokens == 0 ? .nan : sums[place(kind)] / Double(tokens)
  }

  private func median(_ kind: Kind) -> Double {
    Double(sample.quantiles(place(kind), [0.5])[0])
  }

  private static let gromov = "arXiv:2403.17887"
  private static let sun = "arXiv:2402.17762"

  /// The mean and the median of a loss as two variables.
  private func losses(
    _ name: String, _ axes: [String], _ kinds: [Kind?], _ longName: String, formula: String,
    _ reference: String
  ) -> [ResultVariable] {
    [("", "mean", mean), ("_median", "median", median)].map { ending, what, value in
      ResultVariable(
        name + ending, axes, .float64(kinds.map { $0.map(value) ?? .nan }),
        longName: "\(longName), \(what) over tokens, position 0 among them", units: "nat",
        attributes: ["formula": .string(formula), "references": .string(reference)])
    }
  }

  /// The variables of all models but those without massive activations.
  var variables: [ResultVariable] {
    let loss = "\(tokens == 0 ? "no token has a next one; " : "")-ln p(next token)"
    let cells = (0..<layers).flatMap { layer in
      (1...layers).map { length in
        layer + length <= layers ? Kind.skip(layer: layer, length: length) : nil
      }
    }
    let middle = (1...layers).map { length in
      (layers - length) % 2 == 0 ? Kind.skip(layer: (layers - length) / 2, length: length) : nil
    }
    let expansion = "Taylor expansion of a residual network in its writes"
    var result = losses(
      "base_loss", [], [.base], "loss of the model as it is", formula: loss, Self.gromov)
    result += losses(
      "skip_loss", ["layer", "length"], cells,
      "loss without blocks layer to layer + length - 1; NaN where they do not fit", formula: loss,
      Self.gromov)
    result += losses(
      "middle_span_loss", ["length"], middle,
      "loss without so many blocks in the middle; NaN where they cannot lie in the middle",
      formula: "skip_loss((n_layers - length)/2, length)", "arXiv:2506.21103")
    result += losses(
      "parallel_loss", [], [.parallel],
      "loss if every block reads the embeddings x_0 (first order in block writes)",
      formula: "x_L = x_0 + sum_l f_l(x_0), f_l(x) = block_l(x) - x", expansion)
    let count = Double(tokens)
    result.append(
      ResultVariable(
        "parallel_kl", [], .float64([tokens == 0 ? .nan : divergence / count]),
        longName:
          "divergence of the parallel model's predictions from the model's, mean over tokens, "
          + "position 0 among them", units: "nat",
        attributes: [
          "formula": .string("E sum p (ln p - ln q), p of the model"),
          "references": .string(expansion),
        ]))
    result.append(
      ResultVariable(
        "parallel_error", ["position_class", "layer"],
        .float64(
          zip(errors, errorCounts).map { $1 == 0 ? .nan : $0 / Double($1) }),
        longName:
          "distance of the parallel model's stream behind each block from the model's, relative "
          + "to its norm, mean over tokens", units: "1",
        attributes: [
          "formula": .string("E |x_0 + sum_{k<=l} f_k(x_0) - x_{l+1}| / |x_{l+1}|"),
          "references": .string(expansion),
        ]))
    result += losses(
      "scaled_loss", ["lambda"], lambdas.indices.map { Kind.scaled($0) },
      "loss if every block writes lambda times what it writes",
      formula: "x <- x + lambda (block(x) - x)", expansion)
    result.append(
      ResultVariable(
        "lambda_value", ["lambda"], .float64(lambdas), longName: "factor of all block writes",
        units: "1", isCoordinate: true))
    result.append(
      ResultVariable(
        "count", [], .integers([tokens]), longName: "tokens with a next one", units: "1"))
    return result
  }

  /// The losses of models whose massive activations are set to something else.
  var massiveVariables: [ResultVariable] {
    losses(
      "massive_zero_loss", [], [.massiveZero], "loss with massive activations set to 0",
      formula: "set before block massive_layer, the blocks from there on run", Self.sun)
      + losses(
        "massive_mean_loss", [], [.massiveMean], "loss with massive activations set to their means",
        formula: "set before block massive_layer to massive_mean, the blocks from there on run",
        Self.sun)
  }
}
