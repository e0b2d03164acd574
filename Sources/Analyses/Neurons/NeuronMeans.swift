import HookedGPT2
import Results
import Tensors

/// The mean of each neuron of one MLP over all tokens.
struct NeuronMeans: Collector {
  private let name: HookName
  private var sums: [Double]
  private var count = 0

  /// A collector that has seen no tokens.
  init(_ model: GPT2, layer: Int) {
    name = HookName(.mlpPost, layer: layer)
    sums = Array(repeating: 0, count: model.config.dMLP)
  }

  /// The neurons' activations.
  var hooks: [HookFilter] { [HookFilter(name)] }

  /// The means; zeros of no tokens.
  var means: [Double] { sums.map { $0 / Double(max(count, 1)) } }

  /// Takes all positions.
  ///
  /// - Throws: `AnalysisError.nonFinite`.
  mutating func collect(_ batch: CollectedBatch, into sink: any PromptSink) throws {
    let rows = try batch.rows(name)
    if let place = rows.firstNonFiniteIndex {
      throw AnalysisError.nonFinite(
        analysis: "neurons", what: "\(name.rawValue), neuron \(place[1])")
    }
    let own = rows.sumOfRows(weightedBy: Array(repeating: 1, count: rows.shape[0]))
    for i in sums.indices { sums[i] += own[i] }
    count += rows.shape[0]
  }

  /// Nothing of its own.
  func findings() -> [ResultGroup] { [] }
}
