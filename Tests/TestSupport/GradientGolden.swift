public import NormLens

/// The derivatives that `Tests/Golden/make_gradient_golden.py` wrote for one model; its docstring says
/// what lies where.
public struct GradientGolden {
  /// A prompt and the number of its logits whose derivatives these are.
  public struct Start {
    /// The prompt's name in the file.
    public let name: String
    /// The token ids.
    public let tokens: [Int]
    /// The number's derivative by the logits.
    public let gradient: LogitGradient

    /// A prompt, and a number of its logits.
    public init(name: String, tokens: [Int], gradient: LogitGradient) {
      (self.name, self.tokens, self.gradient) = (name, tokens, gradient)
    }
  }

  /// The models with such a file.
  public static let models = [
    "tiny-ln", "tiny-lnfree", "patching-deep", "tiny-relu-untied", "tiny-gelu-erf",
    "tiny-gelu-erf-rmsnorm",
  ]

  /// The file.
  public let golden: Golden
  private let name: String
  private let hooks: [String]

  /// Opens a model's file.
  public init(_ name: String) throws {
    self.name = name
    golden = try Golden.open("gradients-\(name)")
    hooks = try golden.text("hooks", of: "/").split(separator: ",").map(String.init)
  }

  /// The model.
  public func model() throws -> GPT2 {
    let ending = "-rmsnorm"
    guard name.hasSuffix(ending) else { return try GPT2.load(Fixtures.checkpoint(name)) }
    var checkpoint = try Checkpoint.open(Fixtures.checkpoint(String(name.dropLast(ending.count))))
    checkpoint.config.normalization = .rmsNorm
    return try checkpoint.model()
  }

  /// The rule sets, by their names in the file.
  public func ruleSets() throws -> [String] { try golden.names(in: "gradients") }

  /// The rules of a set; nil where the file has a name that is none.
  public static func rules(_ name: String) -> BackwardRules? {
    BackwardRules(names: name == "none" ? [] : name.split(separator: "+").map(String.init))
  }

  /// The prompts of a rule set.
  public func starts(rules: String) throws -> [Start] {
    try golden.names(in: "gradients/\(rules)").map { prompt in
      let path = "prompts/\(prompt)"
      let values = try golden.array("\(path)/values")
      let columns =
        try golden.contains("\(path)/columns") ? golden.integers("\(path)/columns") : nil
      return Start(
        name: prompt, tokens: try golden.integers("\(path)/tokens"),
        gradient: LogitGradient(
          at: try golden.integers("\(path)/positions"), tokens: columns,
          Tensor(values.values.map { Float($0) }, shape: values.shape)))
    }
  }

  /// The derivative by every hook, optional ones too, by the hook's name.
  public func gradients(rules: String, prompt: String) throws -> [String: GoldenArray] {
    let values = try golden.array("gradients/\(rules)/\(prompt)").values
    let shapes = try golden.integers("prompts/\(prompt)/shapes")
    var start = 0
    var found: [String: GoldenArray] = [:]
    for (index, hook) in hooks.enumerated() {
      let shape = shapes[3 * index..<3 * index + 3].filter { $0 > 0 }
      let count = shape.reduce(1, *)
      found[hook] = GoldenArray(Array(values[start..<start + count]), shape: shape)
      start += count
    }
    return found
  }
}

extension GradientGolden.Start {
  /// The derivative by every logit, `[pos, d_vocab]`.
  public func dense(_ config: GPT2Config) -> DoubleMatrix {
    var dense = DoubleMatrix(tokens.count, config.dVocab)
    for (row, position) in gradient.positions.enumerated() {
      for column in 0..<gradient.values.shape[1] {
        let token = gradient.tokens?[column] ?? column
        dense[position, token] += Double(gradient.values.row(row)[column])
      }
    }
    return dense
  }
}
