import Foundation

/// What a path leads to, links followed.
package enum PathKind {
  /// Nothing.
  case missing
  /// A directory.
  case directory
  /// Anything else.
  case file

  /// What `path` leads to.
  package init(_ path: String) {
    let resolved = URL(fileURLWithPath: path).resolvingSymlinksInPath().path
    let attributes = try? FileManager.default.attributesOfItem(atPath: resolved)
    switch attributes?[.type] as? FileAttributeType {
    case nil: self = .missing
    case .typeDirectory?: self = .directory
    default: self = .file
    }
  }
}
