public import Results

/// Variables that share their axes as tidy CSV: a row for each cell.
///
/// The columns are the axes with their coordinates' labels, the secondary coordinates whose axes are
/// among them (`token`), and the variables. Numbers have the fewest digits that read back as the same
/// number; NaN, a cell that was not computed, is empty. Fields are quoted as RFC 4180 says, lines end
/// with a line feed.
public struct ResultCSV: Sendable {
  /// The axes, slowest first.
  public var axes: [String]
  /// The secondary coordinates.
  public var coordinates: [String]
  /// The variables.
  public var variables: [String]

  /// CSV with these columns.
  ///
  /// - Parameters:
  ///   - axes: the axes of every variable.
  ///   - coordinates: the secondary coordinates that are known, of which those are columns whose
  ///     axes are among `axes` and which are no variable themselves.
  ///   - variables: the names of the variables.
  public init(
    axes: [String], coordinates: [(name: String, axes: [String])], variables: [String]
  ) {
    self.axes = axes
    self.coordinates = coordinates.filter { coordinate in
      coordinate.axes.allSatisfy(axes.contains) && !variables.contains(coordinate.name)
    }.map(\.name)
    self.variables = variables
  }

  /// The first line: the columns' names.
  public var header: String {
    (axes + coordinates + variables).map(Self.field).joined(separator: ",") + "\n"
  }

  /// The lines of a group's cells, which may be a piece of a larger one.
  ///
  /// - Precondition: the group has the axes, coordinates and variables that are columns here.
  public func rows(_ group: ResultGroup) -> [UInt8] {
    let dimensions = axes.compactMap { group[dimension: $0] }
    precondition(dimensions.count == axes.count, "ResultCSV: axes \(axes) of '\(group.path)'")
    let extents = dimensions.map(\.count)
    let labels = dimensions.map { axis in
      (0..<axis.count).map { Array(Self.field(axis.label(at: $0)).utf8) }
    }
    let columns = (coordinates + variables).map { name -> Column in
      guard let variable = group[variable: name] else {
        preconditionFailure("ResultCSV: '\(group.path)' has no '\(name)'")
      }
      return Column(variable, axes: axes, group)
    }
    var place = extents.map { _ in 0 }
    var bytes: [UInt8] = []
    for _ in 0..<extents.reduce(1, *) {
      for (axis, index) in place.enumerated() {
        if axis > 0 { bytes.append(UInt8(ascii: ",")) }
        bytes += labels[axis][index]
      }
      for (number, column) in columns.enumerated() {
        if number > 0 || !axes.isEmpty { bytes.append(UInt8(ascii: ",")) }
        column.append(place, to: &bytes)
      }
      bytes.append(UInt8(ascii: "\n"))
      for axis in place.indices.reversed() {
        place[axis] += 1
        if place[axis] < extents[axis] { break }
        place[axis] = 0
      }
    }
    return bytes
  }

  /// A variable's values, and how far each axis of the rows steps in them.
  private struct Column {
    let values: ResultVariable.Values
    let strides: [Int]

    init(_ variable: ResultVariable, axes: [String], _ group: ResultGroup) {
      values = variable.values
      var step = 1
      var steps: [String: Int] = [:]
      for (name, extent) in zip(variable.dimensions, group.shape(of: variable)).reversed() {
        steps[name] = step
        step *= extent
      }
      strides = axes.map { steps[$0] ?? 0 }
    }

    func append(_ place: [Int], to bytes: inout [UInt8]) {
      var index = 0
      for (axis, stride) in strides.enumerated() { index += place[axis] * stride }
      switch values {
      case .float32(let numbers):
        if !numbers[index].isNaN { bytes += numbers[index].description.utf8 }
      case .float64(let numbers):
        if !numbers[index].isNaN { bytes += numbers[index].description.utf8 }
      case .integers(let numbers): bytes += numbers[index].description.utf8
      case .strings(let texts): bytes += ResultCSV.field(texts[index]).utf8
      }
    }
  }

  /// A text as a field: between quotes where it holds a comma, a quote or a line's end.
  static func field(_ text: String) -> String {
    let special = text.utf8.contains {
      [UInt8(ascii: ","), UInt8(ascii: "\""), 0x0A, 0x0D].contains($0)
    }
    return special ? "\"" + text.replacing("\"", with: "\"\"") + "\"" : text
  }
}
