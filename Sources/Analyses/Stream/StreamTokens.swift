import HookedGPT2
import Results
import Tensors

/// How long each token's stream is and how each write changes it (group `stream`), the quantiles over tokens
/// (`stream/summary`), and what the writes add up to (`stream/growth`).
///
/// A write turns the stream by the angle φ with tan φ = ‖Δ⊥‖/(‖x‖ + Δ∥): the longer the stream, the less
/// a write of a given length can turn it. Stream lengths and ratios: Sun et al. 2025 ("The Curse of
/// Depth"), arXiv:2502.05795; Kim et al. 2025 ("Peri-LN"), arXiv:2502.02732.
struct StreamTokens: Collector {
  private let hooksInOrder: [HookName]
  private let labels: [String]
  private let axes: PromptAxes
  private var quantiles: ClassQuantiles
  private var growth: StreamGrowth

  /// A measure of every token.
  private struct Measure {
    let name: String
    let longName: String
    let units: String
    var sign = "not signed"
    let formula: String
    let reference: String
    let value: (StreamStep) -> Double
  }

  private static var measures: [Measure] {
    let depth = "arXiv:2502.05795"
    return [
      Measure(
        name: "norm", longName: "length of the stream", units: "1", formula: "|x|",
        reference: depth, value: { $0.square.squareRoot() }),
      Measure(
        name: "variance", longName: "variance of the stream's coordinates", units: "1",
        formula: "mean((x - mean(x))^2)", reference: depth, value: \.variance),
      Measure(
        name: "turn_angle", longName: "angle that the write turned the stream by",
        units: "degree", formula: "angle(x, x + D), D = the write of the sublayer before",
        reference: depth, value: \.turnAngle),
      Measure(
        name: "relative_write", longName: "length of the write over that of the stream before it",
        units: "1", formula: "|D|/|x|", reference: "arXiv:2502.02732", value: \.relativeWrite),
      Measure(
        name: "write_cosine", longName: "cosine between the write and the stream before it",
        units: "1", sign: "negative = the write shortens what is there",
        formula: "D.x/(|D| |x|)", reference: depth, value: \.writeCosine),
    ]
  }

  /// The place of the variance among the measures.
  private static let variance = 1

  init(_ model: GPT2, _ axes: PromptAxes, seed: UInt64) {
    hooksInOrder = model.config.streamHooks
    labels = model.config.streamLabels
    self.axes = axes
    quantiles = ClassQuantiles(
      measures: Self.measures.count, places: labels.count, seed: seed)
    growth = StreamGrowth(model.config)
  }

  var hooks: [HookFilter] { hooksInOrder.map { HookFilter($0) } }

  private var variables: [ResultVariable] {
    Self.measures.map {
      ResultVariable(
        $0.name, ["prompt", "stream", "pos"], .float32([]), longName: $0.longName,
        units: $0.units, sign: $0.sign,
        attributes: ["formula": .string($0.formula), "references": .string($0.reference)])
    }
  }

  private var axis: Dimension { Dimension("stream", .labels(labels)) }

  var tables: [PromptTable] {
    [
      PromptTable(
        ResultGroup(
          path: "stream", dimensions: [axes.prompt, axis, axes.position],
          variables: axes.tokenCoordinates,
          attributes: [
            "stream": .string(
              "i_pre and i_mid = before attention and MLP of block i; final_post = behind the last block, "
                + "before the final norm"),
            "write": .string(
              "the sublayer's output that made the stream: 0_mid by attention 0, 1_pre by MLP 0, ...; "
                + "0_pre has none"),
          ]), variables: variables)
    ]
  }

  mutating func collect(_ batch: CollectedBatch, into sink: any PromptSink) throws {
    let (measures, longest) = (Self.measures, axes.longest)
    for prompt in 0..<batch.count {
      let length = batch.length(prompt)
      let admitted = quantiles.admit(length: length)
      let streams = try hooksInOrder.map { try batch.cache.tensor($0, prompt: prompt) }
      let final = streams[streams.count - 1]
      var values = measures.map { _ in
        [Float](repeating: .nan, count: labels.count * longest)
      }
      for (place, stream) in streams.enumerated() {
        let steps = streamSteps(
          stream, from: place > 0 ? streams[place - 1] : nil, along: final)
        if let bad = steps.firstIndex(where: { !$0.square.isFinite || !$0.variance.isFinite }) {
          throw AnalysisError.nonFinite(
            analysis: "stream",
            what: "the stream \(labels[place]) of prompt \(batch.firstPrompt + prompt) at position "
              + "\(bad)")
        }
        for (measure, definition) in measures.enumerated() {
          let row = Tensor(steps.map { Float(definition.value($0)) }, shape: [length])
          quantiles.put(measure, of: place, row.span, from: 0, admitted)
          values[measure].replaceSubrange(
            place * longest..<place * longest + length, with: row.scalars)
        }
        growth.add(steps, to: place)
        if place > 0, place % 2 == 0 {
          growth.addBlock(streamSteps(stream, from: streams[place - 2]), layer: place / 2 - 1)
        }
      }
      for (measure, values) in zip(measures, values) {
        try sink.take("stream", measure.name, prompt: batch.firstPrompt + prompt, values)
      }
    }
  }

  func findings() -> [ResultGroup] {
    [
      quantiles.summary("stream/summary", axis, variables),
      growth.group(medians: quantiles.values(Self.variance, [0.5])),
    ]
  }
}
