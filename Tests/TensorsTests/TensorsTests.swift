import NormLens
import TestSupport
import Testing

/// The tensor operations against naive double precision, over shapes that take every path.
@Suite struct TensorOperationTests {
  /// Numbers in ±1 that `seed` determines.
  static func random(_ shape: [Int], seed: UInt64) -> Tensor {
    var generator = SeededGenerator(seed: seed)
    let scalars = (0..<shape.reduce(1, *)).map { _ in Float.random(in: -1...1, using: &generator) }
    return Tensor(scalars, shape: shape)
  }

  /// `x·op(w) + bias` in double precision.
  static func product(
    _ x: Tensor, _ w: Tensor, transposed: Bool, bias: Tensor?
  ) -> [Double] {
    let (m, k) = (x.shape[0], x.shape[1])
    let n = transposed ? w.shape[0] : w.shape[1]
    let (xs, ws, bs) = (x.scalars, w.scalars, bias?.scalars)
    var y = [Double](repeating: 0, count: m * n)
    for i in 0..<m {
      for j in 0..<n {
        var sum = Double(bs?[j] ?? 0)
        for l in 0..<k {
          sum += Double(xs[i * k + l]) * Double(ws[transposed ? j * k + l : l * n + j])
        }
        y[i * n + j] = sum
      }
    }
    return y
  }

  static func largestDifference(_ tensor: Tensor, _ expected: [Double]) -> Double {
    zip(tensor.scalars, expected).map { abs(Double($0) - $1) }.max() ?? 0
  }

  // One row, few rows, either side of the limit of the skinny kernels, many rows.
  @Test(arguments: [1, 4, 15, 56, 57, 130])
  func products(_ rows: Int) {
    var largest = 0.0
    for (k, n) in [(1, 1), (7, 10), (256, 64), (300, 257), (768, 130), (20, 9000)] {
      let x = Self.random([rows, k], seed: 1)
      let bias = Self.random([n], seed: 2)
      let w = Self.random([k, n], seed: 3)
      let transposed = Self.random([n, k], seed: 4)
      for bias in [nil, bias] {
        largest = max(
          largest,
          Self.largestDifference(
            matmul(x, MatrixView(w), bias: bias),
            Self.product(x, w, transposed: false, bias: bias)),
          Self.largestDifference(
            matmulTransposed(x, MatrixView(transposed), bias: bias),
            Self.product(x, transposed, transposed: true, bias: bias)))
      }
    }
    print("products of \(rows) rows: max difference \(largest)")
    // Float32 sums of 768 products err by about √768 · 2⁻²⁴ times their size of some 16.
    #expect(largest < 5e-5)
  }

  @Test func productsWithBlocksOfAMatrix() {
    let w = Self.random([96, 300], seed: 5)
    for rows in [3, 80] {
      let x = Self.random([rows, 96], seed: 6)
      let whole = Self.product(x, w, transposed: false, bias: nil)
      let block = matmul(x, MatrixView(w).columns(100..<190))
      let expected = (0..<rows).flatMap { row in whole[row * 300 + 100..<row * 300 + 190] }
      #expect(Self.largestDifference(block, expected) < 2e-5)
      let part = matmul(Self.random([rows, 32], seed: 7), MatrixView(w).rows(64..<96))
      let rowsOfW = w.rows(64..<96)
      #expect(
        Self.largestDifference(
          part,
          Self.product(Self.random([rows, 32], seed: 7), rowsOfW, transposed: false, bias: nil))
          < 2e-5)
    }
  }

  /// Attention by its definition.
  static func attention(
    _ q: Tensor, _ k: Tensor, _ v: Tensor, _ segments: [AttentionSegment], scale: Double
  ) -> [Double] {
    let (heads, d) = (q.shape[1], q.shape[2])
    var z = [Double](repeating: 0, count: q.count)
    for segment in segments {
      for (i, row) in segment.queries.enumerated() {
        for head in 0..<heads {
          let keys = segment.keys.prefix(segment.past + i + 1)
          let scores = keys.map { key in
            (0..<d).reduce(0) {
              $0 + scale * Double(q[row, head, $1]) * Double(k[key, head, $1])
            }
          }
          let largest = scores.max() ?? 0
          let weights = scores.map { exponential($0 - largest) }
          let total = weights.reduce(0, +)
          for (key, weight) in zip(keys, weights) {
            for c in 0..<d {
              z[(row * heads + head) * d + c] += weight / total * Double(v[key, head, c])
            }
          }
        }
      }
    }
    return z
  }

  /// eˣ without a mathematics library: the series of x/1024, ten times squared.
  static func exponential(_ x: Double) -> Double {
    let small = x / 1024
    var (term, sum) = (1.0, 1.0)
    for n in 1..<20 {
      term *= small / Double(n)
      sum += term
    }
    for _ in 0..<10 { sum *= sum }
    return sum
  }

  @Test(arguments: [[1], [5, 1, 70], [130, 3]])
  func attention(_ lengths: [Int]) {
    let rows = lengths.reduce(0, +)
    let (heads, d) = (3, 8)
    let q = Self.random([rows, heads, d], seed: 8) * 3
    let k = Self.random([rows, heads, d], seed: 9) * 3
    let v = Self.random([rows, heads, d], seed: 10)
    var segments: [AttentionSegment] = []
    var start = 0
    for length in lengths {
      segments.append(
        AttentionSegment(queries: start..<start + length, keys: start..<start + length))
      start += length
    }
    let expected = Self.attention(q, k, v, segments, scale: 0.4)
    let fused = causalAttention(q: q, k: k, v: v, segments: segments, scale: 0.4)
    var kept = Tensor(zeros: q.shape)
    var stepwise = Tensor(zeros: q.shape)
    for segment in segments {
      let parts = causalAttentionParts(
        q: q, k: k, v: v, segment: segment, scale: 0.4, into: &kept)
      let scores = attentionScores(q: q, k: k, segment: segment, scale: 0.4)
      #expect(parts.scores.scalars == scores.scalars)
      #expect(
        Self.largestDifference(
          parts.pattern, softmax(scores).scalars.map(Double.init)) < 1e-6)
      applyAttention(pattern: causalSoftmax(scores), v: v, segment: segment, into: &stepwise)
    }
    let differences = [fused, kept, stepwise].map { Self.largestDifference($0, expected) }
    print("attention over \(lengths): max difference \(differences.max() ?? 0)")
    #expect((differences.max() ?? 1) < 2e-6)
  }

  @Test func attentionWithAPast() {
    let k = Self.random([9, 2, 4], seed: 11)
    let v = Self.random([9, 2, 4], seed: 12)
    let q = Self.random([3, 2, 4], seed: 13)
    let segment = AttentionSegment(queries: 0..<3, keys: 0..<9)
    let z = causalAttention(q: q, k: k, v: v, segments: [segment], scale: 1)
    let expected = Self.attention(q, k, v, [segment], scale: 1)
    #expect(Self.largestDifference(z, expected) < 1e-6)
  }

  @Test func layerNormParts() {
    let x = Self.random([5, 33], seed: 14) * 4
    let (gain, bias) = (Self.random([33], seed: 15), Self.random([33], seed: 16))
    let parts = RowNormalization.layerNorm.parts(x, epsilon: 1e-5, gain: gain, bias: bias)
    let plain = RowNormalization.layerNorm(x, epsilon: 1e-5, gain: gain, bias: bias)
    #expect(plain.scalars == parts.output.scalars)
    let again = x.centeringRows().dividingRows(by: parts.scale)
    #expect((again - parts.normalized).maximumMagnitude < 1e-6)
    let output = parts.normalized.multiplyingRows(gain).addingToRows(bias)
    #expect((output - parts.output).maximumMagnitude < 1e-6)
  }

  // MARK: storage

  @Test func copiesAreIndependent() {
    let original = Tensor([1, 2, 3, 4, 5, 6], shape: [3, 2])
    var slice = original.rows(1..<3)
    #expect(slice.scalars == [3, 4, 5, 6])
    slice[0, 1] = 9
    #expect(original.scalars == [1, 2, 3, 4, 5, 6])
    #expect(slice.scalars == [3, 9, 5, 6])
    var copy = original
    copy.replaceRows(at: 0, with: slice)
    #expect(copy.scalars == [3, 9, 5, 6, 5, 6])
    #expect(original[2, 1] == 6)
  }

  @Test func rearranging() {
    let x = Tensor((0..<12).map(Float.init), shape: [2, 3, 2])
    #expect(x.column(1).scalars == [2, 3, 8, 9])
    #expect(x.gatheringAxis1([2, 0]).scalars == [4, 5, 0, 1, 10, 11, 6, 7])
    #expect(x.summingAxis1().scalars == [6, 9, 24, 27])
    #expect(x.row(1).gatheringRows([2, 2, 0]).scalars == [10, 11, 10, 11, 6, 7])
    var y = x
    y.replaceColumn(0, with: Tensor([7, 7, 8, 8], shape: [2, 2]))
    #expect(y.scalars == [7, 7, 2, 3, 4, 5, 8, 8, 8, 9, 10, 11])
    let padded = Tensor([1, 2, 3, 4], shape: [2, 1, 2]).padded(to: [2, 2, 3], with: -1)
    #expect(padded.scalars == [1, 2, -1, -1, -1, -1, 3, 4, -1, -1, -1, -1])
    #expect(Tensor([1, 2], shape: [2]).padded(to: [3], with: 0).scalars == [1, 2, 0])
    #expect(x.row(0).repeatingRows(2).scalars == [0, 1, 0, 1, 2, 3, 2, 3, 4, 5, 4, 5])
  }

  @Test func reductions() {
    let x = Tensor([3, 1, 3, -2, 0], shape: [5])
    #expect(x.indexOfMaximum == 0)
    #expect(x.topIndices(3) == [0, 2, 1])
    #expect(x.topIndices(0).isEmpty)
    #expect(x.topIndices(9) == [0, 2, 1, 4, 3])
    #expect(x.sum == 5 && x.maximumMagnitude == 3)
    #expect(x.isFinite && !Tensor([1, .nan], shape: [2]).isFinite)
    #expect(!Tensor([1, -.infinity], shape: [2]).isFinite)
    #expect(x.firstNonFiniteIndex == nil)
    let hole = Tensor([0, 1, 2, 3, .nan, .infinity], shape: [2, 3])
    #expect(hole.firstNonFiniteIndex == [1, 1])
    #expect(Tensor([.nan], shape: []).firstNonFiniteIndex == [])
    let statistics = rowStatistics(Tensor([0, 0, 0, 0], shape: [1, 4]), target: 2)[0]
    #expect(abs(statistics.entropy - 1.3862943611198906) < 1e-12)
    #expect(statistics.targetRank == 0 && abs(statistics.targetProbability - 0.25) < 1e-12)
  }

  @Test func wrongShapesAreCallersBugs() async {
    await #expect(processExitsWith: .failure) {
      _ = matmul(Tensor(zeros: [2, 3]), MatrixView(Tensor(zeros: [4, 5])))
    }
    await #expect(processExitsWith: .failure) { _ = Tensor(zeros: [2]) + Tensor(zeros: [3]) }
    await #expect(processExitsWith: .failure) { _ = Tensor(zeros: [2, 2]).rows(1..<4) }
    await #expect(processExitsWith: .failure) { _ = Tensor([1, 2], shape: [3]) }
  }
}
