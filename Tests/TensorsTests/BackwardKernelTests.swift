import Tensors
import Testing

#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

/// The steps of a backward pass against their formulas in double precision.
@Suite struct BackwardKernelTests {
  private func numbers(_ shape: [Int], seed: UInt64) -> Tensor {
    Tensor(KernelTests.numbers(shape.reduce(1, *), seed: seed), shape: shape)
  }

  // MARK: activations

  private static func slope(_ activation: Activation, _ x: Double, share: Bool) -> Double {
    switch activation {
    case .relu: return x > 0 ? 1 : 0
    case .gelu:
      let probability = 0.5 * erfc(-x / 2.0.squareRoot())
      return share ? probability : probability + x * exp(-x * x / 2) / (2 * Double.pi).squareRoot()
    case .geluNew:
      let factor = (2 / Double.pi).squareRoot()
      let t = tanh(factor * (x + 0.044715 * x * x * x))
      if share { return 0.5 * (1 + t) }
      return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * factor * (1 + 3 * 0.044715 * x * x)
    }
  }

  @Test(arguments: Activation.allCases, [false, true])
  func activationGradients(_ activation: Activation, share: Bool) {
    let hostile: [Float] = [
      0, -0.0, 1e-30, -1e-30, 13.9, -13.9, 14.1, -14.1, 100, -100, 1e20, -1e20,
      .greatestFiniteMagnitude, -.greatestFiniteMagnitude, .leastNonzeroMagnitude,
    ]
    let x = hostile + (0..<40_001).map { Float($0 - 20_000) * 1e-3 }
    let gradient = x.indices.map { Float($0 % 7) - 3 }
    let found = activation.gradient(
      Tensor(gradient, shape: [x.count]), at: Tensor(x, shape: [x.count]), share: share)
    let expected = x.indices.map { index in
      let limited = max(-1e3, min(1e3, Double(x[index])))
      return Double(gradient[index]) * Self.slope(activation, limited, share: share)
    }
    let largest = KernelTests.difference(found.scalars, expected) {
      max(1, abs(Double(gradient[$0])))
    }
    print("\(activation.rawValue), share \(share): slope within \(largest)")
    #expect(largest < 1e-6)
    // Infinities have the slopes of their limits; a NaN stays one.
    let ends = activation.gradient(
      Tensor(repeating: 2, shape: [3]), at: Tensor([.infinity, -.infinity, .nan], shape: [3]),
      share: share)
    #expect(ends[0] == 2 && ends[1] == 0)
    if activation != .relu { #expect(ends[2].isNaN) }
    for count in 0...33 {
      let part = activation.gradient(
        Tensor(Array(gradient[..<count]), shape: [count]),
        at: Tensor(Array(x[..<count]), shape: [count]), share: share)
      #expect(part.scalars == Array(found.scalars[..<count]))
    }
  }

  // MARK: norms

  @Test(arguments: [1, 2, 5, 16, 100, 769], [RowNormalization.layerNorm, .rmsNorm, .crmsNorm])
  func normGradients(d: Int, norm: RowNormalization) {
    normGradients(d: d, norm: norm, width: nil)
    if norm != .layerNorm { normGradients(d: d, norm: norm, width: d + 1) }
  }

  private func normGradients(d: Int, norm: RowNormalization, width: Int?) {
    let rows = 3
    let (x, g) = (numbers([rows, d], seed: 1), numbers([rows, d], seed: 2))
    let gain = numbers([d], seed: 3)
    let epsilon: Float = 1e-3
    for fixedScale in [false, true] {
      let found = norm.gradient(
        g, at: x, width: width, epsilon: epsilon, gain: gain, fixedScale: fixedScale,
        keepingNormalized: true)
      var input: [Double] = []
      var scales: [Double] = []
      for row in 0..<rows {
        let values = (0..<d).map { Double(x[row, $0]) }
        let mean = norm == .layerNorm ? values.reduce(0, +) / Double(d) : 0
        let centred = values.map { $0 - mean }
        let count = Double(width ?? d)
        // The number that CRMSNorm leaves out, and whose derivative by every other is -1.
        let rest = norm == .crmsNorm ? -values.reduce(0, +) : 0
        let squares = centred.reduce(rest * rest) { $0 + $1 * $1 }
        let scale = (squares / count + Double(epsilon)).squareRoot()
        let ghat = (0..<d).map { Double(g[row, $0]) * Double(gain[$0]) }
        let inner = (0..<d).reduce(0) { $0 + ghat[$1] * centred[$1] / scale }
        let average = norm == .layerNorm ? ghat.reduce(0, +) / Double(d) : 0
        for i in 0..<d {
          let along = fixedScale ? 0 : (centred[i] - rest) / scale * inner / count
          input.append((ghat[i] - average - along) / scale)
        }
        scales.append(fixedScale ? 0 : -inner / scale)
      }
      let largest = input.map(abs).max() ?? 1
      let difference = KernelTests.difference(found.input.scalars, input) { _ in max(largest, 1) }
      let ofScale = KernelTests.difference(found.scale.scalars, scales) { max(1, abs(scales[$0])) }
      #expect(difference < 1e-5 && ofScale < 1e-5, "\(difference), \(ofScale)")
      #expect(found.normalized.scalars == g.multiplyingRows(gain).scalars)
      #expect(found.scale.shape == [rows, 1])
    }
  }

  // MARK: attention

  struct Attention: CustomTestStringConvertible {
    var length: Int
    var queries: Range<Int>
    var first: Int
    var testDescription: String { "\(length) tokens, queries \(queries), from \(first)" }
  }

  /// Longer than a block of queries, and shorter.
  static let attentions = [
    Attention(length: 1, queries: 0..<1, first: 0), Attention(length: 9, queries: 0..<9, first: 0),
    Attention(length: 9, queries: 8..<9, first: 3),
    Attention(length: 150, queries: 0..<150, first: 0),
    Attention(length: 150, queries: 40..<149, first: 40),
    Attention(length: 150, queries: 100..<150, first: 70),
  ]

  @Test(
    arguments: attentions,
    [
      AttentionGradientShares(), AttentionGradientShares(pattern: 0),
      AttentionGradientShares(pattern: 0.5, values: 0.5, queriesAndKeys: 0.5),
    ])
  func attentionGradients(_ shape: Attention, shares: AttentionGradientShares) {
    let (heads, dHead, scale) = (3, 4, Float(0.7))
    let size = [shape.length, heads, dHead]
    let inputs = AttentionInputs(
      q: numbers(size, seed: 1) * 3, k: numbers(size, seed: 2) * 3, v: numbers(size, seed: 3))
    let g = numbers([shape.queries.count, heads, dHead], seed: 4)
    let positions = shape.first..<shape.queries.upperBound
    let segment = AttentionGradientSegment(
      inputs, queries: shape.queries, at: 0, positions: positions, at: 0)

    // The formulas, element by element.
    let (T, count) = (shape.length, positions.count)
    var qkv = [Double](repeating: 0, count: count * 3 * heads * dHead)
    var scores = [Double](repeating: 0, count: heads * count * T)
    var pattern = scores
    func at(_ x: Tensor, _ row: Int, _ head: Int, _ i: Int) -> Double { Double(x[row, head, i]) }
    func place(_ position: Int, _ part: Int, _ head: Int, _ i: Int) -> Int {
      (((position - shape.first) * 3 + part) * heads + head) * dHead + i
    }
    for head in 0..<heads {
      for query in shape.queries {
        let logits = (0...query).map { key in
          Double(scale)
            * (0..<dHead).reduce(0) {
              $0 + at(inputs.q, query, head, $1) * at(inputs.k, key, head, $1)
            }
        }
        let top = logits.max() ?? 0
        let weights = logits.map { exp($0 - top) }
        let total = weights.reduce(0, +)
        let p = weights.map { $0 / total }
        let row = query - shape.queries.lowerBound
        let byPattern = (0..<T).map { key in
          Double(shares.pattern)
            * (0..<dHead).reduce(0) { $0 + at(g, row, head, $1) * at(inputs.v, key, head, $1) }
        }
        let mean = p.indices.reduce(0) { $0 + p[$1] * byPattern[$1] }
        for key in 0..<T {
          let index = (head * count + query - shape.first) * T + key
          pattern[index] = byPattern[key]
          guard key <= query else { continue }
          let byScore = p[key] * (byPattern[key] - mean)
          scores[index] = byScore
          let factor = Double(scale) * Double(shares.queriesAndKeys) * byScore
          for i in 0..<dHead {
            qkv[place(query, 0, head, i)] += factor * at(inputs.k, key, head, i)
            guard key >= shape.first else { continue }
            qkv[place(key, 1, head, i)] += factor * at(inputs.q, query, head, i)
            qkv[place(key, 2, head, i)] += Double(shares.values) * p[key] * at(g, row, head, i)
          }
        }
      }
    }
    let outputs = [count, 3, heads, dHead]
    var plain = Tensor(zeros: outputs)
    addAttentionGradients(g, [segment], scale: scale, shares: shares, to: &plain)
    var kept = Tensor(zeros: outputs)
    let parts = addAttentionGradientParts(g, segment, scale: scale, shares: shares, to: &kept)
    let largest = max(qkv.map(abs).max() ?? 0, 1)
    let differences = [
      KernelTests.difference(plain.scalars, qkv) { _ in largest },
      KernelTests.difference(kept.scalars, qkv) { _ in largest },
      KernelTests.difference(parts.scores.scalars, scores),
      KernelTests.difference(parts.pattern.scalars, pattern),
    ]
    #expect((differences.max() ?? 1) < 1e-5, "\(differences)")
    #expect(parts.pattern.shape == [heads, count, T])

    // Packed behind another run, from its own row on.
    let double = Tensor.concatenating([g, g])
    var two = Tensor(zeros: [2 * count] + outputs.dropFirst())
    addAttentionGradients(
      double,
      [
        segment,
        AttentionGradientSegment(
          inputs, queries: shape.queries, at: shape.queries.count, positions: positions, at: count),
      ], scale: scale, shares: shares, to: &two)
    #expect(two.rows(0..<count).scalars == plain.scalars)
    #expect(two.rows(count..<2 * count).scalars == plain.scalars)
  }
}
