import HDF5Store
public import HookedGPT2

extension Checkpoint {
  /// Opens a model by path or bundled name.
  ///
  /// - Parameters:
  ///   - source: a model file, a Hugging Face directory, or `mini`, `mini-vanilla`, `mini-lnfree`.
  ///   - processing: what is done to the weights, in canonical order; see ``WeightProcessing``.
  ///     A checkpoint whose LayerNorms were removed loses what stands in their place in any case.
  ///   - verify: whether a model file's checksums are compared.
  /// - Throws: `ModelSourceError`, `HDF5Error`, `ModelError`, `TokenizerError`.
  public static func open(
    _ source: String, processing: [WeightProcessing] = [], verify: Bool = true
  ) throws -> Checkpoint {
    var checkpoint = try read(source, verify: verify)
    if checkpoint.config.normalization == .layerNorm
      && LayerNormFolding.isLayerNormFree(epsilon: checkpoint.config.layerNormEpsilon)
    {
      checkpoint = try checkpoint.processed(by: [.foldAffineNorms])
    }
    checkpoint = try checkpoint.processed(by: processing)
    if checkpoint.identity.weightsSHA256.isEmpty {
      checkpoint.identity.weightsSHA256 = ModelArchive.weightsSHA256(
        checkpoint.tensors.map { (name: $0.key, tensor: $0.value) })
    }
    return checkpoint
  }

  /// Reads a source as it is.
  private static func read(_ source: String, verify: Bool) throws -> Checkpoint {
    switch PathKind(source) {
    case .directory: return try HuggingFaceDirectory.read(source)
    case .file: return try ModelFile.read(source, verify: verify)
    case .forbidden: throw ModelSourceError.unreadable(source)
    case .missing: break
    }
    if BundledModels.names.contains(source) {
      return try ModelFile.read(try BundledModels.path(source), verify: verify)
    }
    throw ModelSourceError.notFound(
      name: source, suggestion: nearestText(to: source, among: BundledModels.names))
  }

  /// The files that opening `source` reads, those that do not exist among them.
  package static func files(of source: String) -> [String] {
    switch PathKind(source) {
    case .directory: HuggingFaceDirectory.fileNames.map { "\(source)/\($0)" }
    case .missing where BundledModels.names.contains(source):
      (try? BundledModels.path(source)).map { [$0] } ?? []
    default: [source]
    }
  }
}

extension GPT2 {
  /// Opens a model by path or bundled name.
  ///
  /// - Parameters:
  ///   - source: a model file, a Hugging Face directory, or `mini`, `mini-vanilla`, `mini-lnfree`.
  ///   - processing: what is done to the weights; see ``WeightProcessing``.
  ///   - verify: whether a model file's checksums are compared.
  /// - Returns: the model; a model file's weights stay in the mapped file.
  /// - Throws: `ModelSourceError`, `HDF5Error`, `ModelError`, `TokenizerError`.
  public static func load(
    _ source: String, processing: [WeightProcessing] = [], verify: Bool = true
  ) throws -> GPT2 {
    try Checkpoint.open(source, processing: processing, verify: verify).model()
  }
}
