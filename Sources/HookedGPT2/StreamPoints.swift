extension GPT2Config {
  /// The hooks of the residual stream before each sublayer and behind the last, in order: `resid_pre` and
  /// `resid_mid` of every block, the last block's `resid_post`.
  public var streamHooks: [HookName] {
    (0..<nLayers).flatMap { [HookName(.residPre, layer: $0), HookName(.residMid, layer: $0)] }
      + [HookName(.residPost, layer: nLayers - 1)]
  }

  /// The labels of ``streamHooks``: `0_pre, 0_mid, 1_pre, …, final_post`.
  public var streamLabels: [String] {
    (0..<nLayers).flatMap { ["\($0)_pre", "\($0)_mid"] } + ["final_post"]
  }

  /// The hooks of the residual stream before each block and behind the last: `resid_pre` of every block,
  /// the last block's `resid_post`.
  public var blockHooks: [HookName] {
    (0..<nLayers).map { HookName(.residPre, layer: $0) }
      + [HookName(.residPost, layer: nLayers - 1)]
  }
}
