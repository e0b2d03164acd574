public import HookedGPT2
import OrderedCollections
public import Results
import Tensors

/// Whether a head makes the tokens likelier that it attends to, by the weights alone.
///
/// The head's full OV circuit W_E·W_OV·W_U maps each token that is attended to onto its effect on all logits.
/// Its d_head eigenvalues λ tell: positive ones mean sets of tokens that raise each other. The score is
/// Σ Re λ/Σ |λ|, 1 for all real and positive, −1 for all negative (Elhage et al. 2021,
/// transformer-circuits.pub/2021/framework). The norms' gains are folded in, their division is not, and
/// biases are left out. `W_U` is taken without its mean over the vocabulary, which changes no
/// probability.
///
/// **What it does not show.** In a deep model heads do not read the embeddings as they are, and what they write
/// is read by more than the unembedding.
///
/// Neither the circuit nor W_OV is formed: with W_U·W_E of d_model² once for all heads, the eigenvalues
/// are those of d_head² numbers a head.
public struct HeadCopying: Sendable {
  /// The scores of all heads.
  public init() {}

  /// The group `heads/weights`.
  ///
  /// - Throws: `AnalysisError.nonFinite`.
  /// - Complexity: 2·d_vocab·d_model² FLOPs and 2·n_heads·d_head·d_model² a layer.
  public func group(_ model: GPT2) throws -> ResultGroup {
    let config = model.config
    let (rows, H) = (config.dHead, config.nHeads)
    let unembedded = try Self.unembeddedEmbedding(model)
    var (copying, trace): ([Double], [Double]) = ([], [])
    for layer in 0..<config.nLayers {
      let values = model.headReaders(layer: layer).v
      let written = matmul(model.headWriters(layer: layer), MatrixView(unembedded))
      let spectra = parallelMap(H) { head in
        let own = head * rows..<(head + 1) * rows
        return FactoredMatrix(values.rows(own).transposed(), written.rows(own)).eigenvalues()
      }
      for (head, spectrum) in spectra.enumerated() {
        guard let spectrum else {
          throw AnalysisError.nonFinite(
            analysis: "heads, copying", what: "the OV circuit of L\(layer)H\(head)")
        }
        let whole = spectrum.reduce(0) { $0 + $1.magnitude }
        let sum = spectrum.reduce(0) { $0 + $1.real }
        copying.append(whole > 0 ? sum / whole : .nan)
        trace.append(sum)
      }
    }
    let circuit =
      "of W_E*W_V*W_O*W_U, gains folded in, W_U without its mean over the vocabulary, no biases"
    func variable(_ name: String, _ values: [Double], _ meaning: String, _ formula: String)
      -> ResultVariable
    {
      ResultVariable(
        name, ["layer", "head"], .float64(values), longName: meaning, units: "1",
        sign: "positive = the head raises the tokens that it attends to",
        attributes: [
          "formula": .string(formula),
          "references": .string("Elhage et al. 2021, transformer-circuits.pub/2021/framework"),
        ])
    }
    return ResultGroup(
      path: "heads/weights",
      dimensions: [
        Dimension("layer", count: config.nLayers), Dimension("head", count: config.nHeads),
      ],
      variables: [
        variable(
          "copying", copying, "copying score of the full OV circuit; NaN where it is zero",
          "sum Re(lambda)/sum |lambda| over the eigenvalues \(circuit)"),
        variable(
          "ov_trace", trace, "sum over all tokens of a token's direct effect on its own logit",
          "trace \(circuit)"),
      ])
  }

  /// W_Uᵀ·W_E as the final norm lets it be read, W_U without its mean over the vocabulary:
  /// Σ_v u_v·(e_v − ē)ᵀ, transposed for vectors that multiply from the left. Shape `[d_model, d_model]`.
  static func unembeddedEmbedding(_ model: GPT2) throws -> Tensor {
    let (V, d) = (model.config.dVocab, model.config.dModel)
    let W_E = model.weights.W_E
    let mean = W_E.sumOfRows(weightedBy: Array(repeating: 1, count: V)).map {
      Float(-$0 / Double(V))
    }
    let shift = Tensor(mean, shape: [d])
    var sum = [Double](repeating: 0, count: d * d)
    for start in stride(from: 0, to: V, by: 4096) {
      let tokens = start..<min(V, start + 4096)
      let product = matmul(
        model.weights.readUnembedding(tokens).transposed(),
        MatrixView(W_E.rows(tokens).addingToRows(shift)))
      let span = product.span
      for i in 0..<d * d { sum[i] += Double(span[i]) }
    }
    return Tensor(sum.map { Float($0) }, shape: [d, d])
  }
}
