import NormLens

/// A target on the command line: `L5H1`, `L3N1024`, `3_mlp_out`, `resid_pre2`,
/// `blocks.3.attn.hook_pattern`, each with `@0,-1` behind it for some positions only.
struct TargetText {
  let filter: HookFilter

  init(_ text: String, _ config: GPT2Config) throws {
    let parts = text.split(separator: "@", maxSplits: 1, omittingEmptySubsequences: false)
    let name = String(parts[0])
    var positions = PositionSelection.all
    if parts.count == 2 {
      positions = .at(
        try parts[1].split(separator: ",", omittingEmptySubsequences: false).map { word in
          guard let position = Int(word) else {
            throw CommandError("'\(text)': '\(word)' is not a position")
          }
          return position
        })
    }
    if let match = name.wholeMatch(of: #/L(\d+)H(\d+)/#), let layer = Int(match.1),
      let head = Int(match.2)
    {
      filter = .z(layer: layer, head: head).at(positions)
    } else if let match = name.wholeMatch(of: #/L(\d+)N(\d+)/#), let layer = Int(match.1),
      let index = Int(match.2)
    {
      guard index < config.dMLP else {
        throw CommandError("'\(text)': the model has neurons 0 to \(config.dMLP - 1)")
      }
      filter = .mlpPost(.layer(layer)).at(positions).element(index)
    } else {
      let label = name.wholeMatch(of: #/(\d+)_(attn_out|mlp_out|pre|mid)/#)
      let full = label.map {
        ["pre", "mid"].contains($0.2) ? "resid_\($0.2)\($0.1)" : "\($0.2)\($0.1)"
      }
      filter = HookFilter(try HookName(parsing: full ?? name, nLayers: config.nLayers)).at(
        positions)
    }
    // A layer, head or position that does not exist is an error now, not an intervention that does
    // nothing.
    _ = try filter.names(config)
  }

  func zero() -> Intervention { .zero(filter) }

  func mean() -> Intervention { .mean(filter) }

  func scale(by factor: Float) -> Intervention { .edit(filter) { $0 = $0 * factor } }
}
