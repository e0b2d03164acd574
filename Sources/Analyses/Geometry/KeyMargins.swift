import RealModule
public import Tensors

/// Which keys of an attention head a query can choose, and how easily.
///
/// Key i is *unselectable* if no query q gives it a larger score than every other key,
/// q·k_i > q·k_j, which is so exactly if k_i lies in the convex hull of the others. Its **margin**
/// is its distance from that hull: a query must be at least Δ/margin long to put k_i ahead of all
/// others by Δ. Equal keys are *tied*: none of them can be chosen alone.
///
/// Margins do not change when one vector is added to all keys (b_K never matters), and an injective
/// linear map keeps what is selectable. Of n ≤ m + 1 keys in general position in m dimensions all
/// are selectable.
///
/// Brody, Alon & Yahav 2023, arXiv:2305.02582; as unargmaxable classes: Grivas, Bogoychev & Lopez
/// 2022, arXiv:2203.06462.
public struct KeyMargins: Sendable {
  /// What can become of a key.
  public enum Label: Int, Sendable {
    /// Some query gives it the largest score.
    case selectable
    /// Another key is the same.
    case tied
    /// It lies in the hull of the others.
    case unselectable
    /// The solver found no answer within its limits.
    case unsolved
  }

  /// One key.
  public struct Key: Sendable {
    /// Its place among the keys.
    public var position: Int
    /// What can become of it.
    public var label: Label
    /// Its distance from the hull of the others; NaN where it was not asked for or not found.
    public var margin: Double
    /// Whether the key itself, as a query, chooses it: ‖k_i‖² > max_j k_i·k_j.
    public var choosesItself: Bool
    /// The first query position t at which no query can choose it among the keys 0…t; nil if there is
    /// none, or if this was not asked for.
    public var firstUnselectable: Int?
  }

  /// What is looked at beyond the labels.
  public struct Questions: OptionSet, Sendable {
    /// The bits.
    public let rawValue: Int
    /// Some questions.
    public init(rawValue: Int) { self.rawValue = rawValue }
    /// The margins.
    public static let margins = Questions(rawValue: 1)
    /// The first query that cannot choose a key.
    public static let firstUnselectable = Questions(rawValue: 2)
  }

  /// The keys that were asked about.
  public let keys: [Key]
  /// √(mean ‖k_j − mean k‖²): the unit in which margins of different sets compare.
  public let spread: Double

  /// Keys with margins up to this share of the largest distance from them are unselectable.
  public static let tolerance = 1e-6
  /// Keys as near to each other as this share of the largest distance are tied: what single precision
  /// cannot tell apart.
  public static let tieTolerance = 0x1p-22

  /// Looks at keys.
  ///
  /// Cheap answers come first: a key that is its own best query, as it is or less the keys' mean, is
  /// selectable. The others, and all whose margins are asked for, go to the solver.
  ///
  /// - Parameters:
  ///   - cloud: all keys.
  ///   - positions: those that are asked about; all by default.
  ///   - questions: what is looked at beyond the labels.
  /// - Precondition: the positions are among the keys; all keys are finite.
  public init(
    _ cloud: PointCloud, at positions: [Int]? = nil, questions: Questions = [.margins]
  ) {
    let finder = KeyFinder(cloud: cloud)
    keys = (positions ?? Array(0..<cloud.count)).map { finder.key($0, questions) }
    let squares = cloud.centered.reduce(0) { $0 + $1 * $1 }
    spread = cloud.count == 0 ? 0 : (squares / Double(cloud.count)).squareRoot()
  }

  /// How many of the keys have this label.
  public func count(_ label: Label) -> Int { keys.count { $0.label == label } }

  /// How long a query must be for a key of this margin to get attention weight `share` from softmax:
  /// ln((n − 1)·p/(1 − p)) ahead of n − 1 others, with scores `scale·q·k`.
  ///
  /// - Returns: a norm; infinite for a margin of 0.
  public static func selectionCost(
    margin: Double, keys: Int, share: Double = 0.9, scale: Double
  ) -> Double {
    logitGap(keys: keys, share: share) / (scale * margin)
  }

  /// ln((n − 1)·p/(1 − p)): how far a score must lie ahead of n − 1 equal ones to get weight p.
  public static func logitGap(keys: Int, share: Double = 0.9) -> Double {
    Double.log(Double(keys - 1) * share / (1 - share))
  }
}

/// ``KeyMargins`` of several sets of keys, on all threads.
///
/// - Parameters:
///   - sets: shape `[n, m]` each.
///   - positions: the keys that are asked about in every set; all by default.
///   - questions: what is looked at beyond the labels.
/// - Precondition: as of `KeyMargins`.
/// - Complexity: for a margin some 20 to 60 steps of O(n·|S|) with a support S of at most m + 1 keys.
public func keyMargins(
  of sets: [Tensor], at positions: [Int]? = nil, questions: KeyMargins.Questions = [.margins]
) -> [KeyMargins] {
  parallelMap(sets.count) {
    KeyMargins(PointCloud(sets[$0]), at: positions, questions: questions)
  }
}

/// Answers about the keys of one set.
private struct KeyFinder {
  let cloud: PointCloud
  /// c_j·mean k: what a centred key's products lack.
  private let shift: [Double]
  /// The largest ‖c_j‖², the size of what rounds in a product.
  private let largest: Double

  init(cloud: PointCloud) {
    self.cloud = cloud
    let (n, m) = (cloud.count, cloud.dimension)
    shift = (0..<n).map { j in
      (0..<m).reduce(0.0) { $0 + cloud.centered[j * m + $1] * cloud.mean[$1] }
    }
    largest = (0..<n).reduce(0.0) { max($0, cloud.gram[$1 * n + $1]) }
  }

  func key(_ i: Int, _ questions: KeyMargins.Questions) -> KeyMargins.Key {
    let n = cloud.count
    var key = KeyMargins.Key(
      position: i, label: .selectable, margin: .nan, choosesItself: true, firstUnselectable: nil)
    guard let extent = cloud.squaredDistances(from: i, among: n) else { return key }
    // How far the key's own product, as it is and less the mean, lies ahead of the next.
    var (own, centered) = (Double.infinity, Double.infinity)
    for j in 0..<n where j != i {
      let difference = cloud.gram[i * n + i] - cloud.gram[i * n + j]
      centered = min(centered, difference)
      own = min(own, difference + shift[i] - shift[j])
    }
    key.choosesItself = own > 0
    let rounding = 1e-14 * (largest + (shift.max() ?? 0) - (shift.min() ?? 0))
    let isAccepted = max(own, centered) > rounding
    let tie = KeyMargins.tieTolerance * KeyMargins.tieTolerance
    if extent.nearest <= tie * extent.farthest {
      (key.label, key.margin) = (.tied, questions.contains(.margins) ? 0 : .nan)
    } else if questions.contains(.margins) {
      let point = cloud.minimumNormPoint(from: i)
      if point.isConverged { key.margin = point.norm }
      if !isAccepted { key.label = label(point) }
    } else if !isAccepted {
      key.label = label(cloud.minimumNormPoint(from: i, decidingAt: KeyMargins.tolerance))
    }
    if questions.contains(.firstUnselectable) && key.label != .selectable && key.label != .unsolved
    {
      key.firstUnselectable = firstUnselectable(i)
      if key.firstUnselectable == nil { key.label = .unsolved }
    }
    return key
  }

  private func label(_ point: MinimumNormPoint) -> KeyMargins.Label {
    guard point.isConverged else { return .unsolved }
    return point.norm > KeyMargins.tolerance * point.scale ? .selectable : .unselectable
  }

  /// The first t at which key i, unselectable among all keys, is so among the keys 0…t; nil where the
  /// solver gave up.
  ///
  /// Hulls only grow, so bisection finds it. An unselectable key is a mixture of few others and was so
  /// from the last of these on; a selectable one stays so until a key comes that its query prefers.
  private func firstUnselectable(_ i: Int) -> Int? {
    var (low, high) = (i, cloud.count - 1)
    while low < high {
      let middle = (low + high) / 2
      let point = cloud.minimumNormPoint(
        from: i, among: middle + 1, decidingAt: KeyMargins.tolerance)
      switch label(point) {
      case .selectable: low = min(firstPreferred(to: i, by: point.direction, after: middle), high)
      case .unsolved: return nil
      default: high = max(i, point.support.max() ?? i)
      }
    }
    return high
  }

  /// The first key after `t` whose product with a query is not below that of key i.
  private func firstPreferred(to i: Int, by query: [Double], after t: Int) -> Int {
    let m = cloud.dimension
    if query.isEmpty { return t + 1 }
    for j in t + 1..<cloud.count {
      var ahead = 0.0
      for d in 0..<m {
        ahead += query[d] * (cloud.centered[i * m + d] - cloud.centered[j * m + d])
      }
      if ahead <= 0 { return j }
    }
    return cloud.count - 1
  }
}
