/// Attention patterns as the JSON that CircuitsVis' component `AttentionHeads` takes as its props,
/// written head by head.
///
/// `tokens` has a text for each position, `attention` is `[head, destination, source]`,
/// `attentionHeadNames` names the heads (`L2H5`), `minValue` and `maxValue` are the ends of the
/// colours. The names are those of CircuitsVis 1.43, of its page and, spelled `attention_head_names`,
/// `min_value` and `max_value`, of its Python function `circuitsvis.attention.attention_heads`.
public struct AttentionJSON: Sendable {
  private let size: Int
  private var names: [String] = []
  private var magnitude = 0.0
  private var isShare = true

  /// The JSON's beginning.
  public let header: String

  /// Patterns over these tokens.
  public init(tokens: [String]) {
    size = tokens.count
    let texts = tokens.map { PageJSON.string($0).serialized }.joined(separator: ", ")
    header = "{\"tokens\": [\(texts)],\n\"attention\": ["
  }

  /// One head's pattern; empty, and the head is left out, where nothing of it was computed.
  ///
  /// - Parameters:
  ///   - name: the head's name.
  ///   - values: `[destination, source]`; what is not a finite number becomes null.
  /// - Precondition: there is a value for each pair of tokens.
  public mutating func head(_ name: String, _ values: [Float]) -> String {
    precondition(
      values.count == size * size, "AttentionJSON: \(values.count) values, \(size) tokens")
    guard values.contains(where: { !$0.isNaN }) else { return "" }
    let rows = (0..<size).map { row in
      let cells = values[row * size..<(row + 1) * size].map { value -> String in
        guard value.isFinite else { return "null" }
        magnitude = Swift.max(magnitude, Double(Swift.abs(value)))
        isShare = isShare && (0...1).contains(value)
        return value == 0 ? "0" : "\(value)"
      }
      return "[" + cells.joined(separator: ", ") + "]"
    }
    names.append(name)
    return (names.count == 1 ? "\n[" : ",\n[") + rows.joined(separator: ",\n ") + "]"
  }

  /// The JSON's end. Shares of attention have the whole range of colours, other numbers theirs.
  public var footer: String {
    let end = isShare ? 1 : magnitude
    return "\n],\n\"attentionHeadNames\": ["
      + names.map { PageJSON.string($0).serialized }.joined(separator: ", ")
      + "],\n\"minValue\": \(-end), \"maxValue\": \(end)}\n"
  }
}
