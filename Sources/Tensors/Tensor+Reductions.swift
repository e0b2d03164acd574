extension Tensor {
  /// The largest absolute value; 0 if there is none.
  public var maximumMagnitude: Float {
    withUnsafeBufferPointer { source in
      var result: Float = 0
      for scalar in source { result = Swift.max(result, Swift.abs(scalar)) }
      return result
    }
  }

  /// The sum of all scalars, in double precision.
  public var sum: Double {
    withUnsafeBufferPointer { source in
      var result = 0.0
      for scalar in source { result += Double(scalar) }
      return result
    }
  }

  /// The index of the largest scalar, the first of equals; nil if there is none.
  public var indexOfMaximum: Int? {
    withUnsafeBufferPointer { source in
      guard var best = source.first else { return nil }
      var index = 0
      for i in 1..<source.count where source[i] > best {
        best = source[i]
        index = i
      }
      return index
    }
  }

  /// The indices of the `k` largest scalars, largest first, the lower index first among equals.
  ///
  /// - Complexity: O(n·log k).
  public func topIndices(_ k: Int) -> [Int] {
    withUnsafeBufferPointer { source in
      // `kept` is sorted, best first; most scalars are turned away by its last element.
      var kept: [Int] = []
      for index in source.indices {
        if kept.count == k {
          guard let last = kept.last, source[index] > source[last] else { continue }
          kept.removeLast()
        }
        var (low, high) = (0, kept.count)
        while low < high {
          let middle = (low + high) / 2
          if source[kept[middle]] >= source[index] { low = middle + 1 } else { high = middle }
        }
        if k > 0 { kept.insert(index, at: low) }
      }
      return kept
    }
  }

  /// The inner product of two tensors of as many scalars, in double precision.
  ///
  /// - Precondition: the counts agree.
  public func dot(_ other: Tensor) -> Double {
    precondition(count == other.count, "dot: shapes \(shape) and \(other.shape)")
    return withUnsafeBufferPointer { a in
      other.withUnsafeBufferPointer { b in
        var result = 0.0
        for i in a.indices { result += Double(a[i]) * Double(b[i]) }
        return result
      }
    }
  }

  /// The mean over the first axis, in double precision: `[rows, …]` → `[…]`.
  ///
  /// - Precondition: at least one row.
  public func meanOverRows() -> Tensor {
    precondition(rank > 0 && shape[0] > 0, "meanOverRows: shape \(shape)")
    let width = rowCount
    let rows = shape[0]
    var sums = [Double](repeating: 0, count: width)
    withUnsafeBufferPointer { source in
      for row in 0..<rows {
        for i in 0..<width { sums[i] += Double(source[row * width + i]) }
      }
    }
    return Tensor(sums.map { Float($0 / Double(rows)) }, shape: Array(shape.dropFirst()))
  }
}
