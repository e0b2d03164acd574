import Foundation
import NormLens
import TestSupport
import Testing

/// Rows of a stream, and prompts as paths, by hand.
@Suite struct StreamStepsTests {
  private func step(_ before: [Float], _ after: [Float]) -> StreamStep {
    streamSteps(
      Tensor(after, shape: [1, after.count]), from: Tensor(before, shape: [1, before.count]))[0]
  }

  @Test func anglesByHand() {
    let quarter = step([1, 0], [1, 1])
    #expect(abs(quarter.turnAngle - 45) < 1e-12)
    #expect(quarter.relativeWrite == 1 && quarter.writeCosine == 0)
    #expect(abs(quarter.cosine - 0.5.squareRoot()) < 1e-15)
    #expect(step([1, 0], [-1, 0]).turnAngle == 180)
    #expect(step([3, 4], [6, 8]).turnAngle == 0)
    // tan φ = ‖Δ⊥‖/(‖x‖ + Δ∥).
    let turned = step([2, 0, 0], [3, 1, 2])
    let tangent = (5.0).squareRoot() / 3
    #expect(abs(turned.turnAngle - atan(tangent) * 180 / .pi) < 1e-12)
    // Far below what the cosine of float32 could tell.
    #expect(abs(step([1, 0], [1, 1e-6]).turnAngle / (1e-6 * 180 / .pi) - 1) < 1e-6)
  }

  @Test func whatDoesNotExist() {
    let fromZero = step([0, 0], [1, 0])
    #expect(fromZero.turnAngle.isNaN && fromZero.relativeWrite.isNaN && fromZero.writeCosine.isNaN)
    #expect(step([1, 0], [0, 0]).turnAngle.isNaN && step([1, 0], [0, 0]).relativeWrite == 1)
    #expect(step([1, 2], [1, 2]).writeCosine.isNaN && step([1, 2], [1, 2]).turnAngle == 0)
    let first = streamSteps(Tensor([0.1, 0.1, 0.1], shape: [1, 3]), from: nil)[0]
    #expect(first.turnAngle.isNaN && first.relativeWrite.isNaN && first.cosine.isNaN)
    #expect(first.variance == 0 && first.square > 0)
  }

  /// ⟨Py, Pz⟩ does not see the means.
  @Test func centredProducts() {
    let y = Tensor([1, 2, 6, 8, 0, 1], shape: [2, 3])
    let z = Tensor([4, 0, 2, 1, 5, 9], shape: [2, 3])
    let steps = streamSteps(y, from: nil, along: z)
    let product = y.centeringRows().groupDots(z.centeringRows(), groups: 1)
    for row in 0..<2 {
      #expect(abs(steps[row].centredProduct - Double(product.span[row])) < 1e-5)
    }
  }

  @Test func curvature() {
    let corner = Tensor([0, 0, 1, 0, 2, 0, 2, 1], shape: [4, 2])
    #expect(abs(corner.meanTurnOfSteps() - .pi / 4) < 1e-12)
    #expect(abs(corner.centredUnitRows().meanNeighbourAngle() - 1.2432) < 1e-4)
    #expect(corner.rows(0..<2).meanTurnOfSteps().isNaN)
    #expect(corner.rows(0..<1).meanNeighbourAngle().isNaN)
    // A token that stays where it is has no step.
    let pause = Tensor([0, 0, 1, 0, 1, 0, 1, 1], shape: [4, 2])
    #expect(pause.meanTurnOfSteps().isNaN)
  }

  @Test func unitRows() {
    let same = Tensor(repeating: 0.7, shape: [5, 3]).centredUnitRows()
    #expect(same.scalars.allSatisfy { $0 == 0 })
    let two = Tensor([1, 2, 3, 3, 2, 1], shape: [2, 3]).centredUnitRows()
    #expect(zip(two.row(0).scalars, two.row(1).scalars).allSatisfy { $0 == -$1 })
  }

  @Test func magnitudes() {
    var random = SeededGenerator(seed: 4)
    for count in [1, 2, 101, 20_000] {
      let values = (0..<count).map { _ in
        Float.random(in: -3...3, using: &random) * Float.random(in: 0...3, using: &random)
      }
      var counts = MagnitudeCounts()
      let tensor = Tensor(values, shape: [count])
      // In two portions.
      counts.add(tensor.rows(0..<count / 2))
      counts.add(tensor.rows(count / 2..<count))
      let sorted = values.map { Double($0.magnitude) }.sorted()
      let median = (sorted[(count - 1) / 2] + sorted[count / 2]) / 2
      #expect(counts.count == count && abs(counts.median / median - 1) < 1.1e-3)
      for limit in [0.5, 2, 7.9] {
        let (most, least) = (
          sorted.count { $0 > limit }, sorted.count { $0 > limit * 1.001 }
        )
        #expect((least...most).contains(counts.count(above: limit)))
      }
      let order = values.indices.sorted {
        (values[$1].magnitude, $0) < (values[$0].magnitude, $1)
      }
      #expect(tensor.topMagnitudes(3) == Array(order.prefix(3)))
    }
    #expect(MagnitudeCounts().median.isNaN)
    let zeros = Tensor(zeros: [70])
    var counts = MagnitudeCounts()
    counts.add(zeros)
    #expect(counts.median == 0 && zeros.topMagnitudes(2) == [0, 1])
    #expect(Tensor([-9, 9, 1], shape: [3]).topMagnitudes(1) == [0])
  }
}
