import CHDF5
import OrderedCollections
public import Results

/// Result files: a `ResultSet` as self-describing HDF5.
public enum ResultFile {
  /// Numbers up to this many bytes are compressed; larger arrays are activations, which hardly
  /// shrink and would take a hundred times as long to write.
  static let compressedBytes = 16 << 20

  // MARK: Writing

  /// Writes a result; the file appears at `path` complete, or not at all.
  ///
  /// - Throws: `unstorable` for names that the format cannot hold, `cannotCreate`, `ioFailed`.
  public static func write(_ set: ResultSet, to path: String) throws(HDF5Error) {
    let writer = try ResultFileWriter(
      path: path, title: set.title, provenance: set.provenance,
      groups: set.groups.map { ResultFileWriter.Group($0) })
    for group in set.groups { try writer.write(group) }
    try writer.finish()
  }

  // MARK: Reading

  /// Reads a result that ``write(_:to:)`` or ``ResultFileWriter`` has written.
  ///
  /// - Throws: `missing`, `unreadable`; `wrongKind` for another file, a model say; `damaged` naming
  ///   the array; `tooLarge` for arrays that must be read in parts.
  public static func read(_ path: String) throws(HDF5Error) -> ResultSet {
    try HDF5Library.locked { () throws(HDF5Error) -> ResultSet in
      let root = try HDF5Object.open(path)
      try FileFormat.result.check(root)
      guard case .string(let title)? = try root.attribute("title") else {
        throw damaged(root, "an attribute title", "none")
      }
      let paths = try groupPaths(root)
      var groups: [ResultGroup] = []
      for path in paths {
        let found = try root.descendant(path)
        guard found.kind == .group else { throw damaged(found.object, "a group", "a dataset") }
        groups.append(try group(found.object, path, allPaths: Set(paths)))
      }
      let facts = try root.attributes(excluding: ResultRules.header)
      return ResultSet(title: title, groups: groups, provenance: Provenance(facts))
    }
  }

  private static func damaged(
    _ object: HDF5Object, _ expected: String, _ found: String
  ) -> HDF5Error {
    .damaged(path: object.file.path, object: object.name, expected: expected, found: found)
  }

  private static func groupPaths(_ root: HDF5Object) throws(HDF5Error) -> [String] {
    guard case .strings(let paths)? = try root.attribute("groups") else {
      throw damaged(root, "an attribute groups that lists them", "none")
    }
    guard Set(paths).count == paths.count, paths.allSatisfy({ !$0.isEmpty }) else {
      throw damaged(root, "an attribute groups that lists each once", "\(paths)")
    }
    return paths
  }

  /// A dataset of a group, before its values are read.
  private struct Item {
    var name: String
    var object: HDF5Object
    var info: HDF5DatasetInfo
    var role: String?
    var isScale: Bool
  }

  private static func group(
    _ object: HDF5Object, _ path: String, allPaths: Set<String>
  ) throws(HDF5Error) -> ResultGroup {
    var items: [Item] = []
    for name in try object.childNames() {
      let child = try object.child(name)
      switch child.kind {
      case .group:
        // A group that the list does not name would be lost without a word.
        let below = path + "/" + name
        guard allPaths.contains(where: { $0 == below || $0.hasPrefix(below + "/") }) else {
          throw damaged(child.object, "only groups that the attribute groups lists", "another")
        }
      case .other: throw damaged(child.object, "an array", "a named type")
      case .dataset:
        let info = try child.object.datasetInfo()
        var role: String?
        if case .string(let text)? = try child.object.attribute(ResultRules.role) { role = text }
        items.append(
          Item(
            name: name, object: child.object, info: info, role: role,
            isScale: H5DSis_scale(child.object.id) > 0))
      }
    }
    var dimensions: [Dimension] = []
    for item in items where item.isScale { dimensions.append(try dimension(item)) }
    let secondary = try items.filter { !$0.isScale && $0.role == "coordinate" }
      .map { (item) throws(HDF5Error) in (name: item.name, axes: try axes(item, dimensions)) }
    var variables: [ResultVariable] = []
    for item in items where !item.isScale {
      variables.append(try variable(item, dimensions, secondary))
    }
    return ResultGroup(
      path: path, dimensions: dimensions, variables: variables,
      attributes: try object.attributes(excluding: [ResultRules.groupCoordinates]))
  }

  private static func dimension(_ item: Item) throws(HDF5Error) -> Dimension {
    guard item.info.shape.count == 1 else {
      throw damaged(item.object, "an axis of one dimension", "shape \(item.info.shape)")
    }
    switch try values(item) {
    case .integers(let numbers):
      let isCounting = numbers.enumerated().allSatisfy { $0 == $1 }
      if item.role == "indices", !isCounting {
        throw damaged(item.object, "indices 0, 1, 2, …", "others")
      }
      // Without a role (a file that another program has changed), indices are what looks so.
      return isCounting && item.role != "integers"
        ? Dimension(item.name, count: numbers.count) : Dimension(item.name, .integers(numbers))
    case .strings(let texts): return Dimension(item.name, .labels(texts))
    default: throw item.object.wrongScalars(item.info, expected: "whole numbers or text")
    }
  }

  private static func variable(
    _ item: Item, _ dimensions: [Dimension], _ secondary: [(name: String, axes: [String])]
  ) throws(HDF5Error) -> ResultVariable {
    let axes = try axes(item, dimensions)
    let isCoordinate = item.role == "coordinate"
    var attributes = try item.object.attributes(excluding: ResultRules.structural)
    let automatic = ResultRules.coordinates(
      dimensions: axes, isCoordinate: isCoordinate, among: secondary)
    if let automatic, attributes["coordinates"] == .string(automatic) {
      attributes["coordinates"] = nil
    }
    return ResultVariable(
      item.name, axes, try values(item), isCoordinate: isCoordinate, attributes: attributes)
  }

  /// The names of a variable's axes, by the dimension scales attached to it.
  private static func axes(
    _ item: Item, _ dimensions: [Dimension]
  ) throws(HDF5Error) -> [String] {
    var names: [String] = []
    for (axis, extent) in item.info.shape.enumerated() {
      var name: String?
      let status = withUnsafeMutablePointer(to: &name) { pointer in
        H5DSiterate_scales(
          item.object.id, UInt32(axis), nil,
          { _, _, scale, context in
            let length = H5DSget_scale_name(scale, nil, 0)
            guard length > 0, length <= HDF5Limits.nameBytes, let context else { return -1 }
            var buffer = [CChar](repeating: 0, count: length + 1)
            guard H5DSget_scale_name(scale, &buffer, length + 1) == length else { return -1 }
            context.assumingMemoryBound(to: String?.self).pointee = HDF5Strings.name(
              buffer, length)
            return 1
          }, pointer)
      }
      guard status >= 0, let name else {
        _ = HDF5Library.deepestMessage()
        throw damaged(item.object, "a dimension scale on axis \(axis)", "none")
      }
      guard let dimension = dimensions.first(where: { $0.name == name }) else {
        throw damaged(item.object, "axes of its own group", "'\(name)'")
      }
      guard dimension.count == extent else {
        throw damaged(item.object, "\(dimension.count) cells along \(name)", "\(extent)")
      }
      guard !names.contains(name) else {
        throw damaged(item.object, "axes of different names", "'\(name)' twice")
      }
      names.append(name)
    }
    return names
  }

  private static func values(_ item: Item) throws(HDF5Error) -> ResultVariable.Values {
    let object = item.object
    let info = item.info
    let values: ResultVariable.Values
    switch info.scalars {
    case .float32, .otherFloat(byteCount: 4):
      values = .float32(try object.readNumbers(info, as: nl_H5T_NATIVE_FLOAT(), zero: 0))
    case .otherFloat(byteCount: 8):
      values = .float64(try object.readNumbers(info, as: nl_H5T_NATIVE_DOUBLE(), zero: 0))
    case .integer: values = .integers(try object.readIntegers(info))
    case .fixedString, .variableString: values = .strings(try object.readStrings(info))
    default: throw object.wrongScalars(info, expected: "float32, float64, whole numbers or text")
    }
    if case .integer(let sum)? = try object.attribute(ResultRules.checksum) {
      let found = ResultRules.crc32c(of: values)
      guard sum == Int(found) else {
        throw damaged(object, "crc32c \(sum)", "\(found)")
      }
    }
    return values
  }
}
