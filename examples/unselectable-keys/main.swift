// Which keys can no query choose?
//
// A key inside the convex hull of the others never gets the largest score, whatever the query. Brody,
// Alon & Yahav (arXiv:2305.02582) draw normally distributed keys: in few dimensions many cannot be chosen.
// LayerNorm puts them on a sphere, where each is the best answer to itself.
import Foundation
import NormLens

let draws = 100

/// A normally distributed number (Box and Muller).
func normal(_ random: inout SeededGenerator) -> Double {
  let radius = (-2 * log(1 - Double.random(in: 0..<1, using: &random))).squareRoot()
  return radius * cos(2 * Double.pi * Double.random(in: 0..<1, using: &random))
}

/// LayerNorm without gain, bias and ε.
func layerNorm(_ key: ArraySlice<Double>) -> [Double] {
  let mean = key.reduce(0, +) / Double(key.count)
  let variance = key.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(key.count)
  return key.map { ($0 - mean) / variance.squareRoot() }
}

/// The share of `n` keys that no query can choose.
func unselectable(_ keys: [Double], _ n: Int) -> Double {
  let margins = KeyMargins(PointCloud(keys, count: n), questions: [])
  return Double(margins.count(.unselectable)) / Double(n)
}

var random = SeededGenerator(seed: 2023)
var table = TextTable(
  ["keys", "dimensions", "P(any)", "mean share", "after LayerNorm"].map { ($0, .right) })
for (n, d) in [
  (10, 3), (30, 3), (60, 3), (20, 6), (60, 6), (60, 8), (60, 9), (60, 10), (60, 12), (60, 15),
] {
  var (raw, normalized): ([Double], [Double]) = ([], [])
  for _ in 0..<draws {
    let keys = (0..<n * d).map { _ in normal(&random) }
    raw.append(unselectable(keys, n))
    let rows = (0..<n).flatMap { layerNorm(keys[$0 * d..<($0 + 1) * d]) }
    normalized.append(unselectable(rows, n))
  }
  table.add([
    "\(n)", "\(d)", fixed(Double(raw.count { $0 > 0 }) / Double(draws), 2),
    fixed(raw.reduce(0, +) / Double(draws), 4), fixed(normalized.max() ?? 0, 4),
  ])
}
print("unselectable keys in \(draws) draws of normally distributed keys\n\(table.text)")
