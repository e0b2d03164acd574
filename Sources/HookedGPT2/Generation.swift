import Tensors

/// How the next token is chosen from the logits.
public struct Sampling: Sendable, Equatable {
  /// Logits are divided by it before the softmax; 0 takes the most likely token.
  public var temperature: Double
  /// Only the `k` most likely tokens are candidates; nil means all.
  public var topK: Int?

  /// The most likely token, every time.
  public static let greedy = Sampling(temperature: 0)

  /// A way to choose.
  ///
  /// - Precondition: `temperature` is 0 or larger, `topK` is 1 or larger.
  public init(temperature: Double = 1, topK: Int? = nil) {
    precondition(
      temperature >= 0 && topK ?? 1 >= 1,
      "Sampling: temperature \(temperature), topK \(topK.map(String.init) ?? "none")")
    self.temperature = temperature
    self.topK = topK
  }

  /// Chooses among `logits`, shape `[d_vocab]`.
  func choose(_ logits: Tensor, using random: inout some RandomNumberGenerator) -> Int {
    guard temperature > 0 else { return logits.indexOfMaximum ?? 0 }
    let candidates = logits.topIndices(topK ?? logits.count)
    // The largest becomes 0 before the division, so that no temperature overflows.
    let best = logits.gatheringRows([candidates[0]])[0]
    let sharpness = Float(min(1 / temperature, 1e30))
    let kept = logits.gatheringRows(candidates).map { ($0 - best) * sharpness }
    let probabilities = softmax(kept).scalars
    var rest = Float.random(in: 0..<1, using: &random)
    for (index, probability) in zip(candidates, probabilities) {
      rest -= probability
      if rest < 0 { return index }
    }
    return candidates[candidates.count - 1]
  }
}

extension GPT2 {
  /// Continues a prompt.
  ///
  /// Keys and values of earlier tokens are kept, so each new token costs one row. Interventions
  /// act on the whole text at each step and therefore switch that off: each token then costs a full
  /// run.
  ///
  /// - Parameters:
  ///   - tokens: the prompt.
  ///   - count: the most tokens to add; fewer where the context is full or `stop` was chosen.
  ///   - sampling: how to choose; the most likely token by default.
  ///   - stop: the token that ends the text, usually EOS.
  ///   - interventions: changes of activations.
  ///   - random: where chance comes from.
  /// - Returns: the new tokens only.
  /// - Throws: as `run`; `ModelError.nonFinite` where there is nothing to choose from.
  public func generate(
    _ tokens: [Int], count: Int, sampling: Sampling = .greedy, stop: Int? = nil,
    interventions: [Intervention] = [], using random: inout some RandomNumberGenerator
  ) throws -> [Int] {
    var new: [Int] = []
    var past: KeyValueCache? =
      interventions.isEmpty
      ? KeyValueCache(
        config, capacity: min(config.nCtx, tokens.count + min(max(count, 0), config.nCtx))) : nil
    var next = tokens
    _ = try PackedTokens([tokens], config: config)
    while new.count < count && tokens.count + new.count <= config.nCtx {
      let logits: Tensor
      if past != nil {
        logits = try continued(next, past: &past)
      } else {
        logits = try run(batch: [tokens + new], logits: .last, interventions: interventions)[0]
      }
      guard logits.isFinite else {
        throw ModelError.nonFinite(what: "the logits after \(tokens.count + new.count) tokens")
      }
      let token = sampling.choose(logits.row(0), using: &random)
      new.append(token)
      if token == stop { break }
      next = [token]
    }
    return new
  }

  /// The last logits after `tokens`, which follow those in `past`; shape `[1, d_vocab]`.
  private func continued(_ tokens: [Int], past: inout KeyValueCache?) throws -> Tensor {
    let packed = try PackedTokens([tokens], config: config, past: past?.count ?? 0)
    var pass = try ForwardPass(self, packed, .nothing)
    var stream = try pass.embedding()
    for layer in 0..<config.nLayers { stream = try pass.block(layer, stream, past: &past) }
    past?.advance(tokens.count)
    return try pass.unembed(stream, rows: packed.lastRows)
  }
}

/// A small, fast, seeded source of chance (SplitMix64): the same numbers everywhere.
public struct SeededGenerator: RandomNumberGenerator, Sendable {
  private var state: UInt64

  /// A source that `seed` determines.
  public init(seed: UInt64) { state = seed }

  /// The next 64 bits.
  public mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }
}
