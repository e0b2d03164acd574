import NormLens
import TestSupport
import Testing

/// The comparison that all golden tests rest on must be able to fail.
@Suite struct ComparisonTests {
  @Test(
    arguments: [
      ([1.001, 2], [1.0, 2]), ([.nan, 2], [1.0, 2]), ([1, .infinity], [1.0, 2]),
      ([1, 2], [1, -.infinity]), ([1, .infinity], [1, -.infinity]), ([1, -1e30], [1, -.infinity]),
      ([1e-3, 0], [0.0, 0]), ([], [1.0]),
    ] as [([Double], [Double])])
  func noticesADifference(_ values: [Double], _ golden: [Double]) {
    withKnownIssue {
      Comparison("test").check("values", values, golden)
    }
  }

  @Test func noticesAShape() {
    withKnownIssue {
      Comparison("test").check(
        "shape", Tensor(zeros: [2, 3]), GoldenArray(Array(repeating: 0, count: 6), shape: [3, 2]))
    }
    withKnownIssue { Comparison("test of nothing").report() }
  }

  @Test func acceptsWhatIsClose() {
    let comparison = Comparison("test")
    comparison.check("close", [1.0001, 2, -.infinity], [1, 2, -.infinity])
    comparison.check("zeros", [0, 1e-5], [0, 0])
    #expect(comparison.maximum > 4e-5 && comparison.maximum < 6e-5)
  }
}
