import Foundation
public import NormLens

/// A matrix of doubles, as its definition says.
public struct DoubleMatrix: Equatable, Sendable {
  /// How many rows.
  public let rows: Int
  /// How many columns.
  public let columns: Int
  /// The elements, row by row.
  public var values: [Double]

  /// A matrix of one value.
  public init(_ rows: Int, _ columns: Int, repeating value: Double = 0) {
    self.init(rows, columns, Array(repeating: value, count: rows * columns))
  }

  /// A matrix with these elements, row by row.
  public init(_ rows: Int, _ columns: Int, _ values: [Double]) {
    precondition(values.count == rows * columns)
    (self.rows, self.columns, self.values) = (rows, columns, values)
  }

  /// A tensor's matrix: its last axis, or `columns`, is that of the columns.
  public init(_ tensor: Tensor, columns: Int? = nil) {
    let columns = columns ?? tensor.shape[tensor.rank - 1]
    self.init(tensor.count / columns, columns, tensor.scalars.map(Double.init))
  }

  /// An element.
  public subscript(row: Int, column: Int) -> Double {
    get { values[row * columns + column] }
    set { values[row * columns + column] = newValue }
  }

  /// The elements of a row.
  public func row(_ row: Int) -> [Double] { Array(values[row * columns..<(row + 1) * columns]) }

  /// The elements of some columns.
  public func columns(_ range: Range<Int>) -> DoubleMatrix {
    DoubleMatrix(rows, range.count, (0..<rows).flatMap { r in range.map { self[r, $0] } })
  }

  /// Rows and columns exchanged.
  public var transposed: DoubleMatrix {
    DoubleMatrix(columns, rows, (0..<columns).flatMap { c in (0..<rows).map { self[$0, c] } })
  }

  /// Each element's image.
  public func map(_ body: (Double) -> Double) -> DoubleMatrix {
    DoubleMatrix(rows, columns, values.map(body))
  }

  /// Elements of two matrices taken together.
  public func combined(
    _ other: DoubleMatrix, _ body: (Double, Double) -> Double
  ) -> DoubleMatrix {
    precondition((rows, columns) == (other.rows, other.columns))
    return DoubleMatrix(rows, columns, zip(values, other.values).map { body($0, $1) })
  }

  /// The sum of all elements.
  public var sum: Double { values.reduce(0, +) }

  /// The largest |element| that is finite.
  public var magnitude: Double { values.reduce(0) { $1.isFinite ? max($0, abs($1)) : $0 } }

  /// Σ of the products of elements; 0·∞ is 0: a masked score has no share.
  public func dot(_ other: DoubleMatrix) -> Double {
    zip(values, other.values).reduce(0) { $0 + ($1.0 == 0 || $1.1 == 0 ? 0 : $1.0 * $1.1) }
  }

  /// The sum, entry by entry.
  public static func + (a: DoubleMatrix, b: DoubleMatrix) -> DoubleMatrix { a.combined(b, +) }

  /// The matrix product.
  public static func * (a: DoubleMatrix, b: DoubleMatrix) -> DoubleMatrix {
    precondition(a.columns == b.rows)
    var product = DoubleMatrix(a.rows, b.columns)
    for i in 0..<a.rows {
      for k in 0..<a.columns {
        for j in 0..<b.columns { product[i, j] += a[i, k] * b[k, j] }
      }
    }
    return product
  }

  /// The rows with a vector added to each.
  func addingToRows(_ vector: [Double]) -> DoubleMatrix {
    DoubleMatrix(rows, columns, values.indices.map { values[$0] + vector[$0 % columns] })
  }

  /// The columns added up.
  public var columnSums: [Double] {
    (0..<columns).map { c in (0..<rows).reduce(0) { $0 + self[$1, c] } }
  }
}

/// A GPT-2 in double precision, forward and backward by rules, as plain loops: for identities that hold
/// to 1e-12. One prompt at a time; shares no arithmetic with the engine.
///
/// Values are matrices under the hooks' names: `[pos, …]` with the axes after the first side by side,
/// attention scores and patterns as `[head·query_pos, key_pos]`. Hooks of one input per head
/// (`hook_attn_in`, `hook_q_input`, …) and `hook_mlp_in` do not exist here.
public struct DoubleGPT2 {
  /// What an MLP does to each neuron.
  public enum Nonlinearity {
    case geluNew, gelu, relu
    /// Nothing: for networks that are linear.
    case identity
  }

  /// Gain and bias of a norm.
  public struct Norm {
    /// γ.
    public var gain: [Double]
    /// β.
    public var bias: [Double]
  }

  /// The parameters of a block.
  public struct Block {
    /// The norm before attention; nil without norms.
    public var ln1: Norm?
    /// The norm before the MLP; nil without norms.
    public var ln2: Norm?
    /// The matrices; `W_Q`, `W_K`, `W_V` have all heads side by side.
    public var W_Q, W_K, W_V, W_O, W_in, W_out: DoubleMatrix
    /// The biases, likewise.
    public var b_Q, b_K, b_V, b_O, b_in, b_out: [Double]
  }

  /// The model's shape; `layerNormEpsilon` is read from here.
  public var config: GPT2Config
  /// The neurons' function.
  public var nonlinearity: Nonlinearity
  /// The blocks.
  public var blocks: [Block]
  /// The norm before the unembedding; nil without norms.
  public var lnFinal: Norm?
  /// The unembedding's bias.
  public var b_U: [Double]
  private let W_E, W_pos, W_U: DoubleMatrix

  /// The engine's model, its weights as they are in float32.
  public init(_ model: GPT2) {
    config = model.config
    let a = model.config.dAttn
    nonlinearity =
      switch model.config.activation {
      case .geluNew: .geluNew
      case .gelu: .gelu
      case .relu: .relu
      }
    func vector(_ tensor: Tensor) -> [Double] { tensor.scalars.map(Double.init) }
    func norm(_ norm: GPT2Weights.Norm?) -> Norm? {
      norm.map { Norm(gain: vector($0.gain), bias: vector($0.bias)) }
    }
    blocks = model.weights.blocks.map { block in
      let (W, b) = (DoubleMatrix(block.W_QKV), vector(block.b_QKV))
      return Block(
        ln1: norm(block.ln1), ln2: norm(block.ln2), W_Q: W.columns(0..<a),
        W_K: W.columns(a..<2 * a), W_V: W.columns(2 * a..<3 * a), W_O: DoubleMatrix(block.W_O),
        W_in: DoubleMatrix(block.W_in), W_out: DoubleMatrix(block.W_out), b_Q: Array(b[..<a]),
        b_K: Array(b[a..<2 * a]), b_V: Array(b[(2 * a)...]), b_O: vector(block.b_O),
        b_in: vector(block.b_in), b_out: vector(block.b_out))
    }
    lnFinal = norm(model.weights.lnFinal)
    W_E = DoubleMatrix(model.weights.W_E)
    W_pos = DoubleMatrix(model.weights.W_pos)
    W_U = DoubleMatrix(model.weights.W_U_transposed).transposed
    b_U = model.weights.b_U.map(vector) ?? Array(repeating: 0, count: W_U.columns)
  }

  /// The same model with every bias 0 through which relevance would be lost; `b_Q` and `b_K` stay.
  public func withoutBiases() -> DoubleGPT2 {
    func zero(_ vector: [Double]) -> [Double] { vector.map { _ in 0 } }
    var model = self
    for layer in blocks.indices {
      model.blocks[layer].b_V = zero(blocks[layer].b_V)
      model.blocks[layer].b_O = zero(blocks[layer].b_O)
      model.blocks[layer].b_in = zero(blocks[layer].b_in)
      model.blocks[layer].b_out = zero(blocks[layer].b_out)
      if let bias = blocks[layer].ln1?.bias { model.blocks[layer].ln1?.bias = zero(bias) }
      if let bias = blocks[layer].ln2?.bias { model.blocks[layer].ln2?.bias = zero(bias) }
    }
    if let bias = lnFinal?.bias { model.lnFinal?.bias = zero(bias) }
    model.b_U = zero(b_U)
    return model
  }

  // MARK: forward

  /// What a forward pass computed.
  public struct Run {
    /// The value of every hook.
    public fileprivate(set) var values: [String: DoubleMatrix] = [:]

    /// The value of a hook that must be there.
    public subscript(name: String) -> DoubleMatrix {
      guard let value = values[name] else { preconditionFailure("no hook \(name)") }
      return value
    }

    /// `[pos, d_vocab]`.
    public var logits: DoubleMatrix { self["unembed.hook_out"] }
  }

  /// Runs a prompt.
  ///
  /// - Parameter edit: may change each hook's value when it fires; what follows sees the change.
  public func run(
    _ tokens: [Int], edit: (_ name: String, _ value: inout DoubleMatrix) -> Void = { _, _ in }
  ) -> Run {
    var run = Run()
    func hook(_ name: String, _ value: DoubleMatrix) -> DoubleMatrix {
      var value = value
      edit(name, &value)
      run.values[name] = value
      return value
    }
    let (H, dh, T) = (config.nHeads, config.dHead, tokens.count)
    let embed = hook(
      "hook_embed", DoubleMatrix(T, W_E.columns, tokens.flatMap { W_E.row($0) }))
    let position = hook(
      "hook_pos_embed", DoubleMatrix(T, W_E.columns, (0..<T).flatMap { W_pos.row($0) }))
    var x = embed + position
    for (layer, block) in blocks.enumerated() {
      let h = "blocks.\(layer)."
      x = hook("\(h)hook_resid_pre", x)
      let read = norm(x, block.ln1, "\(h)ln1", hook)
      let q = hook("\(h)attn.hook_q", (read * block.W_Q).addingToRows(block.b_Q))
      let k = hook("\(h)attn.hook_k", (read * block.W_K).addingToRows(block.b_K))
      let v = hook("\(h)attn.hook_v", (read * block.W_V).addingToRows(block.b_V))
      var scores = DoubleMatrix(H * T, T, repeating: -.infinity)
      for head in 0..<H {
        for query in 0..<T {
          for key in 0...query {
            let dot = (0..<dh).reduce(0) {
              $0 + q[query, head * dh + $1] * k[key, head * dh + $1]
            }
            scores[head * T + query, key] = dot * attentionScale(layer)
          }
        }
      }
      scores = hook("\(h)attn.hook_attn_scores", scores)
      let pattern = hook("\(h)attn.hook_pattern", softmax(scores))
      var z = DoubleMatrix(T, H * dh)
      for head in 0..<H {
        for query in 0..<T {
          for i in head * dh..<(head + 1) * dh {
            z[query, i] = (0..<T).reduce(0) { $0 + pattern[head * T + query, $1] * v[$1, i] }
          }
        }
      }
      z = hook("\(h)attn.hook_z", z)
      let d = config.dModel
      var result = DoubleMatrix(T, H * d)
      for head in 0..<H {
        for row in 0..<T {
          for i in 0..<d {
            result[row, head * d + i] = (head * dh..<(head + 1) * dh)
              .reduce(0) { $0 + z[row, $1] * block.W_O[$1, i] }
          }
        }
      }
      result = hook("\(h)attn.hook_result", result)
      var attnOut = DoubleMatrix(T, d)
      for head in 0..<H { attnOut = attnOut + result.columns(head * d..<(head + 1) * d) }
      attnOut = hook("\(h)hook_attn_out", attnOut.addingToRows(block.b_O))
      x = hook("\(h)hook_resid_mid", x + attnOut)
      let mlpRead = norm(x, block.ln2, "\(h)ln2", hook)
      let pre = hook("\(h)mlp.hook_pre", (mlpRead * block.W_in).addingToRows(block.b_in))
      let post = hook("\(h)mlp.hook_post", pre.map(activation))
      let mlpOut = hook("\(h)hook_mlp_out", (post * block.W_out).addingToRows(block.b_out))
      x = hook("\(h)hook_resid_post", x + mlpOut)
    }
    let read = hook("unembed.hook_in", norm(x, lnFinal, "ln_final", hook))
    _ = hook("unembed.hook_out", (read * W_U).addingToRows(b_U))
    return run
  }

  /// The factor of the attention scores of a layer.
  private func attentionScale(_ layer: Int) -> Double {
    let scale = config.scaleAttnWeights ? 1 / Double(config.dHead).squareRoot() : 1
    return config.scaleAttnByInverseLayerIdx ? scale / Double(layer + 1) : scale
  }

  private func softmax(_ scores: DoubleMatrix) -> DoubleMatrix {
    DoubleMatrix(
      scores.rows, scores.columns,
      (0..<scores.rows).flatMap { row -> [Double] in
        let scores = scores.row(row)
        let top = scores.max() ?? 0
        let weights = scores.map { exp($0 - top) }
        let sum = weights.reduce(0, +)
        return weights.map { $0 / sum }
      })
  }

  /// What the next matrix reads: without norms the stream itself, or `hook_normalized` where that or the
  /// scale was edited.
  private func norm(
    _ x: DoubleMatrix, _ norm: Norm?, _ path: String,
    _ hook: (String, DoubleMatrix) -> DoubleMatrix
  ) -> DoubleMatrix {
    let own = scale(x)
    let scale = hook("\(path).hook_scale", own)
    let centered = self.centered(x)
    let made = DoubleMatrix(
      x.rows, x.columns,
      centered.values.indices.map { centered.values[$0] / scale.values[$0 / x.columns] })
    let normalized = hook("\(path).hook_normalized", made)
    guard let norm else { return own == scale && made == normalized ? x : normalized }
    let columns = x.columns
    return DoubleMatrix(
      x.rows, columns,
      normalized.values.indices.map {
        normalized.values[$0] * norm.gain[$0 % columns] + norm.bias[$0 % columns]
      })
  }

  private func centered(_ x: DoubleMatrix) -> DoubleMatrix {
    if isUncentered { return x }
    return DoubleMatrix(
      x.rows, x.columns,
      (0..<x.rows).flatMap { row -> [Double] in
        let row = x.row(row)
        let mean = row.reduce(0, +) / Double(row.count)
        return row.map { $0 - mean }
      })
  }

  /// Whether norms leave the mean of the coordinates where it is.
  private var isUncentered: Bool {
    [.rmsNorm, .crmsNorm].contains(config.normalization) || !config.hasOnesDirection
  }

  /// What each row is divided by, `[pos, 1]`.
  private func scale(_ x: DoubleMatrix) -> DoubleMatrix {
    if config.normalization == .none { return DoubleMatrix(x.rows, 1, repeating: 1) }
    let centered = self.centered(x)
    return DoubleMatrix(
      x.rows, 1,
      (0..<x.rows).map { row in
        let values = centered.row(row)
        var squares = values.reduce(0) { $0 + $1 * $1 }
        // The coordinate that was left out.
        let rest = -values.reduce(0, +)
        if config.normalization == .crmsNorm { squares += rest * rest }
        return (squares / Double(config.normWidth) + config.layerNormEpsilon).squareRoot()
      })
  }

  /// A neuron.
  public func activation(_ x: Double) -> Double {
    switch nonlinearity {
    case .geluNew: x / 2 * (1 + tanh((2 / Double.pi).squareRoot() * (x + 0.044715 * x * x * x)))
    case .gelu: x / 2 * (1 + erf(x / 2.0.squareRoot()))
    case .relu: max(x, 0)
    case .identity: x
    }
  }

  /// Its slope.
  public func slope(_ x: Double) -> Double {
    switch nonlinearity {
    case .geluNew:
      let c = (2 / Double.pi).squareRoot()
      let t = tanh(c * (x + 0.044715 * x * x * x))
      return (1 + t) / 2 + x / 2 * (1 - t * t) * c * (1 + 3 * 0.044715 * x * x)
    case .gelu:
      return (1 + erf(x / 2.0.squareRoot())) / 2 + x * exp(-x * x / 2)
        / (2 * Double.pi).squareRoot()
    case .relu: return x > 0 ? 1 : 0
    case .identity: return 1
    }
  }

  /// The identity rule's coefficient, `activation(x)/x`.
  public func identityCoefficient(_ x: Double) -> Double {
    switch nonlinearity {
    case .geluNew: (1 + tanh((2 / Double.pi).squareRoot() * (x + 0.044715 * x * x * x))) / 2
    case .gelu: (1 + erf(x / 2.0.squareRoot())) / 2
    case .relu: x > 0 ? 1 : 0
    case .identity: 1
    }
  }

  // MARK: backward

  /// What a backward pass computed.
  public struct Gradients {
    /// The gradient at every hook.
    public fileprivate(set) var values: [String: DoubleMatrix] = [:]
    /// Of every bias: the bias and the gradient by it. Names are `blocks.0.b_V`, `blocks.0.ln1.b`, ….
    public fileprivate(set) var biases: [String: (bias: [Double], gradient: [Double])] = [:]

    /// The gradient at a hook that must be there.
    public subscript(name: String) -> DoubleMatrix {
      guard let value = values[name] else { preconditionFailure("no gradient at \(name)") }
      return value
    }

    /// Σ b·∂M/∂b of the biases that `includes` names.
    public func biasShare(_ includes: (String) -> Bool = { _ in true }) -> Double {
      biases.filter { includes($0.key) }.values.reduce(0) { sum, pair in
        sum + zip(pair.bias, pair.gradient).reduce(0) { $0 + $1.0 * $1.1 }
      }
    }
  }

  /// The backward pass of a run.
  ///
  /// - Parameters:
  ///   - run: a run of this model, edited or not. Edits that replace a value are ignored: the gradient
  ///     goes on as if the value had been computed.
  ///   - start: the derivative by the logits, `[pos, d_vocab]`.
  public func gradients(
    _ run: Run, from start: DoubleMatrix, rules: BackwardRules = .gradient
  ) -> Gradients {
    var found = Gradients()
    let (H, dh, d) = (config.nHeads, config.dHead, config.dModel)
    let T = start.rows
    let half = rules.uniformAttention ? 0.5 : 1
    func bias(_ name: String, _ bias: [Double], _ gradient: DoubleMatrix) {
      found.biases[name] = (bias, gradient.columnSums)
    }
    found.values["unembed.hook_out"] = start
    bias("b_U", b_U, start)
    let read = start * W_U.transposed
    found.values["unembed.hook_in"] = read
    var g = norm(read, lnFinal, "ln_final", run, rules, &found)
    for (layer, block) in blocks.enumerated().reversed() {
      let h = "blocks.\(layer)."
      found.values["\(h)hook_resid_post"] = g
      found.values["\(h)hook_mlp_out"] = g
      bias("\(h)b_out", block.b_out, g)
      let gPost = g * block.W_out.transposed
      found.values["\(h)mlp.hook_post"] = gPost
      let coefficient = rules.identity ? identityCoefficient : slope
      let gPre = gPost.combined(run["\(h)mlp.hook_pre"]) { $0 * coefficient($1) }
      found.values["\(h)mlp.hook_pre"] = gPre
      bias("\(h)b_in", block.b_in, gPre)
      g = g + norm(gPre * block.W_in.transposed, block.ln2, "\(h)ln2", run, rules, &found)
      found.values["\(h)hook_resid_mid"] = g
      found.values["\(h)hook_attn_out"] = g
      bias("\(h)b_O", block.b_O, g)
      found.values["\(h)attn.hook_result"] = DoubleMatrix(
        T, H * d, (0..<T).flatMap { row in (0..<H).flatMap { _ in g.row(row) } })
      let gz = g * block.W_O.transposed
      found.values["\(h)attn.hook_z"] = gz

      let (q, k, v) = (run["\(h)attn.hook_q"], run["\(h)attn.hook_k"], run["\(h)attn.hook_v"])
      let pattern = run["\(h)attn.hook_pattern"]
      var (gPattern, gScores) = (DoubleMatrix(H * T, T), DoubleMatrix(H * T, T))
      var (gq, gk, gv) = (DoubleMatrix(T, H * dh), DoubleMatrix(T, H * dh), DoubleMatrix(T, H * dh))
      for head in 0..<H {
        let own = head * dh..<(head + 1) * dh
        for query in 0..<T {
          let row = head * T + query
          for key in 0..<T {
            for i in own { gv[key, i] += half * pattern[row, key] * gz[query, i] }
            if rules.attentionPattern { continue }
            gPattern[row, key] = half * own.reduce(0) { $0 + gz[query, $1] * v[key, $1] }
          }
          let mean = (0..<T).reduce(0) { $0 + pattern[row, $1] * gPattern[row, $1] }
          for key in 0..<T where key <= query {
            gScores[row, key] = pattern[row, key] * (gPattern[row, key] - mean)
            let slope = half * attentionScale(layer) * gScores[row, key]
            for i in own {
              gq[query, i] += slope * k[key, i]
              gk[key, i] += slope * q[query, i]
            }
          }
        }
      }
      found.values["\(h)attn.hook_pattern"] = gPattern
      found.values["\(h)attn.hook_attn_scores"] = gScores
      found.values["\(h)attn.hook_q"] = gq
      found.values["\(h)attn.hook_k"] = gk
      found.values["\(h)attn.hook_v"] = gv
      bias("\(h)b_Q", block.b_Q, gq)
      bias("\(h)b_K", block.b_K, gk)
      bias("\(h)b_V", block.b_V, gv)
      let back = gq * block.W_Q.transposed + gk * block.W_K.transposed + gv * block.W_V.transposed
      g = g + norm(back, block.ln1, "\(h)ln1", run, rules, &found)
      found.values["\(h)hook_resid_pre"] = g
    }
    found.values["hook_embed"] = g
    found.values["hook_pos_embed"] = g
    return found
  }

  /// Of every step with parameters its input and the gradient at its output.
  public func parameterSteps(
    _ run: Run, _ gradients: Gradients
  ) -> [ParameterStep: (input: DoubleMatrix, gradient: DoubleMatrix)] {
    var steps: [ParameterStep: (input: DoubleMatrix, gradient: DoubleMatrix)] = [:]
    /// A norm's output, and the norm itself as a step; without norms the stream.
    func read(_ norm: Norm?, _ step: ParameterStep, _ path: String, _ stream: String)
      -> DoubleMatrix
    {
      guard let norm else { return run[stream] }
      let (x, g) = (run["\(path).hook_normalized"], gradients["\(path).hook_normalized"])
      let d = x.columns
      // The gradient at the norm's output, before the gain.
      steps[step] = (
        x, DoubleMatrix(x.rows, d, g.values.indices.map { g.values[$0] / norm.gain[$0 % d] })
      )
      return DoubleMatrix(
        x.rows, d, x.values.indices.map { x.values[$0] * norm.gain[$0 % d] + norm.bias[$0 % d] })
    }
    for (layer, block) in blocks.enumerated() {
      let h = "blocks.\(layer)."
      let (q, k, v) = (
        gradients["\(h)attn.hook_q"], gradients["\(h)attn.hook_k"], gradients["\(h)attn.hook_v"]
      )
      steps[.qkv(layer)] = (
        read(block.ln1, .ln1(layer), "\(h)ln1", "\(h)hook_resid_pre"),
        DoubleMatrix(
          q.rows, 3 * q.columns, (0..<q.rows).flatMap { q.row($0) + k.row($0) + v.row($0) })
      )
      steps[.attnOut(layer)] = (run["\(h)attn.hook_z"], gradients["\(h)hook_attn_out"])
      steps[.mlpIn(layer)] = (
        read(block.ln2, .ln2(layer), "\(h)ln2", "\(h)hook_resid_mid"), gradients["\(h)mlp.hook_pre"]
      )
      steps[.mlpOut(layer)] = (run["\(h)mlp.hook_post"], gradients["\(h)hook_mlp_out"])
    }
    _ = read(lnFinal, .lnFinal, "ln_final", "unembed.hook_in")
    return steps
  }

  /// From the gradient at what the next matrix reads to that at the stream.
  private func norm(
    _ gradient: DoubleMatrix, _ norm: Norm?, _ path: String, _ run: Run, _ rules: BackwardRules,
    _ found: inout Gradients
  ) -> DoubleMatrix {
    let (rows, d) = (gradient.rows, gradient.columns)
    let (scale, normalized) = (run["\(path).hook_scale"], run["\(path).hook_normalized"])
    var g = gradient
    if let norm {
      found.biases["\(path).b"] = (norm.bias, gradient.columnSums)
      for i in g.values.indices { g.values[i] *= norm.gain[i % d] }
    }
    found.values["\(path).hook_normalized"] = g
    var (atScale, x) = (DoubleMatrix(rows, 1), DoubleMatrix(rows, d))
    for row in 0..<rows {
      let (s, hat, g) = (scale[row, 0], normalized.row(row), g.row(row))
      let along = zip(g, hat).reduce(0) { $0 + $1.0 * $1.1 }
      if norm == nil {
        atScale[row, 0] = -along / s
        for i in 0..<d { x[row, i] = g[i] }
        continue
      }
      if !rules.ln { atScale[row, 0] = -along / s }
      let mean = isUncentered ? 0 : g.reduce(0, +) / Double(d)
      // The derivative of the coordinate that was left out is -1 by every other.
      let rest = config.normalization == .crmsNorm ? -hat.reduce(0, +) : 0
      for i in 0..<d {
        let byScale = rules.ln ? 0 : (hat[i] - rest) * along / Double(config.normWidth)
        x[row, i] = (g[i] - mean - byScale) / s
      }
    }
    found.values["\(path).hook_scale"] = atScale
    return x
  }
}
