import Foundation
import NormLens
import TestSupport
import Testing

/// What the commands write, read back.
@Suite struct FileTests {
  static let prompts = ["When Mary and John went to the store", "The capital of France is"]

  private var promptArguments: [String] { Self.prompts.flatMap { ["--prompt", $0] } }

  /// The values of `hook` for one prompt as the file has them, without what is past its end.
  private func recorded(
    _ group: ResultGroup, _ hook: HookName, prompt: Int, shape: [Int]
  ) throws -> [Double] {
    let variable = try #require(group[variable: hook.site.rawValue], "\(hook)")
    let values = try #require(variable.values.doubles)
    var extents = Array(group.shape(of: variable).dropFirst())
    var start = prompt
    if let layer = hook.layer {
      // Layers 0, 1, 2, … are read back as plain indices.
      let place =
        switch group[dimension: "layer"]?.coordinates {
        case .integers(let layers)?: try #require(layers.firstIndex(of: layer))
        default: layer
        }
      start = start * extents.removeFirst() + place
    }
    return part(values, start, extents, shape)
  }

  /// The corner `shape` of the array number `start` among arrays of `extents`; the rest of it must
  /// be NaN.
  private func part(
    _ values: [Double], _ start: Int, _ extents: [Int], _ shape: [Int]
  ) -> [Double] {
    let count = extents.reduce(1, *)
    var inside: [Double] = []
    var outsideIsEmpty = true
    for offset in 0..<count {
      var (rest, isInside) = (offset, true)
      for (extent, limit) in zip(extents, shape).reversed() {
        if rest % extent >= limit { isInside = false }
        rest /= extent
      }
      let value = values[start * count + offset]
      if isInside { inside.append(value) } else if !value.isNaN { outsideIsEmpty = false }
    }
    #expect(outsideIsEmpty, "cells past a prompt's end must be NaN")
    return inside
  }

  /// Compares every hook of a cache file with a run of each prompt alone.
  private func compare(
    _ path: String, _ hooks: [HookName], positions: PositionSelection = .all, title: String
  ) throws {
    let model = try GPT2.load(Fixtures.bundled("mini"))
    let group = try ResultFile.read(path).group("activations")
    let comparison = Comparison(title, relative: 1e-5)
    for (index, text) in Self.prompts.enumerated() {
      let (_, cache) = try model.runWithCache(
        model.tokens(text), hooks: hooks.map { HookFilter($0) }, positions: positions)
      for hook in hooks {
        let tensor = try cache.tensor(hook, prompt: 0)
        var shape = tensor.shape
        if hook.site.axes.last == "1" { shape.removeLast() }
        comparison.check(
          "\(hook) of prompt \(index)",
          try recorded(group, hook, prompt: index, shape: shape),
          tensor.scalars.map(Double.init))
      }
    }
    comparison.report("activations")
  }

  /// Compares two lists of numbers that may be NaN at the same places.
  private func compare(
    _ comparison: Comparison, _ label: String, _ a: [Double], _ b: [Double]
  ) {
    #expect(a.map(\.isNaN) == b.map(\.isNaN), "\(label)")
    comparison.check(label, a.map { $0.isNaN ? 0 : $0 }, b.map { $0.isNaN ? 0 : $0 })
  }

  // MARK: activations

  @Test func cacheOfAllHooks() throws {
    let directory = try TemporaryDirectory()
    let text = try Command.succeed(
      ["cache", "mini"] + promptArguments + ["--hooks", "all", "-o", "c.h5"], in: directory)
    #expect(text.hasPrefix("wrote c.h5: 74 hooks, 2 prompts, "))
    let path = directory.file("c.h5")
    let hooks = HookName.all(nLayers: 4)
    try compare(path, hooks, title: "cache of all hooks")

    let result = try ResultFile.read(path)
    let group = try result.group("activations")
    let model = try GPT2.load(Fixtures.bundled("mini"))
    #expect(group[dimension: "prompt"]?.count == 2)
    #expect(group[dimension: "pos"]?.count == 9)
    for hook in hooks {
      let variable = try #require(group[variable: hook.site.rawValue])
      let expected =
        ["prompt"] + (hook.site.isPerLayer ? ["layer"] : []) + hook.site.axes.filter { $0 != "1" }
      #expect(variable.dimensions == expected)
      let name = hook.rawValue.replacing(#/blocks\.\d+\./#, with: "blocks.{layer}.")
      #expect(variable.attributes["tl_hook"] == .string(name))
      for attribute in ["units", "long_name", "sign_convention"] {
        #expect(variable.attributes[attribute] != nil, "\(hook) \(attribute)")
      }
    }
    let france = ["<|endoftext|>", "The", " capital", " of", " France", " is", "", "", ""]
    if case .strings(let tokens)? = group[variable: "token"]?.values {
      #expect(Array(tokens.prefix(3)) == ["<|endoftext|>", "When", " Mary"])
      #expect(Array(tokens[9...]) == france)
    } else {
      Issue.record("no tokens")
    }
    let facts = result.provenance.facts
    #expect(facts["weights_sha256"] == .string(model.identity.weightsSHA256))
    #expect(facts["model_name"] == .string("mini"))
    #expect(facts["normalization"] == .string("layernorm"))
    #expect(facts["prepend_bos"] == .integer(1))
    #expect(facts["command_line"]?.description.contains("cache mini --prompt 'When Mary") == true)

    // The raw arrays are as the table of hooks says.
    let file = try HDF5File(path: path)
    #expect(try file.info("activations/resid_pre").shape == [2, 4, 9, 192])
    #expect(try file.info("activations/pattern").shape == [2, 4, 6, 9, 9])
    #expect(try file.info("activations/ln_final_scale").shape == [2, 9])
    let raw = try file.tensor("activations/embed")
    #expect(raw.shape == [2, 9, 192] && raw[0, 8, 0].isFinite && raw[1, 6, 0].isNaN)
  }

  @Test func cacheOfNamedHooks() throws {
    // Layers are the union of what was selected; slabs not selected are NaN.
    let directory = try TemporaryDirectory()
    try Command.succeed(
      ["cache", "mini"] + promptArguments
        + ["--hooks", "resid_pre1,pattern3,blocks.1.attn.hook_result,scale-1ln2,embed"]
        + ["-o", "c.h5"], in: directory)
    let hooks = try ["resid_pre1", "pattern3", "result1", "scale3ln2", "embed"].map {
      try HookName(parsing: $0, nLayers: 4)
    }
    try compare(directory.file("c.h5"), hooks, title: "cache of named hooks")
    let group = try ResultFile.read(directory.file("c.h5")).group("activations")
    #expect(group[dimension: "layer"]?.coordinates == .integers([1, 3]))
    let stream = try group.doubles("resid_pre")
    let width = 9 * 192
    for prompt in 0..<2 {
      let unselected = stream[(prompt * 2 + 1) * width..<(prompt * 2 + 2) * width]
      #expect(!unselected.contains { !$0.isNaN })
    }
    let names = Set(group.variables.filter { !$0.isCoordinate }.map(\.name))
    #expect(names == ["resid_pre", "pattern", "result", "ln2_scale", "embed"])
  }

  static let selected: [(list: String, layers: String?, hooks: [String])] = [
    ("resid_pre", "0,2-3", ["resid_pre0", "resid_pre2", "resid_pre3"]),
    ("resid_post,embed", "-1", ["resid_post3", "embed"]),
    ("blocks.*.attn.hook_z", nil, ["z0", "z1", "z2", "z3"]),
    ("blocks.2.ln*", nil, ["scale2ln1", "normalized2ln1", "scale2ln2", "normalized2ln2"]),
    ("*hook_resid_mid", "1-2", ["resid_mid1", "resid_mid2"]),
    ("blocks.*.hook_mlp_in", "1", ["mlp_in1"]),
    ("k1,key1,blocks.1.attn.hook_k", nil, ["k1"]),
    ("*.hook_scale", "0", ["scale0ln1", "scale0ln2", "ln_final_scale"]),
  ]

  @Test(arguments: selected.map(\.list))
  func selections(_ list: String) throws {
    let directory = try TemporaryDirectory()
    let item = try #require(Self.selected.first { $0.list == list })
    try Command.succeed(
      ["cache", "mini"] + promptArguments + ["--hooks", list, "-o", "c.h5"]
        + (item.layers.map { ["--layers", $0] } ?? []), in: directory)
    let hooks = try item.hooks.map { try HookName(parsing: $0, nLayers: 4) }
    try compare(directory.file("c.h5"), hooks, title: "cache of \(list)")
    let group = try ResultFile.read(directory.file("c.h5")).group("activations")
    #expect(
      Set(group.variables.filter { !$0.isCoordinate }.map(\.name))
        == Set(hooks.map(\.site.rawValue)))
    let layers = Set(hooks.compactMap(\.layer)).sorted()
    #expect((group[dimension: "layer"]?.count ?? 0) == layers.count)
  }

  @Test func positions() throws {
    let directory = try TemporaryDirectory()
    try Command.succeed(
      ["cache", "mini"] + promptArguments
        + ["--hooks", "resid_post,pattern,scale0ln1", "--positions", "1,-1", "-o", "c.h5"],
      in: directory)
    var hooks = [HookName(.ln1Scale, layer: 0)]
    for layer in 0..<4 {
      hooks += [HookName(.residPost, layer: layer), HookName(.pattern, layer: layer)]
    }
    try compare(
      directory.file("c.h5"), hooks, positions: .at([1, -1]), title: "cache of positions")
    // A list may begin with a minus sign.
    try Command.succeed(
      ["cache", "mini"] + promptArguments
        + ["--hooks", "resid_post", "--layers", "-1", "--positions", "-2,0", "-o", "d.h5"],
      in: directory)
    try compare(
      directory.file("d.h5"), [HookName(.residPost, layer: 3)], positions: .at([-2, 0]),
      title: "cache of the last but one position")
    let group = try ResultFile.read(directory.file("c.h5")).group("activations")
    #expect(group[variable: "position"]?.values == .integers([1, 8, 1, 5]))
    #expect(group[variable: "token"]?.values == .strings(["When", " store", "The", " is"]))
  }

  @Test func batchesDoNotMatter() throws {
    // One prompt at a time and all at once write the same numbers.
    let directory = try TemporaryDirectory()
    for (name, memory) in [("one.h5", "1B"), ("all.h5", "1GB")] {
      try Command.succeed(
        ["cache", "mini"] + promptArguments
          + ["--hooks", "all", "--max-memory", memory, "-o", name, "--quiet"], in: directory)
    }
    let one = try ResultFile.read(directory.file("one.h5")).group("activations")
    let all = try ResultFile.read(directory.file("all.h5")).group("activations")
    let comparison = Comparison("cache in batches", relative: 1e-5)
    #expect(one.variables.map(\.name) == all.variables.map(\.name))
    for variable in one.variables where variable.values.doubles != nil {
      compare(
        comparison, variable.name, try one.doubles(variable.name), try all.doubles(variable.name))
    }
    comparison.report("variables")
  }

  // MARK: logits, analyses

  @Test func logits() throws {
    let directory = try TemporaryDirectory()
    let text = try Command.succeed(
      ["run", "mini", "--top", "1"] + promptArguments + ["--logits", "-o", "l.h5"], in: directory)
    #expect(text.hasSuffix("wrote l.h5\n"))
    try Command.succeed(
      ["run", "mini", "--quiet"] + promptArguments
        + ["--zero", "L2H1", "--edit", "3_mlp_out@-1*0.5", "--logits", "-o", "changed.h5"],
      in: directory)
    let model = try GPT2.load(Fixtures.bundled("mini"))
    let comparison = Comparison("run --logits", relative: 1e-5)
    let changes: [Intervention] = [
      .zero(.z(layer: 2, head: 1)), .edit(HookFilter.mlpOut(3).at(-1)) { $0 = $0 * 0.5 },
    ]
    for (name, interventions) in [("l.h5", []), ("changed.h5", changes)] {
      let group = try ResultFile.read(directory.file(name)).group("logits")
      let values = try group.doubles("logits")
      #expect(group.shape(of: try #require(group[variable: "logits"])) == [2, 9, 2048])
      for (index, text) in Self.prompts.enumerated() {
        let expected = try model.run(model.tokens(text), interventions: interventions)
        comparison.check(
          "\(name), prompt \(index)", part(values, index, [9, 2048], expected.shape),
          expected.scalars.map(Double.init))
      }
    }
    comparison.report("prompts")
  }

  @Test func analysesAreWrittenAsComputed() throws {
    let directory = try TemporaryDirectory()
    let model = try GPT2.load(Fixtures.bundled("mini"))
    let items = try Self.prompts.map {
      Prompt(
        try model.tokens($0), answer: try model.tokenizer.singleToken(" Mary"),
        wrong: try model.tokenizer.singleToken(" John"))
    }
    let comparison = Comparison("dla and lens files", relative: 1e-5)
    for (command, group, more, expected) in [
      (
        "dla", "dla", ["--wrong", " John", "--neurons"],
        try DirectLogitAttribution(neurons: true).run(model, items)
      ),
      (
        "lens", "logit_lens", [],
        try LogitLens().run(model, items.map { Prompt($0.tokens, answer: $0.answer) })
      ),
    ] {
      let file = "\(command).h5"
      let text = try Command.succeed(
        [command, "mini", "--answer", " Mary", "-o", file] + promptArguments + more, in: directory)
      #expect(text.hasSuffix("wrote \(file)\n"))
      let found = try ResultFile.read(directory.file(file)).group(group)
      let computed = try expected.group(group)
      #expect(found.variables.map(\.name) == computed.variables.map(\.name))
      // Rounding is all that a closure error is.
      for variable in computed.variables where variable.name != "closure_error" {
        let read = try #require(found[variable: variable.name])
        #expect(read.dimensions == variable.dimensions)
        #expect(read.attributes == variable.attributes)
        if let a = read.values.doubles, let b = variable.values.doubles {
          compare(comparison, variable.name, a, b)
        } else {
          #expect(read.values == variable.values, "\(variable.name)")
        }
      }
    }
    comparison.report("variables")
  }

  @Test func showPrintsEveryResult() throws {
    let directory = try TemporaryDirectory()
    let prompts = promptArguments
    let results: [(file: String, title: String, arguments: [String])] = [
      (
        "dla.h5", "Direct logit attribution of mini",
        ["dla", "mini"] + prompts + ["--answer", " Mary"]
      ),
      ("lens.h5", "Logit lens of mini", ["lens", "mini"] + prompts),
      (
        "cache.h5", "Activations of mini",
        ["cache", "mini"] + prompts + ["--hooks", "pattern,embed"]
      ),
      ("logits.h5", "Logits of mini", ["run", "mini", "--logits"] + prompts),
    ]
    for (file, title, arguments) in results {
      try Command.succeed(arguments + ["-o", file, "--quiet"], in: directory)
      let text = try Command.succeed(["show", file], in: directory)
      let result = try ResultFile.read(directory.file(file))
      #expect(text.hasPrefix(title + "\n"))
      #expect(text.contains("weights_sha256: ") && text.contains("command_line: normlens "))
      for group in result.groups {
        #expect(text.contains("[\(group.path)]"))
        for variable in group.variables {
          #expect(text.contains("\n\(variable.name) "), "\(file) \(variable.name)")
        }
      }
      let json = try Command.succeed(["show", file, "--json"], in: directory)
      let object = try JSONSerialization.jsonObject(with: Data(json.utf8)) as? [String: Any]
      #expect(object?["title"] as? String == title)
    }
    for (name, arguments) in [
      ("show-head", ["dla.h5", "dla/head_contribution"]),
      ("show-top-token", ["lens.h5", "logit_lens/top_token"]),
      ("show-pattern", ["cache.h5", "activations/pattern", "--rows", "8", "--columns", "3"]),
    ] {
      try Snapshot.expect(
        try Command.succeed(["show"] + arguments, in: directory), name, columnsMayMove: true)
    }
  }

  // MARK: model files

  @Test func initIsDeterminedByItsSeed() throws {
    let directory = try TemporaryDirectory()
    func make(_ name: String, _ seed: String, biases: String = "0.1") throws -> Data {
      let text = try Command.succeed(
        [
          "init", "--config", "2x3x24", "--vocabulary", "53", "--positions", "16", "--seed", seed,
          "--biases", biases, "-o", name,
        ], in: directory)
      #expect(text.hasPrefix("wrote \(name): "))
      return try Data(contentsOf: URL(fileURLWithPath: directory.file(name)))
    }
    let first = try make("a.h5", "1")
    // The file's bytes, too: nothing in it tells when it was written.
    Thread.sleep(forTimeInterval: 1.1)
    #expect(try make("b.h5", "1") == first)
    #expect(try make("a.h5", "1") != make("c.h5", "2"))
    let (a, b, c) = (
      try GPT2.load(directory.file("a.h5")), try GPT2.load(directory.file("b.h5")),
      try GPT2.load(directory.file("c.h5"))
    )
    #expect(a.identity.weightsSHA256 == b.identity.weightsSHA256)
    #expect(a.identity.weightsSHA256 != c.identity.weightsSHA256)
    #expect(a.config.nLayers == 2 && a.config.nHeads == 3 && a.config.dModel == 24)
    #expect(a.config.nCtx == 16 && a.config.dVocab == 53 && a.config.normalization == .layerNorm)
    #expect(try a.run([1, 2, 3]).isFinite)
    // GPT-2's own beginning: no biases, gains of one, standard deviation 0.02.
    _ = try make("plain.h5", "1", biases: "0")
    let plain = try GPT2.load(directory.file("plain.h5")).weights
    #expect(plain.blocks.allSatisfy { $0.b_QKV.maximumMagnitude == 0 && $0.ln1?.gain[0] == 1 })
    let values = plain.blocks[0].W_in.scalars.map(Double.init)
    let deviation = (values.reduce(0) { $0 + $1 * $1 } / Double(values.count)).squareRoot()
    #expect(abs(deviation - 0.02) < 0.001)
    let text = try Command.succeed(["inspect", "a.h5"], in: directory)
    #expect(text.contains("self_check") && text.contains("passed"))
  }

  @Test(arguments: Fixtures.checkpoints)
  func convertedCheckpointsComputeTheSame(_ name: String) throws {
    let (directory, golden) = (try TemporaryDirectory(), try Golden.open(name))
    try directory.copy(Fixtures.checkpoint(name), as: name)
    let text = try Command.succeed(["convert", name, "-o", "m.h5"], in: directory)
    #expect(text.hasPrefix("wrote m.h5: \(name), "))
    let (model, source) = (
      try GPT2.load(directory.file("m.h5")), try GPT2.load(directory.file(name))
    )
    #expect(model.config == source.config)
    #expect(model.identity.weightsSHA256 == source.identity.weightsSHA256)
    #expect(model.identity.weightProcessing == source.identity.weightProcessing)
    let comparison = Comparison("\(name) converted")
    for prompt in Golden.hookPrompts {
      comparison.check(prompt, try model.run(golden.tokens(prompt)), try golden.logits(prompt))
    }
    comparison.report("prompts")
    // Once more through a model file: nothing changes any more.
    try Command.succeed(["convert", "m.h5", "-o", "again.h5", "--quiet"], in: directory)
    let again = try GPT2.load(directory.file("again.h5"))
    #expect(again.identity.weightsSHA256 == model.identity.weightsSHA256)
    let tokens = try golden.tokens("b")
    #expect(try again.run(tokens).scalars == model.run(tokens).scalars)
  }

  @Test(arguments: ["mini", "mini-lnfree"])
  func halfPrecision(_ name: String) throws {
    let directory = try TemporaryDirectory()
    try Command.succeed(
      ["convert", name, "-o", "half.h5", "--dtype", "float16", "--name", "half"], in: directory)
    let path = directory.file("half.h5")
    let (half, full) = (try GPT2.load(path), try GPT2.load(Fixtures.bundled(name)))
    #expect(half.identity.name == "half" && half.config == full.config)
    let tokens = try full.tokens(OutputTests.ioi)
    #expect(try half.tokens(OutputTests.ioi) == tokens)
    // Eleven bits of each weight: a thousand times float32's error, and not the same numbers.
    let comparison = Comparison("\(name) in float16", relative: 1e-2)
    comparison.check("logits", try half.run(tokens), try full.run(tokens))
    comparison.report("run")
    #expect(comparison.maximum > 1e-6)
    func size(_ path: String) throws -> Int {
      try FileManager.default.attributesOfItem(atPath: path)[.size] as? Int ?? 0
    }
    let (weights, saved) = (
      full.weights.parameterCount, try size(Fixtures.bundled(name)) - size(path)
    )
    #expect(abs(saved - 2 * weights) < weights / 10)
    let text = try Command.succeed(["inspect", "half.h5"], in: directory)
    #expect(text.contains("self_check") && text.contains("passed"), "\(text)")
  }

  /// Where the trained checkpoints lie beside the package.
  static let trained = "\(Fixtures.repository)/../shared/models/mini"

  @Test(
    .enabled(
      if: FileManager.default.fileExists(atPath: "\(trained)/model.safetensors"),
      "the trained checkpoint does not lie in ../shared/models/mini"))
  func theBundledModelIsTheTrainedOne() throws {
    let directory = try TemporaryDirectory()
    try Command.succeed(["convert", Self.trained, "-o", "mini.h5", "--quiet"], in: directory)
    let (converted, bundled) = (
      try GPT2.load(directory.file("mini.h5")), try GPT2.load(Fixtures.bundled("mini"))
    )
    #expect(converted.identity.weightsSHA256 == bundled.identity.weightsSHA256)
    #expect(converted.config == bundled.config)
  }
}
