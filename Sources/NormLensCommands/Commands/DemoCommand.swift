import ArgumentParser
import Foundation
import NormLens

/// `normlens demo`: the tour on the bundled models.
struct DemoCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "demo", abstract: "A tour on the bundled models; writes normlens-demo/.")

  @Option(name: .shortAndLong, help: "The directory to write to.", completion: .directory)
  var output = "normlens-demo"
  @OptionGroup var compute: ComputeOptions

  func run() throws {
    compute.apply()
    Interruption.install()
    let clock = ContinuousClock()
    let start = clock.now
    do {
      try FileManager.default.createDirectory(
        atPath: output, withIntermediateDirectories: true)
    } catch {
      let reason =
        PathKind(output) == .file ? "it is a file" : "no directory can be made there"
      throw CommandError("\(output): cannot be created: \(reason)", status: .cannotCreate)
    }
    let models = try BundledModels.names.map { try GPT2.load($0) }
    var files = try attribution(models)
    files += try lens(models)
    files += try patching(models)
    files += try estimates(models)
    files += try geometry(models)
    files += try speeches(models)
    files += try patterns(models)
    let page = try report(files)
    section("The files")
    Terminal.print(files.map { "\($0.path)  \($0.what)" }.joined(separator: "\n"))
    Terminal.print(
      """

      Each is self-describing HDF5. To read one in Python:

        import xarray
        dla = xarray.open_dataset("\(output)/dla.h5", group="dla", engine="h5netcdf")
        print(dla["head_contribution"].sel(model="mini").mean("prompt"))

      or here: normlens show \(output)/dla.h5

      The report: open \(page) in a browser.
      """)
    let seconds = (clock.now - start) / .seconds(1)
    Terminal.print("\ndone in \(fixed(seconds, 1)) s")
  }

  /// A result file that the tour has written.
  struct Written {
    let path: String
    let what: String
  }

  func section(_ title: String) {
    Terminal.print("\n" + Terminal.bold(title) + "\n")
  }

  /// Writes what one analysis found of each model as one file, the models side by side.
  private func write(
    _ results: [ResultSet], of models: [GPT2], _ name: String, _ what: String, seed: UInt64? = nil
  ) throws -> [Written] {
    var result = try TwinRun(models).combine(results)
    result.title = what.prefix(1).uppercased() + what.dropFirst()
    result.provenance = result.provenance.merging(runProvenance(prependBOS: true, seed: seed))
    let path = "\(output)/\(name).h5"
    try ResultFile.write(result, to: path)
    return [Written(path: path, what: what)]
  }

  // MARK: direct logit attribution

  /// Attributes the indirect-object prompts in each model and tells how wrong the usual
  /// attribution is.
  private func attribution(_ models: [GPT2]) throws -> [Written] {
    section("1. Direct logit attribution is exact without LayerNorm, and is not with it")
    var table = TextTable([
      ("model", .left), ("LayerNorm", .left), ("right", .right), ("logit difference", .right),
      ("NMAE pooled", .right), ("NMAE head mean", .right), ("closure error", .right),
    ])
    var results: [ResultSet] = []
    var count = 0
    var strongest: [String] = []
    for model in models {
      let prompts = try indirectObject(model)
      count = prompts.count
      let result = try DirectLogitAttribution().run(model, prompts)
      results.append(result)

      func values(_ name: String) -> [Double] {
        result[group: "dla", variable: name]?.values.doubles ?? []
      }
      let target = values("target")
      let right = target.filter { $0 > 0 }.count
      table.add([
        model.identity.name, model.config.normalization == .none ? "removed" : "yes",
        "\(right)/\(count)", fixed(target.reduce(0, +) / Double(count), 2),
        fixed(values("nmae_pooled").first ?? .nan, 2) + " %",
        fixed(values("nmae_head_mean").first ?? .nan, 2) + " %",
        compact(values("closure_error").map(Swift.abs).max() ?? .nan),
      ])
      strongest.append(
        "  \(model.identity.name): \(strongestHeads(values("head_contribution"), model.config, count))"
      )
    }
    Terminal.print(
      """
      \(count) prompts such as "\(Self.example)": which heads write the answer's logit?
      The usual attribution freezes the final LayerNorm's scale; the direct effect takes a head away
      and lets the scale follow. NMAE is their distance, relative to the direct effect.

      \(table.text)

      strongest heads, mean attribution in logits:
      \(strongest.joined(separator: "\n"))
      """)
    return try write(results, of: models, "dla", "attribution of \(count) prompts")
  }

  private func strongestHeads(_ head: [Double], _ config: GPT2Config, _ prompts: Int) -> String {
    let width = config.nLayers * config.nHeads
    let means = (0..<width).map { column in
      (0..<prompts).reduce(0) { $0 + head[$1 * width + column] } / Double(prompts)
    }
    return (0..<width).sorted { Swift.abs(means[$0]) > Swift.abs(means[$1]) }.prefix(4)
      .map { "L\($0 / config.nHeads)H\($0 % config.nHeads) \(fixed(means[$0], 2, signed: true))" }
      .joined(separator: "  ")
  }

  static let example = "When Mary and John went to the store, John gave a drink to"

  /// Indirect-object prompts: 12 pairs of names, each name once the giver, in two places.
  private func indirectObject(_ model: GPT2) throws -> [Prompt] {
    let pairs = [
      (" Mary", " John"), (" Alice", " Tom"), (" Anna", " Mark"), (" Carol", " David"),
      (" Emma", " Frank"), (" Grace", " Henry"), (" Kate", " Jack"), (" Laura", " Paul"),
      (" Rose", " Peter"), (" Sarah", " James"), (" Alice", " Mark"), (" Emma", " John"),
    ]
    let scenes = [("store", "drink"), ("park", "book")]
    let tokenizer = try model.tokenizer
    var prompts: [Prompt] = []
    for (first, second) in pairs {
      for (giver, receiver) in [(first, second), (second, first)] {
        for (place, object) in scenes {
          let text = "When\(first) and\(second) went to the \(place),\(giver) gave a \(object) to"
          prompts.append(
            Prompt(
              try model.tokens(text), answer: try tokenizer.singleToken(receiver),
              wrong: try tokenizer.singleToken(giver)))
        }
      }
    }
    return prompts
  }

  // MARK: logit lens

  private func lens(_ models: [GPT2]) throws -> [Written] {
    section("2. The logit lens: where in the stream does the answer appear?")
    let text = "The capital of France is"
    var results: [ResultSet] = []
    var table = TextTable(
      [("stream", .left)] + models.map { ("\($0.identity.name): rank", .right) }
        + models.map { _ in ("prediction", .left) })
    var columns: [[(String, String)]] = []
    var streams: [String] = []
    for model in models {
      let answer = try model.tokenizer.singleToken(" Paris")
      let result = try LogitLens().run(model, [Prompt(try model.tokens(text), answer: answer)])
      results.append(result)
      streams = model.config.streamLabels
      columns.append(try lastColumn(result, streams.count))
    }
    for index in streams.indices {
      table.add([streams[index]] + columns.map { $0[index].0 } + columns.map { $0[index].1 })
    }
    Terminal.print("\"\(text)\" → \" Paris\", read at the last position\n\n\(table.text)")
    return try write(results, of: models, "lens", "logit lens of one prompt")
  }

  // MARK: activation patching

  /// Puts the clean name back, activation by activation.
  private func patching(_ models: [GPT2]) throws -> [Written] {
    section("3. Activation patching: where is the name that decides?")
    var results: [ResultSet] = []
    var columns: [[String]] = []
    var strongest: [String] = []
    var (count, layers, example) = (0, 0, PromptText(clean: ""))
    for model in models {
      let set = try PromptSet.ioi(model: model, count: 32, seed: 1, templates: [9, 10, 11, 12])
      let pairs = try set.pairs(model)
      (count, example) = (pairs.count, set.prompts[0])
      var patching = ActivationPatching(of: [.residPre, .headZ])
      patching.positions = .at([.label("S2"), .label("END")])
      let result = try patching.run(model, pairs)
      results.append(result)

      func values(_ site: String) -> [Double] {
        result[group: "patch/activation", variable: "\(site)_normalized"]?.values.doubles ?? []
      }
      columns.append(values("resid_pre").map { fixed(Swift.abs($0) < 0.005 ? 0 : $0, 2) })
      strongest.append(
        "  \(model.identity.name): \(strongestHeads(values("head_z"), model.config, 1))")
      layers = max(layers, model.config.nLayers)
    }
    var table = TextTable(
      [("stream before", .left)]
        + models.flatMap { model in
          ["S2", "END"].map { ("\(model.identity.name): \($0)", TextTable.Alignment.right) }
        })
    for layer in 0..<layers {
      table.add(["layer \(layer)"] + columns.flatMap { $0[2 * layer..<2 * layer + 2] })
    }
    Terminal.print(
      """
      \(count) pairs such as "\(example.clean)"
      and "\(example.corrupted ?? "")": the second name (S2) decides.
      The corrupted run, with one vector of the clean run's stream put back: 1 restores the clean answer.

      \(table.text)

      strongest heads when their output is put back:
      \(strongest.joined(separator: "\n"))
      """)
    return try write(
      results, of: models, "patch", "activation patching of \(count) prompt pairs", seed: 0)
  }

  // MARK: attribution and relevance

  /// Estimates every cell of a sweep from one backward pass and holds that against the sweep.
  private func estimates(_ models: [GPT2]) throws -> [Written] {
    section("4. Attribution and relevance: the same map from one backward pass?")
    let corrupted = Self.example.replacing("John gave", with: "Mary gave")
    let sweep = ActivationPatching(of: PatchSite.blocks + [.headZ])
    let methods: [AttributionPatching.Method] = [.attribution, .relevance(.relp)]
    var results: [ResultSet] = []
    var cells = 0
    var columns: [[String]] = []
    for model in models {
      let tokenizer = try model.tokenizer
      let pair = PromptPair(
        clean: try model.tokens(Self.example), corrupted: try model.tokens(corrupted),
        answer: try tokenizer.singleToken(" Mary"), wrong: try tokenizer.singleToken(" John"))
      let found = try AttributionPatching(of: sweep, by: methods).run(model, [pair])
      let result = try sweep.run(model, [pair]).compared(with: found)
      results.append(result)
      cells = sweep.sites.reduce(0) { sum, site in
        sum + site.shape(model.config, length: pair.length).reduce(1, *)
      }
      for (name, decimals) in [("pearson", 3), ("abs_error", 2)] {
        let values = result[group: "patch/agreement", variable: name]?.values.doubles ?? []
        columns.append(values.map { fixed($0, decimals) })
      }
    }
    var table = TextTable(
      [("site", .left), ("method", .left)]
        + models.flatMap { model in
          ["r", "error"].map { ("\(model.identity.name): \($0)", TextTable.Alignment.right) }
        })
    for (row, site) in sweep.sites.enumerated() {
      for (index, method) in methods.enumerated() {
        let cell = index * sweep.sites.count + row
        table.add([site.name, method.name] + columns.map { $0[cell] })
      }
    }
    Terminal.print(
      """
      "\(Self.example)", corrupted: "\(corrupted)".
      \(cells) cells patched one by one, and estimated from one backward pass: by the gradient (attribution),
      by the rules of RelP (relevance). Pearson's r over the cells; sum of |error| in shares of the whole effect.

      \(table.text)
      """)
    return try write(
      results, of: models, "estimates",
      "activation, attribution and relevance patching of one pair", seed: 0)
  }

  // MARK: LayerNorm geometry

  /// What each norm does to the stream, and what is left of it where norms were removed.
  private func geometry(_ models: [GPT2]) throws -> [Written] {
    section("5. LayerNorm geometry: what does a norm do to the stream?")
    var results: [ResultSet] = []
    var columns: [[[String]]] = []
    var count = 0
    for model in models {
      let prompts = try indirectObject(model)
      count = prompts.count
      let result = try LayerNormGeometry().run(model, prompts)
      results.append(result)

      // Of position 0 and of the others, at each norm the quantiles p05, p50, p95 over tokens.
      func quantiles(_ name: String, first: Bool, norm: Int) -> ArraySlice<Double> {
        let values = result[group: "ln_geometry/summary", variable: name]?.values.doubles ?? []
        let place = 3 * ((first ? 0 : 1) * model.normSites.count + norm)
        return values.dropFirst(place).prefix(3)
      }
      columns.append(
        model.normSites.indices.map { norm in
          let std = Array(quantiles("std", first: false, norm: norm))
          let first = Array(quantiles("std", first: true, norm: norm))
          let angle = Array(quantiles("angle_projection", first: false, norm: norm))
          return [
            std.count == 3 ? "\(fixed(std[0], 2))–\(fixed(std[2], 2))" : "–",
            first.count == 3 ? fixed(first[1], 2) : "–",
            angle.count == 3 ? fixed(angle[1], 1) : "–",
          ]
        })
    }
    var table = TextTable(
      [("norm", .left)]
        + models.flatMap { model in
          ["std", "at 0", "angle"].map {
            ("\(model.identity.name): \($0)", TextTable.Alignment.right)
          }
        })
    for (norm, site) in (models.first?.normSites ?? []).enumerated() {
      table.add([site.label] + columns.flatMap { $0[norm] })
    }
    Terminal.print(
      """
      The stream before each norm in the \(count) prompts of part 1: its standard deviation, by which LayerNorm
      divides (5th to 95th percentile of tokens at positions ≥ 1, median at position 0), and the angle in
      degrees by which taking the mean away turns it (median). Without LayerNorm only that turn is left.

      \(table.text)
      """)
    return try write(
      results, of: models, "geometry", "LayerNorm geometry of \(count) prompts", seed: 0)
  }

  /// Rank of the answer and prediction at the last position of the only prompt.
  private func lastColumn(_ result: ResultSet, _ streams: Int) throws -> [(String, String)] {
    guard let rank = result[group: "logit_lens", variable: "rank"]?.values.doubles,
      case .strings(let tokens)? = result[group: "logit_lens", variable: "top_token"]?.values
    else { throw CommandError("the lens gave no ranks", status: .data) }
    let positions = rank.count / streams
    return (0..<streams).map { stream in
      let cell = stream * positions + positions - 1
      return (fixed(rank[cell], 0), "|\(shown(tokens[cell]))|")
    }
  }
}
