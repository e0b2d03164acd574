import Tensors

/// The backward pass through a model, by hand: from the derivative of a number by the logits down to
/// the embeddings, with the derivative at every hook on the way.
///
/// What it needs of the forward pass is what `BaseRun` kept; patterns and neurons are computed again,
/// one layer at a time. Per block, with g the gradient at `resid_post`:
///
///     g_post = g·W_outᵀ                g_pre = g_post ⊙ activation′(pre)
///     g     += norm2′(g_pre·W_inᵀ)
///     g_z    = g·W_Oᵀ                  g_pattern = g_z·vᵀ             g_v = patternᵀ·g_z
///     g_scores = pattern ⊙ (g_pattern − Σ pattern ⊙ g_pattern)
///     g_q    = scale·g_scores·k        g_k = scale·g_scoresᵀ·q
///     g     += norm1′(g_q·W_Qᵀ + g_k·W_Kᵀ + g_v·W_Vᵀ)
///
/// with the derivatives replaced as `BackwardRules` say.
public struct BackwardPass {
  private let model: GPT2
  private let runs: [BaseRun]
  private let rules: BackwardRules
  private let first: [Int]

  /// A pass through some runs.
  ///
  /// - Parameters:
  ///   - model: the model that was run.
  ///   - runs: the runs, of any lengths.
  ///   - rules: how it goes through what is not linear.
  ///   - first: of each run the first position whose gradients are wanted; nil means all. Gradients at
  ///     a position depend on those at later ones only, so that what comes before need not be
  ///     computed.
  /// - Precondition: a first position for each run, at most its length.
  public init(
    _ model: GPT2, _ runs: [BaseRun], rules: BackwardRules = .gradient, from first: [Int]? = nil
  ) {
    self.model = model
    self.runs = runs
    self.rules = rules
    self.first = first ?? runs.map { _ in 0 }
    precondition(
      self.first.count == runs.count, "BackwardPass: \(runs.count) runs, first \(first ?? [])")
  }

  /// Walks down.
  ///
  /// - Parameters:
  ///   - start: of each run the derivative by its logits.
  ///   - visitor: what looks at the gradients.
  /// - Throws: `ModelError`; whatever the visitor throws.
  /// - Complexity: about 4/3 of a forward pass through the blocks: each weight is read once, that of
  ///   `W_in` twice.
  public func walk(from start: [LogitGradient], _ visitor: inout some BackwardVisitor) throws {
    preconditionFailure("BackwardPass.walk is not written yet")
  }
}
