// Row and column arithmetic on weight matrices in double precision, over all threads.
//
// A tensor is seen as a matrix whose columns are its last axis; a vector is one row.

extension Tensor {
  private var columns: Int { shape.last ?? 1 }
  private var matrixRows: Int { columns == 0 ? 0 : count / columns }

  /// The weighted sum of the rows, `Σ_i weights_i·W_ij`, or of their magnitudes.
  ///
  /// - Parameters:
  ///   - weights: one for each row.
  ///   - magnitudes: whether `|W_ij|` is summed instead.
  /// - Returns: one sum for each column. The same on any number of threads.
  /// - Precondition: as many weights as rows.
  public func sumOfRows(weightedBy weights: [Double], magnitudes: Bool = false) -> [Double] {
    let (rows, columns) = (matrixRows, columns)
    precondition(weights.count == rows, "sumOfRows: \(shape) with \(weights.count) weights")
    let chunkRows = Swift.max(1, (rows + 31) / 32)
    let chunks = (rows + chunkRows - 1) / chunkRows
    var partial = [Double](repeating: 0, count: Swift.max(chunks, 1) * columns)
    withUnsafeBufferPointer { source in
      partial.withUnsafeMutableBufferPointer { partial in
        guard let source = source.baseAddress, let partial = partial.baseAddress else { return }
        parallelChunks(chunks) { chunk in
          let sums = partial + chunk * columns
          for row in chunk * chunkRows..<Swift.min(rows, (chunk + 1) * chunkRows) {
            let (x, weight) = (source + row * columns, weights[row])
            if weight == 0 { continue }
            if magnitudes {
              for j in 0..<columns { sums[j] += weight * Double(Swift.abs(x[j])) }
            } else {
              for j in 0..<columns { sums[j] += weight * Double(x[j]) }
            }
          }
        }
        for chunk in 1..<Swift.max(chunks, 1) {
          for j in 0..<columns { partial[j] += partial[chunk * columns + j] }
        }
      }
    }
    return Array(partial.prefix(columns))
  }

  /// The weighted sum of the columns, `Σ_j W_ij·weights_j`, or of their magnitudes.
  ///
  /// - Parameters:
  ///   - weights: one for each column.
  ///   - magnitudes: whether `|W_ij|` is summed instead.
  /// - Returns: one sum for each row.
  /// - Precondition: as many weights as columns.
  public func sumOfColumns(weightedBy weights: [Double], magnitudes: Bool = false) -> [Double] {
    let (rows, columns) = (matrixRows, columns)
    precondition(weights.count == columns, "sumOfColumns: \(shape) with \(weights.count) weights")
    var result = [Double](repeating: 0, count: rows)
    withUnsafeBufferPointer { source in
      weights.withUnsafeBufferPointer { weights in
        result.withUnsafeMutableBufferPointer { result in
          guard let source = source.baseAddress, let weights = weights.baseAddress,
            let result = result.baseAddress
          else { return }
          parallelRows(rows, rowWork: columns) { range in
            for row in range {
              let x = source + row * columns
              result[row] =
                magnitudes
                ? total(columns) { weights[$0] * Double(Swift.abs(x[$0])) }
                : total(columns) { weights[$0] * Double(x[$0]) }
            }
          }
        }
      }
    }
    return result
  }

  /// `W_ij ← factors_i·W_ij − shifts_j`, computed in double precision and rounded once.
  ///
  /// - Parameters:
  ///   - factors: one for each row; nil for 1.
  ///   - shifts: one for each column; nil for 0.
  /// - Precondition: as many as there are rows and columns.
  public mutating func scaleRows(by factors: [Double]?, subtracting shifts: [Double]?) {
    let (rows, columns) = (matrixRows, columns)
    precondition(
      (factors?.count ?? rows) == rows && (shifts?.count ?? columns) == columns,
      "scaleRows: \(shape) with \(factors?.count ?? rows) factors and \(shifts?.count ?? columns) "
        + "shifts")
    let zeros = shifts ?? [Double](repeating: 0, count: columns)
    zeros.withUnsafeBufferPointer { shifts in
      guard let shifts = shifts.baseAddress else { return }
      rewriteRows { row, from, to in
        let factor = factors?[row] ?? 1
        for j in 0..<columns { to[j] = Float(factor * Double(from[j]) - shifts[j]) }
      }
    }
  }

  /// `W_ij ← W_ij·factors_j − shifts_i`, computed in double precision and rounded once.
  ///
  /// - Parameters:
  ///   - factors: one for each column; nil for 1.
  ///   - shifts: one for each row; nil for 0.
  /// - Precondition: as many as there are columns and rows.
  public mutating func scaleColumns(by factors: [Double]?, subtracting shifts: [Double]?) {
    let (rows, columns) = (matrixRows, columns)
    precondition(
      (factors?.count ?? columns) == columns && (shifts?.count ?? rows) == rows,
      "scaleColumns: \(shape) with \(factors?.count ?? columns) factors and "
        + "\(shifts?.count ?? rows) shifts")
    let ones = factors ?? [Double](repeating: 1, count: columns)
    ones.withUnsafeBufferPointer { factors in
      guard let factors = factors.baseAddress else { return }
      rewriteRows { row, from, to in
        let shift = shifts?[row] ?? 0
        for j in 0..<columns { to[j] = Float(factors[j] * Double(from[j]) - shift) }
      }
    }
  }

  /// Runs `body` on each row as it is and as it shall be: in place where nobody else looks at the
  /// scalars, else straight into new memory.
  @inline(__always)
  private mutating func rewriteRows(
    _ body: (Int, UnsafePointer<Float>, UnsafeMutablePointer<Float>) -> Void
  ) {
    let (rows, columns) = (matrixRows, columns)
    let inPlace = isKnownUniquelyReferenced(&storage) && storage.owner == nil
    let target = inPlace ? storage : TensorStorage(capacity: count)
    let from = UnsafePointer(storage.base + offset)
    let to = target.base + (inPlace ? offset : 0)
    parallelRows(rows, rowWork: columns) { range in
      for row in range { body(row, from + row * columns, to + row * columns) }
    }
    if !inPlace {
      storage = target
      offset = 0
    }
  }
}

/// The sum of `term(0) …`; four sums in turn, because each addition waits for the one before it.
@inline(__always)
private func total(_ count: Int, _ term: (Int) -> Double) -> Double {
  var (a, b, c, d) = (0.0, 0.0, 0.0, 0.0)
  var i = 0
  while i + 4 <= count {
    a += term(i)
    b += term(i + 1)
    c += term(i + 2)
    d += term(i + 3)
    i += 4
  }
  while i < count {
    a += term(i)
    i += 1
  }
  return (a + b) + (c + d)
}
