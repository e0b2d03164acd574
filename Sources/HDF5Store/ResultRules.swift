import OrderedCollections
import Results
import Tensors

/// The conventions of result files that writing and reading share.
enum ResultRules {
  /// The attribute that tells what an array is besides a finding: `indices`, `integers` or `labels`
  /// for axes, `coordinate` for secondary coordinates.
  static let role = "normlens_role"
  /// The attribute with the checksum of text and scalars.
  static let checksum = "crc32c"
  /// Root attributes that are no facts of provenance.
  static let header: Set = ["Conventions", "title", "format", "format_version", "groups"]
  /// The attribute with which a group names its secondary coordinates.
  static let groupCoordinates = "coordinates"
  /// Attributes of arrays that belong to the file format; dimension scales among them.
  static let structural: Set = [
    "CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST", "_Netcdf4Dimid", "_Netcdf4Coordinates",
    "_NCProperties", "_nc3_strict", "_FillValue", role, checksum,
  ]

  /// The value of CF's `coordinates` attribute for a variable, or nil: the secondary coordinates of
  /// its group whose axes are all axes of the variable.
  static func coordinates(
    of variable: ResultFileWriter.Variable, _ group: ResultFileWriter.Group
  ) -> String? {
    coordinates(
      dimensions: variable.dimensions, isCoordinate: variable.isCoordinate,
      among: group.variables.filter(\.isCoordinate).map { ($0.name, $0.dimensions) })
  }

  static func coordinates(
    dimensions: [String], isCoordinate: Bool, among candidates: [(name: String, axes: [String])]
  ) -> String? {
    guard !isCoordinate else { return nil }
    let names = candidates.filter { $0.axes.allSatisfy(dimensions.contains) }.map(\.name)
    return names.isEmpty ? nil : names.joined(separator: " ")
  }

  /// The piece in which an array is stored: `wish`, held inside the shape; else at most 1 MiB, whole
  /// along as many of the last axes as fit.
  static func chunk(_ wish: [Int]?, shape: [Int], scalarBytes: Int) -> [Int] {
    if let wish { return zip(wish, shape).map { min(max($0, 1), $1) } }
    var chunk = shape
    for axis in chunk.indices {
      let rest = chunk[(axis + 1)...].reduce(scalarBytes, *)
      chunk[axis] = min(shape[axis], max(1, (1 << 20) / rest))
      if chunk[axis] > 1 { break }
    }
    return chunk
  }

  static func needsChecksum(_ type: ResultFileWriter.ScalarType, shape: [Int]) -> Bool {
    type == .strings || shape.isEmpty
  }

  /// The checksum of values: of their little-endian bytes; for texts, of each text's UTF-8 bytes
  /// and a zero byte after it.
  static func crc32c(of values: ResultVariable.Values) -> UInt32 {
    switch values {
    case .float32(let numbers): numbers.withUnsafeBytes { Tensors.crc32c($0) }
    case .float64(let numbers): numbers.withUnsafeBytes { Tensors.crc32c($0) }
    case .integers(let numbers): numbers.withUnsafeBytes { Tensors.crc32c($0) }
    case .strings(let texts):
      texts.reduce(0) { sum, text in
        (Array(HDF5Strings.storable(text).utf8) + [0]).withUnsafeBytes {
          Tensors.crc32c($0, seed: sum)
        }
      }
    }
  }

  // MARK: Declarations

  /// Refuses what the format cannot hold, before a file is created.
  static func check(
    _ groups: [ResultFileWriter.Group], _ provenance: Provenance, _ path: String
  ) throws(HDF5Error) {
    func unstorable(_ object: String, _ expected: String, _ found: String) -> HDF5Error {
      .unstorable(path: path, object: object, expected: expected, found: found)
    }
    for name in provenance.facts.keys where header.contains(name) {
      throw unstorable("fact '\(name)'", "another name", "one that the file format uses")
    }
    var paths: Set<String> = []
    for group in groups {
      guard paths.insert(group.path).inserted else {
        throw unstorable("group '\(group.path)'", "each path once", "it again")
      }
    }
    for group in groups {
      let parts = group.path.split(separator: "/", omittingEmptySubsequences: false)
      guard parts.allSatisfy({ isName(String($0)) }) else {
        throw unstorable(
          "group '\(group.path)'", "letters, digits and underscores between slashes", "others")
      }
      var names: Set<String> = []
      for name in group.dimensions.map(\.name) + group.variables.map(\.name) {
        guard isName(name) else {
          throw unstorable(
            "'\(group.path)/\(name)'", "letters, digits and underscores, a letter first", "others")
        }
        let place = group.path + "/" + name
        guard names.insert(name).inserted,
          !paths.contains(where: { $0 == place || $0.hasPrefix(place + "/") })
        else {
          throw unstorable(
            "'\(place)'", "a name of its own", "one that another axis, variable or group has")
        }
      }
      for variable in group.variables {
        try check(variable, group, unstorable)
      }
    }
  }

  private static func check(
    _ variable: ResultFileWriter.Variable, _ group: ResultFileWriter.Group,
    _ unstorable: (String, String, String) -> HDF5Error
  ) throws(HDF5Error) {
    let object = "'\(group.path)/\(variable.name)'"
    let known = Set(group.dimensions.map(\.name))
    for name in variable.dimensions where !known.contains(name) {
      throw unstorable(object, "axes among \(known.sorted())", "'\(name)'")
    }
    // xarray reads one axis used twice as two axes of one name, and then drops one silently.
    guard Set(variable.dimensions).count == variable.dimensions.count else {
      throw unstorable(object, "axes of different names", "\(variable.dimensions)")
    }
    guard variable.dimensions.count <= HDF5Limits.rank else {
      throw unstorable(object, "at most \(HDF5Limits.rank) axes", "more")
    }
    if let chunk = variable.chunk, chunk.count != variable.dimensions.count {
      throw unstorable(object, "a chunk extent an axis", "\(chunk)")
    }
    for key in variable.attributes.keys where structural.contains(key) {
      throw unstorable(
        "attribute '\(key)' of \(object)", "another name", "one that the file format uses")
    }
  }

  /// Whether CF and the attribute access of Python and MATLAB accept the name.
  private static func isName(_ name: String) -> Bool {
    guard let first = name.utf8.first, !isDigit(first), first != UInt8(ascii: "_") else {
      return false
    }
    return name.utf8.allSatisfy { byte in
      isDigit(byte) || byte == UInt8(ascii: "_") || (0x41...0x5a).contains(byte)
        || (0x61...0x7a).contains(byte)
    }
  }

  private static func isDigit(_ byte: UInt8) -> Bool { (0x30...0x39).contains(byte) }
}
