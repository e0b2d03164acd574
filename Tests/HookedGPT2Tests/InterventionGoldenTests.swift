import NormLens
import TestSupport
import Testing

/// Every site × {replace, add, zero, mean} × {whole, part} against the float64 reference.
@Suite struct InterventionGoldenTests {
  static let checkpoints = ["tiny-ln", "tiny-lnfree"]

  /// One golden intervention.
  struct Case {
    var index: String
    var name: HookName
    var op: String
    var target: HookFilter
    var positions: [Int]?
    var head: Int?
    var value: GoldenArray?
    var logits: GoldenArray
    var isFinite: Bool

    init(_ golden: Golden, _ index: String, _ model: GPT2) throws {
      let path = "interventions/\(index)"
      self.index = index
      op = try golden.text("op", of: path)
      isFinite = try golden.text("finite", of: path) == "true"
      logits = try golden.array("\(path)/logits")
      value = try golden.contains("\(path)/value") ? golden.array("\(path)/value") : nil
      let positions = try golden.text("positions", of: path)
      self.positions =
        positions.isEmpty ? nil : positions.split(separator: ",").compactMap { Int($0) }
      let head = try golden.text("head", of: path)
      self.head = head == "-1" ? nil : Int(head)
      name = try HookName(
        parsing: golden.text("site", of: path), nLayers: model.config.nLayers)
      target = HookFilter(name)
      target.head = self.head
      if let positions = self.positions { target.positions = .at(positions) }
    }

    var label: String {
      "\(index) \(op) \(name) positions \(positions.map { "\($0)" } ?? "all") head \(head ?? -1)"
    }

    var tensor: Tensor? {
      value.map { Tensor($0.values.map { Float($0) }, shape: $0.shape) }
    }

    func intervention(prompt: Int? = nil) -> Intervention {
      switch (op, tensor) {
      case ("replace", let value?): .replace(target, with: value, prompt: prompt)
      case ("add", let value?): .add(target, value, prompt: prompt)
      case ("zero", _): .zero(target, prompt: prompt)
      default: .mean(target, prompt: prompt)
      }
    }

    /// The same change written as a closure over the whole activation, by different code: indices
    /// are spelled out here.
    var edit: Intervention {
      let (op, value, attention) = (self.op, tensor, name.site.isAttention)
      return .edit(target) { x in
        let shape = x.shape
        let width = shape[shape.count - 1]
        let length = attention ? shape[1] : shape[0]
        let heads = shape.count == 2 ? 1 : attention ? shape[0] : shape[1]
        let before = x.scalars
        for head in 0..<heads {
          for i in 0..<width {
            func place(_ position: Int) -> Int {
              (attention ? head * length + position : position * heads + head) * width + i
            }
            let column = (0..<length).map { Double(before[place($0)]) }
            let mean = Float(column.reduce(0, +) / Double(length))
            for position in 0..<length {
              let at = place(position)
              let new: Float =
                switch op {
                case "replace": value!.scalars[at]
                case "add": before[at] + value!.scalars[at]
                case "zero": 0
                default: mean
                }
              x.withUnsafeMutableBufferPointer { $0[at] = new }
            }
          }
        }
      }
    }
  }

  static func cases(_ name: String, _ model: GPT2) throws -> [Case] {
    let golden = try Golden.open(name)
    return try golden.names(in: "interventions").map { try Case(golden, $0, model) }
  }

  /// Holds one run against its golden logits.
  private func check(
    _ comparison: Comparison, _ item: Case, _ logits: Tensor, _ unchanged: GoldenArray
  ) {
    if item.isFinite {
      comparison.check(item.label, logits, item.logits)
      return
    }
    // A zero scale divides by zero: there are no numbers to compare, but a finite result would be
    // wrong, and rows before the first change must be the ordinary ones.  Not so before attention:
    // there a masked entry of the pattern, 0, meets a NaN, and 0·NaN is NaN, in the reference too.
    #expect(!logits.isFinite, "\(item.label): expected infinities or NaN")
    if let first = item.positions?.min(), first > 0, item.name.site != .ln1Scale {
      let before = Array(0..<first)
      comparison.check(
        item.label + ", rows before", logits.gatheringRows(before), unchanged.gathering(before))
    }
  }

  @Test(arguments: checkpoints)
  func everyIntervention(_ name: String) throws {
    let (model, golden) = (try Models.load(name), try Golden.open(name))
    let (tokens, unchanged) = (try golden.tokens("b"), try golden.logits("b"))
    let cases = try Self.cases(name, model)
    #expect(cases.count == 232)
    #expect(String(cases.count) == (try golden.text("count", of: "interventions")))
    let comparison = Comparison("\(name) interventions")
    for item in cases {
      let logits = try model.run(tokens, interventions: [item.intervention()])
      check(comparison, item, logits, unchanged)
    }
    comparison.report("interventions")
  }

  @Test(arguments: checkpoints)
  func editsAreTheSame(_ name: String) throws {
    let (model, golden) = (try Models.load(name), try Golden.open(name))
    let (tokens, unchanged) = (try golden.tokens("b"), try golden.logits("b"))
    let comparison = Comparison("\(name) interventions as edits")
    for item in try Self.cases(name, model) {
      check(comparison, item, try model.run(tokens, interventions: [item.edit]), unchanged)
    }
    comparison.report("interventions")
  }

  @Test(arguments: checkpoints)
  func inABatchOnlyTheMeantPromptChanges(_ name: String) throws {
    let (model, golden) = (try Models.load(name), try Golden.open(name))
    let names = ["full", "b", "c", "b", "e"]
    let prompts = try names.map { try golden.tokens($0) }
    let goldens = try names.map { try golden.logits($0) }
    let meant = Comparison("\(name) interventions on one prompt of five")
    let others = Comparison("\(name) the other prompts")
    for item in try Self.cases(name, model) {
      let logits = try model.run(
        batch: prompts, interventions: [item.intervention(prompt: 3)])
      check(meant, item, logits[3], goldens[3])
      for other in [0, 1, 2, 4] {
        others.check("\(item.label), prompt \(other)", logits[other], goldens[other])
      }
    }
    meant.report("interventions")
    others.report("runs")
  }

  @Test(arguments: checkpoints)
  func recordingDoesNotChangeInterventions(_ name: String) throws {
    // Optional hooks make the pass compute heads one by one; the numbers must not depend on it.
    let (model, golden) = (try Models.load(name), try Golden.open(name))
    let (tokens, unchanged) = (try golden.tokens("b"), try golden.logits("b"))
    let comparison = Comparison("\(name) interventions in fully recorded runs")
    for item in try Self.cases(name, model) {
      let (logits, cache) = try model.runWithCache(
        tokens, hooks: Models.everyHook(model), interventions: [item.intervention()])
      check(comparison, item, logits, unchanged)
      #expect(cache.names.count == 52)
      // What is recorded at the hook itself is what the intervention left there.
      guard item.positions == nil, item.op == "replace", let value = item.value else { continue }
      comparison.check(
        "\(item.label), recorded", try cache.tensor(item.name), value)
    }
    comparison.report("interventions")
  }

  @Test(arguments: Fixtures.checkpoints)
  func frozenScaleAndPattern(_ name: String) throws {
    let (model, golden) = (try Models.load(name), try Golden.open(name))
    let (tokens, donor) = (try golden.tokens("a"), try golden.tokens("d"))
    let (_, cache) = try model.runWithCache(
      donor, hooks: [.ln1Scale(.all), .ln2Scale(.all), .lnFinalScale, .pattern(.all)])
    let comparison = Comparison("\(name) frozen runs")
    comparison.check(
      "ln_scale", try model.run(tokens, interventions: Intervention.freezeLayerNorm(cache)),
      try golden.array("frozen/ln_scale/logits"))
    comparison.check(
      "pattern", try model.run(tokens, interventions: Intervention.freezePattern(cache)),
      try golden.array("frozen/pattern/logits"))

    // A whole batch frozen to another batch, prompt by prompt.
    let (_, donors) = try model.runWithCache(
      batch: [donor, try golden.tokens("b"), tokens],
      hooks: [.ln1Scale(.all), .ln2Scale(.all), .lnFinalScale, .pattern(.all)])
    let batch = [tokens, try golden.tokens("b"), tokens]
    let scales = try model.run(
      batch: batch, interventions: Intervention.freezeLayerNorm(donors))
    comparison.check(
      "ln_scale in a batch", scales[0], try golden.array("frozen/ln_scale/logits"))
    comparison.check("b frozen to itself", scales[1], try golden.logits("b"))
    comparison.check("a frozen to itself", scales[2], try golden.logits("a"))
    let patterns = try model.run(
      batch: batch, interventions: Intervention.freezePattern(donors))
    comparison.check(
      "pattern in a batch", patterns[0], try golden.array("frozen/pattern/logits"))
    comparison.check("b's own pattern", patterns[1], try golden.logits("b"))
    comparison.report("runs")
    if model.config.normalization == .none {
      // Nothing is there to freeze.
      let change = Comparison("\(name) frozen scales change nothing", relative: 1e-6)
      change.check("logits", scales[0], try model.run(tokens))
      change.report("run")
    }
  }
}
