extension Tensor {
  /// The sum of two tensors of one shape.
  ///
  /// - Precondition: the shapes agree.
  public static func + (left: Tensor, right: Tensor) -> Tensor {
    zip(left, right, "+") { $0 + $1 }
  }

  /// The difference of two tensors of one shape.
  ///
  /// - Precondition: the shapes agree.
  public static func - (left: Tensor, right: Tensor) -> Tensor {
    zip(left, right, "-") { $0 - $1 }
  }

  /// The product of two tensors, scalar by scalar.
  ///
  /// - Precondition: the shapes agree.
  public static func * (left: Tensor, right: Tensor) -> Tensor {
    zip(left, right, "*") { $0 * $1 }
  }

  /// Every scalar times `factor`.
  public static func * (left: Tensor, factor: Float) -> Tensor {
    left.map { $0 * factor }
  }

  /// Adds `vector` to each row.
  ///
  /// - Precondition: `vector` has as many scalars as a row.
  public func addingToRows(_ vector: Tensor) -> Tensor {
    precondition(
      vector.count == rowCount, "addingToRows: rows of \(shape) against \(vector.shape)")
    let width = rowCount
    return rowwise(vector) { row, vector, result in
      for i in 0..<width { result[i] = row[i] + vector[i] }
    }
  }

  /// Multiplies each row by `vector`, scalar by scalar.
  ///
  /// - Precondition: `vector` has as many scalars as a row.
  public func multiplyingRows(_ vector: Tensor) -> Tensor {
    precondition(
      vector.count == rowCount, "multiplyingRows: rows of \(shape) against \(vector.shape)")
    let width = rowCount
    return rowwise(vector) { row, vector, result in
      for i in 0..<width { result[i] = row[i] * vector[i] }
    }
  }

  /// Each row divided by its own scalar.
  ///
  /// - Parameter divisors: one scalar for each row, shape `[rows]` or `[rows, 1]`.
  /// - Precondition: as many divisors as rows.
  public func dividingRows(by divisors: Tensor) -> Tensor {
    precondition(
      rank > 0 && divisors.count == shape[0], "dividingRows: \(shape) by \(divisors.shape)")
    let width = rowCount
    var result = Tensor(uninitialized: shape)
    let rows = shape[0]
    withUnsafeBufferPointer { source in
      divisors.withUnsafeBufferPointer { divisors in
        result.withUnsafeMutableBufferPointer { target in
          for row in 0..<rows {
            let divisor = divisors[row]
            for i in row * width..<(row + 1) * width { target[i] = source[i] / divisor }
          }
        }
      }
    }
    return result
  }

  /// Each row without its mean: `x − mean(x)`.
  public func centeringRows() -> Tensor {
    let width = rowCount
    return rowwise(self) { row, _, result in
      var sum = 0.0
      for i in 0..<width { sum += Double(row[i]) }
      let mean = Float(sum / Double(Swift.max(width, 1)))
      for i in 0..<width { result[i] = row[i] - mean }
    }
  }

  /// Each row repeated for `copies` heads: `[rows, d]` → `[rows, copies, d]`.
  public func repeatingRows(_ copies: Int) -> Tensor {
    let width = rowCount
    var result = Tensor(uninitialized: [shape[0], copies] + shape.dropFirst())
    let rows = shape[0]
    withUnsafeBufferPointer { source in
      result.withUnsafeMutableBufferPointer { target in
        guard let from = source.baseAddress, let to = target.baseAddress else { return }
        parallelRows(rows, rowWork: width * copies) { range in
          for row in range {
            for copy in 0..<copies {
              (to + (row * copies + copy) * width).update(from: from + row * width, count: width)
            }
          }
        }
      }
    }
    return result
  }

  /// `body` of every scalar.
  public func map(_ body: (Float) -> Float) -> Tensor {
    var result = Tensor(uninitialized: shape)
    withUnsafeBufferPointer { source in
      result.withUnsafeMutableBufferPointer { target in
        for i in 0..<source.count { target[i] = body(source[i]) }
      }
    }
    return result
  }

  /// Whether every scalar is a finite number; large tensors are looked through on all threads.
  public var isFinite: Bool {
    let piece = 1 << 18
    let pieces = (count + piece - 1) / piece
    var carries = [UInt32](repeating: 0, count: pieces)
    withUnsafeBufferPointer { source in
      carries.withUnsafeMutableBufferPointer { carries in
        parallelChunks(pieces) { index in
          // Adding one to an exponent of ones, that of NaN and the infinities, carries into the
          // sign's place.
          var carry: UInt32 = 0
          for i in index * piece..<Swift.min((index + 1) * piece, source.count) {
            carry |= (source[i].bitPattern & 0x7fff_ffff) &+ 0x0080_0000
          }
          carries[index] = carry
        }
      }
    }
    return carries.allSatisfy { $0 & 0x8000_0000 == 0 }
  }

  /// The index of the first scalar that is a NaN or an infinity, one number an axis; nil if every
  /// scalar is finite.
  public var firstNonFiniteIndex: [Int]? {
    if isFinite { return nil }
    return withUnsafeBufferPointer { source in
      guard var flat = source.firstIndex(where: { !$0.isFinite }) else { return nil }
      var index: [Int] = []
      for extent in shape.reversed() {
        index.insert(flat % extent, at: 0)
        flat /= extent
      }
      return index
    }
  }

  @inline(__always)
  private static func zip(
    _ left: Tensor, _ right: Tensor, _ name: String, _ body: (Float, Float) -> Float
  ) -> Tensor {
    precondition(
      left.shape == right.shape, "Tensor \(name): shapes \(left.shape) and \(right.shape)")
    var result = Tensor(uninitialized: left.shape)
    left.withUnsafeBufferPointer { a in
      right.withUnsafeBufferPointer { b in
        result.withUnsafeMutableBufferPointer { c in
          guard let a = a.baseAddress, let b = b.baseAddress, let c = c.baseAddress else { return }
          parallelRows(left.count, rowWork: 1, grain: 1 << 16) { range in
            for i in range { c[i] = body(a[i], b[i]) }
          }
        }
      }
    }
    return result
  }

  /// Runs `body` on each row with `vector` and the row of the result, over all threads.
  @inline(__always)
  private func rowwise(
    _ vector: Tensor,
    _ body: (UnsafePointer<Float>, UnsafePointer<Float>, UnsafeMutablePointer<Float>) -> Void
  ) -> Tensor {
    var result = Tensor(uninitialized: shape)
    guard count > 0 else { return result }
    let width = rowCount
    let rows = shape[0]
    withUnsafeBufferPointer { source in
      vector.withUnsafeBufferPointer { vector in
        result.withUnsafeMutableBufferPointer { target in
          guard let a = source.baseAddress, let v = vector.baseAddress,
            let c = target.baseAddress
          else { return }
          parallelRows(rows, rowWork: width) { range in
            for row in range { body(a + row * width, v, c + row * width) }
          }
        }
      }
    }
    return result
  }
}
