import Tensors

/// Of each run a range of its positions, whose rows lie one after another in a tensor.
struct PackedRows: Equatable {
  /// Each run's positions.
  let positions: [Range<Int>]
  /// The row of each run's first position.
  let starts: [Int]
  /// How many rows there are.
  let count: Int

  init(_ positions: [Range<Int>]) {
    self.positions = positions
    var (starts, count): ([Int], Int) = ([], 0)
    for range in positions {
      starts.append(count)
      count += range.count
    }
    (self.starts, self.count) = (starts, count)
  }

  /// A run's rows.
  func rows(of run: Int) -> Range<Int> { starts[run]..<starts[run] + positions[run].count }

  /// These rows of the runs' tensors.
  func packing(_ whole: [Tensor]) -> Tensor {
    Tensor.concatenating(whole.indices.map { whole[$0].rows(positions[$0]) })
  }

  /// A run's rows of a packed tensor, among those of `range`, which are 0 elsewhere.
  func unpacking(_ packed: Tensor, run: Int, into range: Range<Int>) -> Tensor {
    let own = packed.rows(rows(of: run))
    if positions[run] == range { return own }
    var result = Tensor(zeros: [range.count] + packed.shape.dropFirst())
    if !positions[run].isEmpty {
      result.replaceRows(at: positions[run].lowerBound - range.lowerBound, with: own)
    }
    return result
  }

  /// A packed tensor with rows of 0 where `other` has more positions.
  func spreading(_ packed: Tensor, to other: PackedRows) -> Tensor {
    if self == other { return packed }
    return Tensor.concatenating(
      positions.indices.map { unpacking(packed, run: $0, into: other.positions[$0]) })
  }
}
