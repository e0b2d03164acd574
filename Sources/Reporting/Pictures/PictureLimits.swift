/// How much of a result is drawn.
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
}
