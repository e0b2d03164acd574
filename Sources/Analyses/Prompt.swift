public import HookedGPT2
import OrderedCollections
public import Results

/// One prompt with the tokens that a question is asked about.
public struct Prompt: Sendable, Equatable {
  /// Token ids, BOS included where there is one.
  public var tokens: [Int]
  /// The token that should come next.
  public var answer: Int?
  /// The token that should not.
  public var wrong: Int?

  /// A prompt.
  public init(_ tokens: [Int], answer: Int? = nil, wrong: Int? = nil) {
    self.tokens = tokens
    self.answer = answer
    self.wrong = wrong
  }
}

/// What can go wrong in an analysis that was asked for correctly.
public enum AnalysisError: Error, Equatable, CustomStringConvertible {
  /// A prompt without an answer where one is needed.
  case noAnswer(analysis: String, prompt: Int)
  /// No prompts.
  case noPrompts(analysis: String)
  /// A decomposition whose parts do not add up to the whole.
  case closure(analysis: String, prompt: Int, error: Double, limit: Double)
  /// A metric of one's own that does not say how it changes with the logits.
  case noGradient(metric: String)
  /// A derivative of a metric of one's own that has not as many numbers as there are logits.
  case gradientCount(metric: String, prompt: Int, logits: String, expected: Int, found: Int)
  /// A sweep that first-order estimates cannot stand in for.
  case noEstimate(method: String, problem: String)
  /// A result without what estimates are compared with, or without estimates.
  case agreement(problem: String)
  /// A number that is not finite.
  case nonFinite(analysis: String, what: String)
  /// A prompt pair without the tokens that a metric compares.
  case answers(metric: String, prompt: Int, expected: String, found: String)
  /// A prompt pair that cannot be compared.
  case pair(prompt: Int, problem: String)
  /// A partial result that belongs to another computation.
  case resume(setting: String, expected: String, found: String)
  /// Prompts whose positions do not correspond.
  case alignment(analysis: String, problem: String)
  /// A sender or receiver of paths that does not exist, with the nearest one that does.
  case unknownNode(kind: String, name: String, suggestion: String?, expected: String)
  /// A model that an analysis has no meaning for.
  case unsuitable(analysis: String, problem: String)
  /// Senders and receivers that cannot be patched as asked.
  case paths(problem: String)
  /// Models that cannot stand side by side.
  case models(problem: String)
  /// What went wrong with one of several models.
  case model(name: String, problem: String)

  /// One line: what, where, expected, found, what to do.
  public var description: String {
    switch self {
    case .noAnswer(let analysis, let prompt):
      "\(analysis): prompt \(prompt) has no answer token; give one (--answer \" Mary\")"
    case .noPrompts(let analysis):
      "\(analysis): no prompts; expected at least one"
    case .closure(let analysis, let prompt, let error, let limit):
      "\(analysis): prompt \(prompt): the components miss the target by \(error), "
        + "expected at most \(limit); an intervention that is not one of the components breaks the sum"
    case .answers(let metric, let prompt, let expected, let found):
      "metric \(metric): prompt \(prompt): expected \(expected), found \(found); give them (--answer, "
        + "--wrong), or take another metric"
    case .pair(let prompt, let problem):
      "prompt pair \(prompt): \(problem)"
    case .resume(let setting, let expected, let found):
      "the partial result is of another sweep: \(setting): expected \(expected), found \(found); "
        + "give the same options, or remove it and start anew without --resume"
    case .alignment(let analysis, let problem):
      "\(analysis): \(problem)"
    case .unknownNode(let kind, let name, let suggestion, let expected):
      "unknown \(kind) '\(name)'; "
        + (suggestion.map { "did you mean '\($0)'?" } ?? "expected \(expected)")
    case .unsuitable(let analysis, let problem):
      "\(analysis): \(problem)"
    case .paths(let problem):
      "paths: \(problem)"
    case .models(let problem):
      "several models: \(problem)"
    case .model(let name, let problem):
      "model '\(name)': \(problem)"
    case .noGradient(let metric):
      "metric '\(metric)' has no gradient, which attribution needs; give it one "
        + "(Metric(…, gradient: …)) or use exact patching"
    case .gradientCount(let metric, let prompt, let logits, let expected, let found):
      "metric '\(metric)': prompt \(prompt): its gradient by the logits of \(logits) has \(found) "
        + "\(found == 1 ? "number" : "numbers"); expected \(expected), or none for zeros"
    case .noEstimate(let method, let problem):
      "patch, method \(method): \(problem)"
    case .agreement(let problem):
      "agreement: \(problem)"
    case .nonFinite(let analysis, let what):
      "\(analysis): \(what) is not a finite number; the weights or the intervention overflow"
    }
  }
}

/// The axes and coordinates that every analysis of prompts shares.
public struct PromptAxes: Sendable {
  /// The prompts.
  public let prompts: [Prompt]
  /// The tokens of the longest.
  public let longest: Int
  package let pieces: [[String]]?

  package init(_ prompts: [Prompt], model: GPT2, analysis: String) throws {
    if prompts.isEmpty { throw AnalysisError.noPrompts(analysis: analysis) }
    self.prompts = prompts
    longest = prompts.map(\.tokens.count).max() ?? 0
    do {
      let tokenizer = try model.tokenizer
      pieces = try prompts.map { try $0.tokens.map { try tokenizer.piece($0) } }
    } catch ModelError.noTokenizer {
      // A model without a tokenizer has ids only.
      pieces = nil
    }
  }

  package var prompt: Dimension { Dimension("prompt", count: prompts.count) }
  package var position: Dimension { Dimension("pos", count: longest) }

  /// `token(prompt, pos)` and `token_id(prompt, pos)`; empty and −1 past a prompt's end.
  package var tokenCoordinates: [ResultVariable] {
    var variables = [
      ResultVariable(
        "token_id", ["prompt", "pos"],
        .integers(prompts.flatMap { pad($0.tokens, -1) }), longName: "token id, -1 past the end",
        units: "1", isCoordinate: true)
    ]
    if let pieces {
      variables.insert(
        ResultVariable(
          "token", ["prompt", "pos"], .strings(pieces.flatMap { pad($0, "") }),
          longName: "token text", units: "1", isCoordinate: true), at: 0)
    }
    return variables
  }

  /// `answer(prompt)` and `wrong(prompt)` with their ids, as far as the prompts have them.
  package func answerCoordinates(_ model: GPT2) throws -> [ResultVariable] {
    var variables: [ResultVariable] = []
    for (name, meaning, token) in [
      ("answer", "the token that should come next", \Prompt.answer),
      ("wrong", "the token that should not", \Prompt.wrong),
    ] where prompts.contains(where: { $0[keyPath: token] != nil }) {
      let ids = prompts.map { $0[keyPath: token] ?? -1 }
      if pieces != nil {
        let tokenizer = try model.tokenizer
        variables.append(
          ResultVariable(
            name, ["prompt"], .strings(try ids.map { $0 < 0 ? "" : try tokenizer.piece($0) }),
            longName: meaning, units: "1", isCoordinate: true))
      }
      variables.append(
        ResultVariable(
          "\(name)_id", ["prompt"], .integers(ids), longName: "\(meaning), as id", units: "1",
          isCoordinate: true))
    }
    return variables
  }

  private func pad<Element>(_ row: [Element], _ fill: Element) -> [Element] {
    row + Array(repeating: fill, count: longest - row.count)
  }
}

extension Provenance {
  /// What a result says of the model it was computed with.
  public init(model: GPT2) {
    var facts: OrderedDictionary<String, AttributeValue> = [
      "model_name": .string(model.identity.name),
      "weights_sha256": .string(model.identity.weightsSHA256),
      "normalization": .string(model.config.normalization.rawValue),
      "weight_processing": .string(
        model.identity.weightProcessing.isEmpty
          ? "none" : model.identity.weightProcessing.joined(separator: ",")),
    ]
    // A compressed stream: d_model is one less than the model was trained with.
    if !model.config.hasOnesDirection {
      facts["norm_width"] = .integer(model.config.normWidth)
    }
    self.init(facts)
  }
}
