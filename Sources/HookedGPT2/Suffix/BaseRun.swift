public import Tensors

/// An unpatched run, kept so that patched runs can resume from it.
///
/// It is read at its last position. The memory is about `9·n_layers·pos·d_model` floats.
public struct BaseRun: Sendable {
  /// The token ids.
  public let tokens: [Int]
  /// The logits at the last of these tokens, shape `[d_vocab]`.
  public let logits: Tensor
  /// What the run recorded: at every layer `resid_pre`, `q`, `k`, `v`, `z`, `attn_out`, `resid_mid`,
  /// `mlp_out`, `resid_post`.
  public private(set) var cache: ActivationCache

  /// What is recorded.
  static let sites: [Site] = [
    .residPre, .q, .k, .v, .z, .attnOut, .residMid, .mlpOut, .residPost,
  ]

  /// Runs a prompt.
  ///
  /// - Parameters:
  ///   - model: the model.
  ///   - tokens: its token ids.
  ///   - interventions: changes of the run itself, such as noise on the embeddings. They belong to
  ///     the base: what `PatchedRun` changes comes on top of them. Only those before the first block
  ///     (`embed`, `pos_embed`, `resid_pre` of layer 0) are allowed: later ones would have to act
  ///     again on every patched run.
  /// - Throws: `ModelError`.
  public init(_ model: GPT2, tokens: [Int], interventions: [Intervention] = []) throws {
    self = try Self.batch(model, [tokens], interventions: interventions)[0]
  }

  /// Runs prompts together.
  ///
  /// - Parameters:
  ///   - model: the model.
  ///   - prompts: token ids of each.
  ///   - interventions: as for one prompt; each may name the prompt that it changes.
  /// - Throws: `ModelError`.
  public static func batch(
    _ model: GPT2, _ prompts: [[Int]], interventions: [Intervention] = []
  ) throws -> [BaseRun] {
    for intervention in interventions {
      let target = intervention.target
      guard
        try target.names(model.config).allSatisfy({
          [.embed, .posEmbed].contains($0.site) || $0 == HookName(.residPre, layer: 0)
        })
      else {
        throw ModelError.intervention(
          hook: target.description, problem: "a base run can be changed before its first block only"
        )
      }
    }
    let (logits, cache) = try model.runWithCache(
      batch: prompts, hooks: sites.map { HookFilter($0) }, logits: .last,
      interventions: interventions)
    return prompts.indices.map { prompt in
      BaseRun(
        tokens: prompts[prompt], logits: logits[prompt].row(0), cache: cache.only(prompt: prompt))
    }
  }

  /// A run whose activations at `sites` of every layer `cache` has recorded.
  init(tokens: [Int], logits: Tensor, cache: ActivationCache) {
    self.tokens = tokens
    self.logits = logits
    self.cache = cache
  }

  /// Makes the activations of the tokens that this run and `other` begin with the other's, bit for
  /// bit: a causal model computes the same of them, but sums of other lengths may round differently.
  /// A patch of such a position from one run into the other then changes exactly nothing.
  ///
  /// Where a run starts from other embeddings than its tokens' (noise), the common beginning ends.
  public mutating func sharePrefix(of other: BaseRun) throws(ModelError) {
    let (start, otherStart) = (try activation(.residPre, 0), try other.activation(.residPre, 0))
    let common = zip(0..<length, 0..<other.length).prefix { row, otherRow in
      tokens[row] == other.tokens[otherRow]
        && start.row(row).scalars == otherStart.row(otherRow).scalars
    }.count
    if common > 0 { try cache.takeRows(common, of: other.cache) }
  }

  /// How many tokens there are.
  public var length: Int { tokens.count }

  /// The activation of `site` in `layer`, shape as the site's.
  func activation(_ site: Site, _ layer: Int) throws(ModelError) -> Tensor {
    try cache.tensor(HookName(site, layer: layer))
  }
}
