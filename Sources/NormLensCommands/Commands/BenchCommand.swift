import ArgumentParser
import Foundation
import NormLens

/// `normlens bench`: each operation as a fraction of what the machine can do.
struct BenchCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "bench", abstract: "Time this machine against its own limits.",
    discussion: """
      Measures the machine's matrix-product peak and memory bandwidth, then each operation on a \
      random model, and prints the fraction of the bound: the larger of FLOPs / peak and \
      bytes / bandwidth. Median of five after a warm-up. Leave the machine alone meanwhile.

      The bound of a sweep is what remains of its work if each cell is resumed at its layer and \
      position, at the matrix-product peak measured right before and after it; work that a cell \
      does not need is skipped as well, so that more than 100 % is possible. The sweep of 10,800 \
      cells is run once, as are the passes over 64 prompts. Attribution estimates the sweeps of \
      blocks, heads and heads by position from two packed forward passes and one backward pass.
      """)

  @Option(help: "The shape of the random model.") var config = "gpt2-small"
  @Option(
    help: ArgumentHelp("Only these operations, separated by commas.", valueName: "names"))
  var only: String?
  @Option(help: "How many timed repetitions of each operation.") var repetitions = 5
  @Option(
    help: ArgumentHelp(
      "Also time this model's tokenizer, on the text of --text.", valueName: "model"),
    completion: .file())
  var tokenizer: String?
  @Option(
    help: ArgumentHelp("The text for --tokenizer, some megabytes of it.", valueName: "file"),
    completion: .file())
  var text: String?
  @Flag(
    help: """
      Time patching sweeps of longer prompts and deeper models instead: does the cost follow the \
      bound?
      """)
  var scaling = false
  @OptionGroup var memory: MemoryOptions
  @OptionGroup var compute: ComputeOptions
  @Flag(help: "Print JSON.") var json = false

  func validate() throws {
    if repetitions < 1 { throw ValidationError("--repetitions \(repetitions): expected 1 or more") }
    if (tokenizer == nil) != (text == nil) {
      throw ValidationError("--tokenizer and --text belong together: give both or none")
    }
    for name in wanted ?? [] where !names.contains(name) {
      let near = nearestText(to: name, among: names).map { "; did you mean '\($0)'?" } ?? ""
      throw ValidationError(
        "--only '\(name)': expected \(names.joined(separator: ", "))\(near)")
    }
  }

  private var names: [String] {
    [
      "open_and_first_token", "forward_1x15", "forward_8x64", "forward_1x512", "cache_all_1x512",
    ] + BenchmarkSweep.named.map(\.name) + [
      "attribution_1x15", "forward_64x256", "geometry_64x256",
      "stream_heads_64x256",
    ]
      + (tokenizer == nil ? [] : ["tokenize"])
  }

  private var wanted: [String]? { only?.split(separator: ",").map(String.init) }

  private struct Measurement {
    let name: String
    let seconds: Double
    let bound: Double
    /// Its time over that of a plain forward pass run in turn with it, and the pass' name.
    var ratios: [(forward: String, value: Double)] = []
    /// The bytes of text that it tokenizes.
    var textBytes: Int?
  }

  func run() throws {
    compute.apply()
    let config = try GPT2Config.preset(self.config)
    if scaling {
      let rows = try BenchmarkSweep.scaling(config, bytes: try memory.limit)
      return Terminal.print(json ? scalingText(rows) : scalingTable(rows))
    }
    let directory = FileManager.default.temporaryDirectory
      .appendingPathComponent("normlens-bench-\(ProcessInfo.processInfo.processIdentifier)")
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    let path = directory.appendingPathComponent("model.h5").path
    let slots = [path, directory.path].map(TemporaryFiles.register)
    defer {
      try? FileManager.default.removeItem(at: directory)
      slots.forEach(TemporaryFiles.forget)
    }
    if wanted != ["tokenize"] {
      try ModelFile.write(try Checkpoint.random(config, name: "bench", seed: 0), to: path)
    }

    let limits = MachineLimits.measure()
    var results: [Measurement] = []
    for name in names where wanted?.contains(name) ?? true {
      results.append(try measure(name, path, config, limits))
    }
    let writing = try wanted == nil ? writingSpeed(try GPT2.load(path), directory) : nil
    Terminal.print(
      json ? text(limits, results, writing) : table(limits, results, writing, config))
  }

  // MARK: operations

  private func measure(
    _ name: String, _ path: String, _ config: GPT2Config, _ limits: MachineLimits
  ) throws -> Measurement {
    func bound(_ prompts: Int, _ length: Int, extraBytes: Int = 0, allLogits: Bool = true) -> Double
    {
      let cost = Cost(config, prompts: prompts, length: length, allLogits: allLogits)
      return Swift.max(
        cost.flops / limits.sgemmFlops,
        (cost.bytes + Double(extraBytes)) / limits.bandwidth)
    }
    if name == "tokenize", let tokenizer, let text {
      let (encoder, text) = (try GPT2.load(tokenizer).tokenizer, try readText(text))
      let seconds = try median { _ = encoder.encode(text) }
      return Measurement(
        name: name, seconds: seconds, bound: Double(text.utf8.count) / limits.bandwidth,
        textBytes: text.utf8.count)
    }
    if name == "open_and_first_token" {
      let weights = 4 * Cost(config, prompts: 1, length: 1, allLogits: true).weights
      let seconds = try median {
        let model = try GPT2.load(path)
        _ = try model.run(batch: [tokens(1, config)], logits: .last)
      }
      // The checksums read every weight once, the forward pass again.
      return Measurement(
        name: name, seconds: seconds, bound: bound(1, 1, extraBytes: Int(weights)))
    }
    let model = try GPT2.load(path)
    if let sites = BenchmarkSweep.named.first(where: { $0.name == name })?.sites {
      let sweep = BenchmarkSweep(
        model: model, sites: sites, length: 15, bytes: try memory.limit)
      // One run of the long sweep tells as much: it is many walks.
      let isLong = sites.count > 3
      if !isLong { try sweep.run() }
      let (seconds, bound) = try sweep.measure(repetitions: isLong ? 1 : repetitions)
      return Measurement(name: name, seconds: seconds, bound: bound)
    }
    /// A plain pass and another operation in turn, so that a machine whose speed drifts drifts for
    /// both.
    func inTurn(
      _ forward: String, _ batch: [[Int]], bound: Double, _ body: () throws -> Void
    ) throws -> Measurement {
      let pairs = try (0..<repetitions).map { _ in
        (try time { _ = try model.run(batch: batch) }, try time(body))
      }
      return Measurement(
        name: name, seconds: middle(pairs.map(\.1)), bound: bound,
        ratios: [(forward, middle(pairs.map { $0.1 / $0.0 }))])
    }
    switch name {
    case "attribution_1x15":
      let sites = PatchSite.blocks + PatchSite.heads + PatchSite.headsByPos
      let sweep = BenchmarkSweep(
        model: model, sites: sites, length: 15, bytes: try memory.limit)
      let batch = [tokens(15, config)]
      for _ in 0..<2 {
        _ = try model.run(batch: batch)
        try sweep.attribute()
      }
      let cost = Cost(attribution: config, length: 15)
      return try inTurn(
        "forward_1x15", batch,
        bound: Swift.max(cost.flops / limits.sgemmFlops, cost.bytes / limits.bandwidth),
        sweep.attribute)
    case "forward_1x15":
      let batch = [tokens(15, config)]
      return Measurement(
        name: name, seconds: try median { _ = try model.run(batch: batch) }, bound: bound(1, 15))
    case "forward_8x64":
      let batch = (0..<8).map { tokens(64, config, first: $0) }
      return Measurement(
        name: name, seconds: try median { _ = try model.run(batch: batch) }, bound: bound(8, 64))
    case "forward_1x512":
      let batch = [tokens(512, config)]
      return Measurement(
        name: name, seconds: try median { _ = try model.run(batch: batch) }, bound: bound(1, 512))
    case "forward_64x256":
      return Measurement(
        name: name, seconds: try time { try forward(model, manyPrompts(config), logits: true) },
        bound: bound(64, 256))
    case "geometry_64x256":
      let cost = Cost(geometry: config, prompts: 64, length: 256)
      return try collection(
        name, model, bound: Swift.max(cost.flops / limits.sgemmFlops, cost.bytes / limits.bandwidth)
      ) { try LayerNormGeometry().collectors(model, $0) }
    case "stream_heads_64x256":
      let cost = Cost(streamAndHeads: config, prompts: 64, length: 256)
      return try collection(
        name, model, bound: Swift.max(cost.flops / limits.sgemmFlops, cost.bytes / limits.bandwidth)
      ) { try StreamMeasures().collectors(model, $0) + HeadMeasures().collectors(model, $0) }
    default:
      let batch = [tokens(512, config)]
      let hooks = HookName.all(nLayers: config.nLayers).map { HookFilter($0) }
      var size = 0
      func recorded() throws {
        let (_, cache) = try model.runWithCache(batch: batch, hooks: hooks)
        size = cache.byteCount
      }
      try recorded()
      return try inTurn(
        "forward_1x512", batch, bound: bound(1, 512, extraBytes: size), recorded)
    }
  }

  /// A pass over many prompts that feeds collectors, and plain passes with logits and without, in turn,
  /// twice: the machine's speed may change meanwhile.
  private func collection(
    _ name: String, _ model: GPT2, bound: Double,
    _ collectors: (PromptAxes) throws -> [any Collector]
  ) throws -> Measurement {
    let prompts = manyPrompts(model.config)
    let axes = try PromptAxes(prompts, model: model, analysis: name)
    var (plain, silent, seconds) = (0.0, 0.0, 0.0)
    for _ in 0..<2 {
      plain += try time { try forward(model, prompts, logits: true) } / 2
      silent += try time { try forward(model, prompts, logits: false) } / 2
      seconds +=
        try time {
          var collectors = try collectors(axes)
          try CollectionPass(prompts).run(model, &collectors, into: DiscardingSink())
          for collector in collectors { _ = try collector.findings() }
        } / 2
    }
    return Measurement(
      name: name, seconds: seconds, bound: bound,
      ratios: [
        ("forward_64x256", seconds / plain), ("forward_64x256 without logits", seconds / silent),
      ])
  }

  /// 64 prompts of 256 tokens.
  private func manyPrompts(_ config: GPT2Config) -> [Prompt] {
    (0..<64).map { Prompt(tokens(256, config, first: $0)) }
  }

  /// Runs prompts, eight at a time.
  private func forward(_ model: GPT2, _ prompts: [Prompt], logits: Bool) throws {
    for start in stride(from: 0, to: prompts.count, by: 8) {
      // Without a hook at its end a run without logits would not run.
      _ = try model.runWithCache(
        batch: prompts[start..<start + 8].map(\.tokens), hooks: [.residPost(.layer(-1))],
        logits: logits ? .all : .none)
    }
  }

  /// Bytes a second when activations are recorded into a file.
  private func writingSpeed(_ model: GPT2, _ directory: URL) throws -> Double {
    let path = directory.appendingPathComponent("cache.h5").path
    let prompts = [Prompt(tokens(512, model.config))]
    let recording = ActivationRecording(
      hooks: HookName.all(nLayers: model.config.nLayers).filter { $0.site != .unembedOut })
    var written = 0
    let seconds = try median(warmUp: false, repetitions: 1) {
      written = try recording.write(model, prompts, to: path)
    }
    return Double(written) / seconds
  }

  private func tokens(_ length: Int, _ config: GPT2Config, first: Int = 0) -> [Int] {
    (0..<length).map { (first * 811 + $0 * 7919 + 11) % config.dVocab }
  }

  private func median(
    warmUp: Bool = true, repetitions: Int? = nil, _ body: () throws -> Void
  ) throws -> Double {
    if warmUp { try body() }
    return middle(try (0..<(repetitions ?? self.repetitions)).map { _ in try time(body) })
  }

  private func time(_ body: () throws -> Void) throws -> Double {
    try ContinuousClock().measure { try body() } / .seconds(1)
  }

  /// Bytes of text a second.
  private func speed(_ measurement: Measurement) -> Double {
    Double(measurement.textBytes ?? 0) / measurement.seconds
  }

  private func middle(_ values: [Double]) -> Double { values.sorted()[values.count / 2] }

  /// What a forward pass must compute and read.
  private struct Cost {
    let weights: Double
    let flops: Double
    let bytes: Double

    init(_ config: GPT2Config, prompts: Int, length: Int, allLogits: Bool) {
      let (d, L, V) = (Double(config.dModel), Double(config.nLayers), Double(config.dVocab))
      let rows = Double(prompts * length)
      let block = 4 * d * d + 2 * d * Double(config.dMLP)
      weights = L * block + V * d
      // Causal attention: each query meets half of the keys on average, in scores and in values.
      let attention = 2 * L * d * rows * Double(length + 1)
      flops = 2 * rows * weights + attention
      bytes = 4 * (weights + rows * V)
    }

    /// Prompts forward without logits, the values' images of each W_O for two readers, and the second
    /// moments of each norm's input, of which half is computed.
    init(geometry config: GPT2Config, prompts: Int, length: Int) {
      let forward = Cost(config, prompts: prompts, length: length, allLogits: false)
      let (d, L) = (Double(config.dModel), Double(config.nLayers))
      let rows = Double(prompts * length)
      weights = forward.weights - Double(config.dVocab) * d
      flops =
        forward.flops - 2 * rows * Double(config.dVocab) * d + 4 * L * d * d * rows
        + (2 * L + 1) * d * d * rows
      bytes = 4 * weights
    }

    /// Prompts forward without logits; of each block the second moments of its input, of which half is
    /// computed, and those with its write, in double precision at half the speed; of each prompt and
    /// stream the Gram matrix and its reduction to tridiagonal form; the patterns' scores once more.
    init(streamAndHeads config: GPT2Config, prompts: Int, length: Int) {
      let forward = Cost(config, prompts: prompts, length: length, allLogits: false)
      let (d, L) = (Double(config.dModel), Double(config.nLayers))
      let (rows, T) = (Double(prompts * length), Double(length))
      weights = forward.weights - Double(config.dVocab) * d
      let order = Swift.min(T, d)
      flops =
        forward.flops - 2 * rows * Double(config.dVocab) * d + 2 * 3 * L * d * d * rows
        + (2 * L + 1) * Double(prompts) * (2 * T * d * order + 2 * 4 / 3 * order * order * order)
        + 2 * L * d * rows * T
      bytes = 4 * weights
    }

    /// Two prompts forward with the logits of their last tokens, then one of them backward. Backward
    /// each block's weights are multiplied once more and `W_in` twice, since the neurons are computed
    /// again; the last block's MLP, `W_O` and queries only for the last token. Attention is 5/2 of the
    /// forward one. The blocks are read from memory once each way, `W_U` once.
    init(attribution config: GPT2Config, length: Int) {
      let forward = Cost(config, prompts: 2, length: length, allLogits: false)
      let (d, m) = (Double(config.dModel), Double(config.dMLP))
      let (L, V, rows) = (Double(config.nLayers), Double(config.dVocab), Double(length))
      let block = 4 * d * d + 3 * d * m
      let attention = 2 * L * d * rows * (rows + 1)
      weights = forward.weights
      flops =
        2 * (2 * rows * (weights - V * d) + 2 * V * d) + 2 * attention
        + 2 * (rows * L * block - (rows - 1) * (block - 2 * d * d)) + 5 / 2 * attention
      bytes = 4 * (2 * (weights - V * d) + V * d)
    }
  }

  // MARK: output

  private func table(
    _ limits: MachineLimits, _ results: [Measurement], _ writing: Double?, _ config: GPT2Config
  ) -> String {
    var table = TextTable([
      ("operation", .left), ("ms", .right), ("bound ms", .right), ("of the bound", .right),
    ])
    for result in results {
      table.add([
        result.name, fixed(1e3 * result.seconds, 2), fixed(1e3 * result.bound, 2),
        fixed(100 * result.bound / result.seconds, 0) + " %",
      ])
    }
    var lines = [
      "\(Threads.count) threads, OpenBLAS \(BLAS.coreName): sgemm "
        + "\(fixed(limits.sgemmFlops / 1e9, 0)) GFLOP/s, memory "
        + "\(fixed(limits.bandwidth / 1e9, 1)) GB/s; model \(self.config)", "", table.text,
    ]
    for result in results {
      for ratio in result.ratios {
        lines.append(
          "\(result.name) / \(ratio.forward), run in turn: \(fixed(ratio.value, 2))")
      }
    }
    if let tokenizing = results.first(where: { $0.textBytes != nil }) {
      lines.append("tokenize, on one core: \(fixed(speed(tokenizing) / 1e6, 1)) MB/s")
    }
    if let writing {
      lines.append("recording into a file: \(fixed(writing / 1e9, 2)) GB/s")
    }
    return lines.joined(separator: "\n")
  }

  private func scalingTable(_ rows: [BenchmarkSweep.Scaling]) -> String {
    var table = TextTable([
      ("layers", .right), ("tokens", .right), ("s", .right), ("bound s", .right),
      ("of the bound", .right),
    ])
    for row in rows {
      table.add([
        "\(row.layers)", "\(row.length)", fixed(row.seconds, 3), fixed(row.bound, 3),
        fixed(100 * row.bound / row.seconds, 0) + " %",
      ])
    }
    return "sweep of resid_pre, \(Threads.count) threads; model \(config)\n\n" + table.text
  }

  private func scalingText(_ rows: [BenchmarkSweep.Scaling]) -> String {
    JSONText.list(
      rows.map { row in
        JSONText.object([
          ("layers", "\(row.layers)"), ("tokens", "\(row.length)"),
          ("seconds", JSONText.number(row.seconds)),
          ("bound_seconds", JSONText.number(row.bound)),
          ("fraction_of_bound", JSONText.number(row.bound / row.seconds)),
        ])
      })
  }

  private func text(
    _ limits: MachineLimits, _ results: [Measurement], _ writing: Double?
  ) -> String {
    let machine = [
      ("sgemm_peak_gflops", JSONText.number(limits.sgemmFlops / 1e9)),
      ("bandwidth_gbs", JSONText.number(limits.bandwidth / 1e9)),
      ("threads", "\(Threads.count)"), ("blas_core", JSONText.quoted(BLAS.coreName)),
    ]
    let list = results.map { result in
      JSONText.object([
        ("name", JSONText.quoted(result.name)), ("seconds", JSONText.number(result.seconds)),
        ("bound_seconds", JSONText.number(result.bound)),
        ("fraction_of_bound", JSONText.number(result.bound / result.seconds)),
      ])
    }
    var members = [("machine", JSONText.object(machine)), ("results", JSONText.list(list))]
    if let tokenizing = results.first(where: { $0.textBytes != nil }) {
      members.append(("tokenize_mbs", JSONText.number(speed(tokenizing) / 1e6)))
    }
    if let writing { members.append(("writing_gbs", JSONText.number(writing / 1e9))) }
    return JSONText.object(members)
  }
}
