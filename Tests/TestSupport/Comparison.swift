public import NormLens
public import Testing

/// Compares arrays with golden values and remembers the largest difference; `report()` prints one
/// line for the whole group.
///
/// A difference is held against the largest finite |value| of the golden array (or a scale given
/// with it), not against each value: float32 errors of a sum follow its largest terms. Infinities
/// must be the same infinities; a NaN is never equal to a number.
public final class Comparison {
  private let title: String
  private let relative: Double
  private var groups = 0
  private var worst = 0.0
  private var worstLabel = ""

  /// A group of comparisons within `relative`.
  public init(_ title: String, relative: Double = 1e-4) {
    self.title = title
    self.relative = relative
  }

  /// The largest difference so far, relative to its array's scale.
  public var maximum: Double { worst }

  /// Compares a tensor, its shape included.
  public func check(
    _ label: String, _ tensor: Tensor, _ golden: GoldenArray, scale: Double? = nil,
    sourceLocation: SourceLocation = #_sourceLocation
  ) {
    guard tensor.shape == golden.shape else {
      groups += 1
      Issue.record(
        "\(title): \(label): shape \(tensor.shape), expected \(golden.shape)",
        sourceLocation: sourceLocation)
      return
    }
    check(
      label, tensor.scalars.map(Double.init), golden.values, scale: scale,
      sourceLocation: sourceLocation)
  }

  /// Compares two tensors of one shape.
  public func check(
    _ label: String, _ tensor: Tensor, _ other: Tensor, scale: Double? = nil,
    sourceLocation: SourceLocation = #_sourceLocation
  ) {
    check(
      label, tensor, GoldenArray(other.scalars.map(Double.init), shape: other.shape), scale: scale,
      sourceLocation: sourceLocation)
  }

  /// Compares numbers.
  public func check(
    _ label: String, _ values: [Double], _ golden: [Double], scale: Double? = nil,
    sourceLocation: SourceLocation = #_sourceLocation
  ) {
    groups += 1
    guard values.count == golden.count else {
      Issue.record(
        "\(title): \(label): \(values.count) values, expected \(golden.count)",
        sourceLocation: sourceLocation)
      return
    }
    let magnitude = golden.reduce(0) { $1.isFinite ? max($0, abs($1)) : $0 }
    let scale = scale ?? (magnitude > 0 ? magnitude : 1)
    var (largest, place) = (0.0, 0)
    for index in values.indices where values[index] != golden[index] {
      let difference = abs(values[index] - golden[index]) / scale
      // Here an infinity or a NaN stands against something else.
      let error = difference.isFinite ? difference : .infinity
      if error > largest { (largest, place) = (error, index) }
    }
    if largest > worst || worstLabel.isEmpty { (worst, worstLabel) = (largest, label) }
    if largest > relative {
      Issue.record(
        """
        \(title): \(label)[\(place)] is \(values[place]), expected \(golden[place]): difference \
        \(largest) of the largest value \(scale), allowed \(relative)
        """, sourceLocation: sourceLocation)
    }
  }

  /// Prints the group's one line; a group that compared nothing is a failure.
  public func report(
    _ what: String = "arrays", sourceLocation: SourceLocation = #_sourceLocation
  ) {
    if groups == 0 {
      Issue.record("\(title): nothing was compared", sourceLocation: sourceLocation)
    }
    print("\(title): \(groups) \(what), max relative difference \(short(worst)) at \(worstLabel)")
  }

  /// Two significant digits: `3.1e-07`.
  private func short(_ value: Double) -> String {
    guard value.isFinite, value > 0 else { return "\(value)" }
    var (mantissa, exponent) = (value, 0)
    while mantissa < 1 { (mantissa, exponent) = (mantissa * 10, exponent - 1) }
    while mantissa >= 10 { (mantissa, exponent) = (mantissa / 10, exponent + 1) }
    let digits = (mantissa * 10).rounded() / 10
    return "\(digits)e\(exponent)"
  }
}

/// Compares one array with golden values and prints the difference.
public func expectClose(
  _ label: String, _ tensor: Tensor, _ golden: GoldenArray, relative: Double = 1e-4,
  sourceLocation: SourceLocation = #_sourceLocation
) {
  let comparison = Comparison(label, relative: relative)
  comparison.check("value", tensor, golden, sourceLocation: sourceLocation)
  comparison.report("array", sourceLocation: sourceLocation)
}
