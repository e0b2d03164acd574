import NormLens

/// A target on the command line: `L5H1`, `L3N1024`, `3_mlp_out`, `resid_pre2`,
/// `blocks.3.attn.hook_pattern`, each with `@0,-1` behind it for some positions only.
struct TargetText {
  let filter: HookFilter
  /// One neuron of `mlp_post`, or all.
  let neuron: Int?

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
      neuron = nil
    } else if let match = name.wholeMatch(of: #/L(\d+)N(\d+)/#), let layer = Int(match.1),
      let index = Int(match.2)
    {
      guard index < config.dMLP else {
        throw CommandError("'\(text)': the model has neurons 0 to \(config.dMLP - 1)")
      }
      filter = .mlpPost(.layer(layer)).at(positions)
      neuron = index
    } else {
      let label = name.wholeMatch(of: #/(\d+)_(attn_out|mlp_out|pre|mid)/#)
      let full = label.map {
        ["pre", "mid"].contains($0.2) ? "resid_\($0.2)\($0.1)" : "\($0.2)\($0.1)"
      }
      filter = HookFilter(try HookName(parsing: full ?? name, nLayers: config.nLayers)).at(
        positions)
      neuron = nil
    }
    // A layer, head or position that does not exist is an error now, not an intervention that does
    // nothing.
    _ = try filter.names(config)
  }

  func zero() -> Intervention {
    neuron == nil ? .zero(filter) : onNeuron { _ in 0 }
  }

  func mean() -> Intervention {
    neuron == nil
      ? .mean(filter)
      : onNeuron { values in values.reduce(0, +) / Float(values.count) }
  }

  func scale(by factor: Float) -> Intervention {
    guard let neuron else { return .edit(filter) { $0 = $0 * factor } }
    return .edit(filter) { x in
      for position in 0..<x.shape[0] { x[position, neuron] *= factor }
    }
  }

  /// Sets the neuron to what `value` makes of its activations at all positions.
  private func onNeuron(_ value: @escaping @Sendable ([Float]) -> Float) -> Intervention {
    let neuron = neuron ?? 0
    return .edit(filter) { x in
      let rows = x.shape[0]
      let new = value((0..<rows).map { x[$0, neuron] })
      for position in 0..<rows { x[position, neuron] = new }
    }
  }
}
