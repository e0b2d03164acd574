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
}
