import ArgumentParser
import Foundation
import NormLens

/// `normlens init`: an untrained model.
struct InitCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "init", abstract: "Write a model with random weights.",
    discussion: """
      For tests and timings. Without --tokenizer the model has none, and commands ask for --tokens \
      instead of text.
      """)

  @Option(
    help: ArgumentHelp(
      "\(GPT2Config.presets.map(\.name).joined(separator: ", ")), or n_layers x n_heads x d_model "
        + "such as 2x4x64.", valueName: "shape"))
  var config: String
  @Option(
    name: .shortAndLong, help: ArgumentHelp("The model file.", valueName: "file.h5"),
    completion: .file())
  var output: String
  @Option(help: "The weights' seed.") var seed: UInt64 = 0
  @Option(help: "Positions (n_ctx).") var positions = 1024
  @Option(help: "Tokens in the vocabulary (d_vocab).") var vocabulary = 50257
  @Option(
    help: "Standard deviation of biases, and of LayerNorm gains around 1; GPT-2 began with 0.")
  var biases = 0.0
  @Option(
    help: ArgumentHelp(
      "A directory with tokenizer.json, or vocab.json and merges.txt.", valueName: "dir"),
    completion: .directory)
  var tokenizer: String?
  @OptionGroup var compute: ComputeOptions
  @Flag(help: "Print nothing but errors.") var quiet = false

  func validate() throws {
    if !(biases >= 0 && biases <= 1000) {
      throw ValidationError("--biases \(biases): expected 0 to 1000")
    }
  }

  func run() throws {
    compute.apply()
    var destination = OutputOptions()
    destination.output = output
    try destination.check(
      inputs: tokenizer.map(Checkpoint.files(of:)) ?? [])
    let checkpoint = try Checkpoint.random(
      try shape(), name: "random-\(config)", seed: seed, tokenizerDirectory: tokenizer,
      biases: biases)
    try ModelFile.write(checkpoint, to: output)
    if quiet { return }
    let model = try checkpoint.model()
    Terminal.print("wrote \(output): \(model.weights.parameterCount) random parameters")
  }

  private func shape() throws -> GPT2Config {
    var result: GPT2Config
    if let match = config.wholeMatch(of: #/(\d+)x(\d+)x(\d+)/#), let layers = Int(match.1),
      let heads = Int(match.2), let width = Int(match.3)
    {
      result = try GPT2Config(nLayers: layers, dModel: width, nHeads: heads)
    } else {
      result = try GPT2Config.preset(config)
    }
    result = try GPT2Config(
      nLayers: result.nLayers, dModel: result.dModel, nHeads: result.nHeads, nCtx: positions,
      dVocab: vocabulary)
    // Twelve d² a block, the embeddings, and once more while the file is written.
    let (d, layers) = (Double(result.dModel), Double(result.nLayers))
    let size = 4 * d * (12 * d * layers + Double(result.dVocab + result.nCtx))
    if size > 0.8 * Double(ProcessInfo.processInfo.physicalMemory) {
      throw CommandError(
        "--config \(config): \(bytes(Int(Swift.min(size, 9e18)))) of weights do not fit into memory"
      )
    }
    return result
  }
}
