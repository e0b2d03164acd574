import NormLens
import TestSupport
import Testing

/// Keeps every gradient that a pass hands over.
private struct Collector: BackwardVisitor {
  var wanted: (HookName) -> Bool = { _ in true }
  var gradients: [HookName: [Tensor]] = [:]
  var order: [HookName] = []

  func wants(_ name: HookName) -> Bool { wanted(name) }
  mutating func visit(_ name: HookName, run: Int, _ gradient: Tensor) {
    if gradients[name] == nil { order.append(name) }
    gradients[name, default: []].append(gradient)
    #expect(gradients[name]?.count == run + 1, "\(name): runs out of order")
  }

  func callAsFunction(_ name: HookName, _ run: Int = 0) throws -> Tensor {
    try #require(gradients[name])[run]
  }
}

/// Keeps what makes up every parameter's gradient.
private struct ParameterCollector: BackwardVisitor {
  var terms: [ParameterStep: [(input: Tensor, gradient: Tensor)]] = [:]

  func wants(_ name: HookName) -> Bool { name.site == .embed }
  mutating func visit(_ name: HookName, run: Int, _ gradient: Tensor) {}
  func wants(_ step: ParameterStep) -> Bool { true }
  mutating func visit(
    _ step: ParameterStep, run: Int, input: () throws -> Tensor, gradient: Tensor
  ) throws {
    terms[step, default: []].append((try input(), gradient))
  }
}

/// The backward pass against differences of forward passes, and against itself.
@Suite struct BackwardPassTests {
  static let names = [
    "tiny-ln", "tiny-lnfree", "tiny-1x1", "tiny-relu-untied", "tiny-gelu-erf", "rmsnorm",
  ]

  static func load(_ name: String) throws -> GPT2 {
    name == "rmsnorm" ? try RMSNormTests.checkpoint().model() : try Models.load(name)
  }

  static func prompts(_ model: GPT2) -> [[Int]] {
    [7, 3, 5].enumerated().map { seed, length in
      (0..<min(length, model.config.nCtx)).map { ($0 * 31 + seed * 17 + 5) % model.config.dVocab }
    }
  }

  /// A linear metric of a few logits of a prompt.
  static func start(_ model: GPT2, length: Int, seed: UInt64 = 1, onlyLast: Bool = false)
    -> LogitGradient
  {
    let positions = onlyLast || length < 3 ? [length - 1] : [1, length - 1]
    let tokens = [0, 3, 1].map { $0 % model.config.dVocab }
    return LogitGradient(
      at: positions, tokens: tokens, Models.noise([positions.count, 3], seed: seed))
  }

  /// Its value.
  static func value(_ start: LogitGradient, _ logits: Tensor) -> Double {
    var sum = 0.0
    for (row, position) in start.positions.enumerated() {
      for column in 0..<start.values.shape[1] {
        let token = start.tokens?[column] ?? column
        sum += Double(start.values[row, column]) * Double(logits[position, token])
      }
    }
    return sum
  }

  private func gradients(
    _ model: GPT2, _ prompts: [[Int]], _ start: [LogitGradient], rules: BackwardRules = .gradient,
    from first: [Int]? = nil, wanted: @escaping (HookName) -> Bool = { _ in true }
  ) throws -> Collector {
    var collector = Collector(wanted: wanted)
    let runs = try BaseRun.batch(model, prompts)
    try BackwardPass(model, runs, rules: rules, from: first).walk(from: start, &collector)
    return collector
  }

  /// Along a random direction at each hook the metric changes as the gradient says.
  @Test(arguments: names) func finiteDifferences(name: String) throws {
    let model = try Self.load(name)
    let prompt = Self.prompts(model)[0]
    let start = Self.start(model, length: prompt.count)
    let gradients = try gradients(model, [prompt], [start])
    let every = HookName.all(nLayers: model.config.nLayers, optional: true)
    #expect(Set(gradients.order) == Set(every))
    #expect(gradients.order.last == HookName(.embed))
    let (_, cache) = try model.runWithCache(prompt, hooks: Models.everyHook(model))
    var (worst, worstHook) = (0.0, "")
    for hook in every {
      let gradient = try gradients(hook)
      let activation = try cache.tensor(hook)
      try #require(gradient.shape == activation.shape, "\(hook): \(gradient.shape)")
      let finite = activation.scalars.filter(\.isFinite)
      let size = finite.map { Double($0) * Double($0) }.reduce(0, +) / Double(finite.count)
      let direction = Models.noise(activation.shape, seed: 7) * Float(size.squareRoot())
      func metric(_ step: Float) throws -> Double {
        let moved = Intervention.add(HookFilter(hook), direction * step)
        return Self.value(start, try model.run(prompt, interventions: [moved]))
      }
      let h: Float = model.config.activation == .relu ? 0.001 : 0.01  // fewer kinks in the way
      let near = try metric(h) - metric(-h)
      let far = try metric(2 * h) - metric(-2 * h)
      let difference = (8 * near - far) / Double(12 * h)
      let expected = gradient.dot(direction)
      let scale =
        (gradient.dot(gradient) * direction.dot(direction)).squareRoot()
        / Double(direction.count).squareRoot()
      let error = scale > 0 ? abs(difference - expected) / scale : abs(difference)
      if error > worst { (worst, worstHook) = (error, "\(hook)") }
      #expect(error < 5e-3, "\(hook): \(difference) by differences, \(expected) by the gradient")
    }
    print("\(name): gradients against differences: \(worst) at \(worstHook)")
  }
}
