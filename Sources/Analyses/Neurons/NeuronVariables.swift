import HookedGPT2
import OrderedCollections
import Results
import RealModule

/// The axes and variables of the group `neurons`.
struct NeuronVariables {
  private let weights: NeuronWeights
  /// The neurons of the highest scores, whose cosines with all singular directions are kept.
  private let top: [Int]

  private static let stolfo = "arXiv:2406.16254"
  private static let baroni = "arXiv:2507.02559"
  private static let gurnee = "arXiv:2401.12181"

  init(_ weights: NeuronWeights) {
    self.weights = weights
    let score = weights.score
    top = Array(weights.ranking.filter { !score[$0].isNaN }.prefix(16))
  }

  /// The group; without effects what the weights say.
  func group(
    means: [Double]? = nil, effects: NeuronAblation? = nil, _ choice: EntropyNeurons.Choice? = nil,
    skipFirst: Int = 0, seed: UInt64 = 0
  ) -> ResultGroup {
    var dimensions = [
      Dimension("neuron", count: weights.norm.count), Dimension("neuron_top", .integers(top)),
      Dimension("index", count: weights.singularValues.count),
    ]
    var variables = ofWeights
    var attributes: OrderedDictionary<String, AttributeValue> = [
      "layer": .integer(weights.layer), "null_space": .integer(weights.nullSpace),
      "gauge": .string(
        "W_U as the normalised stream reads it, less its mean over the vocabulary; W_out without its "
          + "mean where the model takes it away: the same with and without fold_ln, "
          + "center_writing_weights, center_unembed"),
      "tokens_without_direction": .integer(weights.tokensWithoutDirection),
    ]
    if let means, let effects, let choice {
      dimensions.append(Dimension("count", .integers(Array(0...effects.cumulative.count))))
      variables += ofText(means, effects, choice)
      attributes["positions"] = .string(
        "all that have a next token, position 0 among them"
          + (skipFirst > 0 ? ", but for the first \(skipFirst) of each prompt" : ""))
      attributes["ablated_together"] = .integers(choice.together)
      attributes["seed"] = .integer(Int(truncatingIfNeeded: seed))
    }
    return ResultGroup(
      path: "neurons", dimensions: dimensions, variables: variables, attributes: attributes)
  }

  private func variable(
    _ name: String, _ dimensions: [String], _ values: [Double], _ longName: String, _ units: String,
    formula: String, _ reference: String, sign: String = "not signed"
  ) -> ResultVariable {
    ResultVariable(
      name, dimensions, .float64(values), longName: longName, units: units, sign: sign,
      attributes: ["formula": .string(formula), "references": .string(reference)])
  }

  private var ofWeights: [ResultVariable] {
    let neuron = ["neuron"]
    return [
      variable(
        "norm", neuron, weights.norm, "length of what the neuron writes", "1",
        formula: "|w_i|, w_i = W_out[i]", Self.stolfo),
      variable(
        "logit_variance", neuron, weights.logitVariance,
        "variance over the vocabulary of the cosine between write and unembedding", "1",
        formula: "Var_v (w_i.u_v)/(|w_i| |u_v|), unbiased", Self.gurnee),
      variable(
        "score", neuron, weights.score, "norm by logit variance, large for entropy neurons", "1",
        formula: "norm / logit_variance", Self.baroni),
      variable(
        "null_space_share", neuron, weights.nullSpaceShare,
        "how much of the write lies in the last \(weights.nullSpace) left singular directions of W_U",
        "1",
        formula: "|V0^T w_i| / |w_i|", Self.stolfo),
      variable(
        "singular_value", ["index"], weights.singularValues,
        "singular values of W_U, largest first; where the norm takes the mean away the last is 0, of the "
          + "ones direction", "1", formula: "W_U = U S V^T", Self.stolfo),
      variable(
        "null_space_cosine", ["neuron_top", "index"],
        top.flatMap { weights.singularCosines(of: $0) },
        "cosine of the write with each left singular direction of W_U", "1",
        formula: "|cos(w_i, U_k)|", Self.stolfo),
    ]
  }

  private func ofText(
    _ means: [Double], _ effects: NeuronAblation, _ choice: EntropyNeurons.Choice
  ) -> [ResultVariable] {
    let tokens = Double(effects.count)
    let neuron = ["neuron"]
    func spread(_ values: [Double]) -> [Double] {
      var all = [Double](repeating: .nan, count: weights.norm.count)
      for (value, neuron) in zip(values, choice.neurons) { all[neuron] = value }
      return all
    }
    // 0/0 is NaN: no tokens, no mean.
    func mean(
      _ sums: [NeuronAblation.EffectSum], _ path: KeyPath<NeuronAblation.EffectSum, Double>
    ) -> [Double] {
      spread(sums.map { $0[keyPath: path] / tokens })
    }
    let sign = "positive where ablation raises it"
    var reasons = [Int](repeating: 0, count: weights.norm.count)
    for (neuron, reason) in zip(choice.neurons, choice.reasons) { reasons[neuron] = reason }
    var variables = [
      ResultVariable(
        "ablated", neuron, .integers(reasons), longName: "why the neuron was ablated", units: "1",
        attributes: [
          "flag_values": .integers([0, 1, 2, 3]),
          "flag_meanings": .string("not_ablated top_score random asked_for"),
        ]),
      variable(
        "mean_activation", neuron, means,
        "mean of the neuron over all tokens, position 0 among them; what ablation sets it to", "1",
        formula: "E m_i", Self.stolfo),
    ]
    let kinds:
      [(
        String, KeyPath<NeuronAblation.EffectSum, Double>, KeyPath<NeuronAblation.EffectSum, Double>
      )] =
        [("loss", \.loss, \.lossMagnitude), ("entropy", \.entropy, \.entropyMagnitude)]
    for (what, signed, magnitude) in kinds {
      for (kind, sums, formula) in [
        ("total", effects.total, "x' = x + (E m_i - m_i) w_i, read through the final norm"),
        ("direct", effects.direct, "the same divided by the final norm's scale of x"),
      ] {
        variables.append(
          variable(
            "\(what)_effect_\(kind)", neuron, mean(sums, signed),
            "mean change of the \(what) when the neuron is held at its mean, \(kind) effect", "nat",
            formula: formula, Self.stolfo, sign: sign))
        variables.append(
          variable(
            "\(what)_effect_\(kind)_abs", neuron, mean(sums, magnitude),
            "mean size of the change of the \(what) when the neuron is held at its mean, \(kind) effect",
            "nat", formula: "E |change|", Self.baroni))
      }
      let shares = zip(effects.total, effects.direct).map { total, direct in
        1 - direct[keyPath: magnitude] / total[keyPath: magnitude]
      }
      variables.append(
        variable(
          what == "loss" ? "mediated_share" : "mediated_share_entropy", neuron, spread(shares),
          "share of the effect on the \(what) that the final norm mediates; negative where the norm "
            + "works against it", "1", formula: "1 - E|direct change| / E|total change|",
          Self.stolfo,
          sign: "1: all through the norm; 0: none"))
    }
    var median = variable(
      "loss_effect_total_abs_median", neuron,
      spread(choice.neurons.indices.map { Double(effects.sample.quantiles($0, [0.5])[0]) }),
      "median size of the change of the loss over tokens, total effect", "nat",
      formula: "median |change|", Self.baroni)
    median.attributes["sample"] = .string(
      effects.sample.isSampled ? "\(QuantileSample.capacity) tokens" : "all tokens")
    variables.append(median)
    return variables + together(effects)
  }

  /// The first neurons of the list together.
  private func together(_ effects: NeuronAblation) -> [ResultVariable] {
    let tokens = Double(effects.count)
    var variables = [
      ResultVariable(
        "tokens", [], .integers([effects.count]), longName: "predictions that count", units: "1"),
      variable(
        "base_loss", [], [effects.baseLoss / tokens], "mean loss of the model as it is", "nat",
        formula: "E -ln p(next token)", Self.baroni),
      variable(
        "base_entropy", [], [effects.baseEntropy / tokens], "mean entropy of the model as it is",
        "nat", formula: "E -sum p ln p", Self.baroni),
    ]
    for (what, base, path) in [
      ("loss", effects.baseLoss, \NeuronAblation.EffectSum.loss),
      ("entropy", effects.baseEntropy, \.entropy),
    ] {
      let changes = [0] + effects.cumulative.map { $0[keyPath: path] }
      let names = "with the first so many neurons of ablated_together held at their means"
      variables.append(
        variable(
          "cumulative_\(what)", ["count"], changes.map { (base + $0) / tokens },
          "mean \(what) \(names)", "nat", formula: "total effect of several neurons", Self.baroni))
      variables.append(
        variable(
          "cumulative_\(what)_change", ["count"], changes.map { 100 * $0 / base },
          "change of the mean \(what) \(names)", "percent",
          formula: "100 (mean_k - mean_0)/mean_0", Self.baroni,
          sign: "positive where ablation raises it"))
    }
    return variables
  }
}
