/// The distances from each point of a cloud to its two nearest neighbours.
public struct NearestNeighbours: Sendable {
  /// To the nearest.
  public let first: [Double]
  /// To the second nearest.
  public let second: [Double]
  /// How many points were left out because they stand where another one does.
  public let duplicates: Int

  /// Points nearer to each other than this share of the cloud's radius are the same point: equal
  /// tokens in equal contexts differ by the rounding of float32 and no more.
  public static let duplicateDistance = 1e-5

  /// Finds the neighbours; all zero distances are duplicates.
  ///
  /// - Parameter points: shape `[points, d]`. Of duplicates the first is kept. With fewer than three
  ///   points left, or with numbers that are not finite, there are no distances.
  /// - Precondition: rank 2.
  /// - Complexity: 2·points²·d FLOPs. A float32 product says who can be among the nearest, and the
  ///   distances to these are then computed in double precision.
  public init(_ points: Tensor) {
    precondition(points.rank == 2, "NearestNeighbours: shape \(points.shape)")
    let (count, d) = (points.shape[0], points.shape[1])
    guard count > 2 else {
      (first, second, duplicates) = ([], [], 0)
      return
    }
    // About the mean, squared distances lose the fewest digits.
    let centred = points.addingToRows(
      Tensor(points.meanOverRows().scalars.map { -$0 }, shape: [d]))
    let products = matmulTransposed(centred, MatrixView(centred))
    let squares = (0..<count).map { Double(products[$0, $0]) }
    let meanSquare = squares.reduce(0, +) / Double(count)
    guard meanSquare.isFinite, meanSquare > 0 else {
      (first, second, duplicates) = ([], [], meanSquare == 0 ? count - 1 : 0)
      return
    }
    let cloud = Cloud(points: points, products: products, squares: squares)

    let nearest = Self.duplicateDistance * Self.duplicateDistance * meanSquare
    var kept: [Int] = []
    for i in 0..<count where !kept.contains(where: { cloud.isWithin(nearest, i, $0) }) {
      kept.append(i)
    }
    duplicates = count - kept.count
    guard kept.count > 2 else {
      (first, second) = ([], [])
      return
    }
    (first, second) = cloud.nearest(among: kept)
  }
}

/// Points with the inner products of what they are about their mean.
private struct Cloud {
  let points: Tensor
  let products: Tensor
  let squares: [Double]

  /// What a squared distance may be wrong by that follows from float32 products.
  @inline(__always)
  private func error(_ i: Int, _ j: Int) -> Double { 1e-5 * (squares[i] + squares[j]) }

  /// The squared distance that follows from the products.
  @inline(__always)
  private func estimate(_ product: Float, _ i: Int, _ j: Int) -> Double {
    squares[i] + squares[j] - 2 * Double(product)
  }

  /// Whether two points are no further apart than the root of `limit`.
  func isWithin(_ limit: Double, _ i: Int, _ j: Int) -> Bool {
    let product = products.withUnsafeBufferPointer { $0[i * squares.count + j] }
    if estimate(product, i, j) - error(i, j) > limit { return false }
    return points.withUnsafeBufferPointer { squaredDistance($0, i, j) } <= limit
  }

  /// The distances from each of the points `kept` to the two nearest others among them.
  func nearest(among kept: [Int]) -> (first: [Double], second: [Double]) {
    let count = squares.count
    var first = [Double](repeating: 0, count: kept.count)
    var second = first
    points.withUnsafeBufferPointer { points in
      products.withUnsafeBufferPointer { products in
        first.withUnsafeMutableBufferPointer { first in
          second.withUnsafeMutableBufferPointer { second in
            guard let first = first.baseAddress, let second = second.baseAddress else { return }
            parallelRows(kept.count, rowWork: 8 * kept.count) { range in
              for row in range {
                let i = kept[row]
                // The second smallest of what the squared distances are at most.
                var (smallest, limit) = (Double.infinity, Double.infinity)
                for j in kept where j != i {
                  let most = estimate(products[i * count + j], i, j) + error(i, j)
                  if most < smallest {
                    (smallest, limit) = (most, smallest)
                  } else if most < limit {
                    limit = most
                  }
                }
                var (nearest, next) = (Double.infinity, Double.infinity)
                for j in kept where j != i {
                  if estimate(products[i * count + j], i, j) - error(i, j) > limit { continue }
                  let square = squaredDistance(points, i, j)
                  if square < nearest {
                    (nearest, next) = (square, nearest)
                  } else if square < next {
                    next = square
                  }
                }
                first[row] = nearest.squareRoot()
                second[row] = next.squareRoot()
              }
            }
          }
        }
      }
    }
    return (first, second)
  }

  private func squaredDistance(_ points: UnsafeBufferPointer<Float>, _ i: Int, _ j: Int) -> Double {
    let d = self.points.shape[1]
    var sum = 0.0
    for k in 0..<d {
      let difference = Double(points[i * d + k]) - Double(points[j * d + k])
      sum += difference * difference
    }
    return sum
  }
}
