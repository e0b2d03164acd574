import ArgumentParser
import NormLens

/// `normlens convert`: a checkpoint as a model file or as a Hugging Face directory.
struct ConvertCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "convert",
    abstract: "Write a checkpoint as a NormLens model file, or as a Hugging Face directory.",
    discussion: """
      SOURCE is a model file, a Hugging Face directory (config.json and model.safetensors, its \
      shards or tf_model.h5; vocab.json and merges.txt, or tokenizer.json), one of its weight files, \
      or a bundled model. A checkpoint with layer_norm_epsilon of 1e6 or more has no LayerNorms: \
      the affine maps in their place are folded into the weights. With --to huggingface such a \
      model is written with epsilon 1e12 again, so that transformers computes the same logits.
      """)

  /// What is written.
  enum Form: String, ExpressibleByArgument, CaseIterable {
    case model, huggingface
  }

  /// How scalars are stored.
  enum StoredType: String, ExpressibleByArgument, CaseIterable {
    case float32, float16, bfloat16
  }

  @Argument(help: "What to convert.", completion: .file()) var source: String
  @Option(
    name: .shortAndLong,
    help: ArgumentHelp("The model file, or the new directory.", valueName: "path"),
    completion: .file())
  var output: String
  @Option(help: "A NormLens model file, or a directory for transformers.") var to: Form = .model
  @Option(help: "How weights are stored; bfloat16 for huggingface only.")
  var dtype: StoredType = .float32
  @OptionGroup var processing: ProcessingOptions
  @Option(help: "The model's name; the source's by default.") var name: String?
  @Option(help: "Where the weights come from, kept in the file.") var origin: String?
  @Option(help: "Their licence, kept in the file.") var license: String?
  @OptionGroup var compute: ComputeOptions
  @Flag(help: "Print nothing but errors.") var quiet = false

  func validate() throws {
    if to == .model && dtype == .bfloat16 {
      throw ValidationError(
        "--dtype bfloat16: a model file holds float32 or float16; bfloat16 goes with --to huggingface"
      )
    }
    for (flag, value) in [("--name", name), ("--origin", origin), ("--license", license)]
    where value != nil && to == .huggingface {
      throw ValidationError("\(flag): kept in model files only, not with --to huggingface")
    }
  }

  func run() throws {
    compute.apply()
    let steps = try processing.steps
    switch to {
    case .model:
      var destination = OutputOptions()
      destination.output = output
      try destination.check(inputs: Checkpoint.files(of: source))
    case .huggingface: try AtomicDirectory.checkVacant(output)
    }
    var checkpoint = try Checkpoint.open(source, processing: steps)
    processing.noteSkipped(of: checkpoint)
    if let name { checkpoint.identity.name = name }
    if let origin { checkpoint.identity.source = origin }
    if let license { checkpoint.identity.license = license }
    switch to {
    case .model:
      try ModelFile.write(checkpoint, to: output, dtype: dtype == .float16 ? .float16 : .float32)
    case .huggingface:
      let types: [StoredType: SafetensorsFile.ScalarType] = [.float16: .F16, .bfloat16: .BF16]
      try HuggingFaceExport.write(checkpoint, to: output, as: types[dtype] ?? .F32)
    }
    if !quiet { try report(checkpoint) }
  }

  /// Reads what was written and says how far its logits are from the source's.
  private func report(_ checkpoint: Checkpoint) throws {
    let written = try Checkpoint.open(output)
    let model = try written.model()
    let difference = try Checkpoint.difference(model, try checkpoint.model())
    Terminal.print(
      """
      wrote \(output): \(checkpoint.identity.name), \(model.weights.parameterCount) parameters, \
      normalization \(model.config.normalization.rawValue), logits within \
      \(compact(difference)) of the source's
      """)
    for check in checkpoint.processingChecks {
      Terminal.print(
        "  \(check.step): log-probabilities within \(compact(check.logits)) of the largest logit")
    }
  }
}
