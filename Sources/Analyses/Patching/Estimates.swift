import HookedGPT2
import Tensors

/// What a method has found so far.
struct Estimates {
  let method: AttributionPatching.Method
  /// The estimates of each site, `[prompt, axes…]`; NaN where there is no cell.
  private(set) var values: [[Float]]
  /// Prompts with a run at which the metric has a slope, and with one at which it has none.
  private var (withSlope, withoutSlope): (Set<Int>, Set<Int>) = ([], [])
  private(set) var ledger: ConservationLedger?
  private let setup: PatchSetup

  init(_ method: AttributionPatching.Method, _ setup: PatchSetup, keepsLedger: Bool) {
    self.method = method
    self.setup = setup
    values = setup.experiment.sites.map { site in
      Array(repeating: .nan, count: setup.pairs.count * setup.shape(site).reduce(1, *))
    }
    if keepsLedger { ledger = ConservationLedger(setup.model, prompts: setup.pairs.count) }
  }

  /// Prompts whose metric has no slope at any run that was looked at.
  var flat: [Int] { withoutSlope.subtracting(withSlope).sorted() }

  /// Estimates the effects of a group.
  mutating func add(_ runs: [PairRuns], _ means: ReferenceMeans?, _ group: Range<Int>) throws {
    var scores = AttributionScores(setup, runs, means, group: group)
    let direction = setup.experiment.direction
    if case .integratedGradients(let count) = method {
      let fractions = IntegratedGradients(steps: count).fractions
      let steps = runs.indices.filter { changes(group.lowerBound + $0) }
        .flatMap { pair in fractions.map { (pair, $0) } }
      // As many rows at once as the group's own runs have.
      let rows = runs.reduce(0) { $0 + 2 * $1.pair.length }
      var start = 0
      while start < steps.count {
        var (end, used) = (start, 0)
        while end < steps.count, end == start || used + runs[steps[end].0].pair.length <= rows {
          used += runs[steps[end].0].pair.length
          end += 1
        }
        let chunk = steps[start..<end]
        let between = try IntegratedGradients.runs(
          setup.model, chunk.map { (runs[$0.0], $0.1) }, direction)
        try walk(
          &scores, zip(chunk, between).map { ($0.0, $1, 1 / Double(count)) }, runs, group)
        start = end
      }
    } else {
      try walk(
        &scores, runs.enumerated().map { ($0, $1.base(direction), 1) }, runs, group)
    }
    try take(scores, group)
  }

  /// Whether the two runs of a prompt differ anywhere.
  private func changes(_ prompt: Int) -> Bool {
    setup.firstDifferences[prompt] < setup.pairs[prompt].length
  }

  /// Goes back through some runs of the group's pairs.
  private mutating func walk(
    _ scores: inout AttributionScores, _ items: [(pair: Int, run: BaseRun, weight: Double)],
    _ pairs: [PairRuns], _ group: Range<Int>
  ) throws {
    var bases: [BaseRun] = []
    var starts: [LogitGradient] = []
    var runs: [AttributionScores.Run] = []
    for (pair, run, weight) in items {
      let prompt = group.lowerBound + pair
      let gradient = try pairs[pair].gradient(at: run, prompt: prompt)
      if gradient.values.maximumMagnitude == 0 {
        // Nothing comes down.
        withoutSlope.insert(prompt)
        continue
      }
      withSlope.insert(prompt)
      if ledger == nil && !changes(prompt) { continue }
      ledger?.take(prompt: prompt, run.logits, gradient)
      bases.append(run)
      starts.append(gradient)
      runs.append(
        .init(
          pair: pair, weight: weight, first: ledger == nil ? setup.firstDifferences[prompt] : 0))
    }
    if bases.isEmpty { return }
    scores.runs = runs
    (scores.ledger, ledger) = (ledger, nil)
    try BackwardPass(setup.model, bases, rules: method.rules, from: runs.map(\.first))
      .walk(from: starts, &scores)
    (ledger, scores.ledger) = (scores.ledger, nil)
  }

  /// Takes the estimates of a group.
  private mutating func take(_ scores: AttributionScores, _ group: Range<Int>) throws {
    for (site, found) in scores.values.enumerated() {
      let cells = found.count / group.count
      for (index, value) in found.enumerated() where scores.exists[site][index] {
        let estimate = Float(value)
        guard estimate.isFinite else {
          throw AnalysisError.nonFinite(
            analysis: "patch, method \(method.name)",
            what: "the estimate of \(setup.experiment.sites[site].name) in prompt "
              + "\(group.lowerBound + index / cells)")
        }
        values[site][group.lowerBound * cells + index] = estimate
      }
    }
  }
}

extension AttributionPatching.Method {
  /// The rules of the backward pass.
  fileprivate var rules: BackwardRules {
    if case .relevance(let rules) = self { rules } else { .gradient }
  }
}
