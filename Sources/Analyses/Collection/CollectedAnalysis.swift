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
    try AnalysisPass(self, [model], prompts)
  }

  /// Prepares the measurement of the same `prompts` in several models, side by side (``TwinRun``).
  ///
  /// - Throws: `AnalysisError.noPrompts`, `.unsuitable`; `.models` where axes or token texts do not agree;
  ///   `ModelError`.
  /// - Precondition: at least one model.
  public func pass(_ models: [GPT2], _ prompts: [Prompt]) throws -> AnalysisPass {
    try AnalysisPass(self, models, prompts)
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
    try run([model], prompts, progress: progress)
  }

  /// Measures the same `prompts` in several models, side by side (``TwinRun``).
  ///
  /// - Parameters:
  ///   - models: the models, at least one; their weights in one gauge, or lengths are no comparison.
  ///   - prompts: the prompts.
  ///   - progress: told after each batch how many prompts are done.
  /// - Returns: the analysis' groups and their differences.
  /// - Throws: `AnalysisError`, `ModelError`; what `progress` throws.
  public func run(
    _ models: [GPT2], _ prompts: [Prompt], progress: (Int) throws -> Void = { _ in }
  ) throws -> ResultSet {
    var pass = try pass(models, prompts)
    let memory = MemorySink(pass.tables)
    let findings = try pass.run(into: memory, progress: progress)
    return ResultSet(
      title: pass.title, groups: ResultGroup.joining(memory.result + findings),
      provenance: pass.provenance)
  }
}

/// The measurement of some prompts in one or several models, ready to run: its tables say what it will
/// write.
public struct AnalysisPass {
  /// What a model has found of its own, as if it had run alone.
  public struct Part {
    /// Its tables.
    public let tables: [PromptTable]
    /// What was found over all prompts, once the pass has run.
    public fileprivate(set) var findings: [ResultGroup] = []
  }

  private let analysis: any CollectedAnalysis
  private let models: [GPT2]
  private let prompts: [Prompt]
  private let twins: TwinRun
  private var collectors: [[any Collector]]
  /// What is written prompt by prompt.
  public let tables: [PromptTable]
  /// Each model's own part.
  public private(set) var parts: [Part]
  /// One sentence that says what the result is.
  public let title: String
  /// How far progress counts: to the prompts, and on through the steps of the conclusions.
  public let steps: Int

  fileprivate init(
    _ analysis: any CollectedAnalysis, _ models: [GPT2], _ prompts: [Prompt]
  ) throws {
    precondition(!models.isEmpty, "AnalysisPass: no models")
    self.analysis = analysis
    self.models = models
    self.prompts = prompts
    twins = TwinRun(models)
    collectors = try models.map { model in
      try analysis.collectors(model, PromptAxes(prompts, model: model, analysis: analysis.name))
    }
    parts = collectors.map { Part(tables: $0.flatMap(\.tables)) }
    tables = try twins.combine(parts.map(\.tables))
    title = twins.title(analysis.title(of: models[0]))
    steps =
      (collectors.allSatisfy(\.isEmpty) ? 0 : prompts.count)
      + models.reduce(0) { $0 + analysis.steps($1, prompts) }
  }

  /// Where the numbers come from, as far as the models know.
  public var provenance: Provenance { twins.combine(models.map { Provenance(model: $0) }) }

  /// Runs the models on the prompts, batch by batch.
  ///
  /// - Parameters:
  ///   - sink: takes the values of ``tables``.
  ///   - progress: told after each batch how many of ``steps`` are done; may throw to stop.
  /// - Returns: what was found over all prompts.
  /// - Throws: `AnalysisError.nonFinite`, `ModelError`, of several models as `AnalysisError.model`;
  ///   `AnalysisError.models` where their findings have other axes; what the sink and `progress` throw.
  /// - Complexity: one forward pass a prompt and model without logits, and what the conclusions need;
  ///   memory for the activations of a batch of one model.
  public mutating func run(
    into sink: any PromptSink, progress: (Int) throws -> Void = { _ in }
  ) throws -> [ResultGroup] {
    let pass = CollectionPass(prompts, batchSize: analysis.batchSize)
    let several = models.count == 1 ? nil : TwinRunSink(twins, into: sink)
    let sinks = models.indices.map { several?.sink(of: $0) ?? sink }
    var done = 0
    for batch in pass.batches where !collectors.allSatisfy(\.isEmpty) {
      for index in models.indices {
        try naming(index) {
          try pass.run(batch, models[index], &collectors[index], into: sinks[index])
        }
      }
      try several?.handOn()
      done = batch.upperBound
      try progress(done)
    }
    for index in models.indices {
      try naming(index) {
        parts[index].findings =
          try collectors[index].flatMap { try $0.findings() }
          + analysis.conclusions(models[index], prompts) {
            done += 1
            try progress(done)
          }
      }
    }
    return try twins.combine(parts.map(\.findings))
  }

  /// Does something with one of the models; where there are several, an error says with which.
  private func naming(_ model: Int, _ body: () throws -> Void) throws {
    do {
      try body()
    } catch let error where models.count > 1 && (error is AnalysisError || error is ModelError) {
      throw AnalysisError.model(
        name: twins.names[model], problem: String(describing: error))
    }
  }
}
