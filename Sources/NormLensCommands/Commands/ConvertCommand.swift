public import ArgumentParser
public import NormLens

/// `normlens convert`: a checkpoint as a model file.
struct ConvertCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "convert", abstract: "Write a checkpoint as a NormLens model file.",
    discussion: """
      SOURCE is a Hugging Face directory (config.json, model.safetensors, vocab.json, merges.txt) \
      or a model file. A checkpoint with layer_norm_epsilon of 1e6 or more has no LayerNorms: the \
      affine maps in their place are folded into the weights.
      """)

  @Argument(help: "What to convert.", completion: .directory) var source: String
  @Option(
    name: .shortAndLong, help: ArgumentHelp("The model file.", valueName: "file.h5"),
    completion: .file())
  var output: String
  @Option(help: "The model's name; the source's by default.") var name: String?
  @Option(help: "Where the weights come from, kept in the file.") var origin: String?
  @Option(help: "Their licence, kept in the file.") var license: String?
  @Option(help: "float32 or float16.") var dtype: ModelArchive.StoredType = .float32
  @OptionGroup var compute: ComputeOptions
  @Flag(help: "Print nothing but errors.") var quiet = false

  func run() throws {
    compute.apply()
    var destination = OutputOptions()
    destination.output = output
    try destination.check(inputs: Checkpoint.files(of: source))
    var checkpoint = try Checkpoint.open(source)
    if let name { checkpoint.identity.name = name }
    if let origin { checkpoint.identity.source = origin }
    if let license { checkpoint.identity.license = license }
    try ModelFile.write(checkpoint, to: output, dtype: dtype)
    if quiet { return }
    let written = try ModelFile.read(output)
    let model = try written.model()
    let check = try written.selfCheck(model)
    Terminal.print(
      """
      wrote \(output): \(model.identity.name), \(model.weights.parameterCount) parameters, \
      normalization \(model.config.normalization.rawValue), self-check within \
      \(compact(check?.difference ?? .nan)) logits
      """)
  }
}

extension ModelArchive.StoredType: ExpressibleByArgument {}
