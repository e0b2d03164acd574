import OrderedCollections
import Results

/// Takes the values of several models, each through a sink of its own, and hands them on side by side with
/// their differences.
///
/// It holds what has been taken since it last handed on: a batch's values, however many prompts there are.
final class TwinRunSink {
  private struct Key: Hashable {
    var path: String
    var variable: String
    var prompt: Int
  }

  private let run: TwinRun
  private let sink: any PromptSink
  private var held: OrderedDictionary<Key, [[Float]?]> = [:]

  /// A sink in front of `sink`, which was made for the tables of `run`.
  init(_ run: TwinRun, into sink: any PromptSink) {
    self.run = run
    self.sink = sink
  }

  /// Where a model leaves its values.
  func sink(of model: Int) -> any PromptSink { ModelSink(self, model) }

  /// Hands on what has been taken; what a model has not given is NaN.
  ///
  /// - Throws: what the sink throws.
  func handOn() throws {
    for (key, parts) in held {
      let count = parts.compactMap { $0?.count }.max() ?? 0
      let blank = [Float](repeating: .nan, count: count)
      let values = parts.flatMap { $0 ?? blank }
      try sink.take(key.path, key.variable, prompt: key.prompt, values)
      try sink.take(
        TwinRun.differencePath(key.path), key.variable, prompt: key.prompt,
        run.differences(values[...]))
    }
    held.removeAll(keepingCapacity: true)
  }

  private final class ModelSink: PromptSink {
    private let twins: TwinRunSink
    private let model: Int

    init(_ twins: TwinRunSink, _ model: Int) {
      self.twins = twins
      self.model = model
    }

    func take(_ path: String, _ variable: String, prompt: Int, _ values: [Float]) {
      let key = Key(path: path, variable: variable, prompt: prompt)
      let empty = [[Float]?](repeating: nil, count: twins.run.names.count)
      twins.held[key, default: empty][model] = values
    }
  }
}
