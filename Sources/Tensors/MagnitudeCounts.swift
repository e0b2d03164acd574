/// How many scalars have which magnitude, for medians of more scalars than memory holds.
///
/// The magnitudes between two neighbouring powers of two are counted in 1024 bins of equal width, so that
/// a quantile is known to a thousandth of itself.
public struct MagnitudeCounts: Sendable {
  /// The mantissa bits that tell bins apart.
  private static let bits = 10
  private static let shift = 23 - bits
  private var bins = [UInt32](repeating: 0, count: 1 << (31 - shift))
  /// How many scalars have been counted.
  public private(set) var count = 0

  /// The counts of nothing.
  public init() {}

  /// Counts all scalars of tensors, each of which goes to the counts in its place.
  ///
  /// - Precondition: as many tensors as counts; no more than 2³² − 1 scalars in one bin.
  public static func add(_ tensors: [Tensor], to counts: inout [MagnitudeCounts]) {
    precondition(
      tensors.count == counts.count, "MagnitudeCounts: \(tensors.count) tensors, \(counts.count)")
    counts.withUnsafeMutableBufferPointer { counts in
      guard let counts = counts.baseAddress else { return }
      parallelChunks(tensors.count) { counts[$0].add(tensors[$0]) }
    }
  }

  /// Counts all scalars of a tensor.
  public mutating func add(_ tensor: Tensor) {
    let scalars = tensor.count
    tensor.withUnsafeBufferPointer { source in
      bins.withUnsafeMutableBufferPointer { bins in
        guard let source = source.baseAddress, let bins = bins.baseAddress else { return }
        for i in 0..<scalars {
          bins[
            Int(truncatingIfNeeded: (source[i].bitPattern & 0x7fff_ffff) >> UInt32(Self.shift))] &+=
            1
        }
      }
    }
    count += scalars
  }

  /// The median magnitude, the mean of the two in the middle of an even number, as if the magnitudes in a
  /// bin were evenly spaced; NaN of none.
  public var median: Double {
    if count == 0 { return .nan }
    return ranked((count - 1) / 2) / 2 + ranked(count / 2) / 2
  }

  /// How many magnitudes lie in bins above that of `limit`: those larger than it by a thousandth, and no
  /// smaller one.
  public func count(above limit: Double) -> Int {
    if limit.isNaN { return 0 }
    let bin = Int(Float(limit).magnitude.bitPattern >> UInt32(Self.shift))
    return bins[(bin + 1)...].reduce(0) { $0 + Int($1) }
  }

  /// The magnitude of a rank, counted from 0.
  private func ranked(_ rank: Int) -> Double {
    var below = 0
    for (bin, number) in bins.enumerated() where number > 0 {
      if below + Int(number) > rank {
        let (low, high) = (Self.edge(bin), Self.edge(bin + 1))
        // Equal zeros are by far the most frequent reason for a bin at 0.
        if bin == 0 { return 0 }
        return low + (high - low) * (Double(rank - below) + 0.5) / Double(number)
      }
      below += Int(number)
    }
    return .nan
  }

  private static func edge(_ bin: Int) -> Double {
    Double(Float(bitPattern: UInt32(bin) << UInt32(shift)))
  }
}

extension Tensor {
  /// The indices of the `k` scalars of largest magnitude, largest first, the lower index first among
  /// equals.
  ///
  /// - Precondition: `k` is at least 1.
  /// - Complexity: one pass over the scalars.
  public func topMagnitudes(_ k: Int) -> [Int] {
    precondition(k > 0, "topMagnitudes: k = \(k)")
    return withUnsafeBufferPointer { source in
      var kept: [Int] = []
      // The magnitude that a scalar must exceed, as bits, which are in its order.
      var least: Int32 = -1
      guard let base = source.baseAddress else { return [] }
      let block = 64
      var start = 0
      while start < source.count {
        let end = Swift.min(start + block, source.count)
        var largest: Int32 = -1
        for i in start..<end {
          largest = Swift.max(
            largest, Int32(truncatingIfNeeded: base[i].bitPattern & 0x7fff_ffff))
        }
        if largest > least {
          for i in start..<end
          where Int32(truncatingIfNeeded: base[i].bitPattern & 0x7fff_ffff) > least {
            let place =
              kept.firstIndex { base[$0].magnitude < base[i].magnitude } ?? kept.count
            kept.insert(i, at: place)
            if kept.count > k { kept.removeLast() }
            if kept.count == k, let last = kept.last {
              least = Int32(truncatingIfNeeded: base[last].bitPattern & 0x7fff_ffff)
            }
          }
        }
        start = end
      }
      return kept
    }
  }
}
