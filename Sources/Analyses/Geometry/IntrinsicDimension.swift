import RealModule
public import Tensors

/// How many directions a cloud of points spreads in locally: the TwoNN estimate.
///
/// If the density hardly changes over the distance to a point's second neighbour, the ratio
/// μ = r₂/r₁ of the distances to its two nearest neighbours has the distribution
/// `F(μ) = 1 − μ^(−D)`, D the dimension, whatever the density is. So `−ln(1 − F)` is a line in `ln μ`
/// through the origin with slope D; it is fitted by least squares to the lowest nine tenths of the
/// points, F of the i-th smallest of N being i/N, since the largest ratios are where the assumption
/// fails first. Facco et al. 2017, arXiv:1803.06992.
///
/// A high dimension is underestimated from few points, most of which then lie at the cloud's edge: of
/// 1,000 uniform points in a cube the mean estimate is 1.9 in two dimensions, 4.5 in five, 8.0 in ten.
public struct IntrinsicDimension: Sendable {
  /// D; NaN with fewer than three different points.
  public let dimension: Double
  /// How many different points there were.
  public let points: Int
  /// How many points were left out because they stand where another one does.
  public let duplicates: Int

  /// The dimension of a cloud.
  ///
  /// - Parameter points: shape `[points, d]`.
  /// - Precondition: rank 2.
  /// - Complexity: 2·points²·d FLOPs.
  public init(_ points: Tensor) {
    let neighbours = NearestNeighbours(points)
    self.points = neighbours.first.count
    duplicates = neighbours.duplicates
    let ratios = zip(neighbours.first, neighbours.second).map { $1 / $0 }
    dimension = Self.slope(ratios)
  }

  /// The slope of −ln(1 − F) over ln μ.
  static func slope(_ ratios: [Double]) -> Double {
    let count = ratios.count
    var (products, squares) = (0.0, 0.0)
    for (index, ratio) in ratios.sorted().prefix(9 * count / 10).enumerated() {
      let logRatio = Double.log(ratio)
      products -= logRatio * Double.log(1 - Double(index + 1) / Double(count))
      squares += logRatio * logRatio
    }
    // Where all neighbours are equally far, as on a grid, nothing can be said.
    return squares > 0 ? products / squares : .nan
  }
}
