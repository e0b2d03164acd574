extension Tensor {
  /// The scalar at `indices`.
  ///
  /// - Precondition: one index for each axis, each within its extent.
  public subscript(indices: Int...) -> Float {
    get { span[flatIndex(indices)] }
    set {
      let index = flatIndex(indices)
      withUnsafeMutableBufferPointer { $0[index] = newValue }
    }
  }

  private func flatIndex(_ indices: [Int]) -> Int {
    precondition(
      indices.count == rank, "Tensor: \(indices.count) indices for shape \(shape)")
    var flat = 0
    for (index, extent) in zip(indices, shape) {
      precondition(
        index >= 0 && index < extent, "Tensor: index \(indices) is outside shape \(shape)")
      flat = flat * extent + index
    }
    return flat
  }

  /// The same scalars seen with another shape; shares the storage.
  ///
  /// - Precondition: `shape` has as many scalars as this tensor.
  public func reshaped(_ shape: [Int]) -> Tensor {
    precondition(
      shape.reduce(1, *) == count, "Tensor: shape \(self.shape) cannot be seen as \(shape)")
    return Tensor(storage: storage, offset: offset, shape: shape)
  }

  /// The number of scalars in one step along the first axis.
  public var rowCount: Int { shape.dropFirst().reduce(1, *) }

  /// The slice `range` along the first axis, shape `[range.count, …]`; shares the storage.
  ///
  /// - Precondition: `range` lies within the first axis.
  public func rows(_ range: Range<Int>) -> Tensor {
    precondition(
      rank > 0 && range.lowerBound >= 0 && range.upperBound <= shape[0],
      "Tensor: rows \(range) of shape \(shape)")
    return Tensor(
      storage: storage, offset: offset + range.lowerBound * rowCount,
      shape: [range.count] + shape.dropFirst())
  }

  /// The element `index` along the first axis, without that axis; shares the storage.
  ///
  /// - Precondition: `index` lies within the first axis.
  public func row(_ index: Int) -> Tensor {
    rows(index..<index + 1).reshaped(Array(shape.dropFirst()))
  }

  /// The elements `indices` along the first axis, in that order, copied.
  ///
  /// - Precondition: every index lies within the first axis.
  public func gatheringRows(_ indices: [Int]) -> Tensor {
    let width = rowCount
    precondition(
      indices.allSatisfy { $0 >= 0 && $0 < shape[0] }, "Tensor: rows \(indices) of shape \(shape)")
    var result = Tensor(uninitialized: [indices.count] + shape.dropFirst())
    withUnsafeBufferPointer { source in
      result.withUnsafeMutableBufferPointer { target in
        guard let from = source.baseAddress, let to = target.baseAddress else { return }
        parallelRows(indices.count, rowWork: width, grain: 1 << 18) { range in
          for row in range {
            (to + row * width).update(from: from + indices[row] * width, count: width)
          }
        }
      }
    }
    return result
  }

  /// Overwrites the rows from `start` on with those of `source`.
  ///
  /// - Precondition: `source` has this tensor's shape but for the first axis, and fits.
  public mutating func replaceRows(at start: Int, with source: Tensor) {
    let width = rowCount
    precondition(
      source.shape.dropFirst() == shape.dropFirst() && start >= 0
        && start + source.shape[0] <= shape[0],
      "Tensor: rows \(start)… of shape \(shape) cannot take shape \(source.shape)")
    withUnsafeMutableBufferPointer { target in
      source.withUnsafeBufferPointer { from in
        guard let to = target.baseAddress, let from = from.baseAddress else { return }
        (to + start * width).update(from: from, count: source.count)
      }
    }
  }

  /// The tensors one after another along their first axis: a view if they lie so in memory.
  ///
  /// - Precondition: at least one tensor; all shapes agree but for the first axis.
  public static func concatenating(_ parts: [Tensor]) -> Tensor {
    precondition(!parts.isEmpty, "Tensor: nothing to concatenate")
    if parts.count == 1 { return parts[0] }
    let rows = parts.reduce(0) { $0 + $1.shape[0] }
    let width = parts[0].rowCount
    let starts = parts.reduce(into: [0]) { $0.append($0[$0.count - 1] + $1.shape[0]) }
    precondition(
      parts.allSatisfy { $0.shape.dropFirst() == parts[0].shape.dropFirst() },
      "Tensor: parts of shapes \(Set(parts.map { Array($0.shape.dropFirst()) })) cannot be joined")
    let shape = [rows] + parts[0].shape.dropFirst()
    let (storage, offset) = (parts[0].storage, parts[0].offset)
    if Swift.zip(parts, starts).allSatisfy({
      $0.storage === storage && $0.offset == offset + $1 * width
    }) {
      return Tensor(storage: storage, offset: offset, shape: shape)
    }
    var result = Tensor(uninitialized: shape)
    result.withUnsafeMutableBufferPointer { target in
      guard let to = target.baseAddress else { return }
      parallelRows(parts.count, rowWork: rows * width / parts.count, grain: 1 << 16) { range in
        for part in range {
          parts[part].withUnsafeBufferPointer { source in
            guard let from = source.baseAddress else { return }
            (to + starts[part] * width).update(from: from, count: source.count)
          }
        }
      }
    }
    return result
  }

  /// The tensors stacked along a new first axis.
  ///
  /// - Precondition: at least one tensor; all shapes agree.
  public static func stacking(_ parts: [Tensor]) -> Tensor {
    concatenating(parts.map { $0.reshaped([1] + $0.shape) })
  }

  /// Axis 1's element `index`, that is `self[:, index, …]`, copied: `[pos, head, d]` → `[pos, d]`.
  ///
  /// - Precondition: rank 2 or more and `index` within axis 1.
  public func column(_ index: Int) -> Tensor {
    precondition(
      rank >= 2 && index >= 0 && index < shape[1], "Tensor: column \(index) of shape \(shape)")
    let width = shape.dropFirst(2).reduce(1, *)
    let stride = rowCount
    var result = Tensor(uninitialized: [shape[0]] + shape.dropFirst(2))
    let rows = shape[0]
    withUnsafeBufferPointer { source in
      result.withUnsafeMutableBufferPointer { target in
        guard let from = source.baseAddress, let to = target.baseAddress else { return }
        for row in 0..<rows {
          (to + row * width).update(from: from + row * stride + index * width, count: width)
        }
      }
    }
    return result
  }

  /// The transposed matrix, copied: `[m, n]` → `[n, m]`.
  ///
  /// - Precondition: rank 2.
  public func transposed() -> Tensor {
    precondition(rank == 2, "Tensor: shape \(shape) cannot be transposed, expected a matrix")
    let (m, n) = (shape[0], shape[1])
    var result = Tensor(uninitialized: [n, m])
    // Squares of 32: a cache line that is read is used up before it is lost.
    let side = 32
    withUnsafeBufferPointer { source in
      result.withUnsafeMutableBufferPointer { target in
        guard let from = source.baseAddress, let to = target.baseAddress else { return }
        parallelRows((n + side - 1) / side, rowWork: side * m) { strips in
          for strip in strips {
            let columns = strip * side..<Swift.min((strip + 1) * side, n)
            for top in stride(from: 0, to: m, by: side) {
              for j in columns {
                for i in top..<Swift.min(top + side, m) { to[j * m + i] = from[i * n + j] }
              }
            }
          }
        }
      }
    }
    return result
  }

  /// Axis 1's elements `indices`, copied: `[head, query_pos, key_pos]` → `[head, n, key_pos]`.
  ///
  /// - Precondition: rank 2 or more and every index within axis 1.
  public func gatheringAxis1(_ indices: [Int]) -> Tensor {
    Tensor.stacking((0..<shape[0]).map { row($0).gatheringRows(indices) })
  }

  /// This tensor in the corner of a larger one that is `value` elsewhere.
  ///
  /// - Precondition: as many axes, none of them shorter.
  public func padded(to larger: [Int], with value: Float) -> Tensor {
    if larger == shape { return self }
    precondition(
      larger.count == rank && zip(larger, shape).allSatisfy { $0 >= $1 },
      "padded: shape \(shape) does not fit into \(larger)")
    var result = Tensor(repeating: value, shape: larger)
    let (extents, width) = (shape, shape.last ?? 1)
    if count == 0 { return result }
    withUnsafeBufferPointer { source in
      result.withUnsafeMutableBufferPointer { target in
        guard let from = source.baseAddress, let to = target.baseAddress else { return }
        for row in 0..<source.count / width {
          // The row's place along each leading axis gives its place in the larger tensor.
          var (rest, offset, stride) = (row, 0, larger.last ?? 1)
          for axis in (0..<Swift.max(extents.count - 1, 0)).reversed() {
            offset += rest % extents[axis] * stride
            rest /= extents[axis]
            stride *= larger[axis]
          }
          (to + offset).update(from: from + row * width, count: width)
        }
      }
    }
    return result
  }

  /// The sum over axis 1: `[pos, head, d_model]` → `[pos, d_model]`.
  ///
  /// - Precondition: rank 3.
  public func summingAxis1() -> Tensor {
    precondition(rank == 3, "summingAxis1: shape \(shape)")
    let (rows, terms, width) = (shape[0], shape[1], shape[2])
    var result = Tensor(zeros: [rows, width])
    withUnsafeBufferPointer { source in
      result.withUnsafeMutableBufferPointer { target in
        for row in 0..<rows {
          for term in 0..<terms {
            let from = (row * terms + term) * width
            for i in 0..<width { target[row * width + i] += source[from + i] }
          }
        }
      }
    }
    return result
  }

  /// Overwrites `self[:, index, …]` with `source`.
  ///
  /// - Precondition: `source` has this tensor's shape without axis 1.
  public mutating func replaceColumn(_ index: Int, with source: Tensor) {
    let width = shape.dropFirst(2).reduce(1, *)
    let stride = rowCount
    precondition(
      rank >= 2 && index >= 0 && index < shape[1] && source.count == shape[0] * width,
      "Tensor: column \(index) of shape \(shape) cannot take shape \(source.shape)")
    let rows = shape[0]
    withUnsafeMutableBufferPointer { target in
      source.withUnsafeBufferPointer { from in
        guard let to = target.baseAddress, let from = from.baseAddress else { return }
        for row in 0..<rows {
          (to + row * stride + index * width).update(from: from + row * width, count: width)
        }
      }
    }
  }
}
