import NormLens
import TestSupport
import Testing

/// The variables of a patching result, exact or estimated, read by what stands along their axes.
struct SweepValues {
  let result: ResultSet
  let group: ResultGroup
  let cleanMetric: [Double]
  let corruptedMetric: [Double]

  /// - Parameter method: the group under `patch`.
  init(_ result: ResultSet, method: String = "activation") throws {
    self.result = result
    group = try result.group("patch/\(method)")
    cleanMetric = try result.doubles("patch", "clean_metric")
    corruptedMetric = try result.doubles("patch", "corrupted_metric")
  }

  /// The values of a variable, as the result has them.
  subscript(name: String) -> [Double] {
    get throws { try group.doubles(name) }
  }

  /// The cells of a variable that were computed, by index along the axes of the sweep.
  ///
  /// - Parameters:
  ///   - prompt: which, for a variable that has the axis; its slab is read.
  ///   - length: the prompt's tokens: positions from the end are turned into indices.
  func cells(_ name: String, prompt: Int?, length: Int) throws -> [[Int]: Double] {
    let variable = try #require(group[variable: name], "no variable \(name)")
    let values = try group.doubles(name)
    #expect((variable.dimensions.first == "prompt") == (prompt != nil), "\(name)")
    let axes = try variable.dimensions.dropFirst(prompt == nil ? 0 : 1).map { axis in
      try #require(group[dimension: axis])
    }
    let indices: [[Int]] = axes.map { axis in
      switch axis.coordinates {
      case .indices(let count): Array(0..<count)
      case .integers(let numbers): numbers.map { $0 < 0 ? $0 + length : $0 }
      case .labels(let labels): Array(labels.indices)
      }
    }
    let extents = indices.map(\.count)
    let start = (prompt ?? 0) * extents.reduce(1, *)
    var found: [[Int]: Double] = [:]
    for (offset, cell) in NaivePatching.cells(extents).enumerated() {
      let value = values[start + offset]
      if value.isNaN { continue }
      found[zip(indices, cell).map { $0[$1] }] = value
    }
    return found
  }
}

/// Holds sweeps against other computations of the same effects, within what design and float32 allow:
/// 3e-4 of the largest effect of the sweep and 5e-7 of the largest |logit|.
final class EffectComparison {
  private let title: String
  private var count = 0
  private var largest = (difference: 0.0, effect: 0.0, label: "")
  private var share = 0.0

  init(_ title: String) { self.title = title }

  /// Compares the cells of one sweep; every cell of `expected` must be there.
  ///
  /// - Parameter scale: the largest effect where it is not among `expected`.
  func check(
    _ label: String, _ found: [[Int]: Double], _ expected: [[Int]: Double], logit: Double,
    scale: Double = 0, sourceLocation: SourceLocation = #_sourceLocation
  ) {
    let effect = expected.values.reduce(scale) { max($0, abs($1)) }
    let allowed = 3e-4 * effect + 5e-7 * logit
    count += expected.count
    for (cell, value) in expected {
      guard let other = found[cell] else {
        Issue.record("\(title): \(label): no cell \(cell)", sourceLocation: sourceLocation)
        return
      }
      let difference = abs(other - value)
      if difference > largest.difference { largest = (difference, effect, "\(label) \(cell)") }
      share = max(share, difference / allowed)
      if !(difference <= allowed) {
        Issue.record(
          """
          \(title): \(label)\(cell) is \(other), expected \(value): difference \(difference), \
          allowed \(allowed)
          """, sourceLocation: sourceLocation)
        return
      }
    }
  }

  /// Prints one line; a comparison of nothing is a failure.
  func report(sourceLocation: SourceLocation = #_sourceLocation) {
    if count == 0 {
      Issue.record("\(title): nothing was compared", sourceLocation: sourceLocation)
    }
    print(
      "\(title): \(count) cells, largest difference \(largest.difference) at \(largest.label) "
        + "(largest effect there \(fixed(largest.effect, 3))), at most \(fixed(share, 3)) of what is allowed"
    )
  }
}
