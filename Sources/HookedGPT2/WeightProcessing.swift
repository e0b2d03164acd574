public import Tensors

/// A change of the weights that leaves the model's predictions as they are.
///
/// The steps are applied in the order of the cases, TransformerLens' order. Each is exact in real
/// arithmetic under the condition that it states, and refuses to run where that does not hold. All
/// arithmetic is in double precision, rounded once a step.
///
/// With LayerNorm `z ⊙ γ + β` in front of a matrix W with bias c, z = (x − mean x)/σ:
/// TransformerLens 2 (`fold_ln`, `center_writing_weights`, `center_unembed`, `fold_value_biases`),
/// Elhage et al. 2021; Jiang et al. 2023, arXiv:2305.14858 (`rmsnorm`, `crmsnorm`).
public enum WeightProcessing: String, Sendable, CaseIterable {
  /// Folds the fixed affine maps that stand where LayerNorms were removed; see ``LayerNormFolding``.
  case foldAffineNorms = "fold_affine_norms"

  /// Folds each norm's gain and bias into the weights that read it: `W ← diag(γ)·W`, `c ← c + βᵀW`,
  /// then γ = 1 and β = 0. The unembedding becomes a matrix of its own, with a bias.
  ///
  /// What reads a LayerNorm is centred as well, `W ← W − 11ᵀW/d`: z has mean zero. What reads an
  /// RMSNorm is not.
  case foldLN = "fold_ln"

  /// Removes from what reads the stream its answer to a constant: `W ← W − 11ᵀW/d`, so `1ᵀW = 0`.
  ///
  /// Exact where what is read has mean zero: behind a LayerNorm with one gain and no bias, and
  /// where every writer is centred.
  case centerReadingWeights = "center_reading_weights"

  /// Removes the mean over d_model from everything that is written to the stream: rows of `W_E`,
  /// `W_pos`, `W_O`, `W_out`, and `b_O`, `b_out`. The stream's mean is then zero.
  ///
  /// Exact where nobody reads the mean: with LayerNorm, and without a norm where the reading weights
  /// annihilate it. An unembedding tied to `W_E` reads, and stays what it was.
  case centerWritingWeights = "center_writing_weights"

  /// Replaces LayerNorm by RMSNorm, which is the same on a stream of mean zero.
  ///
  /// Exact where every writer is centred.
  case rmsNorm = "rmsnorm"

  /// Replaces LayerNorm or RMSNorm by CRMSNorm: the stream, of mean zero, loses its last coordinate,
  /// which is minus the sum of the others. Writers `W ← W[:, :d−1]`, readers
  /// `W ← W[:d−1] − W[d−1]`, norm `x̃/√((Σx̃² + (Σx̃)²)/d + ε)`. Norms of the stream and angles in it
  /// change: `isometric` keeps them.
  ///
  /// Exact where every writer is centred and the norms have one gain and no bias.
  case crmsNorm = "crmsnorm"

  /// Writes the stream, of mean zero, in d − 1 coordinates of an orthonormal basis B (Helmert's, see
  /// `ZeroSumBasis`): writers `W ← W·B`, readers `W ← Bᵀ·W`, norm `x̃/√(Σx̃²/d + ε)`, an RMSNorm
  /// that divides by d. Norms of the stream and angles in it stay. Without norms it is a change of
  /// coordinates alone.
  ///
  /// Exact where every writer is centred, and the norms have one gain and no bias or, without norms,
  /// the reading weights annihilate the mean.
  case isometric

  /// Removes the mean over the vocabulary from `W_U` and `b_U`. Logits shift by one number at each
  /// position, log-probabilities stay.
  case centerUnembed = "center_unembed"

  /// Moves the values' biases, which attention cannot change, behind it: `b_O ← b_O + b_VᵀW_O`,
  /// `b_V = 0`.
  case foldValueBiases = "fold_value_biases"

  /// What can be asked for by name; the first step is a matter of the checkpoint.
  public static let choices = allCases.filter { $0 != .foldAffineNorms }.map(\.rawValue)

  /// The four steps that TransformerLens applies by default.
  ///
  /// A list that holds all four also fits a model without norms: `fold_ln` is then left out.
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

  /// Whether weights on which `steps` were carried out, in that order, still have what this step
  /// gives: it need not be repeated.
  public func stillHolds(after steps: [String]) -> Bool {
    guard let done = steps.lastIndex(of: rawValue) else { return false }
    // Folding a norm's bias gives the values a bias again.
    guard self == .foldValueBiases, let folded = steps.lastIndex(of: Self.foldLN.rawValue) else {
      return true
    }
    return done > folded
  }

  /// Carries the step out on a model's tensors; those that nobody else holds are changed in place.
  ///
  /// - Parameters:
  ///   - tensors: the tensors by their Hugging Face names without `transformer.`.
  ///   - config: the configuration that belongs to them.
  /// - Throws: `ModelError.processing` where the step would not be exact (nothing is changed then);
  ///   `.missingTensor`, `.tensorShape`, `.unusedTensors` where tensors and configuration disagree.
  public func apply(
    to tensors: inout [String: Tensor], config: inout GPT2Config
  ) throws(ModelError) {
    _ = try GPT2Weights(tensors, config: config)
    var model = ProcessedWeights(tensors: tensors, config: config)
    tensors = [:]
    defer { (tensors, config) = (model.tensors, model.config) }
    switch self {
    case .foldAffineNorms: try model.foldAffineNorms()
    case .foldLN: try model.foldNorms()
    case .centerReadingWeights: try model.centerReadingWeights()
    case .centerWritingWeights: try model.centerWritingWeights()
    case .rmsNorm: try model.replaceLayerNormByRMSNorm()
    case .crmsNorm: try model.compress(.crmsNorm, .dropLast)
    case .isometric: try model.compress(.isometric, .helmert)
    case .centerUnembed: model.centerUnembed()
    case .foldValueBiases: model.foldValueBiases()
    }
  }

  /// The first weight that answers to a constant added to the stream, in words; nil if none does.
  ///
  /// - Precondition: the tensors fit the configuration.
  package static func readerOfTheMean(
    _ tensors: [String: Tensor], config: GPT2Config
  ) -> String? {
    ProcessedWeights(tensors: tensors, config: config).readerOfTheMean()
  }
}
