import Results

/// How much of a result is drawn, and what the names of axes stand for.
public struct PictureLimits: Sendable, Equatable {
  /// How many prompts have a view of their own, besides their mean.
  public var prompts = 8
  /// The most positions along an axis of tokens.
  public var positions = 1024
  /// The most positions of an attention pattern.
  public var patternPositions = 64
  /// The most bars beside each other; more places are a curve.
  public var bars = 60
  /// The most norms in one panel of LayerNorm geometry; more are chosen evenly.
  public var series = 6
  /// The most points of a cloud of cells or tokens; more are chosen evenly.
  public var points = 1000
  /// The most rows of a list of words.
  public var rows = 200

  /// The usual limits.
  public init() {}

  static let tokenAxes = ["pos", "query_pos", "key_pos"]
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
