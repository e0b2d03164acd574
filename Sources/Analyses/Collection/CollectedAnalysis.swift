public import HookedGPT2
public import Results

/// An analysis that looks at the activations of all prompts in one pass: collectors, and what follows
/// from the model or from further runs when the pass is done.
///
/// ```swift
/// let result = try LayerNormGeometry().run(model, prompts)
/// ```
public protocol CollectedAnalysis: Sendable {
  /// What the analysis is called in errors and on progress lines: `geometry`, `stream`.
  var name: String { get }
  /// How many prompts run at once.
  var batchSize: Int { get set }
  /// One sentence that says what the result is.
  func title(of model: GPT2) -> String
  /// What looks at the prompts.
  ///
  /// - Throws: `AnalysisError`, `ModelError`.
  func collectors(_ model: GPT2, _ axes: PromptAxes) throws -> [any Collector]
  /// How often ``conclusions(_:_:progress:)`` calls `progress`; each step should take about as long as a
  /// prompt's forward pass.
  func steps(_ model: GPT2, _ prompts: [Prompt]) -> Int
  /// What is found without the pass: from the weights, or by further runs.
  ///
  /// - Parameter progress: may throw to stop.
  /// - Throws: `AnalysisError`, `ModelError`; what `progress` throws.
  func conclusions(
    _ model: GPT2, _ prompts: [Prompt], progress: () throws -> Void
  ) throws -> [ResultGroup]
}

extension CollectedAnalysis {
  /// None, where an analysis does not say otherwise.
  public func steps(_ model: GPT2, _ prompts: [Prompt]) -> Int { 0 }

  /// Nothing, where an analysis does not say otherwise.
  public func conclusions(
    _ model: GPT2, _ prompts: [Prompt], progress: () throws -> Void
  ) throws -> [ResultGroup] { [] }

  /// Prepares the measurement of `prompts`.
  ///
  /// - Throws: `AnalysisError.noPrompts`, `.unsuitable`; `ModelError`.
  public func pass(_ model: GPT2, _ prompts: [Prompt]) throws -> AnalysisPass {
    try AnalysisPass(self, model, prompts)
  }

  /// Measures `prompts` and keeps what belongs to single prompts in memory.
  ///
  /// - Parameters:
  ///   - model: the model.
  ///   - prompts: the prompts.
  ///   - progress: told after each batch how many prompts are done.
  /// - Returns: the analysis' groups.
  /// - Throws: `AnalysisError`, `ModelError`; what `progress` throws.
  public func run(
    _ model: GPT2, _ prompts: [Prompt], progress: (Int) throws -> Void = { _ in }
  ) throws -> ResultSet {
    var pass = try pass(model, prompts)
    let memory = MemorySink(pass.tables)
    let findings = try pass.run(into: memory, progress: progress)
    return ResultSet(
      title: pass.title, groups: memory.result + findings, provenance: Provenance(model: model))
  }
}

/// The measurement of some prompts, ready to run: its tables say what it will write.
public struct AnalysisPass {
  private let analysis: any CollectedAnalysis
  private let model: GPT2
  private let prompts: [Prompt]
  private var collectors: [any Collector]
  /// What is written prompt by prompt.
  public let tables: [PromptTable]
  /// One sentence that says what the result is.
  public let title: String
  /// How far progress counts: to the prompts, and on through the steps of the conclusions.
  public let steps: Int

  fileprivate init(
    _ analysis: any CollectedAnalysis, _ model: GPT2, _ prompts: [Prompt]
  ) throws {
    let axes = try PromptAxes(prompts, model: model, analysis: analysis.name)
    self.analysis = analysis
    self.model = model
    self.prompts = prompts
    collectors = try analysis.collectors(model, axes)
    tables = collectors.flatMap(\.tables)
    title = analysis.title(of: model)
    steps = (collectors.isEmpty ? 0 : prompts.count) + analysis.steps(model, prompts)
  }

  /// Runs the model on the prompts.
  ///
  /// - Parameters:
  ///   - sink: takes the values of ``tables``.
  ///   - progress: told after each batch how many of ``steps`` are done; may throw to stop.
  /// - Returns: what was found over all prompts.
  /// - Throws: `AnalysisError.nonFinite`, `ModelError`; what the sink and `progress` throw.
  /// - Complexity: one forward pass a prompt without logits, and what the conclusions need; memory for
  ///   the activations of a batch.
  public mutating func run(
    into sink: any PromptSink, progress: (Int) throws -> Void = { _ in }
  ) throws -> [ResultGroup] {
    if !collectors.isEmpty {
      try CollectionPass(prompts, batchSize: analysis.batchSize).run(
        model, &collectors, into: sink, progress: progress)
    }
    var done = collectors.isEmpty ? 0 : prompts.count
    return try collectors.flatMap { try $0.findings() }
      + analysis.conclusions(model, prompts) {
        done += 1
        try progress(done)
      }
  }
}
