import HookedGPT2
import Tensors

/// The streams of some prompts before every block, from which changed models resume.
struct BlockStates {
  private let model: GPT2
  /// For each block the prompts' streams before it, shape `[pos, d_model]`; the final ones at the end.
  let before: [[Tensor]]
  /// The next tokens of all positions that have one, prompt after prompt.
  let targets: [Int]

  /// The most rows that run through a block at once.
  private static let rowLimit = 4096

  /// - Throws: `ModelError`; `AnalysisError.nonFinite`.
  init(_ model: GPT2, _ prompts: [[Int]]) throws {
    self.model = model
    let last = HookName(.residPost, layer: model.config.nLayers - 1)
    let (_, cache) = try model.runWithCache(
      batch: prompts, hooks: [.residPre(.all), HookFilter(last)], logits: .none)
    let names = (0..<model.config.nLayers).map { HookName(.residPre, layer: $0) } + [last]
    before = try names.map { name in
      try prompts.indices.map { prompt in
        let stream = try cache.tensor(name, prompt: prompt)
        if !stream.isFinite {
          throw AnalysisError.nonFinite(analysis: "stream", what: name.rawValue)
        }
        return stream
      }
    }
    targets = prompts.flatMap { $0.dropFirst() }
  }

  /// The final streams with blocks `layer ..< layer + length` left out, for every length that fits.
  ///
  /// - Complexity: (L − layer)²/2 blocks.
  func skipping(from layer: Int) throws -> [(length: Int, streams: [Tensor])] {
    let layers = model.config.nLayers
    // Resumed runs join where their next block is, so that it runs once for all of them.
    var active: [(length: Int, streams: [Tensor])] = []
    for next in layer + 1...layers {
      active.append((next - layer, before[layer]))
      if next == layers { break }
      let streams = try block(next, active.flatMap(\.streams))
      for index in active.indices {
        let count = before[layer].count
        active[index].streams = Array(streams[index * count..<(index + 1) * count])
      }
    }
    return active
  }

  /// The streams behind each block if all blocks up to it read the embeddings x: `x + Σ (block(x) − x)`.
  func parallel() throws -> [[Tensor]] {
    var sum = before[0]
    return try (0..<model.config.nLayers).map { layer in
      let written = try block(layer, before[0])
      for index in sum.indices { sum[index] = sum[index] + (written[index] - before[0][index]) }
      return sum
    }
  }

  /// For each λ the final streams if every block writes λ times what it writes:
  /// `x ← (1 − λ)·x + λ·block(x)`.
  func scaled(by lambdas: [Double]) throws -> [[Tensor]] {
    var streams = lambdas.map { _ in before[0] }
    // The model itself and its embeddings are there already.
    let running = lambdas.indices.filter { lambdas[$0] != 0 && lambdas[$0] != 1 }
    for (index, lambda) in lambdas.enumerated() where lambda == 1 {
      streams[index] = before[model.config.nLayers]
    }
    if running.isEmpty { return streams }
    let count = before[0].count
    for layer in 0..<model.config.nLayers {
      let written = try block(layer, running.flatMap { streams[$0] })
      for (place, index) in running.enumerated() {
        let lambda = lambdas[index]
        for prompt in 0..<count {
          streams[index][prompt] =
            streams[index][prompt] * Float(1 - lambda)
            + written[place * count + prompt] * Float(lambda)
        }
      }
    }
    return streams
  }

  /// A block on many streams, some at a time.
  private func block(_ layer: Int, _ streams: [Tensor]) throws -> [Tensor] {
    var (result, waiting, rows): ([Tensor], [Tensor], Int) = ([], [], 0)
    for stream in streams {
      if !waiting.isEmpty && rows + stream.shape[0] > Self.rowLimit {
        result += try model.run(layers: [layer], on: waiting)
        (waiting, rows) = ([], 0)
      }
      waiting.append(stream)
      rows += stream.shape[0]
    }
    return waiting.isEmpty ? result : result + (try model.run(layers: [layer], on: waiting))
  }

  /// The loss of each position that has a next token, if these were the final streams.
  func losses(_ streams: [Tensor]) -> [Double] {
    model.predictions(.predicting(streams), targets: targets).map(\.loss)
  }

  /// The Kullback-Leibler divergence of the predictions of these final streams from the model's own,
  /// `Σ p·(ln p − ln q)`, of each position that has a next token.
  func divergence(_ streams: [Tensor]) -> [Double] {
    model.predictions(
      .predicting(before[model.config.nLayers]), against: model, .predicting(streams),
      targets: targets
    ).apart.map(\.kullbackLeibler)
  }

  /// How far streams are from the model's own before a block, `‖x′ − x‖/‖x‖` of every position: those of
  /// position 0, and the others.
  func relativeErrors(_ streams: [Tensor], at layer: Int) -> (first: [Double], rest: [Double]) {
    var (first, rest): ([Double], [Double]) = ([], [])
    for (stream, own) in zip(streams, before[layer]) {
      let difference = stream - own
      let errors = (0..<own.shape[0]).map { position in
        let (delta, x) = (difference.row(position), own.row(position))
        return (delta.dot(delta) / x.dot(x)).squareRoot()
      }
      first.append(errors[0])
      rest += errors.dropFirst()
    }
    return (first, rest)
  }
}
