public import OrderedCollections

/// Where numbers come from: tool, command, model, settings. Written as a file's global attributes.
public struct Provenance: Sendable, Equatable {
  /// The facts by name, in the order in which they are written: `tool_version`, `command_line`,
  /// `created`, `model_name`, `weights_sha256`, `normalization`, `weight_processing`, `norm_width`,
  /// `prepend_bos`, `seed`, `threads`, `blas`.
  public var facts: OrderedDictionary<String, AttributeValue>

  /// Provenance with these facts.
  public init(_ facts: OrderedDictionary<String, AttributeValue> = [:]) {
    self.facts = facts
  }

  /// This provenance with `other`'s facts added; where both know a fact, `other` wins.
  public func merging(_ other: Provenance) -> Provenance {
    Provenance(facts.merging(other.facts) { _, new in new })
  }
}
