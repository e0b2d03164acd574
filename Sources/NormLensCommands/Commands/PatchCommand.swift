import ArgumentParser
import Foundation
import NormLens

/// `normlens patch`: which activations carry what distinguishes two prompts.
struct PatchCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "patch",
    abstract: "Overwrite each activation in turn and measure what becomes of the answer.",
    discussion: """
      Runs a clean and a corrupted prompt, overwrites one activation of one with its value in the \
      other, and measures the metric: for every layer, position, head or neuron of the sites. Each \
      such run is resumed where it differs from the unpatched one, and they all share one matrix \
      product for each weight. Effects are patched minus unpatched metric; normalized effects are 1 \
      for the clean run and 0 for the corrupted one (noising: 0 and -1).

      Methods: activation is the truth; take it where you can wait. The others estimate all cells at \
      once, attribution by the gradient, relevance by the rules of RelP at the same cost, \
      integrated-gradients at --steps times the cost and mostly nearest; run activation beside them \
      on a few prompts to see which to believe, and where.
      """)

  @OptionGroup var models: TwinOptions
  @OptionGroup var pairs: PairOptions
  @OptionGroup var method: MethodOptions
  @OptionGroup var sweep: SweepOptions
  @Option(
    help: ArgumentHelp(
      "What is put in: other (the other run's value), zero, mean (over reference prompts and their "
        + "positions) or position-mean (over reference prompts of one length).", valueName: "what"))
  var replace = Replace.other
  @Option(
    help: ArgumentHelp(
      "The prompts over whose clean texts means are taken; those of the pairs by default.",
      valueName: "file.json"), completion: .file())
  var reference: String?
  @Option(
    help: ArgumentHelp(
      "Make the corrupted run of the clean tokens by Gaussian noise on their embeddings, of so many "
        + "standard deviations of the embeddings (3 in the literature).", valueName: "deviations"))
  var noise: Double?
  @Option(
    name: .customLong("noise-positions"), parsing: .unconditional,
    help: ArgumentHelp(
      "The positions that get noise, by number or name; all by default.", valueName: "list"))
  var noisePositions: String?
  @Option(
    help: ArgumentHelp(
      "How many adjacent layers a cell overwrites at once, from its own on.", valueName: "layers"))
  var window = 1
  @Option(help: "Where noise and bootstrap samples come from.") var seed: UInt64 = 0
  @OptionGroup var memory: MemoryOptions
  @OptionGroup var output: OutputOptions
  @Flag(help: "Go on where an interrupted sweep into the same file stopped.") var resume = false
  @Option(help: "How many cells to list for each site.") var top = 5

  enum Replace: String, ExpressibleByArgument, CaseIterable {
    case other, zero, mean
    case positionMean = "position-mean"
  }

  func validate() throws {
    if top < 0 { throw ValidationError("--top \(top): expected 0 or more") }
    if seed > UInt64(Int.max) {
      throw ValidationError("--seed \(seed): expected 0 to \(Int.max)")
    }
    if let noise, !(noise > 0 && noise.isFinite) {
      throw ValidationError("--noise \(noise): expected a number above 0, such as 3")
    }
    if noisePositions != nil && noise == nil {
      throw ValidationError("--noise-positions needs --noise")
    }
    if noise != nil && !(pairs.corrupted.isEmpty && pairs.corruptedTokens.isEmpty) {
      throw ValidationError("--noise makes the corrupted run itself: leave out --corrupted")
    }
    if reference != nil && replace != .mean && replace != .positionMean {
      throw ValidationError("--reference needs --replace mean or --replace position-mean")
    }
    if resume && output.output == nil {
      throw ValidationError("--resume needs -o, the file that the interrupted sweep was to write")
    }
  }

  func run() throws {
    let estimates = try method.chosenEstimates()
    try checkExact(estimates)
    let inputs = models.inputs + pairs.inputs + [reference].compactMap { $0 }
    try output.check(inputs: inputs)
    // A partial result is one model's.
    var partial = PartialResult(models.sources.count == 1 ? output.output : nil)
    let begun = try partial.read(resume: resume)
    let models = try self.models.load()
    let pairs = try self.models.shared(
      models, read: { try self.pairs.load($0, corruptedNeeded: noise == nil) }, prompts: { $0 })
    let provenance = runProvenance(
      prependBOS: self.pairs.provenanceBOS(models[0]), seed: seed)
    let results = try self.models.each(models) { model in
      let patching = try experiment(model, pairs)
      // What finished tensors leave behind counts, too.
      TensorMemory.keptBytesLimit = min(1 << 30, patching.bytes / 2)
      // What is wrong with an estimate is found before the long sweep.
      var estimated: ResultSet?
      if !estimates.isEmpty {
        var progress = Progress("estimates", total: pairs.count, quiet: output.quiet)
        estimated = try AttributionPatching(of: patching, by: estimates).run(model, pairs) {
          progress.update($0.done)
        }
      }
      if let estimated, !method.isExact { return estimated }
      let exact = try exactSweep(patching, model, pairs, resuming: begun, &partial, provenance)
      return try estimated.map { try exact.compared(with: $0) } ?? exact
    }
    if !output.quiet {
      for result in results {
        for warning in PatchTable.warnings(result) { Terminal.note("warning: \(warning)") }
      }
    }
    let sites = try sweep.patchSites()
    try output.deliver(results, of: models, provenance: provenance) {
      PatchTable.text($0, sites, top: top)
    }
    partial.remove()
  }

  /// Fails where only the exact sweep does what is asked for.
  private func checkExact(_ estimates: [AttributionPatching.Method]) throws {
    if window > 1, let method = estimates.first {
      throw CommandError(
        "--window \(window): \(method.name) cannot estimate a window, for paths through several of "
          + "its layers would be counted more than once; take --method activation")
    }
    if resume && models.sources.count > 1 {
      throw CommandError(
        "--resume: goes on with the sweep of one model, and --model gives several; run them one by one"
      )
    }
    if resume && !method.isExact {
      throw CommandError(
        "--resume: goes on with an exact sweep, and --method \(method.method) has none; leave it out"
      )
    }
  }

  /// Overwrites every cell, keeping what is finished.
  private func exactSweep(
    _ patching: ActivationPatching, _ model: GPT2, _ pairs: [PromptPair],
    resuming begun: ResultSet?, _ partial: inout PartialResult, _ provenance: Provenance
  ) throws -> ResultSet {
    let estimate = try patching.estimate(model, pairs)
    announce(estimate, pairs.count, partial)
    var progress = Progress("patch", total: estimate.cells, quiet: output.quiet)
    return try patching.run(model, pairs, resuming: begun) { state in
      progress.update(
        state.cells.done, fraction: state.fraction,
        resumed: (state.resumed.cells, state.resumed.fraction))
      if state.cells.done < state.cells.total {
        try partial.keep {
          var result = state.partial()
          result.provenance = result.provenance.merging(provenance)
          return result
        }
      }
    }
  }

  /// The experiment that the options describe.
  private func experiment(_ model: GPT2, _ pairs: [PromptPair]) throws -> ActivationPatching {
    let replacement: Replacement
    switch replace {
    case .other: replacement = .otherRun
    case .zero: replacement = .zero
    case .mean: replacement = .mean(over: try referencePrompts(model, pairs))
    case .positionMean: replacement = .positionMean(over: try referencePrompts(model, pairs))
    }
    let direction: ActivationPatching.Direction =
      switch sweep.direction {
      case .denoising: .denoising
      case .noising: .noising
      // What is taken away is taken from the run that works.
      case nil: replace == .other ? .denoising : .noising
      }
    var patching = ActivationPatching(
      of: try sweep.patchSites(), direction: direction, metric: try sweep.chosenMetric(),
      replacement: replacement)
    patching.window = window
    patching.layers = try sweep.layers.map { try layerList($0, model.config) }
    patching.positions = sweep.patchPositions()
    patching.seed = seed
    patching.bytes = try memory.limit
    if let noise {
      patching.noise = EmbeddingNoise(
        deviations: noise, positions: noisePositions.map { .at(places($0)) } ?? .all, seed: seed)
    }
    return patching
  }

  private func referencePrompts(_ model: GPT2, _ pairs: [PromptPair]) throws -> [[Int]] {
    guard let reference else { return pairs.map(\.clean) }
    return try PromptSet.read(reference).prompts.map {
      try model.tokens($0.clean, prependBOS: self.pairs.prependBOS)
    }
  }

  /// Says before a long run what it will take.
  private func announce(
    _ estimate: ActivationPatching.Estimate, _ prompts: Int, _ partial: PartialResult
  ) {
    guard !output.quiet, estimate.flops > 3e12 else { return }
    let seconds = estimate.flops / MachineLimits.sgemmPeak()
    Terminal.note(
      "\(estimate.cells) cells in \(prompts) \(prompts == 1 ? "prompt" : "prompts"), "
        + "\(fixed(estimate.flops / 1e12, 1)) TFLOP, at best \(duration(seconds)); about "
        + "\(bytes(estimate.bytes)) of memory beside the weights"
        + (partial.path.map { "; finished batches go to \($0), --resume goes on from there" } ?? "")
    )
  }
}
