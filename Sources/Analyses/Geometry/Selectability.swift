public import HookedGPT2
import OrderedCollections
public import Results
import Tensors

/// How many keys of each attention head no query can choose, how far the others stand out, and
/// whether the head's own queries choose them.
///
/// LayerNorm puts all keys on a sphere, where each can be chosen; before it, and where it was removed,
/// keys of small norm lie in the hull of the others (Brody, Alon & Yahav 2023, arXiv:2305.02582).
/// A head reads a projection of that sphere into `d_head` dimensions, so that there the question is
/// open for any model. Compared are:
///
/// | `space` | keys |
/// |---|---|
/// | `residual` | x = resid_pre |
/// | `projected` | x − mean x |
/// | `normalized` | z, LayerNorm before gain and bias; without LayerNorm x − mean x |
/// | `gained` | z ⊙ γ + β |
/// | `head_keys` | x̂·W_K of each head, without b_K; the mean over heads |
///
/// All positions of a prompt are keys; shares are over those that are asked about at positions ≥ 1.
public struct Selectability: Collector {
  /// What is asked.
  public struct Settings: Sendable, Equatable {
    /// How many keys of a prompt are asked about besides position 0; all if nil.
    public var keys: Int?
    /// Whether the table holds every key's label, margin and first query that cannot choose it.
    public var perKey: Bool
    /// Which keys are asked about: the same seed asks about the same.
    public var seed: UInt64

    /// Settings; 32 keys by default.
    ///
    /// - Precondition: `keys` is at least 1.
    public init(keys: Int? = 32, perKey: Bool = false, seed: UInt64 = 0) {
      precondition(keys.map { $0 >= 1 } ?? true, "Selectability: \(keys ?? 0) keys")
      self.keys = keys
      self.perKey = perKey
      self.seed = seed
    }
  }

  private let settings: Settings

  /// The sets of keys in model space.
  public static let spaces = ["residual", "projected", "normalized", "gained", "head_keys"]
  private var heads: SummarizedTable
  private var spaces: SummarizedTable
  private let nLayers: Int
  private let nHeads: Int

  /// Looks at the keys of all heads and layers of a model.
  ///
  /// - Parameters:
  ///   - model: any model.
  ///   - prompts: the prompts that the pass will run.
  ///   - settings: what is asked.
  /// - Throws: `AnalysisError.noPrompts`; `.unsuitable` for a model whose stream has lost the ones
  ///   direction.
  public init(_ model: GPT2, _ prompts: [Prompt], _ settings: Settings = Settings()) throws {
    try model.requireOnesDirection(for: "selectability")
    self.settings = settings
    (nLayers, nHeads) = (model.config.nLayers, model.config.nHeads)
    let axes = try PromptAxes(prompts, model: model, analysis: "selectability")
    let layout = SelectabilityTable(
      axes: axes, config: model.config, settings: settings)
    heads = SummarizedTable(layout.heads, except: SelectabilityTable.perKeyNames)
    spaces = SummarizedTable(layout.spaces)
  }

  /// The streams that are read, queries and keys.
  public var hooks: [HookFilter] { [.residPre(.all), .ln1Normalized(.all), .q(.all), .k(.all)] }

  /// `selectability` and `selectability/space`.
  public var tables: [PromptTable] { [heads.table, spaces.table] }

  /// The keys that are asked about in a prompt, in order: position 0 and the sample.
  func positions(length: Int, prompt: Int) -> [Int] {
    guard let keys = settings.keys, length - 1 > keys else { return Array(0..<length) }
    var random = SeededGenerator(seed: settings.seed &+ 0x9E37_79B9 &* UInt64(prompt + 1))
    return [0] + Array(1..<length).shuffled(using: &random).prefix(keys).sorted()
  }

  /// Takes the keys of each prompt.
  ///
  /// - Throws: `AnalysisError.nonFinite`; what the sink throws.
  public mutating func collect(_ batch: CollectedBatch, into sink: any PromptSink) throws {
    for index in 0..<batch.count {
      let prompt = batch.firstPrompt + index
      let length = batch.length(index)
      let asked = positions(length: length, prompt: prompt)
      let inHeads = try headMargins(batch, index, asked)
      let chosen = try everChosen(batch, index)
      let statistics = inHeads.map { MarginStatistics($0, length: length) }
      try takeHeads(batch, index, statistics, chosen, into: sink)
      try takeSpaces(batch, index, asked, statistics, into: sink)
      if settings.perKey { try takeKeys(inHeads, prompt, into: sink) }
    }
  }

  /// The means over prompts: `selectability/summary` and `selectability/space/summary`.
  public func findings() -> [ResultGroup] { [heads.summary, spaces.summary] }

  /// The margins of each head's keys, by layer and head.
  private func headMargins(
    _ batch: CollectedBatch, _ index: Int, _ asked: [Int]
  ) throws -> [KeyMargins] {
    let dAttn = batch.model.config.dAttn
    var sets: [Tensor] = []
    for layer in 0..<nLayers {
      let k = try batch.cache.tensor(.k, layer: layer, prompt: index)
      try check(k, "the keys of layer \(layer)", batch.firstPrompt + index)
      let b_K = batch.model.weights.blocks[layer].b_QKV.rows(dAttn..<2 * dAttn)
      let negated = Tensor(b_K.scalars.map { -$0 }, shape: [dAttn])
      let keys = k.reshaped([k.shape[0], dAttn]).addingToRows(negated).reshaped(k.shape)
      for head in 0..<nHeads { sets.append(keys.column(head)) }
    }
    return keyMargins(of: sets, at: asked, questions: [.margins, .firstUnselectable])
  }

  /// For each layer and head, which keys have the largest score for at least one query of the run.
  private func everChosen(_ batch: CollectedBatch, _ index: Int) throws -> [Set<Int>] {
    let length = batch.length(index)
    var result: [Set<Int>] = []
    for layer in 0..<nLayers {
      let q = try batch.cache.tensor(.q, layer: layer, prompt: index)
      try check(q, "the queries of layer \(layer)", batch.firstPrompt + index)
      let rows = try batch.attentionScores(layer: layer, index)
      for head in 0..<nHeads {
        result.append(
          Set((0..<length).compactMap { rows.row(head * length + $0).indexOfMaximum }))
      }
    }
    return result
  }

  private mutating func takeHeads(
    _ batch: CollectedBatch, _ index: Int, _ all: [MarginStatistics], _ chosen: [Set<Int>],
    into sink: any PromptSink
  ) throws {
    let (config, prompt, length) = (
      batch.model.config, batch.firstPrompt + index, batch.length(index)
    )
    func take(_ name: String, _ values: [Double]) throws {
      try heads.take(name, prompt: prompt, values, into: sink)
    }
    try take("unselectable_share", all.map(\.unselectableShare))
    try take("tied_share", all.map(\.tiedShare))
    try take("margin_median", all.map { quantile($0.margins, 0.5) })
    try take("margin_p05", all.map { quantile($0.margins, 0.05) })
    try take("relative_margin_median", all.map { quantile($0.margins, 0.5) / $0.spread })
    try take("margin_first", all.map(\.firstMargin))
    try take("self_query_share", all.map(\.selfQueryShare))
    try take(
      "ever_argmax_share",
      chosen.map {
        length == 1 ? .nan : Double($0.subtracting([0]).count) / Double(length - 1)
      })
    try take(
      "selection_cost",
      all.enumerated().map { place, statistics in
        let scale = Double(config.attentionScale(layer: place / nHeads))
        return quantile(
          statistics.selectableMargins.map {
            KeyMargins.selectionCost(margin: $0, keys: length, scale: scale)
          }, 0.5)
      })
    try take("causal_unselectable_share", all.map(\.causalShare))
    try take("unsolved", all.map { Double($0.unsolved) })
    try take("trivially_selectable", [length <= config.dHead + 1 ? 1 : 0])
  }

  /// What becomes of every key of the heads.
  private mutating func takeKeys(
    _ margins: [KeyMargins], _ prompt: Int, into sink: any PromptSink
  ) throws {
    let width = heads.table.group[dimension: "key_pos"]?.count ?? 0
    var margin = [Double](repeating: .nan, count: margins.count * width)
    var (first, label) = (margin, margin)
    for (place, set) in margins.enumerated() {
      for key in set.keys {
        let cell = place * width + key.position
        label[cell] = Double(key.label.rawValue)
        if key.label == .unsolved { continue }
        margin[cell] = key.margin
        first[cell] = Double(key.firstUnselectable ?? -1)
      }
    }
    for (name, values) in [
      ("label", label), ("margin", margin), ("first_unselectable", first),
    ] {
      try heads.take(name, prompt: prompt, values, into: sink)
    }
  }

  private mutating func takeSpaces(
    _ batch: CollectedBatch, _ index: Int, _ asked: [Int],
    _ inHeads: [MarginStatistics],
    into sink: any PromptSink
  ) throws {
    let (model, prompt, length) = (batch.model, batch.firstPrompt + index, batch.length(index))
    var sets: [Tensor] = []
    for layer in 0..<nLayers {
      let x = try batch.cache.tensor(.residPre, layer: layer, prompt: index)
      try check(x, "the stream of layer \(layer)", prompt)
      sets += [x, x.centeringRows()]
      if let norm = model.weights.blocks[layer].ln1 {
        let z = try batch.cache.tensor(.ln1Normalized, layer: layer, prompt: index)
        sets += [z, z.multiplyingRows(norm.gain).addingToRows(norm.bias)]
      }
    }
    let found = keyMargins(of: sets, at: asked, questions: [.margins, .firstUnselectable]).map {
      MarginStatistics($0, length: length)
    }
    // Without LayerNorm what is normalised and what has a gain is the projection.
    let perLayer = found.count / nLayers
    let names: [(String, (MarginStatistics) -> Double)] = [
      ("unselectable_share", \.unselectableShare), ("tied_share", \.tiedShare),
      ("margin_median", { quantile($0.margins, 0.5) }),
      ("margin_p05", { quantile($0.margins, 0.05) }),
      ("relative_margin_median", { quantile($0.margins, 0.5) / $0.spread }),
      ("self_query_share", \.selfQueryShare), ("causal_unselectable_share", \.causalShare),
      ("unsolved", { Double($0.unsolved) }),
    ]
    for (name, value) in names {
      var values: [Double] = []
      for layer in 0..<nLayers {
        for space in 0..<4 {
          values.append(value(found[layer * perLayer + min(space, perLayer - 1)]))
        }
        let ofHeads = inHeads[layer * nHeads..<(layer + 1) * nHeads].map(value)
        values.append(ofHeads.reduce(0, +) / (name == "unsolved" ? 1 : Double(nHeads)))
      }
      try spaces.take(name, prompt: prompt, values, into: sink)
    }
    try spaces.take(
      "trivially_selectable", prompt: prompt, [length <= model.config.dModel + 1 ? 1 : 0],
      into: sink)
  }

  private func check(_ tensor: Tensor, _ what: String, _ prompt: Int) throws {
    let values = tensor.span
    for i in values.indices where !values[i].isFinite {
      throw AnalysisError.nonFinite(
        analysis: "selectability", what: "\(what) of prompt \(prompt)")
    }
  }
}

/// What is reported of one set of keys: position 0 apart, the others together.
private struct MarginStatistics {
  let keys: [KeyMargins.Key]
  let spread: Double
  let firstMargin: Double
  /// Of all queries t ≥ i that see a key i, the share that cannot choose it.
  let causalShare: Double

  /// - Parameter length: the tokens of the prompt.
  init(_ margins: KeyMargins, length: Int) {
    keys = margins.keys.filter { $0.position > 0 }
    spread = margins.spread
    firstMargin = margins.keys.first { $0.position == 0 }?.margin ?? .nan
    var (cannot, sees) = (0, 0)
    for key in keys where key.label != .unsolved {
      sees += length - key.position
      if let first = key.firstUnselectable { cannot += length - first }
    }
    causalShare = sees == 0 ? .nan : Double(cannot) / Double(sees)
  }

  private func share(_ isCounted: (KeyMargins.Key) -> Bool) -> Double {
    let solved = keys.filter { $0.label != .unsolved }
    return solved.isEmpty ? .nan : Double(solved.count(where: isCounted)) / Double(solved.count)
  }

  var unselectableShare: Double { share { $0.label == .unselectable } }
  var tiedShare: Double { share { $0.label == .tied } }
  var selfQueryShare: Double { share { $0.choosesItself } }
  var unsolved: Int { keys.count { $0.label == .unsolved } }
  var margins: [Double] { keys.filter { $0.label != .unsolved }.map(\.margin) }
  var selectableMargins: [Double] { keys.filter { $0.label == .selectable }.map(\.margin) }
}
