public import HookedGPT2
import OrderedCollections
public import Results
import Tensors

/// Direct logit attribution: what each component of the residual stream writes straight into a
/// logit, or into the difference of two.
///
/// **What it shows.** The final stream is a sum: embeddings, every attention layer (head by head),
/// every MLP. The unembedding reads one direction of it, so each term's share of the logit is an
/// inner product. Use it to find which components speak for an answer.
///
/// **What it does not.** A component that works through later ones has no direct share: patching
/// finds those. And with LayerNorm the final scale depends on all terms together. The usual
/// attribution freezes it at what it was:
///
///     DLA(c) = (c − mean c)/σ(r) ⊙ γ · w
///
/// The true **direct effect** takes the component away and lets the scale follow:
///
///     DE(c) = LN(r)·w − LN(r − c)·w
///
/// Both are computed, for RMSNorm without the mean. Their gap, as a normalised mean absolute error
/// over heads, is how wrong the frozen attribution is; without LayerNorm it is zero by construction
/// of the model, not by an approximation.
///
///     NMAE pooled    = 100·Σ_{h,i} |DLA − DE| / Σ_{h,i} |DE|
///     NMAE head mean = mean over h of 100·Σ_i |DLA − DE| / Σ_i |DE|
///
/// Baroni et al. 2025, arXiv:2507.02559 (§5.1, App. G: equation 10 is the head mean, their printed
/// figures are the pooled ratio); Elhage et al. 2021.
public struct DirectLogitAttribution: Sendable {
  /// The position whose logits are attributed; negative numbers count from the end.
  public var position: Int
  /// Whether every neuron of every layer is attributed as well, shape `[prompt, layer, neuron]`.
  public var neurons: Bool
  /// How many prompts run at once.
  public var batchSize: Int

  /// The attribution at a position, the last by default.
  public init(position: Int = -1, neurons: Bool = false, batchSize: Int = 32) {
    self.position = position
    self.neurons = neurons
    self.batchSize = batchSize
  }

  /// Attributes each prompt's answer logit, less its wrong logit where it has one.
  ///
  /// - Parameters:
  ///   - model: any model.
  ///   - prompts: prompts with an answer each; `wrong` makes the target a logit difference.
  ///   - interventions: changes of activations; the attribution is that of the changed run.
  ///   - progress: told after each batch how many prompts are done.
  /// - Returns: group `dla` with `contribution(prompt, component)`, `head_contribution(prompt, layer, head)`,
  ///   `head_direct_effect`, `component_direct_effect`, `target`, `closure_error`, `nmae_pooled`,
  ///   `nmae_head_mean`, and `neuron_contribution(prompt, layer, neuron)` when asked for.
  ///   Heads and neurons of a layer whose output an intervention replaced are NaN: they are not in
  ///   the stream.
  /// - Throws: `AnalysisError.noAnswer`; `.closure` where the parts miss the whole by more than
  ///   1e-4 × max(1, Σ|parts|); `ModelError`.
  /// - Complexity: one forward pass a prompt and d_model² MACs a layer.
  public func run(
    _ model: GPT2, _ prompts: [Prompt], interventions: [Intervention] = [],
    progress: (Int) throws -> Void = { _ in }
  ) throws -> ResultSet {
    let axes = try PromptAxes(prompts, model: model, analysis: "dla")
    var table = Table(config: model.config)
    for start in stride(from: 0, to: prompts.count, by: max(batchSize, 1)) {
      let batch = Array(prompts[start..<min(prompts.count, start + batchSize)])
      try attribute(model, batch, first: start, interventions, into: &table)
      try progress(start + batch.count)
    }
    return try result(model, axes, table)
  }

  /// What is collected, row by row.
  private struct Table {
    let config: GPT2Config
    var contribution: [Float] = []
    var componentEffect: [Float] = []
    var head: [Float] = []
    var headEffect: [Float] = []
    var neuron: [Float] = []
    var target: [Float] = []
    var closure: [Float] = []
    /// Σ|DLA − DE| and Σ|DE| of each head.
    var gap: [Double]
    var effect: [Double]

    init(config: GPT2Config) {
      self.config = config
      gap = Array(repeating: 0, count: config.nLayers * config.nHeads)
      effect = gap
    }
  }

  private func attribute(
    _ model: GPT2, _ batch: [Prompt], first: Int, _ interventions: [Intervention],
    into table: inout Table
  ) throws {
    let config = model.config
    var hooks: [HookFilter] = [.embed, .posEmbed, .attnOut(.all), .mlpOut(.all), .z(.all)]
    if neurons { hooks.append(.mlpPost(.all)) }
    // What a head writes is z·W_O unless an intervention changed it behind that product.
    let resultsChanged = interventions.contains { $0.target.site == .result }
    if resultsChanged { hooks.append(.result(.all)) }
    hooks.append(.residPost(.layer(config.nLayers - 1)))
    hooks.append(.unembedIn)
    let (logits, cache) = try model.runWithCache(
      batch: batch.map(\.tokens), hooks: hooks, positions: .at([position]),
      logits: .at(.at([position])), interventions: interventions)

    for (index, prompt) in batch.enumerated() {
      guard let answer = prompt.answer else {
        throw AnalysisError.noAnswer(analysis: "dla", prompt: first + index)
      }
      for token in [answer, prompt.wrong ?? answer] where token < 0 || token >= config.dVocab {
        throw ModelError.tokenOutOfRange(
          prompt: first + index, position: -1, token: token, limit: config.dVocab)
      }
      func activation(_ site: Site, _ layer: Int? = nil) throws -> Tensor {
        try cache.tensor(site, layer: layer, prompt: index).row(0)
      }
      let readout = FinalReadout(model, answer: answer, wrong: prompt.wrong)
      let stream = try activation(.residPost, config.nLayers - 1)
      let scale = readout.scale(stream.span)

      // The components, in the order of the stream.
      var components = [try activation(.embed), try activation(.posEmbed)]
      for layer in 0..<config.nLayers {
        components.append(try activation(.attnOut, layer))
        components.append(try activation(.mlpOut, layer))
      }
      var (sum, magnitude) = (readout.bias, Swift.abs(readout.bias))
      for component in components {
        let contribution = readout.project(component.span) / scale
        sum += contribution
        magnitude += Swift.abs(contribution)
        table.contribution.append(Float(contribution))
        table.componentEffect.append(
          Float(readout.directEffect(of: component.span, in: stream.span, scale: scale)))
      }
      table.contribution.append(Float(readout.bias))
      table.componentEffect.append(Float(readout.bias))

      let target =
        Double(logits[index][0, answer])
        - (prompt.wrong.map { Double(logits[index][0, $0]) } ?? 0)
      let error = sum - target
      let limit = 1e-4 * max(1, magnitude)
      guard Swift.abs(error) <= limit else {
        throw error.isNaN
          ? AnalysisError.nonFinite(analysis: "dla", what: "the target of prompt \(first + index)")
          : AnalysisError.closure(
            analysis: "dla", prompt: first + index, error: error, limit: limit)
      }
      table.target.append(Float(target))
      table.closure.append(Float(error))

      for layer in 0..<config.nLayers {
        let z = try activation(.z, layer)
        let block = model.weights.blocks[layer]
        let results = resultsChanged ? try activation(.result, layer) : nil
        let heads = (0..<config.nHeads).map { head in
          let W_O = MatrixView(model.W_O(layer: layer, head: head))
          let result = results?.row(head) ?? matmul(z.rows(head..<head + 1), W_O)
          return (
            contribution: readout.project(result.span) / scale,
            effect: readout.directEffect(of: result.span, in: stream.span, scale: scale)
          )
        }
        let attnOut = try activation(.attnOut, layer)
        let headSum =
          readout.project(block.b_O.span) / scale
          + heads.reduce(0) { $0 + $1.contribution }
        let areHeads = addsUp(headSum, readout.project(attnOut.span) / scale, magnitude)
        for (head, value) in heads.enumerated() {
          table.head.append(areHeads ? Float(value.contribution) : .nan)
          table.headEffect.append(areHeads ? Float(value.effect) : .nan)
          if !areHeads { continue }
          table.gap[layer * config.nHeads + head] += Swift.abs(value.contribution - value.effect)
          table.effect[layer * config.nHeads + head] += Swift.abs(value.effect)
        }
        if neurons {
          let post = try activation(.mlpPost, layer)
          let values = (0..<config.dMLP).map { neuron in
            Double(post[neuron]) * readout.project(block.W_out.row(neuron).span) / scale
          }
          let mlpOut = try activation(.mlpOut, layer)
          let sum = readout.project(block.b_out.span) / scale + values.reduce(0, +)
          let areNeurons = addsUp(sum, readout.project(mlpOut.span) / scale, magnitude)
          table.neuron += values.map { areNeurons ? Float($0) : .nan }
        }
      }
    }
  }

  /// Whether parts are the whole of what their layer wrote. They are not where an intervention
  /// changed the layer's output behind them; those parts are not in the stream and are NaN.
  private func addsUp(_ sum: Double, _ whole: Double, _ magnitude: Double) -> Bool {
    Swift.abs(sum - whole) <= 1e-4 * max(1, magnitude)
  }

  private func result(_ model: GPT2, _ axes: PromptAxes, _ table: Table) throws -> ResultSet {
    let config = model.config
    let labels =
      ["embed", "pos_embed"]
      + (0..<config.nLayers).flatMap { ["\($0)_attn_out", "\($0)_mlp_out"] } + ["bias"]
    let sign = "positive = raises the target (answer minus wrong logit)"
    func variable(
      _ name: String, _ dimensions: [String], _ values: [Float], _ longName: String,
      units: String = "logit", sign: String = sign, formula: String
    ) -> ResultVariable {
      ResultVariable(
        name, dimensions, .float32(values), longName: longName, units: units, sign: sign,
        attributes: ["formula": .string(formula)])
    }

    let (frozen, direct) =
      switch config.normalization {
      case .layerNorm:
        (
          "(c - mean(c))/scale(r) * gain . w, scale frozen",
          "LN(r).w - LN(r - c).w, scale recomputed"
        )
      case .rmsNorm:
        ("c/scale(r) * gain . w, scale frozen", "RMS(r).w - RMS(r - c).w, scale recomputed")
      case .crmsNorm:
        ("c/scale(r) * gain . w, scale frozen", "CRMS(r).w - CRMS(r - c).w, scale recomputed")
      case .none: ("c . w", "r.w - (r - c).w")
      }
    var variables = [
      variable(
        "contribution", ["prompt", "component"], table.contribution,
        "direct logit attribution of each component", formula: frozen),
      variable(
        "component_direct_effect", ["prompt", "component"], table.componentEffect,
        "direct effect of each component", formula: direct),
      variable(
        "head_contribution", ["prompt", "layer", "head"], table.head,
        "direct logit attribution of each head, b_V included, b_O not", formula: frozen),
      variable(
        "head_direct_effect", ["prompt", "layer", "head"], table.headEffect,
        "direct effect of each head", formula: direct),
      variable(
        "target", ["prompt"], table.target, "the logit or logit difference that is attributed",
        formula: "logit[answer] - logit[wrong]"),
      variable(
        "closure_error", ["prompt"], table.closure, "what the components miss the target by",
        sign: "components minus target", formula: "sum(contribution) - target"),
    ]
    var dimensions = [
      axes.prompt, axes.position, Dimension("component", .labels(labels)),
      Dimension("layer", count: config.nLayers), Dimension("head", count: config.nHeads),
    ]
    if neurons {
      dimensions.append(Dimension("neuron", count: config.dMLP))
      variables.append(
        variable(
          "neuron_contribution", ["prompt", "layer", "neuron"], table.neuron,
          "direct logit attribution of each neuron, b_out not included", formula: frozen))
    }

    let pooled = 100 * ratio(table.gap.reduce(0, +), table.effect.reduce(0, +))
    let perHead = zip(table.gap, table.effect).map { 100 * ratio($0, $1) }
    let headMean = perHead.reduce(0, +) / Double(perHead.count)
    variables += [
      variable(
        "nmae_pooled", [], [Float(pooled)],
        "error of the frozen-scale attribution of heads, pooled", units: "percent",
        sign: "not signed",
        formula: "100 sum|head_contribution - head_direct_effect| / sum|head_direct_effect|"),
      variable(
        "nmae_head_mean", [], [Float(headMean)],
        "error of the frozen-scale attribution, mean over heads", units: "percent",
        sign: "not signed",
        formula: "mean over heads of 100 sum_i|contribution - direct effect| / sum_i|direct effect|"
      ),
    ]
    let group = ResultGroup(
      path: "dla", dimensions: dimensions,
      variables: axes.tokenCoordinates + (try axes.answerCoordinates(model)) + variables,
      attributes: [
        "position": .integer(position),
        "references": .string("arXiv:2507.02559 (direct effect, NMAE); arXiv:2112.00861"),
      ])
    return ResultSet(
      title: "Direct logit attribution of \(model.identity.name)", groups: [group],
      provenance: Provenance(model: model))
  }

  /// a/b, and 0 where there is nothing to compare.
  private func ratio(_ a: Double, _ b: Double) -> Double { b == 0 ? 0 : a / b }
}
