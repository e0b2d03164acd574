import HookedGPT2
import OrderedCollections
import Results
import Tensors

/// What it costs to give up the norms' divisors: each norm's scale replaced by its mean over tokens, one
/// norm at a time and one after another (group `evaluate/freeze`).
///
/// **What it shows.** LayerNorm with a constant divisor is affine and can be folded away, which is how
/// LayerNorm is removed by fine-tuning: the MLPs' norms first, from the first block to the last, then those
/// of attention, then the final one. Before any fine-tuning, the loss that each step adds says how much
/// the model relies on that norm. Beside it stands what the gradient at the scales predicts, and for the
/// norms together the sum of what each does alone.
///
/// **What it does not.** The prediction is to first order in the change of the scale, which at position 0
/// may be tenfold; where the stream there is far longer than elsewhere, it fails. The queries' and keys' path
/// through a norm is frozen together with the values'.
///
/// Baroni et al. 2025, arXiv:2507.02559 (order, constant scale). Loss predicted from relative errors one
/// layer at a time: Malinovskii et al. 2024, arXiv:2411.17525.
public struct NormFreezing: Sendable {
  /// Which positions are frozen and make up the mean scale.
  public enum Positions: String, Sendable, CaseIterable {
    /// Every position, as in the removal of LayerNorm.
    case all
    /// All but position 0, which keeps its own scale.
    case rest
  }

  /// The most prompts that are run: the first of those with two tokens or more.
  public var prompts: Int
  /// Which positions are frozen.
  public var positions: Positions

  /// Freezing with its defaults.
  ///
  /// - Precondition: at least one prompt.
  public init(prompts: Int = 32, positions: Positions = .all) {
    precondition(prompts > 0, "NormFreezing: \(prompts) prompts")
    self.prompts = prompts
    self.positions = positions
  }

  /// One norm: where its scale is, and what is known of it.
  private struct FrozenNorm {
    let label: String
    let name: HookName
    let epsilon: Double
    /// Mean over tokens of what rows are divided by.
    var scale = 0.0
    /// What the gradient at the scale predicts of the summed loss.
    var predicted = 0.0
    /// `Σ|z′ − z|²` and `Σ|z|²`, in units of d_model.
    var error = 0.0
    var length = 0.0
  }

  /// Runs the model with frozen norms.
  ///
  /// - Parameters:
  ///   - model: a model with norms.
  ///   - prompts: token ids; the first ``prompts`` of two tokens or more are run.
  ///   - batchSize: how many prompts run at once.
  ///   - skipped: tokens that are not counted where they are to be predicted.
  ///   - progress: called as often as ``steps(_:_:skipping:)`` says; may throw to stop.
  /// - Throws: `AnalysisError.nonFinite`, `ModelError`; what `progress` throws.
  /// - Complexity: per prompt a forward and a backward pass, for L blocks `2L(L + 1)` blocks more and
  ///   `4L + 3` unembeddings of every token.
  func run(
    _ model: GPT2, _ prompts: [[Int]], batchSize: Int, skipping skipped: Set<Int>,
    progress: () throws -> Void
  ) throws -> ResultGroup {
    let texts = texts(prompts, skipping: skipped)
    let sites = try scales(model, texts, progress: progress)
    let order = Self.removalOrder(sites.map(\.name))
    var losses = Losses(
      base: 0, single: sites.map { _ in 0 }, cumulative: order.map { _ in 0 })
    for start in stride(from: 0, to: texts.count, by: max(batchSize, 1)) {
      let batch = Array(texts[start..<min(texts.count, start + max(batchSize, 1))])
      try FrozenRuns(model, batch, sites.map { ($0.name, Float($0.scale)) }, first: first)
        .add(to: &losses, order)
      for _ in 0..<batch.count * Self.resumedSteps(model) { try progress() }
    }
    let count = texts.reduce(0) { $0 + $1.positions.count }
    return try group(sites, order, losses, count: count, prompts: texts.count)
  }

  /// How often a run calls `progress`: about once for each forward pass.
  func steps(_ model: GPT2, _ prompts: [[Int]], skipping skipped: Set<Int>) -> Int {
    texts(prompts, skipping: skipped).count * (Self.gradientSteps + Self.resumedSteps(model))
  }

  /// What a prompt's gradient costs, in forward passes.
  private static let gradientSteps = 3

  /// What a prompt's runs with frozen norms cost, in forward passes.
  private static func resumedSteps(_ model: GPT2) -> Int { 2 * (model.config.nLayers + 1) }

  /// The prompts that are run, but for those of which no token counts.
  private func texts(_ prompts: [[Int]], skipping skipped: Set<Int>) -> [Text] {
    prompts.filter { $0.count > 1 }.prefix(self.prompts).compactMap { tokens in
      let counted = (0..<tokens.count - 1).filter { !skipped.contains(tokens[$0 + 1]) }
      return counted.isEmpty ? nil : Text(tokens: tokens, positions: counted)
    }
  }

  /// A prompt and the positions whose next tokens count.
  fileprivate struct Text {
    let tokens: [Int]
    let positions: [Int]
    var targets: [Int] { positions.map { tokens[$0 + 1] } }
  }

  /// Summed losses: of the model, with each norm frozen, and with the first ones of the order.
  fileprivate struct Losses {
    var base: Double
    var single: [Double]
    var cumulative: [Double]
  }

  private var first: Int { positions == .rest ? 1 : 0 }

  /// ln2 of every block, ln1 of every block, then the final norm; indices of `names`.
  private static func removalOrder(_ names: [HookName]) -> [Int] {
    let sites: [Site] = [.ln2Scale, .ln1Scale, .lnFinalScale]
    return sites.flatMap { site in
      names.indices.filter { names[$0].site == site }
    }
  }

  // MARK: scales and gradients

  /// Each norm's mean scale, what freezing changes of its output, and what the gradient says of the loss.
  private func scales(
    _ model: GPT2, _ texts: [Text], progress: () throws -> Void
  ) throws -> [FrozenNorm] {
    var sites = model.normSites.map { site in
      FrozenNorm(
        label: site.label, name: site.scale, epsilon: Double(site.norm?.epsilon ?? 0))
    }
    var found: [[(scale: [Double], gradient: [Double])]] = []
    for (index, text) in texts.enumerated() {
      let (_, cache) = try model.runWithGradients(
        text.tokens, hooks: [.ln1Scale(.all), .ln2Scale(.all), .lnFinalScale]
      ) { Self.lossGradient($0, text) }
      found.append(
        try sites.map { site in
          func numbers(_ name: HookName) throws -> [Double] {
            try cache.tensor(name).scalars.dropFirst(first).map(Double.init)
          }
          let scale = try numbers(site.name)
          if !scale.allSatisfy(\.isFinite) {
            throw AnalysisError.nonFinite(
              analysis: "evaluate", what: "the scale of \(site.label) in prompt \(index)")
          }
          return (scale, try numbers(site.name.gradient))
        })
      for _ in 0..<Self.gradientSteps { try progress() }
    }
    let count = Double(found.reduce(0) { $0 + ($1.first?.scale.count ?? 0) })
    for index in sites.indices {
      let sum = found.reduce(0) { $0 + $1[index].scale.reduce(0, +) }
      sites[index].scale = sum / count
      for prompt in found {
        for (scale, gradient) in zip(prompt[index].scale, prompt[index].gradient) {
          sites[index].predicted += gradient * (sites[index].scale - scale)
          let length = 1 - sites[index].epsilon / (scale * scale)
          let change = scale / sites[index].scale - 1
          sites[index].error += length * change * change
          sites[index].length += length
        }
      }
    }
    return sites
  }

  /// The derivative of a prompt's summed loss: softmax less one at the next token.
  private static func lossGradient(_ logits: Tensor, _ text: Text) -> LogitGradient {
    var gradient = softmax(logits.gatheringRows(text.positions))
    let width = logits.shape[1]
    var values = gradient.mutableSpan
    for (row, target) in text.targets.enumerated() { values[row * width + target] -= 1 }
    return LogitGradient(at: text.positions, tokens: nil, gradient)
  }

  // MARK: the result

  private func group(
    _ sites: [FrozenNorm], _ order: [Int], _ losses: Losses, count: Int, prompts: Int
  ) throws -> ResultGroup {
    for (sum, frozen) in [(losses.base, "none")]
      + zip(losses.single, sites).map({ ($0, $1.label) })
      + zip(losses.cumulative, order).map({ ($0, "all up to \(sites[$1].label)") })
    where !sum.isFinite {
      throw AnalysisError.nonFinite(
        analysis: "evaluate", what: "the loss with frozen norms (\(frozen))")
    }
    let tokens = Double(count)
    let base = losses.base / tokens
    let deltas = losses.single.map { ($0 - losses.base) / tokens }
    let cumulative = losses.cumulative.map { ($0 - losses.base) / tokens }
    var sum = 0.0
    let summed = order.map { index in
      sum += deltas[index]
      return sum
    }
    let increase = "positive = freezing raises the loss"
    func variable(
      _ name: String, _ dimensions: [String], _ values: [Double], _ longName: String,
      _ units: String, _ formula: String, sign: String = "not signed",
      _ reference: String = "arXiv:2507.02559"
    ) -> ResultVariable {
      ResultVariable(
        name, dimensions, .float64(values), longName: longName, units: units, sign: sign,
        attributes: ["formula": .string(formula), "references": .string(reference)])
    }
    return ResultGroup(
      path: "evaluate/freeze",
      dimensions: [
        Dimension("ln", .labels(sites.map(\.label))),
        Dimension("removal", .labels(order.map { sites[$0].label })),
      ],
      variables: [
        variable("loss", [], [base], "mean cross-entropy, no norm frozen", "nat", "mean of -ln p"),
        variable(
          "scale_mean", ["ln"], sites.map(\.scale), "mean of what the norm divides by", "1",
          "mean over tokens of sqrt(var + eps); of sqrt(mean square + eps) for RMSNorm"),
        variable(
          "relative_error", ["ln"], sites.map { $0.length > 0 ? $0.error / $0.length : .nan },
          "relative squared change of the norm's normalised output when its scale is frozen", "1",
          "E|z' - z|^2/E|z|^2 = E|z|^2*(scale/mean scale - 1)^2/E|z|^2", "arXiv:2411.17525"),
        variable(
          "single_loss", ["ln"], losses.single.map { $0 / tokens },
          "mean cross-entropy with this norm's scale frozen at its mean", "nat", "mean of -ln p"),
        variable(
          "single_delta", ["ln"], deltas, "loss that freezing this norm alone adds", "nat",
          "single_loss - loss", sign: increase),
        variable(
          "single_predicted", ["ln"], sites.map { $0.predicted / tokens },
          "what the gradient at the scale predicts of single_delta", "nat",
          "sum over tokens of dloss/dscale*(mean scale - scale)", sign: increase),
        variable(
          "cumulative_loss", ["removal"], losses.cumulative.map { $0 / tokens },
          "mean cross-entropy with this norm and all before it frozen", "nat", "mean of -ln p"),
        variable(
          "cumulative_delta", ["removal"], cumulative,
          "loss that freezing this norm and all before it adds", "nat", "cumulative_loss - loss",
          sign: increase),
        variable(
          "cumulative_predicted", ["removal"], summed,
          "what the norms' single effects add up to", "nat",
          "sum of single_delta of this norm and all before it", sign: increase),
        ResultVariable(
          "count", [], .integers([count]), longName: "tokens counted", units: "1",
          attributes: [
            "formula": .string("tokens that are predicted"),
            "references": .string("arXiv:2507.02559"),
          ]),
      ],
      attributes: [
        "references": .string("arXiv:2507.02559"), "freeze_prompts": .integer(prompts),
        "freeze_positions": .string(
          positions == .all
            ? "all: every position has the mean scale"
            : "rest: position 0 keeps its scale and does not count for the mean"),
        "removal_order": .string(
          "ln2 of every block, ln1 of every block (queries, keys and values together), ln_final"),
      ])
  }
}

/// Runs of a batch with frozen norms; each resumes where the first frozen norm is.
private struct FrozenRuns {
  private let model: GPT2
  private let texts: [NormFreezing.Text]
  private let scales: [(name: HookName, scale: Float)]
  private let first: Int
  /// Each prompt's stream before every block and behind the last.
  private let streams: [[Tensor]]

  init(
    _ model: GPT2, _ texts: [NormFreezing.Text], _ scales: [(HookName, Float)], first: Int
  ) throws {
    self.model = model
    self.texts = texts
    self.scales = scales
    self.first = first
    let last = HookName(.residPost, layer: model.config.nLayers - 1)
    let (_, cache) = try model.runWithCache(
      batch: texts.map(\.tokens), hooks: [.residPre(.all), HookFilter(last)], logits: .none)
    streams = try (0...model.config.nLayers).map { layer in
      let name = layer < model.config.nLayers ? HookName(.residPre, layer: layer) : last
      return try texts.indices.map { try cache.tensor(name, prompt: $0) }
    }
  }

  private var layers: Int { model.config.nLayers }

  /// Adds this batch's summed losses.
  func add(to losses: inout NormFreezing.Losses, _ order: [Int]) throws {
    losses.base += loss(streams[layers])
    for (index, site) in scales.enumerated() {
      guard let layer = site.name.layer else {
        losses.single[index] += loss(streams[layers], finalScale: site.scale)
        continue
      }
      losses.single[index] += loss(try resumed(streams[layer], from: layer, frozen: [index]))
    }
    // Freezing goes up through the blocks, twice: what is before the newest frozen norm stays.
    var frozen: [Int] = []
    var stream = streams[0]
    for (step, index) in order.enumerated() {
      frozen.append(index)
      guard let layer = scales[index].name.layer else {
        losses.cumulative[step] += loss(stream, finalScale: scales[index].scale)
        continue
      }
      if layer == 0 { stream = streams[0] }
      stream = try resumed(stream, layers: [layer], frozen: frozen)
      let final = try resumed(stream, from: layer + 1, frozen: frozen)
      losses.cumulative[step] += loss(final)
    }
  }

  private func resumed(_ stream: [Tensor], from layer: Int, frozen: [Int]) throws -> [Tensor] {
    try resumed(stream, layers: Array(layer..<layers), frozen: frozen)
  }

  /// Blocks with those of the frozen norms that they have.
  private func resumed(_ stream: [Tensor], layers: [Int], frozen: [Int]) throws -> [Tensor] {
    if layers.isEmpty { return stream }
    let interventions = frozen.compactMap { index -> Intervention? in
      let (name, scale) = scales[index]
      guard let layer = name.layer, layers.contains(layer) else { return nil }
      return .edit(HookFilter(name)) { [first] scales in
        var values = scales.mutableSpan
        for row in first..<max(first, values.count) { values[row] = scale }
      }
    }
    return try model.run(layers: layers, on: stream, interventions: interventions)
  }

  /// The summed loss of final streams, the final norm's scale frozen if one is given.
  private func loss(_ streams: [Tensor], finalScale: Float? = nil) -> Double {
    var rows: [Tensor] = []
    var scales: [Float] = []
    for (text, stream) in zip(texts, streams) {
      rows.append(stream.gatheringRows(text.positions))
      guard let finalScale, let norm = model.weights.lnFinal else { continue }
      let own = norm.parts(stream).scale.scalars
      scales += text.positions.map { $0 < first ? own[$0] : finalScale }
    }
    return model.predictions(
      Tensor.concatenating(rows), targets: texts.flatMap(\.targets),
      scale: finalScale == nil ? nil : Tensor(scales, shape: [scales.count, 1])
    ).reduce(0) { $0 + $1.loss }
  }
}

extension NormSite {
  /// The hook of what the norm divides by.
  fileprivate var scale: HookName {
    switch input.site {
    case .residPre: HookName(.ln1Scale, layer: layer)
    case .residMid: HookName(.ln2Scale, layer: layer)
    default: HookName(.lnFinalScale)
    }
  }
}
