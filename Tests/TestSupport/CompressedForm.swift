public import NormLens

/// A checkpoint in one of the forms whose stream has d − 1 coordinates.
public struct CompressedForm: Sendable, CustomStringConvertible {
  /// The checkpoint.
  public let checkpoint: String
  /// `.crmsNorm` or `.isometric`.
  public let form: WeightProcessing

  /// The forms of checkpoints with LayerNorm and without.
  public static let all = [
    CompressedForm(checkpoint: "tiny-ln", form: .crmsNorm),
    CompressedForm(checkpoint: "tiny-ln", form: .isometric),
    CompressedForm(checkpoint: "tiny-relu-untied", form: .crmsNorm),
    CompressedForm(checkpoint: "tiny-gelu-erf", form: .isometric),
    CompressedForm(checkpoint: "tiny-lnfree", form: .isometric),
  ]

  /// `tiny-ln-isometric`.
  public var name: String { "\(checkpoint)-\(form.rawValue)" }
  /// The same.
  public var description: String { name }

  /// The steps that lead there.
  public var steps: [WeightProcessing] {
    (checkpoint == "tiny-lnfree" ? [] : [.foldLN]) + [.centerWritingWeights, form]
  }

  /// The unprocessed model.
  public func plain() throws -> GPT2 { try GPT2.load(Fixtures.checkpoint(checkpoint)) }

  /// The checkpoint in this form.
  public func open() throws -> Checkpoint {
    try Checkpoint.open(Fixtures.checkpoint(checkpoint), processing: steps)
  }

  /// The model.
  public func load() throws -> GPT2 { try open().model() }

  /// What this form makes of a vector x of d numbers: of x less its mean the first d − 1, or by its
  /// definition `Σ_i x_i·B_ik` with Helmert's basis B.
  public func coordinates(_ x: [Double]) -> [Double] {
    let mean = x.reduce(0, +) / Double(x.count)
    if form == .crmsNorm { return x.dropLast().map { $0 - mean } }
    return (1..<x.count).map { k in
      let before: Double = x[..<k].reduce(0, +)
      let rest = before - Double(k) * x[k]
      return rest / Double(k * (k + 1)).squareRoot()
    }
  }
}
