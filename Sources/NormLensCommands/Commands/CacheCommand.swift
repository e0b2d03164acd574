import ArgumentParser
import NormLens

/// `normlens cache`: records activations into a file.
struct CacheCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "cache", abstract: "Record activations into an HDF5 file.",
    discussion: """
      `--hooks all` means every hook but the larger, optional ones (hook_attn_in, hook_q_input, \
      hook_k_input, hook_v_input, hook_result, hook_mlp_in), which are recorded when named.
      """)

  @OptionGroup var model: ModelOptions
  @OptionGroup var prompts: PromptOptions
  @OptionGroup var hooks: HookOptions
  @OptionGroup var memory: MemoryOptions
  @Option(
    name: .shortAndLong, help: ArgumentHelp("The file to write.", valueName: "file.h5"),
    completion: .file())
  var output: String
  @Flag(help: "Print nothing but errors.") var quiet = false

  func run() throws {
    var destination = OutputOptions()
    destination.output = output
    try destination.check(inputs: model.inputs + prompts.inputs)
    let model = try model.load()
    let names = try hooks.names(model.config)
    let text = try prompts.read(model)
    if !quiet { text.note() }
    let prompts = text.prompts
    let longest = prompts.map(\.tokens.count).max() ?? 1
    var recording = ActivationRecording(hooks: names, positions: try hooks.positionSelection())
    recording.batchSize = try memory.batch(
      min(prompts.count, 32), each: recording.byteCount(model.config, length: longest),
      quiet: quiet)
    var progress = Progress("cache", total: prompts.count, quiet: quiet)
    let clock = ContinuousClock()
    let start = clock.now
    let written = try recording.write(
      model, prompts, to: output,
      provenance: runProvenance(prependBOS: self.prompts.provenanceBOS(model))
        .merging(text.facts),
      progress: { progress.update($0) })
    if quiet { return }
    let seconds = (clock.now - start) / .seconds(1)
    Terminal.print(
      "wrote \(output): \(names.count) hook\(names.count == 1 ? "" : "s"), "
        + "\(prompts.count) prompt\(prompts.count == 1 ? "" : "s"), \(bytes(written)) "
        + "(\(fixed(Double(written) / 1e9 / Swift.max(seconds, 1e-9), 2)) GB/s)")
  }
}
