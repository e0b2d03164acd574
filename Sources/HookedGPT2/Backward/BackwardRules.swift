/// How a backward pass goes through the steps that are not linear.
///
/// `.gradient` is the derivative. `.relp` propagates relevance: each rule replaces a step's derivative
/// by a coefficient that carries what the step let through, so that over- and undershooting slopes
/// (a GELU's slope is −0.13 to 1.13) do not pile up over the layers. The forward pass never depends on
/// the rules.
///
/// | rule | step | derivative | replaced by |
/// |---|---|---|---|
/// | `ln` | LayerNorm, RMSNorm, CRMSNorm | of the scale, too | the scale is a constant |
/// | `identity` | GELU, ReLU | activation′(x) | activation(x)/x |
/// | `attentionPattern` | softmax | of the pattern | the pattern is a constant: nothing reaches q and k |
/// | `uniformAttention` | the products pattern·v and q·k | to both factors | half of it to each |
///
/// Linear steps need no rule. Rules that do not apply to a model (`ln` where there are no norms) change
/// nothing.
///
/// RelP: Rezaei Jafari, Eberle, Khakzar, Nanda 2025, arXiv:2508.21258. The pattern's rule: Ali et al.
/// 2022, arXiv:2202.07304; the uniform rule: AttnLRP, Achtibat et al. 2024, arXiv:2402.05602.
public struct BackwardRules: Sendable, Hashable {
  /// Norms divide by a constant.
  public var ln: Bool
  /// A non-linearity passes on `activation(x)/x`.
  public var identity: Bool
  /// Attention patterns are constants; off in RelP.
  public var attentionPattern: Bool
  /// The two products of attention share relevance evenly; off in RelP.
  public var uniformAttention: Bool

  /// Some rules; none by default.
  public init(
    ln: Bool = false, identity: Bool = false, attentionPattern: Bool = false,
    uniformAttention: Bool = false
  ) {
    self.ln = ln
    self.identity = identity
    self.attentionPattern = attentionPattern
    self.uniformAttention = uniformAttention
  }

  /// No rule: the derivative.
  public static let gradient = BackwardRules()
  /// The rules of RelP: `ln` and `identity`.
  public static let relp = BackwardRules(ln: true, identity: true)

  /// The rules by their names on the command line and in results.
  private static let switches: [(name: String, path: any WritableKeyPath<Self, Bool> & Sendable)] =
    [
      ("ln", \.ln), ("identity", \.identity), ("attention-pattern", \.attentionPattern),
      ("uniform-attention", \.uniformAttention),
    ]

  /// Every rule's name: `ln`, `identity`, `attention-pattern`, `uniform-attention`.
  public static var allNames: [String] { switches.map(\.name) }

  /// The names of the rules that are on.
  public var names: [String] { Self.switches.filter { self[keyPath: $0.path] }.map(\.name) }

  /// The rules with these names; nil where one is unknown.
  public init?(names: [String]) {
    self.init()
    for name in names {
      guard let found = Self.switches.first(where: { $0.name == name }) else { return nil }
      self[keyPath: found.path] = true
    }
  }
}
