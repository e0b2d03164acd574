public import NormLens

/// A variable that a result was expected to have.
public struct MissingVariable: Error, CustomStringConvertible {
  /// What is missing and what is there.
  public let description: String
}

extension ResultGroup {
  /// The numbers of the variable `name`; an error that lists the group's variables without it.
  public func doubles(_ name: String) throws -> [Double] {
    guard let values = self[variable: name]?.values.doubles else {
      throw MissingVariable(
        description: "no numbers '\(name)' in '\(path)': \(variables.map(\.name))")
    }
    return values
  }
}

extension ResultSet {
  /// The group at `path`; an error that lists the result's groups without it.
  public func group(_ path: String) throws -> ResultGroup {
    guard let group = self[group: path] else {
      throw MissingVariable(description: "no group '\(path)' in \(groups.map(\.path))")
    }
    return group
  }

  /// The numbers of one variable.
  public func doubles(_ path: String, _ name: String) throws -> [Double] {
    try group(path).doubles(name)
  }
}
