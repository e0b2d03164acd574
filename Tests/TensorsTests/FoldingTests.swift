import NormLens
import Testing

/// Row and column arithmetic in double precision against the plain loops, on owned, shared and
/// sliced tensors.
@Suite struct FoldingTests {
  @Test(arguments: [(1, 1), (1, 37), (37, 1), (5, 16), (129, 33), (400, 70)])
  func sumsAndScalings(rows: Int, columns: Int) {
    var random = SeededGenerator(seed: 7)
    func numbers(_ count: Int) -> [Double] {
      (0..<count).map { _ in Double(Float.random(in: -2..<2, using: &random)) }
    }
    let values = numbers(rows * columns)
    let W = Tensor(values.map { Float($0) }, shape: [rows, columns])
    let (r, c) = (numbers(rows), numbers(columns))
    var (sumOfRows, sumOfColumns) = ([Double](repeating: 0, count: columns), [Double]())
    for i in 0..<rows {
      for j in 0..<columns { sumOfRows[j] += r[i] * values[i * columns + j] }
      sumOfColumns.append((0..<columns).reduce(0) { $0 + c[$1] * values[i * columns + $1] })
    }
    func near(_ a: [Double], _ b: [Double]) -> Bool {
      a.count == b.count && zip(a, b).allSatisfy { abs($0 - $1) <= 1e-12 * Double(rows * columns) }
    }
    #expect(near(W.sumOfRows(weightedBy: r), sumOfRows))
    #expect(near(W.sumOfColumns(weightedBy: c), sumOfColumns))
    let ones = [Double](repeating: 1, count: rows)
    let magnitudes = Tensor(values.map { Float(abs($0)) }, shape: [rows, columns])
    #expect(
      W.sumOfRows(weightedBy: ones, magnitudes: true) == magnitudes.sumOfRows(weightedBy: ones))
    #expect(
      W.sumOfColumns(weightedBy: c, magnitudes: true) == magnitudes.sumOfColumns(weightedBy: c))

    // While somebody else looks at the scalars, they stay.
    var scaled = W
    scaled.scaleRows(by: r, subtracting: c)
    var other = W
    other.scaleColumns(by: c, subtracting: r)
    #expect(W.scalars == values.map { Float($0) })
    let cells = (0..<rows).flatMap { i in (0..<columns).map { (i, $0) } }
    #expect(scaled.scalars == cells.map { Float(r[$0] * values[$0 * columns + $1] - c[$1]) })
    #expect(other.scalars == cells.map { Float(c[$1] * values[$0 * columns + $1] - r[$0]) })
    let place = scaled.rows(0..<1)
    let before = place.scalars
    scaled.scaleRows(by: nil, subtracting: nil)
    #expect(!scaled.sharesStorage(with: place) && place.scalars == before)
    #expect(scaled.scalars == cells.map { Float(r[$0] * values[$0 * columns + $1] - c[$1]) })

    // A slice of a larger tensor changes alone.
    var slice = W.rows(rows - 1..<rows)
    slice.scaleColumns(by: nil, subtracting: [1])
    #expect(slice.scalars == values.suffix(columns).map { Float($0 - 1) })
    #expect(W.scalars == values.map { Float($0) })
  }

  /// Coordinates in a basis of the vectors of sum zero, against the bases as matrices.
  @Test(arguments: [2, 3, 24, 193], [ZeroSumBasis.helmert, .dropLast])
  func coordinates(d: Int, basis: ZeroSumBasis) {
    var random = SeededGenerator(seed: 9)
    let x = Tensor(
      (0..<5 * d).map { _ in Float.random(in: -2..<2, using: &random) }, shape: [5, d])
    // write[i][k] gives coordinates of what is centred, read[i][k] those of what reads it.
    var (write, read) = ([[Double]](), [[Double]]())
    for i in 0..<d {
      write.append([])
      read.append([])
      for k in 1..<d {
        switch basis {
        case .helmert:
          let numerator: Double = i < k ? 1 : i == k ? -Double(k) : 0
          let value = numerator / Double(k * (k + 1)).squareRoot()
          write[i].append(value)
          read[i].append(value)
        case .dropLast:
          let own: Double = i == k - 1 ? 1 : 0
          write[i].append(own - 1 / Double(d))
          read[i].append(i == d - 1 ? -1 : own)
        }
      }
    }
    func product(_ matrix: [[Double]]) -> [Double] {
      var result: [Double] = []
      for row in 0..<5 {
        for k in 0..<d - 1 {
          var sum = 0.0
          for i in 0..<d { sum += Double(x[row, i]) * matrix[i][k] }
          result.append(sum)
        }
      }
      return result
    }
    func difference(_ found: Tensor, _ expected: [Double]) -> Double {
      zip(found.scalars, expected).map { abs(Double($0) - $1) }.max() ?? .infinity
    }
    let (written, reading) = (x.coordinates(in: basis), x.readingCoordinates(in: basis))
    #expect(written.shape == [5, d - 1] && reading.shape == [5, d - 1])
    #expect(difference(written, product(write)) < 1e-6)
    #expect(difference(reading, product(read)) < 1e-6)
    let columns = Tensor((0..<d).flatMap { i in (0..<5).map { x[$0, i] } }, shape: [d, 5])
    let found = columns.columnsReadingCoordinates(in: basis)
    #expect(found.shape == [d - 1, 5])
    for row in 0..<5 {
      for k in 0..<d - 1 { #expect(abs(found[k, row] - reading[row, k]) < 1e-6) }
    }
    // What reads the coordinates gives what it gave of the centred vector, and Helmert's are an isometry.
    let (a, b) = (x.centeringRows().row(0), x.centeringRows().row(1))
    let (u, v) = (written.row(0), written.row(1))
    #expect(abs(u.dot(x.readingCoordinates(in: basis).row(1)) - a.dot(x.row(1))) < 1e-4)
    if basis == .helmert { #expect(abs(u.dot(v) - a.dot(b)) < 1e-4) }
  }
}
