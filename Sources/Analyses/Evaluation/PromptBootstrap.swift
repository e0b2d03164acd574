import HookedGPT2
import RealModule

/// How sure numbers over all tokens are, prompts being the independent draws: standard errors and
/// intervals of ratios of sums, in memory that does not grow with the number of prompts.
///
/// Each prompt is told as sums over its tokens. In each of ``replicates`` replicates it counts as often
/// as a Poisson variable of mean 1 says, which for many prompts is drawing them with replacement (Hanley
/// and MacGibbon 2006, *Creating non-parametric bootstrap samples using Poisson frequencies*).
struct PromptBootstrap {
  /// How many replicates there are.
  static let replicates = 1000

  /// The prompts that were told.
  private(set) var prompts = 0
  /// The sums over all prompts; the first is the number of tokens.
  private(set) var totals: [Double]
  private var squares: [Double]
  private var products: [Double]
  private var replicated: [Double]
  private var random: SeededGenerator

  /// A bootstrap of `sums` sums, the first of which is the number of tokens.
  init(sums: Int, seed: UInt64) {
    totals = Array(repeating: 0, count: sums)
    (squares, products) = (totals, totals)
    replicated = Array(repeating: 0, count: sums * Self.replicates)
    random = SeededGenerator(seed: seed)
  }

  /// Takes one prompt's sums.
  mutating func add(_ sums: [Double]) {
    precondition(sums.count == totals.count, "PromptBootstrap: \(sums.count) sums")
    prompts += 1
    for (index, sum) in sums.enumerated() {
      totals[index] += sum
      squares[index] += sum * sum
      products[index] += sum * sums[0]
    }
    let present = sums.indices.filter { sums[$0] != 0 }
    for replicate in 0..<Self.replicates {
      let weight = Double(poisson())
      if weight == 0 { continue }
      let start = replicate * sums.count
      for index in present { replicated[start + index] += weight * sums[index] }
    }
  }

  /// The standard error of the mean of sum `index` over tokens: that of a ratio of sums over prompts, to
  /// first order; NaN of fewer than two prompts.
  func standardError(_ index: Int) -> Double {
    guard prompts > 1, totals[0] > 0 else { return .nan }
    let mean = totals[index] / totals[0]
    let spread = squares[index] - 2 * mean * products[index] + mean * mean * squares[0]
    let correction = Double(prompts) / Double(prompts - 1)
    return (correction * max(spread, 0)).squareRoot() / totals[0]
  }

  /// The 2.5 and 97.5 percent quantiles of a number over the replicates; NaN of fewer than two prompts.
  ///
  /// - Parameter number: made of the sums.
  func interval(_ number: (ArraySlice<Double>) -> Double) -> (low: Double, high: Double) {
    guard prompts > 1 else { return (.nan, .nan) }
    let values = (0..<Self.replicates).compactMap { replicate -> Double? in
      let sums = replicated[replicate * totals.count..<(replicate + 1) * totals.count]
      return sums[sums.startIndex] > 0 ? number(sums) : nil
    }.sorted()
    return (quantile(ofSorted: values, 0.025), quantile(ofSorted: values, 0.975))
  }

  /// The interval of the mean of sum `index` over tokens.
  func interval(_ index: Int) -> (low: Double, high: Double) {
    interval { $0[$0.startIndex + index] / $0[$0.startIndex] }
  }

  /// A Poisson variable of mean 1, from its distribution function.
  private mutating func poisson() -> Int {
    let uniform = Double.random(in: 0..<1, using: &random)
    var (number, probability) = (0, Self.none)
    var cumulative = probability
    while uniform >= cumulative && number < 20 {
      number += 1
      probability /= Double(number)
      cumulative += probability
    }
    return number
  }

  /// e⁻¹.
  private static let none = Double.exp(-1)
}
