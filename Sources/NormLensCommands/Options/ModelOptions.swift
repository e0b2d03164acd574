import ArgumentParser
import Foundation
import NormLens

/// The model and how to compute with it.
struct ModelOptions: ParsableArguments {
  @Argument(
    help:
      "A model file, a Hugging Face directory or weight file, or mini, mini-vanilla, mini-lnfree.",
    completion: .file())
  var model: String

  @OptionGroup var loading: LoadingOptions

  /// The files that are read.
  var inputs: [String] { Checkpoint.files(of: model) }

  /// Opens the model.
  func load() throws -> GPT2 {
    try open().model()
  }

  /// Opens the model's file without making a model of it.
  func open() throws -> Checkpoint {
    loading.compute.apply()
    let checkpoint = try Checkpoint.open(
      model, processing: try loading.processing.steps, verify: !loading.noVerify)
    loading.processing.noteSkipped(of: checkpoint)
    return checkpoint
  }
}

/// How a model is opened and computed with.
struct LoadingOptions: ParsableArguments {
  @OptionGroup var compute: ComputeOptions
  @OptionGroup var processing: ProcessingOptions

  @Flag(name: .customLong("no-verify"), help: "Do not compare the model file's checksums.")
  var noVerify = false
}

/// What is done to the weights before anything is computed.
struct ProcessingOptions: ParsableArguments {
  @Option(
    name: .customLong("process"),
    help: ArgumentHelp(
      "Process the weights, predictions staying as they are: "
        + WeightProcessing.choices.joined(separator: ", ") + ", comma-separated; transformerlens "
        + "stands for \(WeightProcessing.transformerLens.map(\.rawValue).joined(separator: ", ")).",
      valueName: "steps"))
  var process: String?

  /// The steps in canonical order.
  var steps: [WeightProcessing] {
    get throws { try process.map { try WeightProcessing.parse($0) } ?? [] }
  }

  /// Says which steps had nothing to do.
  func noteSkipped(of checkpoint: Checkpoint) {
    for skipped in checkpoint.skippedProcessing { Terminal.note("--process: skipped \(skipped)") }
  }
}

/// How to compute.
struct ComputeOptions: ParsableArguments {
  @Option(help: ArgumentHelp("Threads to compute with; all processors by default.", valueName: "n"))
  var threads: Int?

  func validate() throws {
    if let threads, !(1...1024).contains(threads) {
      throw ValidationError("--threads \(threads): expected 1 to 1024")
    }
  }

  func apply() {
    if let threads { Threads.count = threads }
    Interruption.install()
  }
}

/// How much memory a command may use beside the weights.
struct MemoryOptions: ParsableArguments {
  @Option(
    name: .customLong("max-memory"),
    help: ArgumentHelp(
      "Memory for activations, such as 500MB or 4GB; a quarter of the machine's by default.",
      valueName: "size"))
  var maxMemory: String?

  /// The limit in bytes.
  var limit: Int {
    get throws {
      guard let maxMemory else {
        return Int(clamping: ProcessInfo.processInfo.physicalMemory / 4)
      }
      let units = [("KB", 1_000), ("MB", 1_000_000), ("GB", 1_000_000_000), ("B", 1)]
      let text = maxMemory.uppercased()
      for (unit, factor) in units where text.hasSuffix(unit) {
        if let number = Double(text.dropLast(unit.count).trimmingCharacters(in: .whitespaces)),
          number > 0, number * Double(factor) < 1e18
        {
          return Int(number * Double(factor))
        }
      }
      throw CommandError("--max-memory '\(maxMemory)': expected a size such as 500MB or 4GB")
    }
  }

  /// How many prompts of `each` bytes fit at once beside `constant` bytes that are needed in any case, at
  /// least one; tells when more than 120 MB are needed.
  func batch(_ prompts: Int, each: Int, constant: Int = 0, quiet: Bool) throws -> Int {
    let limit = try limit
    // What finished tensors leave behind counts, too.
    TensorMemory.keptBytesLimit = min(1 << 30, limit / 2)
    let count = max(1, min(prompts, (limit - constant) / max(each, 1)))
    let need = count * each + constant
    if need > 120_000_000 && !quiet {
      Terminal.note(
        "needs about \(bytes(need)) of memory beside the weights"
          + (count < prompts ? " (\(count) of \(prompts) prompts at a time)" : "")
          + (need > limit ? ", more than --max-memory" : ""))
    }
    return count
  }
}
