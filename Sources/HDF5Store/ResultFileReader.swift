import CHDF5
import OrderedCollections
public import Results

/// Reads a result file piece by piece, for results that do not fit in memory.
///
/// Opening reads what there is: groups, axes with their coordinates, variables with their attributes.
/// Values are read when they are asked for, along each axis as far as they are asked for.
public final class ResultFileReader: @unchecked Sendable {
  // Sendable: `root` is only touched inside the library's lock.

  /// The file, as it was given.
  public let path: String
  /// One sentence that says what the result is.
  public private(set) var title = ""
  /// Where the numbers come from.
  public private(set) var provenance = Provenance()
  /// What there is: every group with its axes, its variables and their attributes.
  public private(set) var groups: [ResultFileWriter.Group] = []
  private var root: HDF5Object?

  /// Opens a file that ``ResultFile/write(_:to:)`` or ``ResultFileWriter`` has written.
  ///
  /// - Throws: `missing`, `unreadable`; `wrongKind` for another file, a model say; `damaged`.
  public init(path: String) throws(HDF5Error) {
    self.path = path
    try HDF5Library.locked { () throws(HDF5Error) in
      let root = try HDF5Object.open(path)
      self.root = root
      try FileFormat.result.check(root)
      guard case .string(let title)? = try root.attribute("title") else {
        throw Self.damaged(root, "an attribute title", "none")
      }
      self.title = title
      let paths = try Self.groupPaths(root)
      for path in paths {
        let found = try root.descendant(path)
        guard found.kind == .group else {
          throw Self.damaged(found.object, "a group", "a dataset")
        }
        groups.append(try Self.declaration(found.object, path, allPaths: Set(paths)))
      }
      provenance = Provenance(try root.attributes(excluding: ResultRules.header))
    }
  }

  deinit {
    HDF5Library.lockedCleanup {
      _ = root?.file.handle.close()
      root = nil
    }
  }

  // MARK: Values

  /// The result, or a part of it.
  ///
  /// - Parameters:
  ///   - parts: some of ``groups``, each with all of its variables or some; all where nil.
  ///   - maximumBytes: where the values take more memory, only as many of the first prompts are read
  ///     along each axis `prompt` as fit, at least one. ``ResultGroup/promptsInFile`` then says how
  ///     many the file has.
  ///   - prompt: only this one along each axis `prompt`.
  /// - Throws: `damaged` naming the array; `tooLarge` for arrays that must be read in parts.
  /// - Precondition: `parts` are of this file, and each axis `prompt` of theirs has `prompt`.
  public func result(
    of parts: [ResultFileWriter.Group]? = nil, maximumBytes: Int = .max, prompt: Int? = nil
  ) throws(HDF5Error) -> ResultSet {
    let parts = parts ?? groups
    let limit = prompt == nil ? Self.promptLimit(parts, maximumBytes) : nil
    var found: [ResultGroup] = []
    for part in parts {
      let prompts = part.dimensions.first { $0.name == "prompt" }?.count
      var ranges: [String: Range<Int>] = [:]
      if let prompt, prompts != nil {
        ranges["prompt"] = prompt..<prompt + 1
      } else if let limit, let prompts, limit < prompts {
        ranges["prompt"] = 0..<limit
      }
      var group = try values(of: part, ranges: ranges)
      if prompt == nil, !ranges.isEmpty, let prompts {
        group.attributes[ResultGroup.promptsInFileName] = .integer(prompts)
      }
      found.append(group)
    }
    return ResultSet(title: title, groups: found, provenance: provenance)
  }

  /// A group of ``groups``, with all of its variables or some, and their values inside `ranges`.
  ///
  /// - Parameters:
  ///   - part: what to read.
  ///   - ranges: by an axis' name, what to read along it; all where there is none.
  /// - Throws: `damaged` naming the array; `tooLarge`.
  /// - Precondition: the ranges lie inside their axes.
  public func values(
    of part: ResultFileWriter.Group, ranges: [String: Range<Int>] = [:]
  ) throws(HDF5Error) -> ResultGroup {
    try HDF5Library.locked { () throws(HDF5Error) -> ResultGroup in
      guard let root else { throw .unreadable(path: path, reason: "the file is closed") }
      var variables: [ResultVariable] = []
      for variable in part.variables {
        // The limit is for one walk, not for all that is ever asked of a file.
        root.file.visited = 0
        let object = try root.descendant(part.path + "/" + variable.name).object
        let info = try object.datasetInfo()
        let slab = zip(variable.dimensions, info.shape).map { ranges[$0] ?? 0..<$1 }
        precondition(
          zip(slab, info.shape).allSatisfy { $0.upperBound <= $1 && $0.lowerBound >= 0 },
          "ResultFileReader: \(slab) of \(part.path)/\(variable.name) of shape \(info.shape)")
        let isWhole = zip(slab, info.shape).allSatisfy { $0.count == $1 }
        let values = try Self.values(
          object, info,
          isWhole ? nil : .init(start: slab.map(\.lowerBound), count: slab.map(\.count)))
        variables.append(
          ResultVariable(
            variable.name, variable.dimensions, values, isCoordinate: variable.isCoordinate,
            attributes: variable.attributes))
      }
      return ResultGroup(
        path: part.path,
        dimensions: part.dimensions.map { axis in ranges[axis.name].map { axis[$0] } ?? axis },
        variables: variables, attributes: part.attributes)
    }
  }

  /// How many of the first prompts fit into so many bytes; nil if all do.
  private static func promptLimit(
    _ parts: [ResultFileWriter.Group], _ maximumBytes: Int
  ) -> Int? {
    var (fixed, each, all) = (0.0, 0.0, 0.0)
    for part in parts {
      for variable in part.variables {
        // Texts of tokens are short: their heads and a few bytes.
        var bytes = Double(variable.type == .strings ? 32 : variable.type.byteCount)
        for name in variable.dimensions where name != "prompt" {
          bytes *= Double(part.dimensions.first { $0.name == name }?.count ?? 0)
        }
        if variable.dimensions.contains("prompt") {
          each += bytes
          all += bytes * Double(part.dimensions.first { $0.name == "prompt" }?.count ?? 0)
        } else {
          fixed += bytes
        }
      }
    }
    guard each > 0, fixed + all > Double(maximumBytes) else { return nil }
    return Swift.max(1, Int((Double(maximumBytes) - fixed) / each))
  }

  private static func values(
    _ object: HDF5Object, _ info: HDF5DatasetInfo, _ slab: HDF5Object.Slab?
  ) throws(HDF5Error) -> ResultVariable.Values {
    let values: ResultVariable.Values
    switch try scalarType(object, info) {
    case .float32:
      values = .float32(
        try object.readNumbers(info, slab: slab, as: nl_H5T_NATIVE_FLOAT(), zero: 0))
    case .float64:
      values = .float64(
        try object.readNumbers(info, slab: slab, as: nl_H5T_NATIVE_DOUBLE(), zero: 0))
    case .integers: values = .integers(try object.readIntegers(info, slab: slab))
    case .strings: values = .strings(try object.readStrings(info, slab: slab))
    }
    // Of a part, only what HDF5 itself has a checksum of each piece for is checked.
    if slab == nil, case .integer(let sum)? = try object.attribute(ResultRules.checksum) {
      let found = ResultRules.crc32c(of: values)
      guard sum == Int(found) else { throw damaged(object, "crc32c \(sum)", "\(found)") }
    }
    return values
  }

  private static func scalarType(
    _ object: HDF5Object, _ info: HDF5DatasetInfo
  ) throws(HDF5Error) -> ResultFileWriter.ScalarType {
    switch info.scalars {
    case .float32, .otherFloat(byteCount: 4): .float32
    case .otherFloat(byteCount: 8): .float64
    case .integer: .integers
    case .fixedString, .variableString: .strings
    default: throw object.wrongScalars(info, expected: "float32, float64, whole numbers or text")
    }
  }

  // MARK: Declarations

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

  /// A dataset of a group.
  private struct Item {
    var name: String
    var object: HDF5Object
    var info: HDF5DatasetInfo
    var role: String?
    var isScale: Bool
  }

  private static func declaration(
    _ object: HDF5Object, _ path: String, allPaths: Set<String>
  ) throws(HDF5Error) -> ResultFileWriter.Group {
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
    var variables: [ResultFileWriter.Variable] = []
    for item in items where !item.isScale {
      variables.append(try variable(item, dimensions, secondary))
    }
    return ResultFileWriter.Group(
      path: path, dimensions: dimensions, variables: variables,
      attributes: try object.attributes(excluding: [ResultRules.groupCoordinates]))
  }

  private static func dimension(_ item: Item) throws(HDF5Error) -> Dimension {
    guard item.info.shape.count == 1 else {
      throw damaged(item.object, "an axis of one dimension", "shape \(item.info.shape)")
    }
    switch try values(item.object, item.info, nil) {
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
  ) throws(HDF5Error) -> ResultFileWriter.Variable {
    let axes = try axes(item, dimensions)
    let isCoordinate = item.role == "coordinate"
    var attributes = try item.object.attributes(excluding: ResultRules.structural)
    let automatic = ResultRules.coordinates(
      dimensions: axes, isCoordinate: isCoordinate, among: secondary)
    if let automatic, attributes["coordinates"] == .string(automatic) {
      attributes["coordinates"] = nil
    }
    return ResultFileWriter.Variable(
      item.name, axes, try scalarType(item.object, item.info), isCoordinate: isCoordinate,
      attributes: attributes)
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
}
