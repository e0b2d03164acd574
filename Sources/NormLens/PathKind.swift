import Foundation

/// What a path leads to, links followed.
package enum PathKind {
  /// Nothing.
  case missing
  /// Something behind a directory that may not be entered.
  case forbidden
  /// A directory.
  case directory
  /// Anything else.
  case file

  /// What `path` leads to.
  package init(_ path: String) {
    // To Foundation no path at all is the current directory.
    if path.isEmpty {
      self = .missing
      return
    }
    do {
      switch try attributes(path)[.type] as? FileAttributeType {
      case .typeDirectory?: self = .directory
      // A link that is still one leads to nothing.
      case .typeSymbolicLink?: self = .missing
      default: self = .file
      }
    } catch CocoaError.fileReadNoPermission {
      self = .forbidden
    } catch {
      self = .missing
    }
  }

  /// Whether `path` leads to a file that is no device, pipe or socket.
  package static func isRegularFile(_ path: String) -> Bool {
    (try? attributes(path))?[.type] as? FileAttributeType == .typeRegular
  }
}

/// Which file a path leads to, links followed: two names of one file are equal.
package struct FileIdentity: Hashable {
  private let device: Int
  private let number: Int

  /// The file at `path`; nil where there is none.
  package init?(_ path: String) {
    guard let attributes = try? attributes(path), let device = attributes[.systemNumber] as? Int,
      let number = attributes[.systemFileNumber] as? Int
    else { return nil }
    self.device = device
    self.number = number
  }
}

private func attributes(_ path: String) throws -> [FileAttributeKey: Any] {
  let resolved = URL(fileURLWithPath: path).resolvingSymlinksInPath().path
  return try FileManager.default.attributesOfItem(atPath: resolved)
}

extension ModelSourceError {
  /// Why the file at `path`, which could not be read, could not, in plain words.
  package static func unreadable(_ path: String) -> ModelSourceError {
    let reason =
      switch PathKind(path) {
      case .missing: "no such file"
      case .directory:
        FileManager.default.isReadableFile(atPath: path) ? "it is a directory" : "no permission"
      case .forbidden: "no permission"
      case .file:
        FileManager.default.isReadableFile(atPath: path) ? "reading failed" : "no permission"
      }
    return .unreadable(path: path, reason: reason)
  }

  /// A link at `path` leads to nothing.
  static func brokenLink(_ path: String) -> ModelSourceError {
    .unreadable(path: path, reason: "it is a link to a file that does not exist; download that")
  }
}
