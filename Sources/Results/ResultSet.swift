public import OrderedCollections

/// What an analysis found: groups of variables with named axes, units and provenance.
///
/// A `ResultSet` is plain data. It is written to HDF5, printed as tables and drawn as pictures by
/// other modules; whether it was computed a moment ago or read back from a file makes no difference.
public struct ResultSet: Sendable, Equatable {
  /// One sentence that says what this is, for people.
  public var title: String
  /// The groups, in the order in which they are written; paths are unique.
  public var groups: [ResultGroup]
  /// Where the numbers come from.
  public var provenance: Provenance

  /// A result with its groups.
  public init(title: String, groups: [ResultGroup], provenance: Provenance = Provenance()) {
    self.title = title
    self.groups = groups
    self.provenance = provenance
  }

  /// The group at `path` (`"patch/activation"`), if there is one.
  public subscript(group path: String) -> ResultGroup? {
    groups.first { $0.path == path }
  }

  /// The variable `name` of the group at `path`, if there is one.
  public subscript(group path: String, variable name: String) -> ResultVariable? {
    self[group: path]?[variable: name]
  }

  /// This result with the groups of `other` added after its own.
  ///
  /// - Precondition: no group path occurs in both.
  public func merged(with other: ResultSet) -> ResultSet {
    var result = self
    for group in other.groups {
      precondition(
        self[group: group.path] == nil, "ResultSet: both results have a group '\(group.path)'")
      result.groups.append(group)
    }
    return result
  }

  /// This result as one of several in a file: its groups below `path`, and where its numbers come
  /// from as attributes of a group at `path` itself.
  public func nested(under path: String) -> ResultSet {
    let top = ResultGroup(
      path: path, dimensions: [], variables: [], attributes: provenance.facts)
    let below = groups.map { group in
      var group = group
      group.path = "\(path)/\(group.path)"
      return group
    }
    return ResultSet(title: title, groups: [top] + below)
  }
}

/// The variables of one analysis and the axes they share.
public struct ResultGroup: Sendable, Equatable {
  /// The group's path without a leading slash: `"dla"`, `"patch/activation"`.
  public var path: String
  /// Every axis that a variable of this group names.
  public var dimensions: [Dimension]
  /// The variables, in the order in which they are written.
  public var variables: [ResultVariable]
  /// Attributes of the group itself.
  public var attributes: OrderedDictionary<String, AttributeValue>

  /// A group of variables.
  ///
  /// - Precondition: each variable's dimensions are among `dimensions` and its number of values is
  ///   the product of their lengths.
  public init(
    path: String, dimensions: [Dimension], variables: [ResultVariable],
    attributes: OrderedDictionary<String, AttributeValue> = [:]
  ) {
    self.path = path
    self.dimensions = dimensions
    self.variables = variables
    self.attributes = attributes
    for variable in variables {
      let expected = shape(of: variable).reduce(1, *)
      precondition(
        variable.values.count == expected,
        "ResultGroup '\(path)': '\(variable.name)' has \(variable.values.count) values, "
          + "its axes \(variable.dimensions) hold \(expected)")
    }
  }

  /// The groups with one for each path: the variables of later ones follow those of the first.
  public static func joining(_ groups: [ResultGroup]) -> [ResultGroup] {
    var joined: OrderedDictionary<String, ResultGroup> = [:]
    for group in groups {
      guard var known = joined[group.path] else {
        joined[group.path] = group
        continue
      }
      let names = Set(known.dimensions.map(\.name))
      known.dimensions += group.dimensions.filter { !names.contains($0.name) }
      known.variables += group.variables
      known.attributes.merge(group.attributes) { _, new in new }
      joined[group.path] = known
    }
    return Array(joined.values)
  }

  /// The variable called `name`, if there is one.
  public subscript(variable name: String) -> ResultVariable? {
    variables.first { $0.name == name }
  }

  /// The axis called `name`, if there is one.
  public subscript(dimension name: String) -> Dimension? {
    dimensions.first { $0.name == name }
  }

  /// The attribute of a group of which only the first prompts were read: how many the file has.
  public static let promptsInFileName = "prompts_in_file"

  /// How many prompts the file has of which only the first are here; nil where all are.
  public var promptsInFile: Int? {
    guard case .integer(let count)? = attributes[Self.promptsInFileName] else { return nil }
    return count
  }

  /// The extents of a variable's axes.
  ///
  /// - Precondition: every axis of `variable` is among `dimensions`.
  public func shape(of variable: ResultVariable) -> [Int] {
    variable.dimensions.map { name in
      guard let dimension = self[dimension: name] else {
        preconditionFailure("ResultGroup '\(path)': no axis '\(name)' for '\(variable.name)'")
      }
      return dimension.count
    }
  }
}

/// A named axis with the coordinates along it.
public struct Dimension: Sendable, Equatable {
  /// What stands along an axis.
  public enum Coordinates: Sendable, Equatable {
    /// 0 ..< n: an axis without other meaning (`d_model`, `pos`).
    case indices(Int)
    /// Whole numbers (`layer` 3, 5, 7).
    case integers([Int])
    /// Labels (`component`: `embed`, `0_attn_out`, …).
    case labels([String])
  }

  /// The axis' name, also its dataset's name in a file: `layer`, `query_pos`.
  public var name: String
  /// What stands along it.
  public var coordinates: Coordinates

  /// An axis with coordinates.
  public init(_ name: String, _ coordinates: Coordinates) {
    self.name = name
    self.coordinates = coordinates
  }

  /// An axis 0 ..< `count`.
  public init(_ name: String, count: Int) {
    self.init(name, .indices(count))
  }

  /// The axis' extent.
  public var count: Int {
    switch coordinates {
    case .indices(let count): count
    case .integers(let values): values.count
    case .labels(let values): values.count
    }
  }

  /// The part of the axis that `range` picks out, with its own coordinates.
  ///
  /// - Precondition: the range lies inside the axis.
  public subscript(range: Range<Int>) -> Dimension {
    switch coordinates {
    case .indices(let count):
      precondition(
        range.lowerBound >= 0 && range.upperBound <= count, "Dimension '\(name)': \(range)")
      return range.lowerBound == 0
        ? Dimension(name, count: range.count) : Dimension(name, .integers(Array(range)))
    case .integers(let values): return Dimension(name, .integers(Array(values[range])))
    case .labels(let values): return Dimension(name, .labels(Array(values[range])))
    }
  }

  /// The coordinate at `index` as text.
  public func label(at index: Int) -> String {
    switch coordinates {
    case .indices: String(index)
    case .integers(let values): String(values[index])
    case .labels(let values): values[index]
    }
  }
}

/// A named array with axes, units and a meaning.
public struct ResultVariable: Sendable, Equatable {
  /// The scalars in row-major order.
  public enum Values: Sendable, Equatable {
    /// 32-bit floating point; NaN where a cell was not computed.
    case float32([Float])
    /// 64-bit floating point; NaN where a cell was not computed.
    case float64([Double])
    /// 64-bit integers.
    case integers([Int])
    /// UTF-8 text.
    case strings([String])

    /// How many scalars there are.
    public var count: Int {
      switch self {
      case .float32(let values): values.count
      case .float64(let values): values.count
      case .integers(let values): values.count
      case .strings(let values): values.count
      }
    }

    /// The scalars as `Double`, or nil for text.
    public var doubles: [Double]? {
      switch self {
      case .float32(let values): values.map(Double.init)
      case .float64(let values): values
      case .integers(let values): values.map(Double.init)
      case .strings: nil
      }
    }
  }

  /// The variable's name: letters, digits and underscores.
  public var name: String
  /// The names of its axes, slowest first; empty for a scalar.
  public var dimensions: [String]
  /// The scalars in row-major order.
  public var values: Values
  /// Whether this is a secondary coordinate (`token(prompt, pos)`) rather than a finding.
  public var isCoordinate: Bool
  /// `long_name`, `units` (`"1"`, `"logit"`, `"nat"`), `sign_convention`, `formula`, …
  public var attributes: OrderedDictionary<String, AttributeValue>

  /// A variable; `longName`, `units` and `sign` become its first attributes.
  public init(
    _ name: String, _ dimensions: [String], _ values: Values, longName: String, units: String,
    sign: String = "not signed",
    isCoordinate: Bool = false, attributes: OrderedDictionary<String, AttributeValue> = [:]
  ) {
    self.name = name
    self.dimensions = dimensions
    self.values = values
    self.isCoordinate = isCoordinate
    var all: OrderedDictionary<String, AttributeValue> = [
      "long_name": .string(longName), "units": .string(units),
    ]
    if !isCoordinate { all["sign_convention"] = .string(sign) }
    for (key, value) in attributes { all[key] = value }
    self.attributes = all
  }

  /// A variable with exactly these attributes, as read from a file.
  public init(
    _ name: String, _ dimensions: [String], _ values: Values, isCoordinate: Bool,
    attributes: OrderedDictionary<String, AttributeValue>
  ) {
    self.name = name
    self.dimensions = dimensions
    self.values = values
    self.isCoordinate = isCoordinate
    self.attributes = attributes
  }

  /// The variable's unit, `"1"` if it has none.
  public var units: String {
    if case .string(let units)? = attributes["units"] { units } else { "1" }
  }

  /// What the variable is, in a few words.
  public var longName: String {
    if case .string(let text)? = attributes["long_name"] { text } else { name }
  }
}

/// The value of an attribute.
public enum AttributeValue: Sendable, Equatable, CustomStringConvertible {
  /// UTF-8 text.
  case string(String)
  /// A whole number.
  case integer(Int)
  /// A real number.
  case number(Double)
  /// Several texts.
  case strings([String])
  /// Several whole numbers.
  case integers([Int])
  /// Several real numbers.
  case numbers([Double])

  /// The value as a person would write it.
  public var description: String {
    switch self {
    case .string(let value): value
    case .integer(let value): String(value)
    case .number(let value): String(value)
    case .strings(let values): values.joined(separator: ", ")
    case .integers(let values): values.map(String.init).joined(separator: ", ")
    case .numbers(let values): values.map { String($0) }.joined(separator: ", ")
    }
  }
}
