public import Tensors

/// A change of the weights that leaves the model's predictions as they are.
///
/// The steps are applied in the order of the cases, TransformerLens' order; each says when it is
/// exact and refuses where it is not.
public enum WeightProcessing: String, Sendable, CaseIterable {
  /// Folds the fixed affine maps that stand where LayerNorms were removed; see ``LayerNormFolding``.
  case foldAffineNorms = "fold_affine_norms"
  /// Folds each LayerNorm's gain and bias into the weights that read it, and centres those.
  case foldLN = "fold_ln"
  /// Removes from the weights that read a LayerNorm what they make of the all-ones direction.
  case centerReadingWeights = "center_reading_weights"
  /// Removes the all-ones direction from everything that writes to the stream.
  case centerWritingWeights = "center_writing_weights"
  /// Replaces LayerNorm by RMSNorm, which is the same on a stream of mean zero.
  case rmsNorm = "rmsnorm"
  /// Removes the mean over the vocabulary from the unembedding: log-probabilities stay.
  case centerUnembed = "center_unembed"
  /// Moves the values' biases, which attention cannot change, to `b_O`.
  case foldValueBiases = "fold_value_biases"

  /// What can be asked for by name; the first step is a matter of the checkpoint.
  public static let choices = allCases.filter { $0 != .foldAffineNorms }.map(\.rawValue)

  /// The four steps that TransformerLens applies by default.
  public static let transformerLens: [WeightProcessing] = [
    .foldLN, .centerWritingWeights, .centerUnembed, .foldValueBiases,
  ]

  /// Steps from a list such as `fold_ln,center_unembed` or `transformerlens`, in canonical order.
  ///
  /// - Throws: `ModelError.unknownProcessing`.
  public static func parse(_ text: String) throws(ModelError) -> [WeightProcessing] {
    var chosen: Set<WeightProcessing> = []
    for name in text.split(separator: ",", omittingEmptySubsequences: false).map(String.init) {
      if name == "transformerlens" {
        chosen.formUnion(transformerLens)
      } else if choices.contains(name), let step = WeightProcessing(rawValue: name) {
        chosen.insert(step)
      } else {
        throw .unknownProcessing(name: name, known: choices + ["transformerlens"])
      }
    }
    return allCases.filter(chosen.contains)
  }

  /// The processed tensors and their configuration.
  ///
  /// - Throws: `ModelError.processing` where the step would not be exact.
  public func apply(
    to tensors: [String: Tensor], config: GPT2Config
  ) throws(ModelError) -> (tensors: [String: Tensor], config: GPT2Config) {
    switch self {
    case .foldAffineNorms: return try LayerNormFolding.folded(tensors, config: config)
    default: throw .processing(step: rawValue, problem: "not written yet")
    }
  }
}
