public import NormLens
public import Testing

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

/// Whether two lists hold the same numbers, NaN in the same places.
public func areSame(_ found: [Double], _ expected: [Double]) -> Bool {
  found.count == expected.count
    && zip(found, expected).allSatisfy { $0 == $1 || $0.isNaN && $1.isNaN }
}

/// Whether what does not exist is NaN in the same places of both lists.
public func haveSameGaps(_ found: [Double], _ expected: [Double]) -> Bool {
  found.count == expected.count && zip(found, expected).allSatisfy { $0.isNaN == $1.isNaN }
}

/// Expects every number of `groups` in `found`, such as what a file holds of a result in memory.
public func expectSame(
  _ found: ResultSet, as groups: [ResultGroup],
  sourceLocation: SourceLocation = #_sourceLocation
) throws {
  for group in groups {
    for variable in group.variables where variable.values.doubles != nil {
      let (own, wanted) = (
        try found.doubles(group.path, variable.name), try group.doubles(variable.name)
      )
      #expect(
        areSame(own, wanted), "\(group.path)/\(variable.name)", sourceLocation: sourceLocation)
    }
  }
}
