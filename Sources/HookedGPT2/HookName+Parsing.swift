extension HookName {
  /// Reads a hook's full name (`blocks.3.attn.hook_pattern`) or TransformerLens' shorthand
  /// (`k6`, `resid_post-1`, `pattern3`, `normalized2ln2`, `scale4ln1`), each with `_grad` behind it
  /// for the gradient (`resid_pre0_grad`).
  ///
  /// - Parameters:
  ///   - text: the name.
  ///   - nLayers: how many blocks the model has; negative layers count from the last.
  /// - Throws: `ModelError.unknownHook` with the nearest name, `.layerOutOfRange`.
  public init(parsing text: String, nLayers: Int) throws(ModelError) {
    if text.hasSuffix(HookName.gradientSuffix) {
      self = try HookName.gradient(parsing: text, nLayers: nLayers)
    } else if let name = HookName.fullName(text) {
      self = try name.checked(nLayers: nLayers, written: text)
    } else if let name = HookName.shorthand(text, nLayers: nLayers) {
      self = try name.checked(nLayers: nLayers, written: text)
    } else {
      throw .unknownHook(name: text, suggestion: HookName.nearest(to: text, nLayers: nLayers))
    }
  }

  /// A gradient's name; what is wrong with it is said of the whole text.
  private static func gradient(
    parsing text: String, nLayers: Int
  ) throws(ModelError) -> HookName {
    let name = String(text.dropLast(gradientSuffix.count))
    // A gradient has no gradient.
    if name.hasSuffix(gradientSuffix) { throw .unknownHook(name: text, suggestion: nil) }
    do throws(ModelError) {
      return try HookName(parsing: name, nLayers: nLayers).gradient
    } catch {
      switch error {
      case .unknownHook(_, let suggestion):
        throw .unknownHook(name: text, suggestion: suggestion.map { $0 + gradientSuffix })
      case .layerOutOfRange(_, let layer, let layers):
        throw .layerOutOfRange(hook: text, layer: layer, layers: layers)
      default: throw error
      }
    }
  }

  /// TransformerLens' other names for a site.
  static let aliases: [String: Site] = [
    "attn": .pattern, "attn_logits": .attnScores, "key": .k, "query": .q, "value": .v,
    "mlp_mid": .mlpPost, "pre": .mlpPre, "post": .mlpPost, "logits": .unembedOut,
  ]

  /// The site with this short name: `resid_pre`, `k`, `mlp_post`, or one of its aliases.
  package static func site(named name: String) -> Site? {
    Site(rawValue: name) ?? aliases[name]
  }

  func checked(nLayers: Int, written: String) throws(ModelError) -> HookName {
    guard let layer else { return self }
    if layer < 0 || layer >= nLayers {
      throw .layerOutOfRange(hook: written, layer: layer, layers: nLayers)
    }
    return self
  }

  private static func fullName(_ text: String) -> HookName? {
    if let site = Site.allCases.first(where: { !$0.isPerLayer && $0.path == text }) {
      return HookName(site)
    }
    let parts = text.split(separator: ".", maxSplits: 2, omittingEmptySubsequences: false)
    guard parts.count == 3, parts[0] == "blocks", let layer = Int(parts[1]),
      let site = Site.allCases.first(where: { $0.isPerLayer && $0.path == parts[2] })
    else { return nil }
    return HookName(site, layer: layer)
  }

  private static func shorthand(_ text: String, nLayers: Int) -> HookName? {
    if let site = site(named: text), !site.isPerLayer { return HookName(site) }
    // `normalized2ln2`, `scale4ln1`: the norm stands behind the layer.
    for (norm, scale, normalized) in [
      ("ln1", Site.ln1Scale, Site.ln1Normalized), ("ln2", .ln2Scale, .ln2Normalized),
    ] where text.hasSuffix(norm) {
      let rest = text.dropLast(3)
      for (prefix, site) in [("scale", scale), ("normalized", normalized)]
      where rest.hasPrefix(prefix) {
        if let layer = layer(rest.dropFirst(prefix.count), nLayers) {
          return HookName(site, layer: layer)
        }
      }
    }
    // `k6`, `resid_post-1`: the longest site name with a whole number behind it.
    let names = Site.allCases.map { ($0.rawValue, $0) } + aliases.map { ($0.key, $0.value) }
    let matches = names.filter { $0.1.isPerLayer && text.hasPrefix($0.0) }
    for (name, site) in matches.sorted(by: { $0.0.count > $1.0.count }) {
      if let layer = layer(text.dropFirst(name.count), nLayers) {
        return HookName(site, layer: layer)
      }
    }
    return nil
  }

  private static func layer(_ digits: Substring, _ nLayers: Int) -> Int? {
    guard let layer = Int(digits), digits.first != "+" else { return nil }
    return layer < 0 ? layer + nLayers : layer
  }

  /// The existing name with the fewest edits to `text`, if it is near enough to be a typing error.
  static func nearest(to text: String, nLayers: Int) -> String? {
    let layers = Set(text.split { !$0.isNumber }.compactMap { Int($0) } + [0])
      .filter { $0 < nLayers }
    // A block's site without its layer is a name only where all layers may be meant: no help to
    // whoever wrote just that, or a layer.
    let isBare = site(named: text) == nil && text.last?.isNumber != true
    var candidates = Site.allCases.filter { isBare || !$0.isPerLayer }.map(\.rawValue)
    for layer in layers {
      candidates += Site.allCases.map {
        $0.isPerLayer ? HookName($0, layer: layer).rawValue : $0.path
      }
      candidates += Site.allCases.filter(\.isPerLayer).map { "\($0.rawValue)\(layer)" }
    }
    return nearestText(to: text, among: candidates)
  }
}

/// The candidate with the fewest edits to `text`, if at most a third of it has to change.
public func nearestText(to text: String, among candidates: [String]) -> String? {
  let best = candidates.map { ($0, editDistance(text, $0)) }.min {
    ($0.1, $0.0.count, $0.0) < ($1.1, $1.0.count, $1.0)
  }
  guard let best, best.1 <= max(1, text.count / 3) else { return nil }
  return best.0
}

/// How many characters must be inserted, removed or replaced to turn `a` into `b`.
private func editDistance(_ a: String, _ b: String) -> Int {
  let (a, b) = (Array(a), Array(b))
  var previous = Array(0...b.count)
  for i in a.indices {
    var current = [i + 1]
    for j in b.indices {
      current.append(
        min(previous[j] + (a[i] == b[j] ? 0 : 1), previous[j + 1] + 1, current[j] + 1))
    }
    previous = current
  }
  return previous[b.count]
}
