public import HookedGPT2
import OrderedCollections
public import Results
public import Tensors

/// The logit lens: what the model would predict if it stopped at each point of the stream.
///
/// Every intermediate stream goes through the final LayerNorm and the unembedding. With LayerNorm
/// there are two conventions, which differ widely in early layers:
///
/// - **recomputed** (the default, TransformerLens 3 on): the final LayerNorm normalises each stream
///   by that stream's own scale, as if it were the final one.
/// - **frozen**: each stream is divided by the scale of the real final stream, so that the lens
///   logits of successive streams differ by exactly the attributions of what was added between.
///
/// RMSNorm is treated likewise. Without a norm both are the same linear map. nostalgebraist 2020.
public struct LogitLens: Sendable {
  /// Whether the final stream's scale is used for all streams.
  public var frozenScale: Bool
  /// How many prompts run at once.
  public var batchSize: Int

  /// A lens; scales are recomputed unless frozen.
  public init(frozenScale: Bool = false, batchSize: Int = 16) {
    self.frozenScale = frozenScale
    self.batchSize = batchSize
  }

  /// Reads every stream of every prompt.
  ///
  /// - Parameters:
  ///   - model: any model.
  ///   - prompts: prompts; those with an answer get its logit, rank and probability.
  ///   - interventions: changes of activations.
  ///   - progress: told after each batch how many prompts are done.
  /// - Returns: group `logit_lens` with `logit`, `rank`, `prob` of the answer and `entropy`,
  ///   `top_token`, `top_token_id`, `top_prob`, each `(prompt, stream, pos)`; NaN (−1, empty) past
  ///   a prompt's end.
  /// - Throws: `ModelError`, in particular for interventions behind the streams, which a lens does
  ///   not see; `AnalysisError.nonFinite`.
  /// - Complexity: 2·n_layers + 1 unembeddings a token.
  public func run(
    _ model: GPT2, _ prompts: [Prompt], interventions: [Intervention] = [],
    progress: (Int) throws -> Void = { _ in }
  ) throws -> ResultSet {
    let behind: [Site] = [.lnFinalScale, .lnFinalNormalized, .unembedIn, .unembedOut]
    if let late = interventions.first(where: { behind.contains($0.target.site) }) {
      throw ModelError.intervention(
        hook: late.target.description,
        problem: "the lens reads the streams before it, so it would change nothing")
    }
    let axes = try PromptAxes(prompts, model: model, analysis: "lens")
    let streams = model.config.streamLabels
    let cells = prompts.count * streams.count * axes.longest
    var table = Table(cells: cells)
    for start in stride(from: 0, to: prompts.count, by: max(batchSize, 1)) {
      let batch = Array(prompts[start..<min(prompts.count, start + batchSize)])
      let (_, cache) = try model.runWithCache(
        batch: batch.map(\.tokens),
        hooks: [.residPre(.all), .residMid(.all), .residPost(.layer(-1))], logits: .none,
        interventions: interventions)
      for (index, prompt) in batch.enumerated() {
        for (stream, name) in model.config.streamHooks.enumerated() {
          let logits = try lensLogits(model, cache, name, prompt: index)
          let statistics = rowStatistics(logits, target: prompt.answer)
          if let bad = statistics.firstIndex(where: { !$0.logSumExp.isFinite }) {
            throw AnalysisError.nonFinite(
              analysis: "lens",
              what: "stream \(streams[stream]) of prompt \(start + index) at position \(bad)")
          }
          let first = ((start + index) * streams.count + stream) * axes.longest
          table.fill(at: first, statistics, prompt.answer != nil)
        }
      }
      try progress(start + batch.count)
    }
    return try result(model, axes, streams, table)
  }

  /// The lens logits of one stream of a recorded run, shape `[pos, d_vocab]`.
  ///
  /// - Parameter cache: a run that recorded `resid_pre`, `resid_mid` and the last `resid_post`.
  /// - Throws: `ModelError.notRecorded`.
  public func lensLogits(
    _ model: GPT2, _ cache: ActivationCache, _ name: HookName, prompt: Int = 0
  ) throws -> Tensor {
    let stream = try cache.tensor(name, prompt: prompt)
    let final = HookName(.residPost, layer: model.config.nLayers - 1)
    return model.unembed(
      stream, scaleOf: frozenScale ? try cache.tensor(final, prompt: prompt) : stream)
  }

  private struct Table {
    var logit, rank, prob, entropy, topProb: [Float]
    var topToken: [Int]

    init(cells: Int) {
      let empty = [Float](repeating: .nan, count: cells)
      (logit, rank, prob, entropy, topProb) = (empty, empty, empty, empty, empty)
      topToken = Array(repeating: -1, count: cells)
    }

    mutating func fill(at first: Int, _ rows: [RowStatistics], _ hasAnswer: Bool) {
      for (position, row) in rows.enumerated() {
        let cell = first + position
        entropy[cell] = Float(row.entropy)
        topToken[cell] = row.top
        topProb[cell] = Float(row.topProbability)
        if hasAnswer {
          logit[cell] = Float(row.targetLogit)
          rank[cell] = Float(row.targetRank)
          prob[cell] = Float(row.targetProbability)
        }
      }
    }
  }

  private func result(
    _ model: GPT2, _ axes: PromptAxes, _ streams: [String], _ table: Table
  ) throws -> ResultSet {
    let dimensions = ["prompt", "stream", "pos"]
    var variables: [ResultVariable] = []
    if axes.prompts.contains(where: { $0.answer != nil }) {
      variables += [
        ResultVariable(
          "logit", dimensions, .float32(table.logit), longName: "lens logit of the answer",
          units: "logit", sign: "larger = more likely"),
        ResultVariable(
          "rank", dimensions, .float32(table.rank),
          longName: "how many tokens have a larger lens logit than the answer", units: "1",
          sign: "0 = the answer is the prediction"),
        ResultVariable(
          "prob", dimensions, .float32(table.prob), longName: "lens probability of the answer",
          units: "1"),
      ]
    }
    variables += [
      ResultVariable(
        "entropy", dimensions, .float32(table.entropy),
        longName: "entropy of the lens distribution", units: "nat"),
      ResultVariable(
        "top_prob", dimensions, .float32(table.topProb),
        longName: "probability of the lens prediction", units: "1"),
      ResultVariable(
        "top_token_id", dimensions, .integers(table.topToken), longName: "the lens prediction, id",
        units: "1"),
    ]
    if axes.pieces != nil {
      let tokenizer = try model.tokenizer
      variables.append(
        ResultVariable(
          "top_token", dimensions,
          .strings(try table.topToken.map { $0 < 0 ? "" : try tokenizer.piece($0) }),
          longName: "the lens prediction", units: "1"))
    }
    let group = ResultGroup(
      path: "logit_lens",
      dimensions: [axes.prompt, Dimension("stream", .labels(streams)), axes.position],
      variables: axes.tokenCoordinates + (try axes.answerCoordinates(model)) + variables,
      attributes: [
        "layer_norm": .string(
          model.config.normalization == .none
            ? "none" : frozenScale ? "frozen final scale" : "recomputed for each stream")
      ])
    return ResultSet(
      title: "Logit lens of \(model.identity.name)", groups: [group],
      provenance: Provenance(model: model))
  }
}
