import HookedGPT2
import Results
import Tensors

/// Whether a backward pass by rules passes on all that it starts with.
///
/// A linear map `y = x·W + b` conserves: `Σ y·ρ_y = Σ x·ρ_x + Σ b·ρ_y`. Where the rules make every step
/// linear, the relevance `Σ x·ρ` of the whole stream x at any height, with the shares of the biases above
/// it, is therefore that of the logits:
///
///     Σ_{pos,d} x·ρ + Σ_b b·∂M/∂b = Σ_v logit·∂M/∂logit
///
/// and the right side is the metric itself for the linear ones. Streams are those of `LogitLens`. What
/// the sum needs:
///
/// | rules | exact from |
/// |---|---|
/// | `ln`, `identity`, `attention-pattern` | the embeddings, `0_pre` |
/// | `ln`, `identity` | the last layer's `mid`: products of patterns and values conserve no more |
/// | `ln` | `final_post`: an activation's slope is not activation(x)/x |
/// | none | nowhere: a norm's derivative sees no change of length |
///
/// `ln` is not needed where there are no norms, `identity` not for ReLU, whose slope is relu(x)/x. The
/// uniform rule drops half of what a constant pattern should hand on, and with it attention conserves in
/// no case. Rezaei Jafari et al. 2025, arXiv:2508.21258; Ali et al. 2022, arXiv:2202.07304.
struct ConservationLedger {
  private let model: GPT2
  /// `[prompt][stream]`.
  private var relevance: [[Double]]
  /// Of each prompt the bias shares between two streams: those above stream i and not above i + 1.
  private var shares: [[Double]]
  private var start: [Double]
  /// Σ_pos ‖x‖·‖ρ‖, which rounding is proportional to.
  private var size: [[Double]]

  /// The share of what is multiplied that float32 may lose in a whole model: 2⁻²³ for each of the some
  /// hundred sums on the way, which mostly cancel.
  static let tolerance = 2e-5

  init(_ model: GPT2, prompts: Int) {
    self.model = model
    let streams = model.config.streamLabels.count
    relevance = Array(repeating: Array(repeating: 0, count: streams), count: prompts)
    (shares, size) = (relevance, relevance)
    start = Array(repeating: 0, count: prompts)
  }

  /// The index of a hook's stream.
  private func stream(_ name: HookName) -> Int? {
    guard let layer = name.layer else { return nil }
    switch name.site {
    case .residPre: return 2 * layer
    case .residMid: return 2 * layer + 1
    case .residPost where layer == model.config.nLayers - 1: return 2 * layer + 2
    default: return nil
    }
  }

  func wants(_ name: HookName) -> Bool { stream(name) != nil }

  /// Takes where a pass starts.
  mutating func take(prompt: Int, _ logits: Tensor, _ gradient: LogitGradient) {
    let last = shares[prompt].count - 1
    for (column, slope) in gradient.values.scalars.enumerated() {
      let token = gradient.tokens?[column] ?? column
      start[prompt] += Double(logits[token]) * Double(slope)
      if let bias = model.weights.b_U {
        shares[prompt][last] += Double(bias[token]) * Double(slope)
      }
    }
  }

  /// Takes a whole stream, `[pos, d_model]`, and its coefficients.
  mutating func take(_ name: HookName, prompt: Int, _ stream: Tensor, _ gradient: Tensor) {
    guard let index = self.stream(name) else { return }
    relevance[prompt][index] += stream.dot(gradient)
    for row in 0..<stream.shape[0] {
      let (x, g) = (stream.row(row), gradient.row(row))
      size[prompt][index] += (x.dot(x) * g.dot(g)).squareRoot()
    }
  }

  /// Takes the coefficients at the output of a step, `[pos, width]`: those of its bias are their sums.
  mutating func take(_ step: ParameterStep, prompt: Int, _ gradient: Tensor) {
    let bias: Tensor?
    let below: Int
    switch step {
    case .ln1(let layer): (bias, below) = (model.weights.blocks[layer].ln1?.bias, 2 * layer)
    case .qkv(let layer): (bias, below) = (model.weights.blocks[layer].b_QKV, 2 * layer)
    case .attnOut(let layer): (bias, below) = (model.weights.blocks[layer].b_O, 2 * layer)
    case .ln2(let layer): (bias, below) = (model.weights.blocks[layer].ln2?.bias, 2 * layer + 1)
    case .mlpIn(let layer): (bias, below) = (model.weights.blocks[layer].b_in, 2 * layer + 1)
    case .mlpOut(let layer): (bias, below) = (model.weights.blocks[layer].b_out, 2 * layer + 1)
    case .lnFinal: (bias, below) = (model.weights.lnFinal?.bias, 2 * model.config.nLayers)
    }
    guard let bias else { return }
    for row in 0..<gradient.shape[0] { shares[prompt][below] += bias.dot(gradient.row(row)) }
  }

  // MARK: what comes out

  /// The lowest stream from which on the sum holds; nil where it never does.
  static func exactFrom(_ rules: BackwardRules, _ config: GPT2Config) -> String? {
    let streams = config.streamLabels
    if !rules.ln && config.normalization != .none { return nil }
    if !rules.identity && config.activation != .relu { return streams[streams.count - 1] }
    if !rules.attentionPattern || rules.uniformAttention { return streams[streams.count - 2] }
    return streams[0]
  }

  /// Adds the variables to a relevance method's group.
  ///
  /// - Returns: a warning where a run misses the sum by more than rounding explains.
  func add(to group: inout ResultGroup, _ rules: BackwardRules, units: String) -> String? {
    let streams = model.config.streamLabels
    let exactFrom = Self.exactFrom(rules, model.config)
    let first = exactFrom.flatMap { streams.firstIndex(of: $0) } ?? streams.count
    var (biases, errors, tolerances) = (shares, shares, shares)
    var missed: [(prompt: Int, stream: Int)] = []
    for prompt in shares.indices {
      var (bias, largest) = (0.0, 0.0)
      for stream in streams.indices.reversed() {
        bias += shares[prompt][stream]
        largest = max(largest, size[prompt][stream])
        biases[prompt][stream] = bias
        errors[prompt][stream] = relevance[prompt][stream] + bias - start[prompt]
        tolerances[prompt][stream] = Self.tolerance * largest
      }
      if let stream = streams.indices.first(where: {
        $0 >= first && !(abs(errors[prompt][$0]) <= tolerances[prompt][$0])
      }) {
        missed.append((prompt, stream))
      }
    }
    func variable(_ name: String, _ values: [[Double]], _ longName: String) -> ResultVariable {
      ResultVariable(
        "conservation_" + name, ["prompt", "stream"], .float64(values.flatMap(\.self)),
        longName: longName, units: units, sign: "positive = raises the metric")
    }
    group.dimensions.append(Dimension("stream", .labels(streams)))
    group.variables += [
      variable(
        "stream", relevance, "relevance of the whole stream, sum of x times its coefficient"),
      variable("bias", biases, "relevance of the biases above the stream"),
      ResultVariable(
        "conservation_start", ["prompt"], .float64(start),
        longName: "relevance of the logits, the metric where it is linear in them", units: units,
        sign: "positive = raises the metric"),
      variable("error", errors, "stream + bias - start"),
      variable("tolerance", tolerances, "how large an error rounding explains"),
    ]
    group.attributes["conservation_exact_from"] = .string(exactFrom ?? "none")
    guard let worst = missed.first else { return nil }
    return
      "relevance is not conserved in \(missed.count) of \(shares.count) prompts, first in prompt "
      + "\(worst.prompt) at \(streams[worst.stream]): error "
      + "\(errors[worst.prompt][worst.stream]), expected at most "
      + "\(tolerances[worst.prompt][worst.stream]); the model's numbers are too large for float32"
  }
}
