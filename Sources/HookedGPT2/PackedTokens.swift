import Tensors

/// The prompts of a batch, one after another: row `i` of every activation belongs to `tokens[i]`.
struct PackedTokens {
  let prompts: [[Int]]
  let tokens: [Int]
  /// The position of each row in its prompt.
  let positions: [Int]
  /// Each prompt's rows.
  let rows: [Range<Int>]
  let segments: [AttentionSegment]

  /// Checks and packs prompts; `past` tokens of a single prompt have been run before.
  init(_ prompts: [[Int]], config: GPT2Config, past: Int = 0) throws(ModelError) {
    if prompts.isEmpty { throw .emptyPrompt(prompt: 0) }
    var tokens: [Int] = []
    var positions: [Int] = []
    var rows: [Range<Int>] = []
    for (index, prompt) in prompts.enumerated() {
      if prompt.isEmpty { throw .emptyPrompt(prompt: index) }
      if past + prompt.count > config.nCtx {
        throw .promptTooLong(prompt: index, tokens: past + prompt.count, limit: config.nCtx)
      }
      for (position, token) in prompt.enumerated() where token < 0 || token >= config.dVocab {
        throw .tokenOutOfRange(
          prompt: index, position: position, token: token, limit: config.dVocab)
      }
      rows.append(tokens.count..<tokens.count + prompt.count)
      tokens += prompt
      positions += past..<past + prompt.count
    }
    self.prompts = prompts
    self.tokens = tokens
    self.positions = positions
    self.rows = rows
    segments = rows.map { AttentionSegment(queries: $0, keys: $0) }
  }

  var count: Int { tokens.count }
  var lastRows: [Int] { rows.map { $0.upperBound - 1 } }
}
