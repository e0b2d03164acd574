public import OrderedCollections

/// Prompts as text, with the answers that they are asked about: what a prompts file holds.
///
/// ```swift
/// let set = try PromptSet.ioi(model: model, count: 32, seed: 1)
/// let pairs = try set.pairs(model)
/// ```
///
/// Text becomes tokens only with a model: ``pairs(_:prependBOS:)``.
public struct PromptSet: Sendable {
  /// What the set is called.
  public var name: String
  /// What it is for, in words.
  public var description: String?
  /// Where it comes from.
  public var source: String?
  /// Under which terms it may be used.
  public var license: String?
  /// The model whose tokenizer it was made with.
  public var model: String?
  /// The prompts.
  public var prompts: [PromptText]
  /// What errors call the set: its file, if it has one.
  package var origin: String

  /// A set of prompts.
  public init(
    name: String, description: String? = nil, source: String? = nil, license: String? = nil,
    model: String? = nil, prompts: [PromptText]
  ) {
    self.name = name
    self.description = description
    self.source = source
    self.license = license
    self.model = model
    self.prompts = prompts
    origin = "prompt set '\(name)'"
  }
}

/// A clean prompt, usually with a corrupted one, and the answers that tell them apart.
public struct PromptText: Sendable, Equatable {
  /// The clean prompt.
  public var clean: String
  /// The corrupted prompt, of as many tokens.
  public var corrupted: String?
  /// What should follow the clean prompt: one token each, verbatim; usually one.
  public var answer: [String]
  /// What should not, likewise.
  public var wrong: [String]
  /// Positions of the clean prompt that have a name, such as `S2` and `END`.
  public var positions: OrderedDictionary<String, Position>

  /// A position of a text and the token that stands there.
  public struct Position: Sendable, Equatable {
    /// The index among the text's tokens, BOS not counted.
    public var pos: Int
    /// The token there.
    public var token: String

    /// A position of a text.
    public init(_ pos: Int, token: String) {
      self.pos = pos
      self.token = token
    }
  }

  /// A prompt.
  public init(
    clean: String, corrupted: String? = nil, answer: [String] = [], wrong: [String] = [],
    positions: OrderedDictionary<String, Position> = [:]
  ) {
    self.clean = clean
    self.corrupted = corrupted
    self.answer = answer
    self.wrong = wrong
    self.positions = positions
  }
}
