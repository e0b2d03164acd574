import NormLens
import TestSupport
import Testing

/// What a linear map explains, against the ranks, baselines and maps that rows are made with.
@Suite struct CrossMomentsTests {
  private static func normal(_ rows: Int, _ d: Int, seed: UInt64) -> Tensor {
    var random = SeededGenerator(seed: seed)
    // Twelve uniform numbers add up to nearly a normal one.
    let values = (0..<rows * d).map { _ in
      (0..<12).reduce(Float(-6)) { sum, _ in sum + Float.random(in: 0..<1, using: &random) }
    }
    return Tensor(values, shape: [rows, d])
  }

  private static func fit(_ x: Tensor, _ y: Tensor, portions: Int = 1) throws -> LinearFit {
    var moments = CrossMoments(width: x.shape[1])
    let size = (x.shape[0] + portions - 1) / portions
    for start in stride(from: 0, to: x.shape[0], by: size) {
      let rows = start..<min(x.shape[0], start + size)
      moments.add(x.rows(rows), y.rows(rows))
    }
    return try #require(moments.fit())
  }

  /// Rows that have nothing to do with each other score r/(N − 1), and nothing when that is taken away.
  @Test func chance() throws {
    var (raw, adjusted) = (0.0, 0.0)
    for seed in 0..<20 as Range<UInt64> {
      let x = Self.normal(1000, 10, seed: 2 * seed)
      let fit = try Self.fit(x, x + Self.normal(1000, 10, seed: 2 * seed + 1))
      #expect(fit.rank == 10 && fit.count == 1000)
      raw += fit.scoreOfWrite / 20
      adjusted += fit.adjusted(fit.scoreOfWrite) / 20
    }
    print("unrelated rows, N = 1000, d = 10: \(raw), 10/999 = 0.01001; adjusted \(adjusted)")
    #expect(abs(raw - 10 / 999) < 1e-3 && abs(adjusted) < 1e-3)
  }

  /// A residual connection and noise e times as long: 1/(1 + e²).
  @Test(arguments: [Float(0.5), 1, 2])
  func residual(_ e: Float) throws {
    let x = Self.normal(20_000, 10, seed: 3)
    let fit = try Self.fit(x, x + Self.normal(20_000, 10, seed: 4) * e)
    let expected = 1 / (1 + Double(e * e))
    print("y = x + \(e)·noise: \(fit.score), expected \(expected)")
    #expect(abs(fit.score - expected) < 0.01 && fit.scoreOfWrite < 2e-3)
  }

  /// A linear map is one however large the mean, however different the coordinates' sizes, and whatever the
  /// rows' rank.
  @Test(arguments: [3, 11, 12, 13, 40])
  func linearMaps(_ rows: Int) throws {
    let sizes: [Float] = [1e3, 1, 1e-3, 1, 1, 20, 1, 1, 1e2, 1, 1, 1]
    let x = Self.normal(rows, 12, seed: 5).multiplyingRows(Tensor(sizes, shape: [12]))
      .addingToRows(Tensor((0..<12).map { Float($0 * 50) }, shape: [12]))
    // Scaling by powers of two is exact.
    let y = x.multiplyingRows(Tensor((0..<12).map { $0 % 2 == 0 ? 2 : 0.5 }, shape: [12]))
    let fit = try Self.fit(x, y)
    #expect(fit.rank == min(rows - 1, 12))
    #expect(abs(fit.score - 1) < 1e-12 && abs(fit.scoreOfWrite - 1) < 1e-9)
    #expect(fit.adjusted(fit.score).isNaN == (rows <= 13))
  }

  /// N ≤ d + 1 rows are fitted perfectly by chance.
  @Test(arguments: [2, 5, 24, 25])
  func fewRows(_ rows: Int) throws {
    let fit = try Self.fit(Self.normal(rows, 24, seed: 6), Self.normal(rows, 24, seed: 7))
    #expect(fit.rank == rows - 1)
    #expect(abs(fit.score - 1) < 1e-9 && abs(fit.scoreOfWrite - 1) < 1e-9)
    #expect(fit.adjusted(fit.score).isNaN)
  }

  /// Rows without a mean over their coordinates lack a direction; float32 does not hide it.
  @Test func centredRows() throws {
    let x = Self.normal(400, 24, seed: 8).centeringRows()
    let fit = try Self.fit(x, x + Self.normal(400, 24, seed: 9))
    #expect(fit.rank == 23)
    // One coordinate that says what another does.
    var values = Self.normal(400, 24, seed: 10).scalars
    for row in 0..<400 { values[row * 24 + 7] = -3 * values[row * 24 + 2] }
    let doubled = Tensor(values, shape: [400, 24])
    #expect(try Self.fit(doubled, doubled + Self.normal(400, 24, seed: 9)).rank == 23)
  }

  /// Portions, and blocks of many rows, give what all rows together do.
  @Test func portions() throws {
    let (x, y) = (Self.normal(2500, 300, seed: 11), Self.normal(2500, 300, seed: 12))
    let (whole, parts) = (try Self.fit(x, y), try Self.fit(x, y, portions: 7))
    print("scores in portions differ by \(abs(whole.score - parts.score))")
    #expect(abs(whole.score - parts.score) < 1e-12 && whole.rank == parts.rank)
    #expect(abs(whole.outputVariance / parts.outputVariance - 1) < 1e-12)
  }

  @Test func nothing() throws {
    let none = CrossMoments(width: 4)
    let fit = try #require(none.fit())
    #expect(fit.score.isNaN && fit.rank == 0 && fit.adjusted(0).isNaN)
    let same = Tensor(repeating: 2.5, shape: [9, 4])
    let constant = try Self.fit(same, same)
    #expect(constant.score.isNaN && constant.scoreOfWrite.isNaN && constant.rank == 0)
    // Of a constant input nothing of a varying output is explained.
    let free = try Self.fit(same, Self.normal(9, 4, seed: 1))
    #expect(free.rank == 0 && abs(free.score) < 1e-12 && free.scoreOfWrite == 0)
    var moments = CrossMoments(width: 4)
    moments.add(Tensor([1, .nan, 0, 0], shape: [1, 4]), Tensor(zeros: [1, 4]))
    #expect(moments.fit() == nil)
  }
}
