import HookedGPT2
import Tensors

/// What a patch puts in an activation's place.
public enum Replacement: Sendable, Equatable {
  /// The same activation of the other run: interchange, or resampling.
  case otherRun
  /// Zero.
  case zero
  /// Its mean over all positions of reference prompts, given as token ids.
  case mean(over: [[Int]])
  /// Its mean at each position over reference prompts of the pairs' length.
  case positionMean(over: [[Int]])
}

/// The means of activations over reference prompts, in double precision.
struct ReferenceMeans {
  /// The mean of each hook: without the positions' axis, or with it.
  private let means: [HookName: Tensor]
  /// The prompts' common length, or nil where the mean is over positions too.
  private let length: Int?

  /// Runs the reference prompts.
  ///
  /// - Throws: `AnalysisError.alignment` for a mean of patterns over positions, or for reference
  ///   prompts of several lengths where the mean is kept by position; `ModelError`.
  init(
    _ model: GPT2, over prompts: [[Int]], sites: Set<Site>, layers: [Int], byPosition: Bool
  ) throws {
    guard let length = prompts.first?.count else {
      throw AnalysisError.noPrompts(analysis: "the reference set of a mean")
    }
    if byPosition, let other = prompts.first(where: { $0.count != length }) {
      throw AnalysisError.alignment(
        analysis: "patch",
        problem: "a mean for each position needs reference prompts of one length; found \(length) "
          + "and \(other.count) tokens")
    }
    if !byPosition, let site = sites.first(where: \.isAttention) {
      throw AnalysisError.alignment(
        analysis: "patch",
        problem: "'\(site.rawValue)' of different positions has no mean; take the mean for each "
          + "position (--replace position-mean)")
    }
    self.length = byPosition ? length : nil
    let names = sites.flatMap { site in layers.map { HookName(site, layer: $0) } }
    var sums: [HookName: (total: [Double], count: Int, shape: [Int])] = [:]
    for prompt in prompts {
      let (_, cache) = try model.runWithCache(
        batch: [prompt], hooks: names.map { HookFilter($0) }, logits: .none)
      for name in names {
        let value = try cache.tensor(name)
        let width = byPosition ? value.count : value.rowCount
        let shape = byPosition ? value.shape : Array(value.shape.dropFirst())
        var sum = sums[name] ?? (Array(repeating: 0, count: width), 0, shape)
        let scalars = value.span
        for i in scalars.indices { sum.total[i % width] += Double(scalars[i]) }
        sum.count += value.count / width
        sums[name] = sum
      }
    }
    means = sums.mapValues { sum in
      Tensor(sum.total.map { Float($0 / Double(sum.count)) }, shape: sum.shape)
    }
  }

  /// The mean at a hook as an activation of a prompt of `positions` tokens.
  ///
  /// - Throws: `AnalysisError.alignment` where the reference prompts have another length;
  ///   `ModelError.notRecorded`.
  func value(_ name: HookName, positions: Int) throws -> Tensor {
    guard let mean = means[name] else {
      throw ModelError.notRecorded(hook: name.rawValue, recorded: means.keys.map(\.rawValue))
    }
    guard let length else {
      return mean.reshaped([1] + mean.shape).repeatingRows(positions).row(0)
    }
    guard length == positions else {
      throw AnalysisError.alignment(
        analysis: "patch",
        problem: "a mean for each position needs reference prompts of the pairs' length; found "
          + "\(length) and \(positions) tokens")
    }
    return mean
  }
}
