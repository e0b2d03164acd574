import Results

/// Numbers with named axes, as pictures cut and average them.
///
/// Copies are made freely: what is drawn is small beside what was computed.
struct NamedNumbers {
  var axes: [Dimension]
  /// Row-major, NaN where nothing was computed.
  var values: [Double]
  /// Whether they are float32 numbers; what is worked out of them is then rounded to that.
  var isSingle = false

  init(axes: [Dimension], values: [Double], isSingle: Bool = false) {
    precondition(
      values.count == axes.map(\.count).reduce(1, *),
      "NamedNumbers: \(values.count) values for \(axes.map { "\($0.name)=\($0.count)" })")
    self.axes = axes
    self.values = isSingle ? values.map { Double(Float($0)) } : values
    self.isSingle = isSingle
  }

  /// A variable's numbers; nil for text.
  init?(_ variable: ResultVariable, in group: ResultGroup) {
    guard let values = variable.values.doubles else { return nil }
    let isSingle = if case .float32 = variable.values { true } else { false }
    self.init(
      axes: variable.dimensions.compactMap { group[dimension: $0] }, values: values,
      isSingle: isSingle)
  }

  var names: [String] { axes.map(\.name) }

  func has(_ name: String) -> Bool { place(name) != nil }

  subscript(axis name: String) -> Dimension? { axes.first { $0.name == name } }

  private func place(_ name: String) -> Int? { axes.firstIndex { $0.name == name } }

  /// The extents before, of and behind an axis.
  private func extents(_ place: Int) -> (outer: Int, count: Int, inner: Int) {
    (
      axes[..<place].map(\.count).reduce(1, *), axes[place].count,
      axes[(place + 1)...].map(\.count).reduce(1, *)
    )
  }

  /// The numbers at one place of an axis; all of them where there is no such axis.
  func at(_ name: String, _ index: Int) -> NamedNumbers {
    guard let place = place(name) else { return self }
    let (outer, count, inner) = extents(place)
    var cut: [Double] = []
    cut.reserveCapacity(outer * inner)
    for row in 0..<outer {
      let start = (row * count + index) * inner
      cut += values[start..<start + inner]
    }
    var rest = axes
    rest.remove(at: place)
    return NamedNumbers(axes: rest, values: cut, isSingle: isSingle)
  }

  /// The first `count` places of an axis.
  func prefix(_ name: String, _ count: Int) -> NamedNumbers {
    guard let place = place(name), axes[place].count > count else { return self }
    let (outer, all, inner) = extents(place)
    var kept: [Double] = []
    kept.reserveCapacity(outer * count * inner)
    for row in 0..<outer {
      let start = row * all * inner
      kept += values[start..<start + count * inner]
    }
    var short = axes
    short[place].coordinates =
      switch axes[place].coordinates {
      case .indices: .indices(count)
      case .integers(let numbers): .integers(Array(numbers.prefix(count)))
      case .labels(let labels): .labels(Array(labels.prefix(count)))
      }
    return NamedNumbers(axes: short, values: kept, isSingle: isSingle)
  }

  /// One number for all along an axis.
  func reduced(_ name: String, _ reduce: ([Double]) -> Double) -> NamedNumbers {
    guard let place = place(name) else { return self }
    let (outer, count, inner) = extents(place)
    var found: [Double] = []
    found.reserveCapacity(outer * inner)
    for row in 0..<outer {
      for column in 0..<inner {
        found.append(reduce((0..<count).map { values[(row * count + $0) * inner + column] }))
      }
    }
    var rest = axes
    rest.remove(at: place)
    return NamedNumbers(axes: rest, values: found, isSingle: isSingle)
  }

  /// The mean along an axis over the numbers that exist.
  func mean(_ name: String) -> NamedNumbers {
    reduced(name) { numbers in
      let known = numbers.filter { !$0.isNaN }
      return known.isEmpty ? .nan : known.reduce(0, +) / Double(known.count)
    }
  }

  /// The Euclidean length along an axis.
  func length(_ name: String) -> NamedNumbers {
    reduced(name) { numbers in numbers.reduce(0) { $0 + $1 * $1 }.squareRoot() }
  }

  /// The number of the largest size along an axis, with its sign.
  func largest(_ name: String) -> NamedNumbers {
    reduced(name) { numbers in
      numbers.max { ($0.isNaN ? -1 : Swift.abs($0)) < ($1.isNaN ? -1 : Swift.abs($1)) } ?? .nan
    }
  }

  /// The same numbers without axes along which there is nothing to see.
  func dropping(_ isDull: (Dimension) -> Bool) -> NamedNumbers {
    NamedNumbers(
      axes: axes.filter { $0.count != 1 || !isDull($0) }, values: values, isSingle: isSingle)
  }

  /// The same numbers with an axis of all heads (`L0H0`, `L0H1`, …) as the two axes layer and head.
  func splittingHeads() -> NamedNumbers {
    guard !has("layer"), !has("head"),
      let place = axes.firstIndex(where: { $0.count > 1 && $0.label(at: 0) == "L0H0" })
    else { return self }
    let labels = (0..<axes[place].count).map { axes[place].label(at: $0) }
    let heads = labels.prefix { $0.hasPrefix("L0H") }.count
    let layers = labels.count / heads
    let grid = (0..<layers).flatMap { layer in (0..<heads).map { "L\(layer)H\($0)" } }
    guard labels == grid else { return self }
    var split = axes
    split.replaceSubrange(
      place...place, with: [Dimension("layer", count: layers), Dimension("head", count: heads)])
    return NamedNumbers(axes: split, values: values, isSingle: isSingle)
  }

  /// The same numbers with an axis behind another.
  func moved(_ name: String, behind other: String) -> NamedNumbers {
    guard let from = place(name), has(other), name != other else { return self }
    let shape = axes.map(\.count)
    var order = Array(axes.indices)
    order.remove(at: from)
    let target = order.firstIndex { axes[$0].name == other } ?? 0
    order.insert(from, at: target + 1)
    var strides = [Int](repeating: 1, count: shape.count)
    for axis in shape.indices.dropLast().reversed() {
      strides[axis] = strides[axis + 1] * shape[axis + 1]
    }
    var places = [0]
    for axis in order {
      places = places.flatMap { place in
        (0..<shape[axis]).map { place + $0 * strides[axis] }
      }
    }
    return NamedNumbers(
      axes: order.map { axes[$0] }, values: places.map { values[$0] }, isSingle: isSingle)
  }

  /// The same numbers with an axis and the one behind it as one: layers and heads as `L0H0`, ….
  func joined(_ name: String, as joint: String, label: (String, String) -> String) -> NamedNumbers {
    guard let place = place(name), place + 1 < axes.count else { return self }
    let (first, second) = (axes[place], axes[place + 1])
    let labels = (0..<first.count).flatMap { row in
      (0..<second.count).map { label(first.label(at: row), second.label(at: $0)) }
    }
    var fewer = axes
    fewer.replaceSubrange(place...(place + 1), with: [Dimension(joint, .labels(labels))])
    return NamedNumbers(axes: fewer, values: values, isSingle: isSingle)
  }
}
