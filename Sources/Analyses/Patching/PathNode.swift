public import HookedGPT2

/// Where a path begins: components that write into the residual stream, taken together.
///
/// Mostly one: `embed` (token and position embedding), a head `L5H1`, an MLP `3_mlp_out`.
public struct PathSender: Sendable, Hashable, CustomStringConvertible {
  /// What writes into the stream. Biases are the same in every run and carry nothing.
  public enum Component: Sendable, Hashable {
    /// Token and position embedding.
    case embed
    /// A head's result.
    case head(layer: Int, head: Int)
    /// An MLP's output.
    case mlp(layer: Int)

    /// Where it writes: it comes after everything that is read there.
    var stage: Int {
      switch self {
      case .embed: -1
      case .head(let layer, _): 2 * layer
      case .mlp(let layer): 2 * layer + 1
      }
    }
  }

  /// The components, in the order of the model.
  public let components: [Component]
  /// The label: `L5H1`, `embed+L0H1`.
  public let description: String

  /// Token and position embedding.
  public static let embed = PathSender([.embed], "embed")

  /// A head: `L5H1`.
  public static func head(layer: Int, head: Int) -> PathSender {
    PathSender([.head(layer: layer, head: head)], "L\(layer)H\(head)")
  }

  /// An MLP: `3_mlp_out`.
  public static func mlp(layer: Int) -> PathSender {
    PathSender([.mlp(layer: layer)], "\(layer)_mlp_out")
  }

  /// Several senders as one: what all of them write changes at once.
  ///
  /// - Parameter label: what results call it; by default the parts joined by `+`.
  public static func together(_ parts: [PathSender], label: String? = nil) -> PathSender {
    let components = Set(parts.flatMap(\.components)).sorted {
      ($0.stage, "\($0)") < ($1.stage, "\($1)")
    }
    return PathSender(components, label ?? parts.map(\.description).joined(separator: "+"))
  }

  /// Every head of a model.
  public static func heads(_ config: GPT2Config) -> [PathSender] {
    allHeads(config).map { head(layer: $0.layer, head: $0.head) }
  }

  /// Every MLP of a model.
  public static func mlps(_ config: GPT2Config) -> [PathSender] {
    (0..<config.nLayers).map { mlp(layer: $0) }
  }

  /// The embedding, every head and every MLP, in the order of the model.
  public static func all(_ config: GPT2Config) -> [PathSender] {
    ([embed] + heads(config) + mlps(config)).inOrder { $0.components[0].stage }
  }

  private init(_ components: [Component], _ label: String) {
    self.components = components
    description = label
  }

  /// The first place where it writes.
  var stage: Int { components.map(\.stage).min() ?? Int.max }
}

/// Where a path ends: one of the things that read the residual stream.
///
/// The three inputs of a head are `L9H6.q`, `L9H6.k` and `L9H6.v`, an MLP's is `9_mlp_in`, and
/// `final` is the stream that the final norm and the unembedding read.
public enum PathReceiver: Sendable, Hashable, CustomStringConvertible {
  /// What a head's queries read.
  case q(layer: Int, head: Int)
  /// What a head's keys read.
  case k(layer: Int, head: Int)
  /// What a head's values read.
  case v(layer: Int, head: Int)
  /// What an MLP reads.
  case mlp(layer: Int)
  /// What the final norm reads.
  case final

  /// The label.
  public var description: String {
    switch self {
    case .q(let layer, let head): "L\(layer)H\(head).q"
    case .k(let layer, let head): "L\(layer)H\(head).k"
    case .v(let layer, let head): "L\(layer)H\(head).v"
    case .mlp(let layer): "\(layer)_mlp_in"
    case .final: "final"
    }
  }

  /// Every head's query inputs.
  public static func queries(_ config: GPT2Config) -> [PathReceiver] { heads(config, ["q"]) }
  /// Every head's key inputs.
  public static func keys(_ config: GPT2Config) -> [PathReceiver] { heads(config, ["k"]) }
  /// Every head's value inputs.
  public static func values(_ config: GPT2Config) -> [PathReceiver] { heads(config, ["v"]) }
  /// Every MLP's input.
  public static func mlps(_ config: GPT2Config) -> [PathReceiver] {
    (0..<config.nLayers).map { .mlp(layer: $0) }
  }
  /// Everything that reads the stream, in the order of the model.
  public static func all(_ config: GPT2Config) -> [PathReceiver] {
    (heads(config, parts) + mlps(config) + [.final]).inOrder { $0.stage(config) }
  }

  /// Where it reads: a component that writes earlier has a path to it.
  func stage(_ config: GPT2Config) -> Int {
    switch self {
    case .q(let layer, _), .k(let layer, _), .v(let layer, _): 2 * layer
    case .mlp(let layer): 2 * layer + 1
    case .final: 2 * config.nLayers
    }
  }

  /// The activation of a head that follows from what it reads, which third of `W_QKV` makes it, and
  /// whose it is; nil for what is not a head's.
  var projection: (site: Site, part: Int, layer: Int, head: Int)? {
    switch self {
    case .q(let layer, let head): (.q, 0, layer, head)
    case .k(let layer, let head): (.k, 1, layer, head)
    case .v(let layer, let head): (.v, 2, layer, head)
    case .mlp, .final: nil
    }
  }

  fileprivate static let parts: [Substring] = ["q", "k", "v"]

  fileprivate static func heads(
    _ config: GPT2Config, _ parts: [Substring]
  ) -> [PathReceiver] {
    inputs(allHeads(config), parts)
  }

  fileprivate static func inputs(
    _ heads: [(layer: Int, head: Int)], _ parts: [Substring]
  ) -> [PathReceiver] {
    heads.flatMap { layer, head in
      parts.map { part in
        switch part {
        case "q": .q(layer: layer, head: head)
        case "k": .k(layer: layer, head: head)
        default: .v(layer: layer, head: head)
        }
      }
    }
  }
}

// MARK: names

extension PathSender {
  /// Reads a list such as `embed,L5H1,3_mlp_out`.
  ///
  /// `L5` and `L5-8` are all heads of those layers, `heads`, `mlps` and `all` every head, MLP,
  /// component. What `+` joins is one sender: `L5H1+L5H5`, `embed+heads+mlps`. What is named twice
  /// counts once.
  ///
  /// - Throws: `AnalysisError.unknownNode` with the nearest name; `ModelError.nothingMatches` for a
  ///   layer or a head that the model does not have.
  public static func parse(_ list: String, _ config: GPT2Config) throws -> [PathSender] {
    try words(list).flatMap { word -> [PathSender] in
      let pieces = word.split(separator: "+", omittingEmptySubsequences: false)
      let parts = try pieces.map { try named(String($0), config) }
      return parts.count == 1 ? parts[0] : [.together(parts.flatMap(\.self), label: word)]
    }.withoutRepetitions
  }

  private static func named(_ name: String, _ config: GPT2Config) throws -> [PathSender] {
    switch name {
    case "embed": return [embed]
    case "mlps": return mlps(config)
    case "all": return all(config)
    default: break
    }
    if let layer = try mlpLayer(name, "_mlp_out", config) { return [mlp(layer: layer)] }
    if let heads = try namedHeads(name, config) {
      return heads.map { head(layer: $0.layer, head: $0.head) }
    }
    throw AnalysisError.unknownNode(
      kind: "sender", name: name,
      suggestion: nearestText(
        to: name, among: all(config).map(\.description) + ["heads", "mlps", "all"]),
      expected: "embed, L5H1, 3_mlp_out, L5, L5-8, heads, mlps or all")
  }
}

extension PathReceiver {
  /// Reads a list such as `L9H6.q,9_mlp_in,final`.
  ///
  /// `L9.q` and `L9-11.q` are the queries of all heads of those layers, `heads.q` those of every
  /// head; without `.q` each of a head's three inputs is meant. `mlps` and `all` are every MLP and
  /// everything. What is named twice counts once.
  ///
  /// - Throws: as `PathSender.parse`.
  public static func parse(_ list: String, _ config: GPT2Config) throws -> [PathReceiver] {
    try words(list).flatMap { try named($0, config) }.withoutRepetitions
  }

  private static func named(_ name: String, _ config: GPT2Config) throws -> [PathReceiver] {
    switch name {
    case "final": return [.final]
    case "mlps": return mlps(config)
    case "all": return all(config)
    default: break
    }
    if let layer = try mlpLayer(name, "_mlp_in", config) { return [.mlp(layer: layer)] }
    let pieces = name.split(separator: ".", maxSplits: 1, omittingEmptySubsequences: false)
    let parts = pieces.count == 2 ? [pieces[1]] : Self.parts
    if Self.parts.contains(parts[0]), let heads = try namedHeads(String(pieces[0]), config) {
      return inputs(heads, parts)
    }
    throw AnalysisError.unknownNode(
      kind: "receiver", name: name,
      suggestion: nearestText(
        to: name,
        among: all(config).map(\.description) + ["heads", "heads.q", "heads.k", "heads.v"]
          + ["mlps", "all"]),
      expected: "L9H6.q, L9H6.k, L9H6.v, L9.q, L9-11.q, heads.q, 9_mlp_in, mlps, final or all")
  }
}

private func words(_ list: String) -> [String] {
  list.split(separator: ",", omittingEmptySubsequences: false).map {
    String($0.drop { $0 == " " })
  }
}

private func allHeads(_ config: GPT2Config) -> [(layer: Int, head: Int)] {
  (0..<config.nLayers).flatMap { layer in (0..<config.nHeads).map { (layer, $0) } }
}

/// The heads that `heads`, `L5`, `L5-8` or `L5H1` name; nil for another text.
private func namedHeads(
  _ name: String, _ config: GPT2Config
) throws(ModelError) -> [(layer: Int, head: Int)]? {
  if name == "heads" { return allHeads(config) }
  guard let match = name.wholeMatch(of: #/L(\d+)(?:H(\d+)|-(\d+))?/#) else { return nil }
  let first = Int(match.1) ?? .max
  let last = match.3.map { Int($0) ?? .max } ?? first
  try requireLayers([first, last], in: name, config)
  if first > last {
    throw .nothingMatches(filter: name, reason: "the layers run from \(first) down to \(last)")
  }
  if let head = match.2 {
    let head = Int(head) ?? .max
    try requireHead(head, in: name, config)
    return [(first, head)]
  }
  return allHeads(config).filter { (first...last).contains($0.layer) }
}

/// The layer of a name such as `3_mlp_out`; nil for another text.
private func mlpLayer(
  _ name: String, _ suffix: String, _ config: GPT2Config
) throws(ModelError) -> Int? {
  guard name.hasSuffix(suffix) else { return nil }
  let digits = name.dropLast(suffix.count)
  guard !digits.isEmpty, digits.allSatisfy({ ("0"..."9").contains($0) }) else { return nil }
  let layer = Int(digits) ?? .max
  try requireLayers([layer], in: name, config)
  return layer
}

private func requireLayers(
  _ layers: [Int], in name: String, _ config: GPT2Config
) throws(ModelError) {
  if !layers.allSatisfy((0..<config.nLayers).contains) {
    throw .nothingMatches(
      filter: name, reason: "the model has layers 0 to \(config.nLayers - 1)")
  }
}

private func requireHead(
  _ head: Int, in name: String, _ config: GPT2Config
) throws(ModelError) {
  if !(0..<config.nHeads).contains(head) {
    throw .nothingMatches(filter: name, reason: "the model has heads 0 to \(config.nHeads - 1)")
  }
}

extension PathSender {
  /// - Throws: `ModelError.nothingMatches` for a layer or a head that the model does not have.
  func check(_ config: GPT2Config) throws(ModelError) {
    for component in components {
      switch component {
      case .embed: break
      case .head(let layer, let head):
        try requireLayers([layer], in: description, config)
        try requireHead(head, in: description, config)
      case .mlp(let layer): try requireLayers([layer], in: description, config)
      }
    }
  }
}

extension PathReceiver {
  /// - Throws: `ModelError.nothingMatches` for a layer or a head that the model does not have.
  func check(_ config: GPT2Config) throws(ModelError) {
    if let (_, _, layer, head) = projection {
      try requireLayers([layer], in: description, config)
      try requireHead(head, in: description, config)
    } else if case .mlp(let layer) = self {
      try requireLayers([layer], in: description, config)
    }
  }
}

extension Array {
  /// The elements by `stage`, in their old order where it is the same.
  fileprivate func inOrder(_ stage: (Element) -> Int) -> [Element] {
    enumerated().sorted { (stage($0.element), $0.offset) < (stage($1.element), $1.offset) }
      .map(\.element)
  }
}

extension Array where Element: Hashable {
  fileprivate var withoutRepetitions: [Element] {
    var seen: Set<Element> = []
    return filter { seen.insert($0).inserted }
  }
}
