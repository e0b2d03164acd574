import COpenBLAS

/// Points in space and the inner products that questions about their convex hulls need.
///
/// The points are moved so that their mean is the origin, which changes no distance and keeps the
/// inner products from cancelling. All arithmetic is in double precision.
public struct PointCloud: Sendable {
  /// The number of points n.
  public let count: Int
  /// The number of coordinates m.
  public let dimension: Int
  /// The points less their mean, shape `[n, m]`.
  public let centered: [Double]
  /// Their mean, shape `[m]`.
  public let mean: [Double]
  /// The inner products of the centred points, shape `[n, n]`.
  public let gram: [Double]

  /// The rows of a tensor.
  ///
  /// - Parameter points: shape `[n, m]`.
  /// - Precondition: rank 2.
  public init(_ points: Tensor) {
    precondition(points.rank == 2, "PointCloud: expected [n, m], found shape \(points.shape)")
    self.init(points.scalars.map(Double.init), count: points.shape[0])
  }

  /// Points in double precision.
  ///
  /// - Parameters:
  ///   - points: shape `[n, m]`, row-major.
  ///   - count: n.
  /// - Precondition: `points` fill `count` rows.
  /// - Complexity: n²·m FLOPs.
  public init(_ points: [Double], count: Int) {
    precondition(
      count >= 0 && (count == 0 ? points.isEmpty : points.count % count == 0),
      "PointCloud: \(points.count) scalars do not fill \(count) rows")
    let dimension = count == 0 ? 0 : points.count / count
    var mean = [Double](repeating: 0, count: dimension)
    for row in 0..<count {
      for i in 0..<dimension { mean[i] += points[row * dimension + i] }
    }
    for i in 0..<dimension { mean[i] /= Double(count) }
    var centered = points
    for row in 0..<count {
      for i in 0..<dimension { centered[row * dimension + i] -= mean[i] }
    }
    var gram = [Double](repeating: 0, count: count * count)
    if count > 0 && dimension > 0 {
      BLAS.prepare()
      cblas_dsyrk(
        CblasRowMajor, CblasLower, CblasNoTrans, blasint(count), blasint(dimension), 1, centered,
        blasint(dimension), 0, &gram, blasint(count))
      for row in 0..<count {
        for column in 0..<row { gram[column * count + row] = gram[row * count + column] }
      }
    }
    self.count = count
    self.dimension = dimension
    self.mean = mean
    self.centered = centered
    self.gram = gram
  }

  /// The squared distance of two points.
  public func squaredDistance(_ i: Int, _ j: Int) -> Double {
    Swift.max(0, gram[i * count + i] + gram[j * count + j] - 2 * gram[i * count + j])
  }

  /// The points among the first `limit` that are nearest to and farthest from point `origin`, itself
  /// left out, by their squared distances; nil where there is no other.
  public func squaredDistances(
    from origin: Int, among limit: Int
  ) -> (nearest: Double, farthest: Double)? {
    var result: (nearest: Double, farthest: Double)?
    for j in 0..<limit where j != origin {
      let distance = squaredDistance(origin, j)
      result = (
        Swift.min(result?.nearest ?? distance, distance),
        Swift.max(result?.farthest ?? distance, distance)
      )
    }
    return result
  }
}

/// The point nearest to the origin in the convex hull of p_j = k_j − k_i: how far point i lies from
/// the hull of the others.
///
/// By duality its norm is the margin max_{‖q‖≤1} min_j q·(k_i − k_j), which q = −x/‖x‖ attains.
public struct MinimumNormPoint: Sendable {
  /// ‖x‖: the distance, or an upper bound of it where the solver stopped early; infinite where there
  /// is no other point.
  public var norm: Double
  /// min_j p_j·x/‖x‖, at most the distance; 0 where x separates nothing.
  public var lowerBound: Double
  /// The largest ‖p_j‖.
  public var scale: Double
  /// The points that x is a mixture of.
  public var support: [Int]
  /// Their weights, positive and of sum 1.
  public var weights: [Double]
  /// −x, the direction along which point i lies ahead of the others, shape `[m]`; not normalised.
  public var direction: [Double]
  /// Whether the distance is known, to a millionth of itself or of `scale`, or the side asked for.
  public var isConverged: Bool
  /// How many points were tried.
  public var iterations: Int
}

extension PointCloud {
  /// The distance of point `origin` from the convex hull of the other ones, by Wolfe's algorithm
  /// (Wolfe 1976, "Finding the nearest point in a polytope").
  ///
  /// x is the nearest point of the affine hull of a support S that lies inside the hull of S. As long
  /// as some p_j·x < ‖x‖², p_j joins S; points whose weight would become negative leave it. With
  /// Q the rows of S the affine problem is (QQᵀ + 11ᵀ)·v ∝ 1; its Cholesky factor grows by a row and
  /// loses one by plane rotations, so that a step costs O(n·|S| + |S|²).
  ///
  /// - Parameters:
  ///   - origin: i.
  ///   - limit: only the first `limit` points are there; all by default.
  ///   - tolerance: where given, the solver stops as soon as the distance is known to be more or at
  ///     most `tolerance·scale`.
  ///   - iterationLimit: how many points may be tried; 10·(n + m) by default.
  /// - Returns: the point; not converged where the limit was reached or rounding stopped progress.
  /// - Precondition: `origin` is one of the points that are there, and all are finite.
  public func minimumNormPoint(
    from origin: Int, among limit: Int? = nil, decidingAt tolerance: Double? = nil,
    iterationLimit: Int? = nil
  ) -> MinimumNormPoint {
    let limit = limit ?? count
    precondition(
      origin >= 0 && origin < limit && limit <= count,
      "minimumNormPoint: point \(origin) among the first \(limit) of \(count)")
    guard let extent = squaredDistances(from: origin, among: limit) else {
      return MinimumNormPoint(
        norm: .infinity, lowerBound: .infinity, scale: 0, support: [], weights: [], direction: [],
        isConverged: true, iterations: 0)
    }
    let maximum = iterationLimit ?? 10 * (limit + dimension)
    return gram.withUnsafeBufferPointer { gram in
      guard let base = gram.baseAddress else { preconditionFailure("no points") }
      let walk = WolfeWalk(
        gram: base, stride: count, origin: origin, limit: limit,
        capacity: Swift.min(limit - 1, dimension + 1) + 1, squaredScale: extent.farthest)
      let (lowest, isConverged) = walk.run(decidingAt: tolerance, iterationLimit: maximum)
      return point(walk, lowest: lowest, isConverged: isConverged)
    }
  }

  /// x and its bounds from the walk's support; from coordinates, since a Gram matrix halves the digits
  /// of a small norm.
  private func point(_ walk: WolfeWalk, lowest: Double, isConverged: Bool) -> MinimumNormPoint {
    let (support, weights) = (walk.support, walk.currentWeights)
    var direction = [Double](repeating: 0, count: dimension)
    let own = walk.origin * dimension
    for (j, weight) in zip(support, weights) {
      for d in 0..<dimension {
        direction[d] -= weight * (centered[j * dimension + d] - centered[own + d])
      }
    }
    let norm = direction.reduce(0) { $0 + $1 * $1 }.squareRoot()
    return MinimumNormPoint(
      norm: norm,
      lowerBound: norm > 0 ? Swift.max(0, Swift.min(lowest * walk.squaredScale / norm, norm)) : 0,
      scale: walk.squaredScale.squareRoot(), support: support, weights: weights,
      direction: direction, isConverged: isConverged, iterations: walk.iterations)
  }
}

/// One run of Wolfe's algorithm on p_j = k_j − k_i, scaled so that the longest has length 1.
private final class WolfeWalk {
  let origin: Int
  let squaredScale: Double
  private(set) var iterations = 0
  private(set) var support: [Int] = []

  private let gram: UnsafePointer<Double>
  private let stride: Int
  private let limit: Int
  private let capacity: Int
  /// The row of the Gram matrix that belongs to the origin.
  private let own: UnsafePointer<Double>
  /// L with L·Lᵀ = QQᵀ + 11ᵀ, row-major, `capacity + 1` apart.
  private let factor: UnsafeMutablePointer<Double>
  private let rowLength: Int
  private let weights: UnsafeMutablePointer<Double>
  private let affine: UnsafeMutablePointer<Double>
  private let products: UnsafeMutablePointer<Double>

  /// The stopping rule: ‖x‖² − p_j·x below this, in units of the longest p squared.
  private static let gapLimit = 1e-12
  /// Weights below this are zero.
  private static let weightLimit = 1e-14

  init(
    gram: UnsafePointer<Double>, stride: Int, origin: Int, limit: Int, capacity: Int,
    squaredScale: Double
  ) {
    self.gram = gram
    self.stride = stride
    self.origin = origin
    self.limit = limit
    self.capacity = capacity
    self.squaredScale = squaredScale
    own = gram + origin * stride
    rowLength = capacity + 1
    factor = .allocate(capacity: rowLength * rowLength)
    weights = .allocate(capacity: rowLength)
    affine = .allocate(capacity: rowLength)
    products = .allocate(capacity: limit)
  }

  deinit {
    factor.deallocate()
    weights.deallocate()
    affine.deallocate()
    products.deallocate()
  }

  var currentWeights: [Double] { support.indices.map { weights[$0] } }

  /// Walks until the stopping rule holds.
  ///
  /// - Returns: min_j p_j·x in units of the squared scale, and whether the distance (or its side) is
  ///   known.
  func run(decidingAt tolerance: Double?, iterationLimit: Int) -> (Double, Bool) {
    start()
    while true {
      let (nearest, lowest, squaredNorm) = evaluate()
      let gap = squaredNorm - lowest
      if gap <= Self.gapLimit { return (lowest, true) }
      if let tolerance {
        let squared = tolerance * tolerance
        if squaredNorm <= squared { return (lowest, true) }
        if lowest > 0 && lowest * lowest > squared * squaredNorm { return (lowest, true) }
      }
      if iterations >= iterationLimit || !progress(with: nearest) {
        // Rounding had the last word: a point came again or added no new direction.
        let (_, lowest, squaredNorm) = evaluate()
        return (lowest, squaredNorm - lowest <= 1e-6 * squaredNorm || squaredNorm <= Self.gapLimit)
      }
      iterations += 1
    }
  }

  /// The support is the nearest point alone.
  private func start() {
    var (nearest, least) = (-1, Double.infinity)
    for j in 0..<limit where j != origin {
      let distance = product(j, j)
      if distance < least { (nearest, least) = (j, distance) }
    }
    precondition(nearest >= 0 && append(nearest), "minimumNormPoint: a point is not finite")
    weights[0] = 1
  }

  /// p_a·p_b in units of the squared scale.
  private func product(_ a: Int, _ b: Int) -> Double {
    let value = gram[a * stride + b] - own[a] - own[b] + own[origin]
    return squaredScale > 0 ? value / squaredScale : 0
  }

  /// All p_j·x: the point with the least, that value, and ‖x‖².
  private func evaluate() -> (nearest: Int, lowest: Double, squaredNorm: Double) {
    for j in 0..<limit { products[j] = -own[j] }
    var constant = own[origin]
    for (place, s) in support.enumerated() {
      let (weight, row) = (weights[place], gram + s * stride)
      for j in 0..<limit { products[j] += weight * row[j] }
      constant -= weight * own[s]
    }
    let unit = squaredScale > 0 ? 1 / squaredScale : 0
    var squaredNorm = 0.0
    for (place, s) in support.enumerated() {
      squaredNorm += weights[place] * (products[s] + constant) * unit
    }
    products[origin] = .infinity
    var (nearest, least) = (support[0], products[support[0]])
    for j in 0..<limit where products[j] < least { (nearest, least) = (j, products[j]) }
    return (nearest, (least + constant) * unit, Swift.max(squaredNorm, 0))
  }

  /// Takes point `j` in and moves x to the nearest point of the new support's hull; false where
  /// rounding does not let it.
  private func progress(with j: Int) -> Bool {
    if support.contains(j) || !append(j) { return false }
    weights[support.count - 1] = 0
    while true {
      solveAffine()
      var step = 1.0
      for place in support.indices where affine[place] <= Self.weightLimit {
        let difference = weights[place] - affine[place]
        step = Swift.min(step, difference > 0 ? weights[place] / difference : 0)
      }
      if step >= 1 {
        for place in support.indices { weights[place] = affine[place] }
        return true
      }
      var sum = 0.0
      for place in support.indices {
        weights[place] += step * (affine[place] - weights[place])
      }
      // At least one point leaves, whatever rounding says of its weight.
      var dropped = false
      for place in support.indices.reversed()
      where weights[place] <= Self.weightLimit && support.count > 1 {
        remove(place)
        dropped = true
      }
      if !dropped { return false }
      for place in support.indices { sum += weights[place] }
      for place in support.indices { weights[place] /= sum }
      if !support.contains(j) { return false }
    }
  }

  /// Adds a row to the factor; false where point `j` lies in the affine hull of the support.
  private func append(_ j: Int) -> Bool {
    let size = support.count
    if size >= capacity { return false }
    let row = factor + size * rowLength
    var rest = product(j, j) + 1
    for place in 0..<size {
      let other = factor + place * rowLength
      var value = product(j, support[place]) + 1
      for i in 0..<place { value -= row[i] * other[i] }
      row[place] = value / other[place]
      rest -= row[place] * row[place]
    }
    if !(rest > 1e-15) { return false }
    row[size] = rest.squareRoot()
    support.append(j)
    return true
  }

  /// Takes a row out of the factor: the rows below move up and plane rotations make it triangular.
  private func remove(_ place: Int) {
    let size = support.count
    support.remove(at: place)
    for row in place..<size - 1 {
      weights[row] = weights[row + 1]
      (factor + row * rowLength).update(from: factor + (row + 1) * rowLength, count: row + 2)
    }
    for column in place..<size - 1 {
      let pivot = factor + column * rowLength + column
      let length = (pivot[0] * pivot[0] + pivot[1] * pivot[1]).squareRoot()
      let (cosine, sine) = (pivot[0] / length, pivot[1] / length)
      for row in column..<size - 1 {
        let pair = factor + row * rowLength + column
        let (left, right) = (pair[0], pair[1])
        pair[0] = cosine * left + sine * right
        pair[1] = cosine * right - sine * left
      }
    }
  }

  /// The weights of the nearest point of the support's affine hull: (QQᵀ + 11ᵀ)·v ∝ 1, Σv = 1.
  private func solveAffine() {
    let size = support.count
    for i in 0..<size {
      let row = factor + i * rowLength
      var value = 1.0
      for k in 0..<i { value -= row[k] * affine[k] }
      affine[i] = value / row[i]
    }
    var sum = 0.0
    for i in (0..<size).reversed() {
      let row = factor + i * rowLength
      affine[i] /= row[i]
      let value = affine[i]
      for k in 0..<i { affine[k] -= row[k] * value }
      sum += value
    }
    for i in 0..<size { affine[i] /= sum }
  }
}
