public import HookedGPT2
public import Results
public import Tensors

/// What looks at the activations of every prompt, a batch at a time, and keeps only what it needs:
/// its memory does not grow with the number of prompts.
///
/// Several collectors share one pass over the prompts (``CollectionPass``).
public protocol Collector {
  /// What the pass must record.
  var hooks: [HookFilter] { get }
  /// What is written prompt by prompt.
  var tables: [PromptTable] { get }
  /// Takes a batch in.
  ///
  /// - Throws: `AnalysisError`, `ModelError`; what the sink throws.
  mutating func collect(_ batch: CollectedBatch, into sink: any PromptSink) throws
  /// What was found over all prompts.
  ///
  /// - Throws: `AnalysisError`.
  func findings() throws -> [ResultGroup]
}

extension Collector {
  /// Nothing, where a collector does not say otherwise.
  public var tables: [PromptTable] { [] }
}

/// The activations of some prompts that ran together.
public struct CollectedBatch {
  /// The model.
  public let model: GPT2
  /// What was recorded; its prompt 0 is `firstPrompt`.
  public let cache: ActivationCache
  /// The index of the batch's first prompt among all.
  public let firstPrompt: Int

  /// How many prompts the batch holds.
  public var count: Int { cache.promptCount }

  /// The tokens of the batch's prompt `index`.
  public func length(_ index: Int) -> Int { cache.tokens[index].count }

  /// An activation of all prompts below one another from position `first` on, shape `[rows, …]`;
  /// prompts that end before it have no rows.
  ///
  /// - Throws: `ModelError.notRecorded`.
  public func rows(_ name: HookName, from first: Int = 0) throws -> Tensor {
    let parts = try (0..<count).map { index in
      let tensor = try cache.tensor(name, prompt: index)
      return first == 0 ? tensor : tensor.rows(min(first, tensor.shape[0])..<tensor.shape[0])
    }
    return parts.count == 1 ? parts[0] : Tensor.concatenating(parts)
  }

  /// The scaled, masked attention scores of the batch's prompt `index` in a layer, one query a row, heads
  /// below one another: shape `[n_heads·pos, key_pos]`.
  ///
  /// - Throws: `ModelError.notRecorded`: they are made of `q` and `k`.
  /// - Complexity: pos²·d_head FLOPs a head.
  func attentionScores(layer: Int, _ index: Int) throws -> Tensor {
    let (config, length) = (model.config, length(index))
    let scores = Tensors.attentionScores(
      q: try cache.tensor(.q, layer: layer, prompt: index),
      k: try cache.tensor(.k, layer: layer, prompt: index),
      segment: AttentionSegment(queries: 0..<length, keys: 0..<length),
      scale: config.attentionScale(layer: layer))
    return scores.reshaped([config.nHeads * length, length])
  }
}

/// One pass over prompts that feeds collectors.
public struct CollectionPass {
  /// The prompts.
  public var prompts: [Prompt]
  /// How many prompts run at once.
  public var batchSize: Int

  /// A pass over prompts.
  public init(_ prompts: [Prompt], batchSize: Int = 8) {
    self.prompts = prompts
    self.batchSize = batchSize
  }

  /// Runs the model on all prompts, without logits.
  ///
  /// - Parameters:
  ///   - model: any model.
  ///   - collectors: what looks on; changed in place.
  ///   - sink: where the values of each prompt go.
  ///   - progress: told after each batch how many prompts are done; may throw to stop.
  /// - Throws: `ModelError`; what the collectors, the sink and `progress` throw.
  /// - Complexity: one forward pass a prompt; memory for the activations of one batch.
  public func run(
    _ model: GPT2, _ collectors: inout [any Collector], into sink: any PromptSink,
    progress: (Int) throws -> Void = { _ in }
  ) throws {
    for batch in batches {
      try run(batch, model, &collectors, into: sink)
      try progress(batch.upperBound)
    }
  }

  /// Which prompts run together.
  var batches: [Range<Int>] {
    stride(from: 0, to: prompts.count, by: max(batchSize, 1)).map {
      $0..<min(prompts.count, $0 + max(batchSize, 1))
    }
  }

  /// Runs the model on one of the batches.
  func run(
    _ batch: Range<Int>, _ model: GPT2, _ collectors: inout [any Collector],
    into sink: any PromptSink
  ) throws {
    let (_, cache) = try model.runWithCache(
      batch: prompts[batch].map(\.tokens), hooks: collectors.flatMap(\.hooks), logits: .none)
    let collected = CollectedBatch(model: model, cache: cache, firstPrompt: batch.lowerBound)
    for index in collectors.indices { try collectors[index].collect(collected, into: sink) }
  }
}
