import HDF5Store
public import HookedGPT2

extension Checkpoint {
  /// Opens a model by path or bundled name.
  ///
  /// - Parameters:
  ///   - source: a model file; a Hugging Face directory, or the `model.safetensors`, its index or the
  ///     Keras `tf_model.h5` in one; or `mini`, `mini-vanilla`, `mini-lnfree`.
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
    switch try ModelSource(source) {
    case .modelFile(let path): try ModelFile.read(path, verify: verify)
    case .huggingFace(let directory, let weights):
      try HuggingFaceDirectory.read(directory, weights: weights)
    }
  }

  /// The files that opening `source` reads, those that do not exist among them.
  package static func files(of source: String) -> [String] { ModelSource.files(of: source) }
}

extension GPT2 {
  /// Opens a model by path or bundled name.
  ///
  /// - Parameters:
  ///   - source: a model file; a Hugging Face directory, or the `model.safetensors`, its index or the
  ///     Keras `tf_model.h5` in one; or `mini`, `mini-vanilla`, `mini-lnfree`.
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
