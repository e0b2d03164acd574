/// What can be wrong with a model, a prompt, a hook or an intervention that came from outside.
public enum ModelError: Error, Equatable, CustomStringConvertible {
  /// A field of the configuration that this library cannot honour.
  case configuration(field: String, found: String, expected: String)
  /// A tensor that the model needs and the file does not have.
  case missingTensor(name: String)
  /// Tensors of the file that the model has no use for.
  case unusedTensors(names: [String])
  /// A tensor of another shape than the configuration asks for.
  case tensorShape(name: String, expected: [Int], found: [Int])
  /// A tensor with a NaN or an infinity, and the index of the first if it is known.
  case nonFiniteTensor(name: String, index: [Int]? = nil)
  /// A prompt with more tokens than the model has positions.
  case promptTooLong(prompt: Int, tokens: Int, limit: Int)
  /// A prompt without tokens, or no prompt at all.
  case emptyPrompt(prompt: Int)
  /// A token id that the vocabulary does not have.
  case tokenOutOfRange(prompt: Int, position: Int, token: Int, limit: Int)
  /// A hook name that does not exist, with the nearest one that does.
  case unknownHook(name: String, suggestion: String?)
  /// A hook of a layer that the model does not have.
  case layerOutOfRange(hook: String, layer: Int, layers: Int)
  /// A hook filter that selects nothing.
  case nothingMatches(filter: String, reason: String)
  /// A hook that was not recorded, asked of a cache.
  case notRecorded(hook: String, recorded: [String])
  /// Prompts of different lengths where one length is needed.
  case unequalLengths(what: String, lengths: [Int])
  /// An intervention that cannot be carried out as asked.
  case intervention(hook: String, problem: String)
  /// Text where the model has no tokenizer.
  case noTokenizer
  /// A step of weight processing that does not exist.
  case unknownProcessing(name: String, known: [String])
  /// A step of weight processing that would not be exact here, or has turned out not to be.
  case processing(step: String, problem: String)
  /// A number that is not finite where one must be.
  case nonFinite(what: String)

  /// One line: what, where, expected, found, what to do.
  public var description: String {
    switch self {
    case .configuration(let field, let found, let expected):
      "configuration: \(field) is \(found); expected \(expected)"
    case .missingTensor(let name):
      "weights: tensor '\(name)' is missing; the file is incomplete or of another architecture"
    case .unusedTensors(let names):
      "weights: \(names.count) tensor\(names.count == 1 ? "" : "s") this model has no use for: "
        + names.prefix(4).map { "'\($0)'" }.joined(separator: ", ")
        + (names.count > 4 ? ", …" : "") + "; the file is of another architecture"
    case .tensorShape(let name, let expected, let found):
      "weights: tensor '\(name)' has shape \(found); the configuration asks for \(expected)"
    case .nonFiniteTensor(let name, let index):
      "weights: tensor '\(name)' holds a NaN or an infinity"
        + (index.map { ", the first at \($0)" } ?? "") + "; expected finite numbers only"
    case .promptTooLong(let prompt, let tokens, let limit):
      "prompt \(prompt): \(tokens) tokens; the model has n_ctx = \(limit) positions; shorten it"
    case .emptyPrompt(let prompt):
      "prompt \(prompt): no tokens; expected at least one"
    case .tokenOutOfRange(let prompt, let position, let token, let limit):
      "prompt \(prompt), position \(position): token id \(token); expected 0 to \(limit - 1)"
    case .unknownHook(let name, let suggestion):
      "unknown hook '\(name)'" + (suggestion.map { "; did you mean '\($0)'?" } ?? "")
    case .layerOutOfRange(let hook, let layer, let layers):
      "hook '\(hook)': layer \(layer); the model has layers 0 to \(layers - 1)"
    case .nothingMatches(let filter, let reason):
      "'\(filter)' matches nothing: \(reason)"
    case .notRecorded(let hook, let recorded):
      "cache: '\(hook)' was not recorded; recorded: "
        + (recorded.isEmpty ? "nothing" : recorded.prefix(6).joined(separator: ", "))
        + (recorded.count > 6 ? ", … (\(recorded.count) hooks)" : "")
    case .unequalLengths(let what, let lengths):
      "\(what): prompts of unequal lengths \(lengths.prefix(8)); expected one length"
    case .intervention(let hook, let problem):
      "intervention at '\(hook)': \(problem)"
    case .noTokenizer:
      "the model has no tokenizer; give token ids (--tokens 1,2,3) instead of text"
    case .unknownProcessing(let name, let known):
      "--process '\(name)': no such step; expected \(known.joined(separator: ", "))"
    case .processing(let step, let problem):
      "weight processing '\(step)': \(problem)"
    case .nonFinite(let what):
      "\(what): a NaN or an infinity; expected finite numbers"
    }
  }
}
