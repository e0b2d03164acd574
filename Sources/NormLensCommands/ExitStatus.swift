import NormLens

/// What the command leaves with when something is wrong; an interrupted one leaves with 130.
enum ExitStatus: Int32 {
  /// An unknown flag, hook or site, or a filter that matches nothing.
  case usage = 64
  /// Text beyond n_ctx, unequal lengths, a damaged or wrong file, numbers that are not finite.
  case data = 65
  /// An input is missing or unreadable.
  case noInput = 66
  /// An output cannot be created.
  case cannotCreate = 73
  /// Reading or writing failed midway.
  case io = 74

  /// The status of an error of this project; nil for one of the command line's own.
  init?(_ error: any Error) {
    switch error {
    case let error as CommandError: self = error.status
    case let error as HDF5Error:
      switch error.kind {
      case .unreadable: self = .noInput
      case .damaged: self = .data
      case .cannotCreate: self = .cannotCreate
      case .ioFailed: self = .io
      }
    case let error as ModelSourceError: self = error.isMissing ? .noInput : .data
    case let error as ModelError:
      switch error {
      case .unknownHook, .layerOutOfRange, .nothingMatches, .intervention, .notRecorded,
        .unknownProcessing:
        self = .usage
      default: self = .data
      }
    case AnalysisError.unknownNode, AnalysisError.paths: self = .usage
    case is TokenizerError, is AnalysisError, is JSONError: self = .data
    default: return nil
    }
  }
}

/// What is wrong with a command's own arguments once they have been parsed.
struct CommandError: Error, CustomStringConvertible {
  let description: String
  let status: ExitStatus

  init(_ description: String, status: ExitStatus = .usage) {
    self.description = description
    self.status = status
  }
}
