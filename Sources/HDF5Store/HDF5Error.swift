/// Everything that can go wrong with a file that this module reads or writes.
///
/// Each case prints as one line: what, where, expected, found, what to do.
public enum HDF5Error: Error, Equatable, Sendable {
  /// There is no file at `path`.
  case missing(path: String)
  /// The file exists, but the system would not open or read it.
  case unreadable(path: String, reason: String)
  /// The file is of another kind than the one asked for.
  case wrongKind(path: String, expected: String, found: String, advice: String)
  /// Something in the file is not what a file of this kind holds.
  case damaged(path: String, object: String, expected: String, found: String)
  /// An object asked for by name is not in the file.
  case notFound(path: String, object: String)
  /// An array claims more bytes than the file can hold or than will be read at once.
  case tooLarge(path: String, object: String, bytes: String, limit: String)
  /// What was to be written has no form in a file of this kind.
  case unstorable(path: String, object: String, expected: String, found: String)
  /// The output file could not be created.
  case cannotCreate(path: String, reason: String)
  /// The system failed in the middle of reading or writing.
  case ioFailed(path: String, object: String, reason: String)

  /// The classes of failure that a command tells apart in its exit status.
  public enum Kind: Sendable {
    /// An input is missing or may not be read: exit status 66.
    case unreadable
    /// The data are damaged or of the wrong kind: exit status 65.
    case damaged
    /// An output cannot be created: exit status 73.
    case cannotCreate
    /// Reading or writing failed midway: exit status 74.
    case ioFailed
  }

  /// The class of this failure.
  public var kind: Kind {
    switch self {
    case .missing, .unreadable: .unreadable
    case .wrongKind, .damaged, .notFound, .tooLarge, .unstorable: .damaged
    case .cannotCreate: .cannotCreate
    case .ioFailed: .ioFailed
    }
  }
}

extension HDF5Error: CustomStringConvertible {
  /// The failure as one line for people.
  public var description: String { OneLine.escaped(text) }

  private var text: String {
    switch self {
    case .missing(let path):
      "\(path): no such file; check the path"
    case .unreadable(let path, let reason):
      "\(path): cannot be read: \(reason); check the path and its permissions"
    case .wrongKind(let path, let expected, let found, let advice):
      "\(path): expected \(expected), found \(found); \(advice)"
    case .damaged(let path, let object, let expected, let found):
      "\(path): \(object): expected \(expected), found \(found); "
        + "the file is damaged or was changed: copy or create it again"
    case .notFound(let path, let object):
      "\(path): expected \(object), found nothing of that name; "
        + "the file is incomplete or of another kind"
    case .tooLarge(let path, let object, let bytes, let limit):
      "\(path): \(object): expected at most \(limit), found \(bytes); "
        + "the file is damaged, or this array must be read in parts"
    case .unstorable(let path, let object, let expected, let found):
      "\(path): \(object) cannot be stored: expected \(expected), found \(found); nothing was written"
    case .cannotCreate(let path, let reason):
      "\(path): cannot be created: \(reason); choose another output"
    case .ioFailed(let path, let object, let reason):
      "\(path): \(object): input/output failed: \(reason); check the disk and its free space"
    }
  }
}
