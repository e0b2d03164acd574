import RealModule

/// What this machine can do at best: the bounds that timings are held against.
public struct MachineLimits: Sendable {
  /// The most floating-point operations a second in a large matrix product.
  public let sgemmFlops: Double
  /// The most bytes a second read from memory.
  public let bandwidth: Double

  /// Measures for about a second, on all threads.
  public static func measure() -> MachineLimits {
    MachineLimits(sgemmFlops: sgemmPeak(), bandwidth: readBandwidth())
  }

  /// The most floating-point operations a second in a large matrix product; measured in half a
  /// second, on all threads.
  public static func sgemmPeak() -> Double {
    let n = 2048
    let a = Tensor(repeating: 0.5, shape: [n, n])
    let b = MatrixView(Tensor(repeating: 0.25, shape: [n, n]))
    _ = matmul(a, b)
    return 2 * Double(n * n * n) / shortest(of: 8) { _ = matmul(a, b) }
  }

  private static func readBandwidth() -> Double {
    // Four times a large last-level cache, so that nothing is read from it.
    let count = 1 << 28
    let memory = Tensor(repeating: 1, shape: [count])
    let pieces = 64
    var sums = Tensor(zeros: [pieces * 16])
    let seconds = shortest(of: 5) {
      memory.withUnsafeBufferPointer { source in
        sums.withUnsafeMutableBufferPointer { sums in
          guard let sums = sums.baseAddress else { return }
          parallelChunks(pieces) { piece in
            // Four streams at once: one alone does not keep the memory busy.
            let size = count / pieces / 4
            let start = piece * size * 4
            var (a, b, c, d): (Float, Float, Float, Float) = (0, 0, 0, 0)
            for i in start..<start + size {
              a = Relaxed.sum(a, source[i])
              b = Relaxed.sum(b, source[i + size])
              c = Relaxed.sum(c, source[i + 2 * size])
              d = Relaxed.sum(d, source[i + 3 * size])
            }
            sums[piece * 16] = a + b + c + d
          }
        }
      }
    }
    return 4 * Double(count) / seconds
  }

  private static func shortest(of repetitions: Int, _ body: () -> Void) -> Double {
    let clock = ContinuousClock()
    return (0..<repetitions).map { _ in clock.measure(body) / .seconds(1) }.min() ?? .infinity
  }
}
