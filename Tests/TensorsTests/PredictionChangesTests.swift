import Foundation
import NormLens
import TestSupport
import Testing

/// Changes of predictions against the softmax written out in double precision.
@Suite struct PredictionChangesTests {
  /// Rows, changes and entries: less than a vector, more than a tile and a block.
  @Test(
    arguments: [(1, 1, 5), (3, 4, 33), (17, 3, 5000), (2, 70, 2100)], [1e-4, 0.3, 40])
  func againstSoftmax(_ shape: (Int, Int, Int), _ size: Double) {
    let (rows, changes, columns) = shape
    var random = SeededGenerator(seed: 11)
    func tensor(_ shape: [Int], _ scale: Float) -> Tensor {
      Tensor(
        (0..<shape.reduce(1, *)).map { _ in Float.random(in: -scale..<scale, using: &random) },
        shape: shape)
    }
    let (plain, constant) = (tensor([rows, columns], 6), tensor([columns], 2))
    let logits = plain.addingToRows(constant)
    let directions = tensor([changes, columns], 1)
    let targets = (0..<rows).map { _ in Int.random(in: 0..<columns, using: &random) }
    func amounts() -> [Double] {
      (0..<rows * changes).map { _ in Double.random(in: -size..<size, using: &random) }
    }
    let (shift, weights) = (amounts(), amounts().map { $0 / size })
    let stretch = amounts().map { max($0 / 10, -0.9) }
    let predicted = PredictedRows(logits, targets: targets, stretching: plain)

    for (isStretched, isCumulated) in [(true, false), (false, false), (true, true)] {
      let found = predicted.changes(
        along: directions, shift: shift, stretch: isStretched ? stretch : nil,
        cumulating: isCumulated ? weights : nil)
      var expected: [PredictionChange] = []
      for row in 0..<rows {
        let before = (0..<columns).map { Double(logits[row, $0]) }
        var sum = [Double](repeating: 0, count: columns)
        for change in 0..<changes {
          let cell = row * changes + change
          for v in 0..<columns {
            let u = Double(directions[change, v])
            sum[v] = isCumulated ? sum[v] + weights[cell] * u : u
          }
          let after = (0..<columns).map { v in
            before[v] + (isStretched ? stretch[cell] * Double(plain[row, v]) : 0)
              + shift[cell] * sum[v]
          }
          let (a, b) = (Self.prediction(after, targets[row]), Self.prediction(before, targets[row]))
          expected.append(
            PredictionChange(loss: a.loss - b.loss, entropy: a.entropy - b.entropy))
        }
      }
      // A large change is known as the logits are, a small one relative to its own size.
      let comparison = Comparison("changes \(shape) of \(size)", relative: 1e-5)
      let scale = { (values: [Double]) in values.reduce(0) { max($0, abs($1)) } }
      let (losses, entropies) = (expected.map(\.loss), expected.map(\.entropy))
      comparison.check("loss", found.map(\.loss), losses)
      comparison.check("entropy", found.map(\.entropy), entropies, scale: scale(losses))
      comparison.report("arrays")
    }
  }

  /// No change is none, exactly; no rows and no directions are no changes.
  @Test func edges() {
    let logits = Tensor([1, 2, 3, 0, 0, 0], shape: [2, 3])
    let predicted = PredictedRows(logits, targets: [0, 2])
    let none = predicted.changes(
      along: Tensor([4, 5, 6], shape: [1, 3]), shift: [0, 0], stretch: [0, 0])
    #expect(none == Array(repeating: PredictionChange(loss: 0, entropy: 0), count: 2))
    #expect(predicted.changes(along: Tensor(zeros: [0, 3]), shift: []).isEmpty)
    let empty = PredictedRows(Tensor(zeros: [0, 3]), targets: [])
    #expect(empty.changes(along: Tensor(zeros: [2, 3]), shift: []).isEmpty)
  }

  private static func prediction(
    _ logits: [Double], _ target: Int
  ) -> (loss: Double, entropy: Double) {
    let largest = logits.max() ?? 0
    let weights = logits.map { exp($0 - largest) }
    let sum = weights.reduce(0, +)
    let weighted = zip(weights, logits).reduce(0) { $0 + $1.0 * ($1.1 - largest) }
    let logSum = log(sum)
    return (largest + logSum - logits[target], logSum - weighted / sum)
  }
}
