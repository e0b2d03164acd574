public import HookedGPT2

/// A long text in pieces that a model can read.
public struct TextWindows: Sendable, Equatable {
  /// The token ids of each piece, in the text's order.
  public let windows: [[Int]]
  /// How many tokens at the text's end are in no piece: 1 where a piece of a single token would be left,
  /// which predicts nothing, else 0.
  public let dropped: Int

  /// Cuts token ids into pieces that do not overlap.
  ///
  /// - Parameters:
  ///   - tokens: the ids of the text; shorter ones than `length` stay one piece.
  ///   - length: the tokens of a piece, those in front included; the last piece may have fewer, down to
  ///     two.
  ///   - hasBOS: whether the first id is a BOS token, which then stands in front of every piece.
  /// - Precondition: `length` is at least 2.
  public init(_ tokens: [Int], length: Int, hasBOS: Bool) {
    precondition(length >= 2, "TextWindows: length \(length); expected at least 2")
    guard tokens.count > length else {
      (windows, dropped) = ([tokens], 0)
      return
    }
    let front = hasBOS ? Array(tokens.prefix(1)) : []
    let text = tokens.dropFirst(front.count)
    let step = length - front.count
    var pieces = stride(from: text.startIndex, to: text.endIndex, by: step).map {
      front + text[$0..<min($0 + step, text.endIndex)]
    }
    dropped = pieces.last?.count == 1 ? 1 : 0
    if dropped == 1 { pieces.removeLast() }
    windows = pieces
  }
}

extension GPT2 {
  /// The token ids of a text in windows of at most `length` tokens, each with a BOS token in front where
  /// text gets one.
  ///
  /// ```swift
  /// let text = try model.windows(of: book, length: model.config.nCtx)
  /// let prompts = text.windows.map { Prompt($0) }
  /// ```
  ///
  /// - Parameters:
  ///   - text: the text; it is tokenized whole and cut between tokens.
  ///   - length: the tokens of a window, BOS included.
  ///   - prependBOS: whether a BOS token stands in front; nil means the model's default.
  /// - Throws: `ModelError.noTokenizer`.
  /// - Precondition: `length` is at least 2.
  public func windows(
    of text: String, length: Int, prependBOS: Bool? = nil
  ) throws -> TextWindows {
    TextWindows(
      try tokens(text, prependBOS: prependBOS), length: length,
      hasBOS: prependBOS ?? defaultPrependBOS)
  }
}
