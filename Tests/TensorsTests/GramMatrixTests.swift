import NormLens
import Testing

/// Sums over rows against the sums written out.
@Suite struct GramMatrixTests {
  @Test(arguments: [(3, 2), (1, 5), (1500, 200)]) func sums(_ count: Int, _ width: Int) {
    var random = SeededGenerator(seed: 3)
    var scalars = (0..<count * width).map { _ in Float.random(in: -1..<2, using: &random) }
    // One row is nothing.
    for i in 0..<width { scalars[i] = 0 }
    let rows = Tensor(scalars, shape: [count, width])
    let shift = (0..<width).map { Double($0) / 7 }
    for (offset, normalized) in [(nil, false), (nil, true), (shift, false), (shift, true)] {
      var gram = GramMatrix(width: width)
      gram.add(rows.rows(0..<count / 2), subtracting: offset, normalized: normalized)
      gram.add(rows.rows(count / 2..<count), subtracting: offset, normalized: normalized)
      var products = [Double](repeating: 0, count: width * width)
      var sums = [Double](repeating: 0, count: width)
      var counted = 0
      for row in 0..<count {
        var x = (0..<width).map { Double(scalars[row * width + $0]) - (offset?[$0] ?? 0) }
        let length = x.reduce(0) { $0 + $1 * $1 }.squareRoot()
        if normalized {
          if length == 0 { continue }
          x = x.map { $0 / length }
        }
        counted += 1
        for i in 0..<width {
          sums[i] += x[i]
          for j in 0..<width { products[i * width + j] += x[i] * x[j] }
        }
      }
      #expect(gram.count == counted)
      let scale = products.reduce(1) { max($0, abs($1)) }
      var worst = 0.0
      for i in 0..<width {
        worst = max(worst, abs(gram.sums[i] - sums[i]) / scale)
        for j in 0..<width {
          let place = i * width + j
          worst = max(worst, abs(gram.products[place] - products[place]) / scale)
          let central =
            products[place] - sums[i] * sums[j] / Double(max(counted, 1))
          worst = max(worst, abs(gram.centered[place] - central) / scale)
        }
      }
      #expect(worst < 1e-12, "\(count) × \(width): \(worst)")
    }
  }
}
