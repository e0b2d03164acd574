import CKernels
import Tensors
import Testing

#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

/// Each C kernel against the same formula in double precision.
@Suite struct KernelTests {
  /// Reproducible numbers in -1 ..< 1.
  static func numbers(_ count: Int, seed: UInt64 = 1) -> [Float] {
    var state = seed &* 0x9E37_79B9_7F4A_7C15
    return (0..<count).map { _ in
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      return Float(Int32(truncatingIfNeeded: state >> 32)) / 2_147_483_648
    }
  }

  /// The largest |a - b| / scale, where equal infinities and pairs of NaN are equal.
  static func difference(
    _ a: [Float], _ b: [Double], scale: (Int) -> Double = { _ in 1 }
  ) -> Double {
    var largest = 0.0
    for i in a.indices {
      let x = Double(a[i])
      if x == b[i] || (x.isNaN && b[i].isNaN) { continue }
      let error = abs(x - b[i]) / scale(i)
      largest = error.isNaN ? .infinity : max(largest, error)
    }
    return largest
  }

  // MARK: Products

  struct Product: CustomTestStringConvertible {
    var n: Int
    var k: Int
    /// Floats past the end of each row of x, w and y.
    var gap: Int
    var bias: Bool
    var testDescription: String { "n \(n), k \(k), gap \(gap), bias \(bias)" }
  }

  static let products = [
    Product(n: 1, k: 1, gap: 0, bias: false), Product(n: 16, k: 7, gap: 0, bias: true),
    Product(n: 33, k: 1, gap: 3, bias: true), Product(n: 47, k: 7, gap: 1, bias: false),
    Product(n: 50, k: 768, gap: 5, bias: true), Product(n: 64, k: 768, gap: 16, bias: false),
    Product(n: 31, k: 801, gap: 0, bias: true), Product(n: 5, k: 0, gap: 2, bias: true),
    Product(n: 2101, k: 97, gap: 1, bias: true),
  ]
  static let rowCounts = Array(1...17) + [28, 29, 31, 48, 65]

  @Test(arguments: products, [false, true])
  func skinnyProduct(_ shape: Product, transposed: Bool) {
    let (n, k) = (shape.n, shape.k)
    let ldx = k + shape.gap
    let ldw = (transposed ? k : n) + shape.gap
    let ldy = n + shape.gap
    let last = Self.rowCounts.last!
    // The arrays end with the last used number, so that the address sanitizer sees a longer read.
    let x = Self.numbers((last - 1) * ldx + k, seed: 2)
    let w = Self.numbers(
      transposed ? (n - 1) * ldw + k : max(0, (k - 1) * ldw + n), seed: 3)
    let bias = shape.bias ? Self.numbers(n, seed: 4) : nil
    var expected = [Double](repeating: 0, count: last * n)
    for r in 0..<last {
      for j in 0..<n {
        var sum = bias.map { Double($0[j]) } ?? 0
        for i in 0..<k {
          sum += Double(x[r * ldx + i]) * Double(w[transposed ? j * ldw + i : i * ldw + j])
        }
        expected[r * n + j] = sum
      }
    }
    var largest = 0.0
    let untouched: Float = 1e30
    for m in Self.rowCounts {
      var y = [Float](repeating: untouched, count: m * ldy)
      let product = transposed ? nl_skinny_nt : nl_skinny_nn
      if let bias {
        product(m, n, k, x, ldx, w, ldw, bias, &y, ldy)
      } else {
        product(m, n, k, x, ldx, w, ldw, nil, &y, ldy)
      }
      for r in 0..<m {
        let row = Array(y[r * ldy..<r * ldy + n])
        largest = max(largest, Self.difference(row, Array(expected[r * n..<(r + 1) * n])))
        let gap = y[r * ldy + n..<(r + 1) * ldy]
        #expect(gap.allSatisfy { $0 == untouched })
      }
    }
    print("skinny \(transposed ? "nt" : "nn") \(shape.testDescription): \(largest)")
    #expect(largest < 2e-7 * Double(max(k, 1)).squareRoot() * 8)
  }

  @Test(arguments: [false, true])
  func skinnyProductKeepsHostileValuesInTheirPlace(transposed: Bool) {
    let (m, n, k) = (5, 37, 40)
    var x = Self.numbers(m * k)
    let w = Self.numbers(n * k, seed: 2)
    x[2 * k + 3] = .nan
    x[4 * k + 39] = .infinity
    var y = [Float](repeating: 0, count: m * n)
    let product = transposed ? nl_skinny_nt : nl_skinny_nn
    product(m, n, k, x, k, w, transposed ? k : n, nil, &y, n)
    for r in 0..<m {
      let row = y[r * n..<(r + 1) * n]
      switch r {
      case 2: #expect(row.allSatisfy { $0.isNaN })
      case 4: #expect(row.allSatisfy { $0.isInfinite })
      default: #expect(row.allSatisfy { $0.isFinite })
      }
    }
  }

  // MARK: GELU

  typealias ElementKernel = (Int, UnsafePointer<Float>?, UnsafeMutablePointer<Float>?) -> Void

  func checkGELU(_ name: String, _ kernel: ElementKernel, _ exact: (Double) -> Double) {
    let hostile: [Float] = [
      0, -0.0, 1e-30, -1e-30, 13.9, -13.9, -14.1, 100, -100, 1e20, -1e20, .greatestFiniteMagnitude,
      -.greatestFiniteMagnitude, .leastNonzeroMagnitude, .infinity, -.infinity, .nan,
    ]
    let v = hostile + (0..<200_001).map { Float($0 - 100_000) * 2e-4 } + Self.numbers(1000)
    var out = [Float](repeating: 0, count: v.count)
    kernel(v.count, v, &out)
    let expected = v.map { v in
      v == -.infinity ? 0 : v == .infinity ? .infinity : exact(Double(v))
    }
    let largest = Self.difference(out, expected) { max(abs(Double(v[$0])), 1e-30) }
    print("\(name): \(largest) |x|")
    #expect(largest < 1e-6)
    for count in 0...33 {
      var inPlace = v
      kernel(count, inPlace, &inPlace)
      #expect(Self.difference(Array(inPlace[..<count]), out.map(Double.init)) == 0)
      #expect(inPlace[count].bitPattern == v[count].bitPattern)
    }
  }

  @Test func geluNew() {
    checkGELU("gelu_new", { nl_gelu($0, $1, $2, 0) }) { v in
      0.5 * v * (1 + tanh((2 / Double.pi).squareRoot() * (v + 0.044715 * v * v * v)))
    }
  }

  @Test func geluErf() {
    checkGELU("gelu_erf", { nl_gelu($0, $1, $2, 1) }) { v in 0.5 * v * erfc(-v / 2.0.squareRoot()) }
  }

  // MARK: Layer norm

  @Test(arguments: [1, 2, 15, 16, 17, 48, 100, 768, 1023])
  func layerNorm(d: Int) {
    let rows = 4
    let eps: Float = 1e-5
    var x = Self.numbers(rows * d, seed: 5)
    // One row far from zero, one with a single huge entry: what GPT-2's residual stream is like.
    for i in 0..<d { x[d + i] += 300 }
    x[2 * d + d / 2] = 3000
    let gain = Self.numbers(d, seed: 6)
    let bias = Self.numbers(d, seed: 7)
    var expected: (y: [Double], plain: [Double], scale: [Double]) = ([], [], [])
    for r in 0..<rows {
      let row = x[r * d..<(r + 1) * d].map(Double.init)
      let mean = row.reduce(0, +) / Double(d)
      let variance = row.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(d)
      let scale = (variance + Double(eps)).squareRoot()
      expected.scale.append(scale)
      for i in 0..<d {
        expected.plain.append((row[i] - mean) / scale)
        expected.y.append((row[i] - mean) / scale * Double(gain[i]) + Double(bias[i]))
      }
    }
    var y = [Float](repeating: 0, count: rows * d)
    var scale = [Float](repeating: 0, count: rows)
    var normalized = y
    nl_layer_norm(rows, d, x, eps, gain, bias, &y, &scale, &normalized)
    // The mean itself is rounded to a float: half a unit in the last place of 300.
    let tolerance: (Int) -> Double = { i in
      let rounding = i / d == 1 ? 3e-5 / expected.scale[1] : 0
      return 1 + abs(expected.plain[i]) + rounding * 1e6
    }
    let largest = (
      Self.difference(y, expected.y, scale: tolerance),
      Self.difference(normalized, expected.plain, scale: tolerance),
      Self.difference(scale, expected.scale) { expected.scale[$0] }
    )
    print("layer norm d \(d): y \(largest.0) normalized \(largest.1) scale \(largest.2)")
    #expect(largest.0 < 1e-6 && largest.1 < 1e-6)
    #expect(largest.2 < 1e-6 || d == 1)
    nl_layer_norm(rows, d, x, eps, nil, nil, &y, nil, nil)
    #expect(y == normalized)
    nl_layer_norm(rows, d, x, eps, nil, nil, &x, nil, nil)
    #expect(x == normalized)
  }

  @Test(arguments: [1, 2, 15, 16, 17, 48, 100, 768, 1023])
  func rmsNorm(d: Int) {
    for (width, rest) in [(d, false), (d + 1, false), (d + 1, true)] {
      rmsNorm(d: d, width: width, rest: rest)
    }
  }

  private func rmsNorm(d: Int, width: Int, rest: Bool) {
    let rows = 4
    let eps: Float = 1e-5
    var x = Self.numbers(rows * d, seed: 5)
    for i in 0..<d { x[d + i] += 300 }
    x[2 * d + d / 2] = 3000
    let gain = Self.numbers(d, seed: 6)
    let bias = Self.numbers(d, seed: 7)
    var expected: (y: [Double], plain: [Double], scale: [Double]) = ([], [], [])
    for r in 0..<rows {
      let row = x[r * d..<(r + 1) * d].map(Double.init)
      let sum = rest ? row.reduce(0, +) : 0
      let square = row.reduce(sum * sum) { $0 + $1 * $1 } / Double(width)
      expected.scale.append((square + Double(eps)).squareRoot())
      for i in 0..<d {
        expected.plain.append(row[i] / expected.scale[r])
        expected.y.append(row[i] / expected.scale[r] * Double(gain[i]) + Double(bias[i]))
      }
    }
    var y = [Float](repeating: 0, count: rows * d)
    var scale = [Float](repeating: 0, count: rows)
    var normalized = y
    nl_rms_norm(rows, d, width, rest ? 1 : 0, x, eps, gain, bias, &y, &scale, &normalized)
    let tolerance: (Int) -> Double = { 1 + abs(expected.plain[$0]) }
    let largest = (
      Self.difference(y, expected.y, scale: tolerance),
      Self.difference(normalized, expected.plain, scale: tolerance),
      Self.difference(scale, expected.scale) { expected.scale[$0] }
    )
    print(
      "RMS norm d \(d), width \(width), rest \(rest): y \(largest.0) normalized \(largest.1) scale \(largest.2)"
    )
    #expect(largest.0 < 1e-6 && largest.1 < 1e-6 && largest.2 < 1e-6)
    nl_rms_norm(rows, d, width, rest ? 1 : 0, x, eps, nil, nil, &x, nil, nil)
    #expect(x == normalized)
  }

  @Test func layerNormKeepsHostileRowsApart() {
    let d = 20
    var x = Self.numbers(3 * d)
    x[5] = .nan
    x[2 * d] = .infinity
    var y = [Float](repeating: 0, count: 3 * d)
    nl_layer_norm(3, d, x, 1e-5, nil, nil, &y, nil, nil)
    #expect(y[..<d].allSatisfy { $0.isNaN })
    #expect(y[d..<2 * d].allSatisfy { $0.isFinite })
    #expect(y[(2 * d)...].allSatisfy { $0.isNaN })
  }

  // MARK: Softmax

  static func softmax(_ row: [Float], scale: Float) -> [Double] {
    let scaled = row.map { Double($0) * Double(scale) }
    let top = scaled.max() ?? 0
    if top == -.infinity { return scaled.map { _ in 0 } }
    let weights = scaled.map { exp($0 - top) }
    let total = weights.reduce(0, +)
    return weights.map { $0 / total }
  }

  @Test(arguments: [1, 2, 15, 16, 17, 31, 64, 1000], [-1, 0, 3])
  func softmax(columns: Int, firstValid: Int) {
    let rows = 20
    let (ldIn, ldOut) = (columns + 3, columns + 1)
    let scale: Float = 0.125
    var input = Self.numbers(rows * ldIn, seed: 8).map { $0 * 100 }
    for i in 0..<columns { input[3 * ldIn + i] = -.infinity }
    for i in stride(from: 0, to: columns, by: 2) { input[5 * ldIn + i] = -.infinity }
    input[7 * ldIn] = 3e38
    var largest = 0.0
    for causal in [false, true] {
      var out = [Float](repeating: 7, count: rows * ldOut)
      nl_softmax(rows, columns, ldIn, input, ldOut, &out, scale, firstValid, causal ? 1 : 0)
      for r in 0..<rows {
        let visible = causal ? max(0, min(columns, firstValid + r + 1)) : columns
        let expected =
          Self.softmax(Array(input[r * ldIn..<r * ldIn + visible]), scale: scale)
          + [Double](repeating: 0, count: columns - visible)
        let row = Array(out[r * ldOut..<r * ldOut + columns])
        largest = max(largest, Self.difference(row, expected))
        #expect(zip(row, expected).allSatisfy { $0 != 0 || $1 < 1e-30 })
        #expect(zip(row, expected).allSatisfy { $0 == 0 || $1 != 0 })
        #expect(out[r * ldOut + columns] == 7)
      }
      var inPlace = input
      nl_softmax(rows, columns, ldIn, inPlace, ldIn, &inPlace, scale, firstValid, causal ? 1 : 0)
      for r in 0..<rows {
        #expect(
          inPlace[r * ldIn..<r * ldIn + columns] == out[r * ldOut..<r * ldOut + columns])
      }
    }
    print("softmax \(columns) columns: \(largest)")
    #expect(largest < 5e-7)
  }

  @Test(arguments: [Float.nan, .infinity])
  func softmaxOfAnUndefinedRowIsNaN(value: Float) {
    var row = Self.numbers(40)
    row[21] = value
    nl_softmax(1, 40, 40, row, 40, &row, 1, 0, 0)
    #expect(row.allSatisfy { $0.isNaN })
  }

  // MARK: Checksum

  static func slowChecksum(_ bytes: ArraySlice<UInt8>) -> UInt32 {
    var state = ~UInt32(0)
    for byte in bytes {
      state ^= UInt32(byte)
      for _ in 0..<8 { state = state >> 1 ^ (state & 1 == 1 ? 0x82F6_3B78 : 0) }
    }
    return ~state
  }

  @Test func checksum() {
    #expect(Array("123456789".utf8).withUnsafeBytes { crc32c($0) } == 0xE306_9283)
    #expect(crc32c(UnsafeRawBufferPointer(start: nil, count: 0), seed: 5) == 5)
    // RFC 3720, B.4.
    #expect([UInt8](repeating: 0, count: 32).withUnsafeBytes { crc32c($0) } == 0x8A91_36AA)
    let bytes = Self.numbers(20_000).map { UInt8(truncatingIfNeeded: Int($0 * 1e6)) }
    for count in Array(0...70) + [1023, 1024, 3071, 3072, 3073, 6144, 9999, 19_993] {
      for start in [0, 1, 5] {
        let slow = Self.slowChecksum(bytes[start..<start + count])
        bytes.withUnsafeBytes { all in
          let part = UnsafeRawBufferPointer(rebasing: all[start..<start + count])
          #expect(crc32c(part) == slow)
          let cut = count / 3
          let first = crc32c(UnsafeRawBufferPointer(rebasing: part[..<cut]))
          #expect(crc32c(UnsafeRawBufferPointer(rebasing: part[cut...]), seed: first) == slow)
        }
      }
    }
  }

  @Test func simdWidth() {
    #expect([4, 8, 16].contains(nl_simd_width()))
    print("simd width \(nl_simd_width())")
  }
}
