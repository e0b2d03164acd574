public import HookedGPT2

/// What one cell of a patching sweep overwrites: an activation, cut along some of its axes.
///
/// `resid_pre` over `[layer, pos]` has a cell for each layer and position, each overwriting one
/// vector `[d_model]`; `head_z` over `[layer, head]` overwrites one head's outputs at all positions.
/// The sites below are the sweeps of TransformerLens' `patching.py` under the names of the results,
/// with its axis order; any other cut is
///
/// ```swift
/// PatchSite("scores_by_query", of: .attnScores, over: [.layer, .head, .queryPos])
/// ```
public struct PatchSite: Sendable, Hashable, CustomStringConvertible {
  /// An axis of a sweep, named as in the results.
  public enum Axis: String, Sendable, Hashable {
    /// Blocks; every sweep has this axis, and has it first.
    case layer
    /// Token positions.
    case pos
    /// Attention heads.
    case head
    /// Neurons of an MLP.
    case neuron
    /// The positions that attend.
    case queryPos = "query_pos"
    /// The positions that are attended to.
    case keyPos = "key_pos"
  }

  /// The variable's name in the results.
  public let name: String
  /// The activation that is overwritten.
  public let site: Site
  /// The axes of the sweep, slowest first.
  public let axes: [Axis]

  /// A sweep of `site` with a cell for each index along `axes`.
  ///
  /// - Precondition: `axes` begins with `.layer`, names none twice, and has only axes of the site.
  public init(_ name: String, of site: Site, over axes: [Axis]) {
    precondition(axes.first == .layer, "PatchSite '\(name)': the first axis must be layer")
    precondition(Set(axes).count == axes.count, "PatchSite '\(name)': an axis twice in \(axes)")
    precondition(
      SuffixRuns.sites.contains(site), "PatchSite '\(name)': '\(site.rawValue)' cannot be patched")
    let own: Set<Axis> =
      if site.isAttention {
        [.layer, .head, .queryPos, .keyPos]
      } else if site.hasHeadAxis {
        [.layer, .pos, .head]
      } else {
        [.mlpPre, .mlpPost].contains(site) ? [.layer, .pos, .neuron] : [.layer, .pos]
      }
    precondition(
      own.isSuperset(of: axes),
      "PatchSite '\(name)': '\(site.rawValue)' has axes \(own.map(\.rawValue).sorted())")
    self.name = name
    self.site = site
    self.axes = axes
  }

  /// The variable's name.
  public var description: String { name }

  /// The cells of a prompt of `length` tokens along each axis.
  public func shape(_ config: GPT2Config, length: Int) -> [Int] {
    axes.map { axis in
      switch axis {
      case .layer: config.nLayers
      case .pos, .queryPos, .keyPos: length
      case .head: config.nHeads
      case .neuron: config.dMLP
      }
    }
  }

  /// The activations that the cell at `indices` (along `axes`) overwrites, in layers
  /// `layer ..< layer + window`.
  public func target(_ indices: [Int], window: Int = 1) -> HookFilter {
    var filter = HookFilter(site)
    for (axis, index) in zip(axes, indices) {
      switch axis {
      case .layer: filter.layers = .layers(Array(index..<index + window))
      case .pos, .queryPos: filter.positions = .at([index])
      case .head: filter.head = index
      case .neuron, .keyPos: filter.element = index
      }
    }
    return filter
  }
}

extension PatchSite {
  /// `get_act_patch_resid_pre`: the stream before a block.
  public static let residPre = PatchSite("resid_pre", of: .residPre, over: [.layer, .pos])
  /// `get_act_patch_resid_mid`: the stream between attention and MLP.
  public static let residMid = PatchSite("resid_mid", of: .residMid, over: [.layer, .pos])
  /// `get_act_patch_attn_out`: what attention adds to the stream.
  public static let attnOut = PatchSite("attn_out", of: .attnOut, over: [.layer, .pos])
  /// `get_act_patch_mlp_out`: what an MLP adds to the stream.
  public static let mlpOut = PatchSite("mlp_out", of: .mlpOut, over: [.layer, .pos])

  /// `get_act_patch_attn_head_out_all_pos`: a head's output.
  public static let headZ = PatchSite("head_z", of: .z, over: [.layer, .head])
  /// `get_act_patch_attn_head_q_all_pos`: a head's queries.
  public static let headQ = PatchSite("head_q", of: .q, over: [.layer, .head])
  /// `get_act_patch_attn_head_k_all_pos`: a head's keys.
  public static let headK = PatchSite("head_k", of: .k, over: [.layer, .head])
  /// `get_act_patch_attn_head_v_all_pos`: a head's values.
  public static let headV = PatchSite("head_v", of: .v, over: [.layer, .head])
  /// `get_act_patch_attn_head_pattern_all_pos`: a head's pattern.
  public static let headPattern = PatchSite("head_pattern", of: .pattern, over: [.layer, .head])

  /// `get_act_patch_attn_head_out_by_pos`: a head's output at a position.
  public static let headZByPos = PatchSite("head_z_by_pos", of: .z, over: [.layer, .pos, .head])
  /// `get_act_patch_attn_head_q_by_pos`: a head's query at a position.
  public static let headQByPos = PatchSite("head_q_by_pos", of: .q, over: [.layer, .pos, .head])
  /// `get_act_patch_attn_head_k_by_pos`: a head's key at a position.
  public static let headKByPos = PatchSite("head_k_by_pos", of: .k, over: [.layer, .pos, .head])
  /// `get_act_patch_attn_head_v_by_pos`: a head's value at a position.
  public static let headVByPos = PatchSite("head_v_by_pos", of: .v, over: [.layer, .pos, .head])
  /// `get_act_patch_attn_head_pattern_by_pos`: where a head attends from one position.
  public static let headPatternByPos = PatchSite(
    "head_pattern_by_pos", of: .pattern, over: [.layer, .head, .queryPos])
  /// `get_act_patch_attn_head_pattern_dest_src_pos`: one weight of a head's pattern.
  public static let headPatternDestSrc = PatchSite(
    "head_pattern_dest_src", of: .pattern, over: [.layer, .head, .queryPos, .keyPos])

  /// Neurons at a position.
  public static let mlpPost = PatchSite("mlp_post", of: .mlpPost, over: [.layer, .pos, .neuron])

  /// Every named sweep, in the order of the results.
  public static let all: [PatchSite] = [
    residPre, residMid, attnOut, mlpOut, headZ, headQ, headK, headV, headPattern, headZByPos,
    headQByPos, headKByPos, headVByPos, headPatternByPos, headPatternDestSrc, mlpPost,
  ]

  /// `get_act_patch_block_every`.
  public static let blocks: [PatchSite] = [residPre, attnOut, mlpOut]
  /// `get_act_patch_attn_head_all_pos_every`.
  public static let heads: [PatchSite] = [headZ, headQ, headK, headV, headPattern]
  /// `get_act_patch_attn_head_by_pos_every`.
  public static let headsByPos: [PatchSite] = [
    headZByPos, headQByPos, headKByPos, headVByPos, headPatternByPos,
  ]
}
