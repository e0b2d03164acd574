/// Chooses at most so many of all prompts' tokens at positions ≥ 1, evenly spaced over the prompts.
struct EvenTokens {
  /// Every so many tokens one is chosen.
  let stride: Int
  /// How many have been chosen.
  private(set) var count = 0
  private var seen = 0

  /// A choice of at most `limit` tokens.
  init(_ axes: PromptAxes, limit: Int) {
    let available = axes.prompts.reduce(0) { $0 + $1.tokens.count - 1 }
    stride = max(1, (available + limit - 1) / limit)
  }

  /// The positions that are chosen of the next prompt, which has `length` tokens.
  mutating func next(length: Int) -> [Int] {
    let positions = (1..<length).filter { (seen + $0 - 1) % stride == 0 }
    seen += length - 1
    count += positions.count
    return positions
  }
}
