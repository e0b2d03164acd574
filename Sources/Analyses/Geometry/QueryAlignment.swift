public import HookedGPT2
import OrderedCollections
import RealModule
public import Results
import Tensors

/// How the queries of each head lie to the direction that LayerNorm takes out of the keys.
///
/// A head's score is u·z_j/√d_head + a constant of the query, with the *effective query*
/// u = γ ⊙ (W_K·q) and z_j the normalised stream at the key. z_j has mean zero, so that the part of u
/// along the ones vector does nothing: a head that wants to attend to all keys alike may point there
/// (Brody, Alon & Yahav 2023, arXiv:2305.02582), or have a small Pu = u − mean u. With LayerNorm
/// ‖z_j‖ ≤ √d bounds what the scores of one query can differ by. RMSNorm leaves z_j its mean: all of u counts
/// there, and ‖u‖ is in the bound.
///
/// The angle needs the published weights: weights that read the stream without its mean (LN-free
/// models, `fold_ln`, `center_reading_weights`) make every u perpendicular to the ones vector. There the
/// angle is NaN, and the file says why.
public struct QueryAlignment: Collector {
  private static let path = "query_alignment"

  private var summarized: SummarizedTable
  private let isUncentered: Bool
  private let nLayers: Int
  private let nHeads: Int

  /// Looks at the queries of all heads of a model.
  ///
  /// - Throws: `AnalysisError.noPrompts`; `.unsuitable` for a model whose stream has lost the ones
  ///   direction.
  public init(_ model: GPT2, _ prompts: [Prompt]) throws {
    try model.requireOnesDirection(for: "query alignment")
    (nLayers, nHeads) = (model.config.nLayers, model.config.nHeads)
    let axes = try PromptAxes(prompts, model: model, analysis: "query alignment")
    let obstacle = Self.obstacle(model)
    isUncentered = obstacle == nil
    summarized = SummarizedTable(Self.table(model, axes, obstacle))
  }

  /// Queries and keys.
  public var hooks: [HookFilter] { [.q(.all), .k(.all)] }

  /// `query_alignment`.
  public var tables: [PromptTable] { [summarized.table] }

  /// The means over prompts: `query_alignment/summary`.
  public func findings() -> [ResultGroup] { [summarized.summary] }

  /// The mean folded angle to any fixed direction, in degrees, of directions that are drawn uniformly in
  /// `dimension` dimensions: 90° − E[asin|x₁|].
  ///
  /// With x₁ = sin φ the density of φ is proportional to cos^(d−2) φ; the midpoint rule is exact to
  /// rounding.
  ///
  /// - Precondition: `dimension` is 2 or more.
  public static func randomAngle(dimension: Int) -> Double {
    precondition(dimension >= 2, "randomAngle: \(dimension) dimensions")
    let steps = 1 << 14
    var (weighted, total) = (0.0, 0.0)
    for step in 0..<steps {
      let angle = (Double(step) + 0.5) / Double(steps) * Double.pi / 2
      let density = Double.exp(Double(dimension - 2) * Double.log(Double.cos(angle)))
      weighted += angle * density
      total += density
    }
    return 90 - weighted / total * 180 / Double.pi
  }

  /// Takes the queries of each prompt.
  ///
  /// - Throws: `AnalysisError.nonFinite`; what the sink throws.
  public mutating func collect(_ batch: CollectedBatch, into sink: any PromptSink) throws {
    let lengths = (0..<batch.count).map { batch.length($0) }
    let starts = lengths.reduce(into: [0]) { $0.append($0[$0.count - 1] + $1) }
    // [layer][head], one value a row of the batch.
    var alignments: [[Alignment]] = []
    for layer in 0..<nLayers {
      let q = try batch.rows(HookName(.q, layer: layer))
      alignments.append(
        Self.effectiveQueries(batch.model, layer: layer, queries: q, isUncentered: isUncentered))
      if let bad = alignments[layer].firstIndex(where: { !$0.usableNorm.allSatisfy(\.isFinite) }) {
        throw AnalysisError.nonFinite(
          analysis: "query alignment", what: "an effective query of L\(layer)H\(bad)")
      }
    }
    for index in 0..<batch.count {
      let rows = starts[index]..<starts[index + 1]
      let classes = [rows.prefix(1), rows.dropFirst()]
      func medians(_ path: KeyPath<Alignment, [Double]>) -> [Double] {
        classes.flatMap { rows in
          alignments.flatMap { $0.map { quantile(Array($0[keyPath: path][rows]), 0.5) } }
        }
      }
      let prompt = batch.firstPrompt + index
      for (name, path) in Self.measures {
        try summarized.take(name, prompt: prompt, medians(path), into: sink)
      }
      try summarized.take("entropy", prompt: prompt, try entropies(batch, index), into: sink)
    }
  }

  /// The mean entropy of each head's attention by position class, layer and head.
  private func entropies(_ batch: CollectedBatch, _ index: Int) throws -> [Double] {
    let length = batch.length(index)
    var (first, rest): ([Double], [Double]) = ([], [])
    for layer in 0..<nLayers {
      let rows = rowStatistics(try batch.attentionScores(layer: layer, index), target: nil)
      for head in 0..<nHeads {
        let entropy = rows[head * length..<(head + 1) * length].map(\.entropy)
        first.append(entropy[0])
        rest.append(entropy.dropFirst().reduce(0, +) / Double(length - 1))
      }
    }
    return first + rest
  }

  // MARK: effective queries

  /// What is measured of each query of one head.
  private struct Alignment: Sendable {
    var angle: [Double] = []
    var onesShare: [Double] = []
    var usableNorm: [Double] = []
    var spreadBound: [Double] = []
  }

  private static var measures: [(String, KeyPath<Alignment, [Double]>)] {
    [
      ("angle_to_ones", \.angle), ("ones_share", \.onesShare), ("usable_norm", \.usableNorm),
      ("spread_bound", \.spreadBound),
    ]
  }

  /// Every head's effective queries, measured.
  ///
  /// - Parameter queries: shape `[rows, head, d_head]`.
  private static func effectiveQueries(
    _ model: GPT2, layer: Int, queries: Tensor, isUncentered: Bool
  ) -> [Alignment] {
    let (config, block) = (model.config, model.weights.blocks[layer])
    let (d, dHead, keys) = (config.dModel, config.dHead, config.dAttn)
    let bound = block.ln1 == nil ? .nan : 2 * Double(d).squareRoot()
    let scale = bound * Double(config.attentionScale(layer: layer))
    let isProjected = config.normalization != .rmsNorm
    return parallelMap(config.nHeads) { head in
      let W_K = MatrixView(block.W_QKV).columns(keys + head * dHead..<keys + (head + 1) * dHead)
      let u = matmulTransposed(queries.column(head), W_K)
      var result = Alignment()
      for row in 0..<u.shape[0] {
        var query = u.row(row).scalars.map(Double.init)
        if let gain = block.ln1?.gain {
          let gain = gain.span
          for i in 0..<d { query[i] *= Double(gain[i]) }
        }
        let mean = query.reduce(0, +) / Double(d)
        let usable = query.reduce(0) { $0 + ($1 - mean) * ($1 - mean) }.squareRoot()
        let along = abs(mean) * Double(d).squareRoot()
        let whole = usable * usable + along * along
        result.angle.append(
          isUncentered && whole > 0 ? Double.atan2(y: usable, x: along) * 180 / .pi : .nan)
        result.onesShare.append(isUncentered && whole > 0 ? along * along / whole : .nan)
        result.usableNorm.append(usable)
        result.spreadBound.append(scale * (isProjected ? usable : whole.squareRoot()))
      }
      return result
    }
  }

  /// Why the ones direction means nothing in these weights; nil where it does.
  static func obstacle(_ model: GPT2) -> String? {
    if model.config.normalization == .none {
      return "the weights of an LN-free model annihilate the ones direction, since the removed "
        + "LayerNorm's projection is folded into them: every effective query is perpendicular to it"
    }
    let steps: [WeightProcessing] = [.foldAffineNorms, .foldLN, .centerReadingWeights]
    if let step = steps.first(where: { model.identity.weightProcessing.contains($0.rawValue) }) {
      return
        "'\(step.rawValue)' has centred the weights that read the stream: every effective query "
        + "is perpendicular to the ones direction; open the model without it"
    }
    // Weights that were centred before they came here.
    let (d, dAttn) = (model.config.dModel, model.config.dAttn)
    for block in model.weights.blocks {
      let gain = block.ln1.map { $0.gain.scalars.map(Double.init) } ?? Array(repeating: 1, count: d)
      let along = block.W_QKV.sumOfRows(weightedBy: gain)
      let size = block.W_QKV.sumOfRows(weightedBy: gain.map { abs($0) }, magnitudes: true)
      if (dAttn..<2 * dAttn).contains(where: { abs(along[$0]) > 1e-5 * size[$0] }) { return nil }
    }
    return
      "the weights that read the stream are centred: every effective query is perpendicular to "
      + "the ones direction; take the published weights"
  }

  // MARK: variables

  private static func table(
    _ model: GPT2, _ axes: PromptAxes, _ obstacle: String?
  ) -> PromptTable {
    let all = ["prompt", "position_class", "layer", "head"]
    let classes = ClassQuantiles.classAxis
    let dimensions = [
      axes.prompt, classes, Dimension("layer", count: model.config.nLayers),
      Dimension("head", count: model.config.nHeads),
    ]
    let isProjected = model.config.normalization != .rmsNorm
    let meanings: [(name: String, meaning: String, units: String, formula: String)] = [
      (
        "angle_to_ones", "folded angle of the effective query to the ones direction", "degree",
        "acos |cos(u, 1)|, u = γ ⊙ (W_K·q)"
      ),
      (
        "ones_share",
        "share of the effective query along the ones direction"
          + (isProjected ? ", which no key answers to" : ""),
        "1", "cos²(u, 1)"
      ),
      (
        "usable_norm",
        "norm of the part of the effective query "
          + (isProjected ? "that keys answer to" : "across the ones direction"), "1",
        "‖u − mean u‖"
      ),
      (
        "spread_bound",
        "largest difference that the scores of one query can have; NaN without a norm",
        "logit",
        isProjected ? "2·√d_model·‖u − mean u‖·scale" : "2·√d_model·‖u‖·scale"
      ),
    ]
    let usesOnes = ["angle_to_ones", "ones_share"]
    func attributes(_ name: String, _ formula: String) -> OrderedDictionary<String, AttributeValue>
    {
      var result: OrderedDictionary<String, AttributeValue> = [
        "formula": .string(formula), "references": .string("arXiv:2305.02582"),
      ]
      if name == "angle_to_ones" && model.config.dModel > 1 {
        result["random_directions"] = .number(randomAngle(dimension: model.config.dModel))
      }
      if usesOnes.contains(name), let obstacle { result["not_computed"] = .string(obstacle) }
      return result
    }

    // What the query's bias alone would do: the head's preference whatever it reads.
    let bias = (0..<model.config.nLayers).flatMap { layer in
      effectiveQueries(
        model, layer: layer,
        queries: model.weights.blocks[layer].b_QKV.rows(0..<model.config.dAttn)
          .reshaped([1, model.config.nHeads, model.config.dHead]), isUncentered: obstacle == nil)
    }
    let known = zip(meanings, measures).map { meaning, measure in
      ResultVariable(
        "bias_\(meaning.name)", ["layer", "head"],
        .float64(bias.map { $0[keyPath: measure.1][0] }),
        longName: "\(meaning.meaning); of b_Q alone", units: meaning.units,
        attributes: attributes(
          meaning.name, meaning.formula.replacing("W_K·q", with: "W_K·b_Q")))
    }
    let measured = meanings.map { meaning in
      ResultVariable(
        meaning.name, all, .float32([]), longName: "\(meaning.meaning); median over queries",
        units: meaning.units, attributes: attributes(meaning.name, meaning.formula))
    }
    let entropy = ResultVariable(
      "entropy", all, .float32([]), longName: "entropy of the attention pattern, mean over queries",
      units: "nat", attributes: ["formula": .string("−Σ_j p_j·ln p_j")])
    return PromptTable(
      ResultGroup(path: path, dimensions: dimensions, variables: known),
      variables: measured + [entropy])
  }
}
