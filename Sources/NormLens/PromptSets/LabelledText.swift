import HookedGPT2
import OrderedCollections

/// A text in which some words have a label, to find their tokens by.
struct LabelledText {
  private(set) var text = ""
  /// The bytes of each labelled word, its leading space among them.
  private var words: [String: Range<Int>] = [:]

  /// Fills the slots of a template such as `"Then, [B] and [A] went"`.
  ///
  /// The space before a slot belongs to its word, as it does for the tokenizer.
  ///
  /// - Parameters:
  ///   - template: the text with slots in brackets.
  ///   - labels: the label of each occurrence of a slot; words without one have none.
  ///   - word: the word for an occurrence of a slot, without its leading space.
  init(
    _ template: String, labels: [String: [String]],
    word: (_ slot: String, _ occurrence: Int) -> String
  ) {
    var occurrences: [String: Int] = [:]
    for (index, part) in template.split(separator: "[", omittingEmptySubsequences: false)
      .enumerated()
    {
      if index == 0 {
        text += part
        continue
      }
      let halves = part.split(separator: "]", maxSplits: 1, omittingEmptySubsequences: false)
      precondition(halves.count == 2, "template '\(template)': a bracket is not closed")
      let slot = String(halves[0])
      let occurrence = occurrences[slot, default: 0]
      occurrences[slot] = occurrence + 1
      let start = text.utf8.count - (text.hasSuffix(" ") ? 1 : 0)
      text += word(slot, occurrence)
      if let names = labels[slot], occurrence < names.count {
        words[names[occurrence]] = start..<text.utf8.count
      }
      text += halves[1]
    }
  }

  /// The positions of labels, in their order.
  ///
  /// - Parameter labels: labels of words; `X+1`, the token behind `X`; `END`, the last token.
  /// - Throws: `ModelSourceError.prompts` where a labelled word is not one token.
  func positions(
    _ labels: [String], _ tokenizer: Tokenizer, kind: String
  ) throws -> OrderedDictionary<String, PromptText.Position> {
    let ids = tokenizer.encode(text)
    var ranges: [Range<Int>] = []
    for id in ids {
      let start = ranges.last?.upperBound ?? 0
      ranges.append(start..<start + (try tokenizer.bytes(of: [id]).count))
    }
    var result: OrderedDictionary<String, PromptText.Position> = [:]
    for label in labels {
      let word = words[label.hasSuffix("+1") ? String(label.dropLast(2)) : label]
      let index = word.flatMap { ranges.firstIndex(of: $0) }
      guard
        let position = label == "END"
          ? ids.count - 1 : index.map({ $0 + (label.hasSuffix("+1") ? 1 : 0) }),
        ids.indices.contains(position)
      else {
        throw ModelSourceError.prompts(
          place: kind, problem: "\(label) of \(text.debugDescription) is not one token")
      }
      result[label] = PromptText.Position(position, token: try tokenizer.piece(ids[position]))
    }
    return result
  }
}
