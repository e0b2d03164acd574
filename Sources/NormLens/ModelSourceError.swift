/// Why a model, a prompt or a tokenizer that was named cannot be taken.
public enum ModelSourceError: Error, Equatable, CustomStringConvertible {
  /// Neither a file, a directory nor a bundled name.
  case notFound(name: String, suggestion: String?)
  /// A directory that holds no checkpoint.
  case noCheckpoint(directory: String, expected: String)
  /// A file that is missing or cannot be read.
  case unreadable(path: String, reason: String)
  /// A field of a file that is missing, of the wrong kind or of a value that cannot be honoured.
  case field(path: String, field: String, expected: String, found: String)
  /// Weights that are not what the configuration says.
  case weights(path: String, problem: String)
  /// A model that another format has no place for.
  case inexpressible(format: String, problem: String)
  /// Prompts that are not what a study needs, or that cannot be made.
  case prompts(place: String, problem: String)
  /// A file of a kind that is not opened.
  case unsupported(path: String, kind: String, advice: String)

  /// Whether an input is missing, as opposed to wrong.
  public var isMissing: Bool {
    switch self {
    case .notFound, .noCheckpoint, .unreadable: true
    case .field, .weights, .inexpressible, .prompts, .unsupported: false
    }
  }

  /// One line: what, where, expected, found, what to do.
  public var description: String {
    switch self {
    case .notFound(let name, let suggestion):
      "no model '\(name)': expected a file, a directory or one of "
        + BundledModels.names.joined(separator: ", ")
        + (suggestion.map { "; did you mean '\($0)'?" } ?? "")
    case .noCheckpoint(let directory, let expected):
      "\(directory): no checkpoint; expected \(expected)"
    case .unreadable(let path, let reason):
      "\(path): cannot be read: \(reason)"
    case .field(let path, let field, let expected, let found):
      "\(path): '\(field)' is \(found); expected \(expected)"
    case .weights(let path, let problem):
      "\(path): \(problem)"
    case .inexpressible(let format, let problem):
      "\(format) cannot express this model: \(problem)"
    case .prompts(let place, let problem):
      "\(place): \(problem)"
    case .unsupported(let path, let kind, let advice):
      "\(path): \(kind) is not opened; \(advice)"
    }
  }
}
