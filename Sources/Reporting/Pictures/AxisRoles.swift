import Results

/// What the names of a result's axes mean for its pictures.
enum AxisRoles {
  /// Axes along which tokens stand.
  static let tokenAxes = ["pos", "query_pos", "key_pos"]
  /// Axes along which models, or pairs of them, stand.
  static let modelAxes: Set<String> = ["model", "pair"]

  /// A few kinds that are told apart by colour or facets rather than along an axis.
  static func isClass(_ axis: Dimension) -> Bool {
    ["position_class", "cloud", "reader", "change", "method"].contains(axis.name)
  }

  /// An axis that is left out where it has one place only.
  static func isDull(_ axis: Dimension) -> Bool {
    ["receiver", "sender", "method", "change"].contains(axis.name)
  }

  /// Whether the places are things rather than steps, which a curve would join.
  static func isListing(_ axis: Dimension) -> Bool {
    let steps = ["layer", "ln", "stream", "quantile", "bin", "removal", "lambda", "length", "rank"]
    if steps.contains(axis.name) { return false }
    return axis.count == 1 || tokenAxes.contains(axis.name) || axis.name == "prompt"
      || { if case .labels = axis.coordinates { true } else { false } }()
  }

  /// Axes' names for people.
  static let words = [
    "pos": "position", "query_pos": "query position", "key_pos": "key position",
    "ln": "norm", "stream": "residual stream", "layer_to": "to layer", "head_to": "to head",
    "d_mlp": "neuron", "vocab": "token id", "removal": "norms frozen so far",
  ]
}
