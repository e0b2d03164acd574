import CHDF5
public import OrderedCollections
public import Results
public import Tensors

/// Writes a result file piece by piece, for results that do not fit in memory.
///
/// All groups, axes and variables are declared first; then slabs are written in any order, and
/// ``finish()`` gives the file its name. A writer that goes away before that leaves nothing behind.
/// Cells of floating-point variables that are never written are NaN, whole numbers 0, texts empty.
///
/// The file follows the rules that h5py, xarray (h5netcdf and netcdf4) and MATLAB need: every axis
/// has a dimension scale of its name in the variable's own group, the order of everything is
/// tracked, text is variable-length UTF-8, and every array is covered by a checksum.
public final class ResultFileWriter: @unchecked Sendable {
  // Sendable: the state below is only touched inside the library's lock.

  /// The type of a variable's scalars.
  public enum ScalarType: Sendable, Equatable {
    /// 32-bit floating point.
    case float32
    /// 64-bit floating point.
    case float64
    /// 64-bit integers.
    case integers
    /// UTF-8 text.
    case strings

    /// The type of these values.
    public init(of values: ResultVariable.Values) {
      switch values {
      case .float32: self = .float32
      case .float64: self = .float64
      case .integers: self = .integers
      case .strings: self = .strings
      }
    }

    var byteCount: Int {
      switch self {
      case .float32: 4
      case .float64, .integers: 8
      case .strings: 16
      }
    }
  }

  /// A variable whose values come later.
  public struct Variable: Sendable {
    /// The variable's name: letters, digits and underscores.
    public var name: String
    /// The names of its axes, slowest first; empty for a scalar.
    public var dimensions: [String]
    /// The type of its scalars.
    public var type: ScalarType
    /// Whether this is a secondary coordinate (`token(prompt, pos)`) rather than a finding.
    public var isCoordinate: Bool
    /// `long_name`, `units`, `sign_convention`, …
    public var attributes: OrderedDictionary<String, AttributeValue>
    /// The shape of the pieces in which numbers are stored, one extent an axis: the slab that is
    /// read most, as `[1, 1, pos, d_model]` for activations by prompt and layer. Nil for pieces of
    /// at most 1 MiB, whole along the last axes.
    public var chunk: [Int]?
    /// Whether pieces are compressed. Activations hardly shrink and are written as they are.
    public var isCompressed: Bool

    /// A variable whose values come later.
    public init(
      _ name: String, _ dimensions: [String], _ type: ScalarType, isCoordinate: Bool = false,
      attributes: OrderedDictionary<String, AttributeValue>, chunk: [Int]? = nil,
      isCompressed: Bool = false
    ) {
      self.name = name
      self.dimensions = dimensions
      self.type = type
      self.isCoordinate = isCoordinate
      self.attributes = attributes
      self.chunk = chunk
      self.isCompressed = isCompressed
    }

    /// The declaration of a variable that has its values.
    public init(_ variable: ResultVariable, chunk: [Int]? = nil, isCompressed: Bool = true) {
      self.init(
        variable.name, variable.dimensions, ScalarType(of: variable.values),
        isCoordinate: variable.isCoordinate, attributes: variable.attributes, chunk: chunk,
        isCompressed: isCompressed)
    }
  }

  /// A group with its axes and the variables to come.
  public struct Group: Sendable {
    /// The group's path without a leading slash.
    public var path: String
    /// Every axis that a variable of this group names.
    public var dimensions: [Dimension]
    /// The variables in order.
    public var variables: [Variable]
    /// Attributes of the group itself.
    public var attributes: OrderedDictionary<String, AttributeValue>

    /// A group with its axes and the variables to come.
    public init(
      path: String, dimensions: [Dimension], variables: [Variable],
      attributes: OrderedDictionary<String, AttributeValue> = [:]
    ) {
      self.path = path
      self.dimensions = dimensions
      self.variables = variables
      self.attributes = attributes
    }

    /// The declaration of a group's variables, and of further ones.
    public init(_ group: ResultGroup, further: [Variable] = []) {
      self.init(
        path: group.path, dimensions: group.dimensions,
        variables: group.variables.map { variable in
          let bytes = variable.values.count * ScalarType(of: variable.values).byteCount
          return Variable(variable, isCompressed: bytes <= ResultFile.compressedBytes)
        } + further, attributes: group.attributes)
    }
  }

  /// A variable in the open file.
  private struct Target {
    var dataset: HDF5Object
    var type: ScalarType
    var shape: [Int]
  }

  /// The file that is being written, as it was given.
  public let path: String
  private let output: AtomicFile
  private let title: String
  private let provenance: Provenance
  private var declared: [Group]
  private var root: HDF5Object?
  private var made: [String: HDF5Object] = [:]
  private var targets: [String: Target] = [:]

  /// Creates the file with everything but the values.
  ///
  /// - Throws: `unstorable` for declarations that contradict each other, `cannotCreate`, `ioFailed`.
  public init(
    path: String, title: String, provenance: Provenance = Provenance(), groups: [Group]
  ) throws(HDF5Error) {
    try ResultRules.check(groups, provenance, path)
    self.path = path
    self.title = title
    self.provenance = provenance
    declared = groups
    self.output = try AtomicFile(path: path)
    try HDF5Library.locked { () throws(HDF5Error) in
      do throws(HDF5Error) {
        try create(groups)
      } catch {
        abandon()
        throw error
      }
    }
  }

  deinit {
    HDF5Library.lockedCleanup { abandon() }
  }

  /// Declares groups that were not known when the file was begun.
  ///
  /// - Throws: `unstorable` for declarations that contradict each other, `ioFailed`; then nothing of
  ///   the file is left.
  public func add(_ groups: [Group]) throws(HDF5Error) {
    let path = path
    try HDF5Library.locked { () throws(HDF5Error) in
      do throws(HDF5Error) {
        try ResultRules.check(declared + groups, provenance, path)
        declared += groups
        guard let root else {
          throw HDF5Error.ioFailed(path: path, object: "groups", reason: "the file is finished")
        }
        try create(groups, in: root)
      } catch {
        abandon()
        throw error
      }
    }
  }

  /// Writes all values of a declared group's variables.
  ///
  /// - Precondition: the variables are declared with these axes and types.
  public func write(_ group: ResultGroup) throws(HDF5Error) {
    for variable in group.variables {
      let shape = group.shape(of: variable)
      try write(
        group: group.path, variable: variable.name, start: shape.map { _ in 0 }, count: shape,
        values: variable.values)
    }
  }

  /// Writes part of a variable.
  ///
  /// - Parameters:
  ///   - group: the group's path.
  ///   - variable: the variable's name.
  ///   - start: where the slab begins, an index an axis.
  ///   - count: how far it goes along each axis.
  ///   - values: row-major, of the declared type.
  /// - Precondition: the variable is declared, the slab lies inside it, and `values` fill it.
  public func write(
    group: String, variable: String, start: [Int], count: [Int], values: ResultVariable.Values
  ) throws(HDF5Error) {
    try HDF5Library.locked { () throws(HDF5Error) in
      let target = try target(
        group, variable, ScalarType(of: values), start, count, values.count)
      let slab = HDF5Object.Slab(start: start, count: count)
      if values.count > 0 {
        switch values {
        case .float32(let numbers):
          try target.dataset.write(from: numbers, nl_H5T_NATIVE_FLOAT(), slab: slab)
        case .float64(let numbers):
          try target.dataset.write(from: numbers, nl_H5T_NATIVE_DOUBLE(), slab: slab)
        case .integers(let numbers):
          try target.dataset.write(from: numbers, nl_H5T_NATIVE_INT64(), slab: slab)
        case .strings(let texts): try target.dataset.writeStrings(texts, slab: slab)
        }
      }
      try seal(target, values, isWhole: count == target.shape)
    }
  }

  /// Writes part of a float32 variable from a tensor, whose scalars are taken in order.
  ///
  /// - Precondition: as for ``write(group:variable:start:count:values:)``.
  public func write(
    group: String, variable: String, start: [Int], count: [Int], tensor: Tensor
  ) throws(HDF5Error) {
    guard !start.isEmpty else {
      return try write(
        group: group, variable: variable, start: start, count: count,
        values: .float32(tensor.scalars))
    }
    try HDF5Library.locked { () throws(HDF5Error) in
      let target = try target(group, variable, .float32, start, count, tensor.count)
      try tensor.withUnsafeBufferPointer {
        (scalars: UnsafeBufferPointer<Float>) throws(HDF5Error) -> Void in
        guard let base = scalars.baseAddress, !scalars.isEmpty else { return }
        try target.dataset.write(
          from: base, nl_H5T_NATIVE_FLOAT(), slab: .init(start: start, count: count))
      }
    }
  }

  /// Completes the file and gives it its name, replacing an older one.
  ///
  /// - Throws: `ioFailed`; then nothing of the file is left.
  public func finish() throws(HDF5Error) {
    try HDF5Library.locked { () throws(HDF5Error) in
      guard let root else { return }
      do throws(HDF5Error) {
        try describe(root)
        (targets, made) = ([:], [:])
        try root.closeFile()
        self.root = nil
      } catch {
        abandon()
        throw error
      }
    }
    do throws(HDF5Error) {
      try FileSeal.put(on: output)
      try output.commit()
    } catch {
      output.discard()
      throw error
    }
  }

  private func abandon() {
    (targets, made) = ([:], [:])
    _ = root?.file.handle.close()
    root = nil
    output.discard()
  }

  // MARK: Declarations

  private func create(_ groups: [Group]) throws(HDF5Error) {
    // The oldest format that keeps creation order, so that every reader opens it.
    let root = try HDF5Object.create(
      output.temporary, for: path, lowest: H5F_LIBVER_EARLIEST, alignment: 1)
    self.root = root
    try create(groups, in: root)
  }

  /// The attributes of the file itself, once all groups are known.
  private func describe(_ root: HDF5Object) throws(HDF5Error) {
    try root.setAttributes(
      [
        "Conventions": .string("CF-1.11"), "title": .string(title),
        "format": .string(FileFormat.result.rawValue),
        "format_version": .integer(FileFormat.result.version),
        "groups": .strings(declared.map(\.path)),
      ], style: .variableLength)
    try root.setAttributes(provenance.facts, style: .variableLength)
  }

  private func create(_ groups: [Group], in root: HDF5Object) throws(HDF5Error) {
    for group in groups {
      var parent = root
      var place = ""
      for part in group.path.split(separator: "/") {
        place += "/" + part
        if let known = made[place] {
          parent = known
        } else {
          parent = try parent.createGroup(String(part))
          made[place] = parent
        }
      }
      try declare(group, in: parent)
    }
  }

  private func declare(_ group: Group, in parent: HDF5Object) throws(HDF5Error) {
    // A coordinate that no variable's axes cover (token(prompt, pos) beside per-prompt findings) is
    // still known as one to readers that follow the group's own attribute.
    var attributes = group.attributes
    let coordinates = group.variables.filter(\.isCoordinate).map(\.name)
    if !coordinates.isEmpty {
      attributes[ResultRules.groupCoordinates] = .string(coordinates.joined(separator: " "))
    }
    try parent.setAttributes(attributes, style: .variableLength)
    var scales: [String: HDF5Object] = [:]
    for dimension in group.dimensions {
      scales[dimension.name] = try createScale(dimension, in: parent)
    }
    for variable in group.variables {
      let shape = variable.dimensions.map { name in
        group.dimensions.first { $0.name == name }?.count ?? 0
      }
      let dataset = try create(variable, shape: shape, in: parent)
      for (axis, name) in variable.dimensions.enumerated() {
        guard let scale = scales[name],
          H5DSattach_scale(dataset.id, scale.id, UInt32(axis)) >= 0
        else { throw dataset.file.failure(dataset.name, "attaching the axis '\(name)'") }
      }
      var attributes = variable.attributes
      if attributes["coordinates"] == nil, let names = ResultRules.coordinates(of: variable, group)
      {
        attributes["coordinates"] = .string(names)
      }
      if variable.isCoordinate { attributes[ResultRules.role] = .string("coordinate") }
      try dataset.setAttributes(attributes, style: .variableLength)
      targets[group.path + "/" + variable.name] = Target(
        dataset: dataset, type: variable.type, shape: shape)
    }
  }

  private func createScale(
    _ dimension: Dimension, in parent: HDF5Object
  ) throws(HDF5Error) -> HDF5Object {
    let values: ResultVariable.Values
    let role: String
    switch dimension.coordinates {
    case .indices(let count): (values, role) = (.integers(Array(0..<count)), "indices")
    case .integers(let numbers): (values, role) = (.integers(numbers), "integers")
    case .labels(let texts): (values, role) = (.strings(texts), "labels")
    }
    var attributes: OrderedDictionary<String, AttributeValue> = [
      "long_name": .string("\(role) along \(dimension.name)")
    ]
    if role != "labels" { attributes["units"] = .string("1") }
    attributes[ResultRules.role] = .string(role)
    let variable = Variable(
      dimension.name, [dimension.name], ScalarType(of: values), attributes: [:],
      isCompressed: true)
    let scale = try create(variable, shape: [dimension.count], in: parent)
    guard H5DSset_scale(scale.id, dimension.name) >= 0 else {
      throw scale.file.failure(scale.name, "making the axis")
    }
    try scale.setAttributes(attributes, style: .variableLength)
    let target = Target(dataset: scale, type: variable.type, shape: [dimension.count])
    if dimension.count > 0 {
      switch values {
      case .integers(let numbers): try scale.write(from: numbers, nl_H5T_NATIVE_INT64())
      case .strings(let texts): try scale.writeStrings(texts)
      default: break
      }
    }
    try seal(target, values, isWhole: true)
    return scale
  }

  private func create(
    _ variable: Variable, shape: [Int], in parent: HDF5Object
  ) throws(HDF5Error) -> HDF5Object {
    let string = try HDF5Types.string(byteCount: nil, parent.file)
    var creation = HDF5Object.Creation(shape: shape)
    let type: hid_t
    switch variable.type {
    case .float32: (type, creation.fill) = (nl_H5T_IEEE_F32LE(), .floatNaN)
    case .float64: (type, creation.fill) = (nl_H5T_IEEE_F64LE(), .doubleNaN)
    case .integers: type = nl_H5T_STD_I64LE()
    case .strings: type = string.id
    }
    // Filters cannot see into text of variable length, which lies in a heap, and a scalar or an
    // empty array has no pieces; `seal` adds a checksum there.
    if variable.type != .strings, !shape.isEmpty, !shape.contains(0) {
      creation.chunk = ResultRules.chunk(
        variable.chunk, shape: shape, scalarBytes: variable.type.byteCount)
      creation.isCompressed = variable.isCompressed
    }
    let dataset = try parent.createDataset(variable.name, type: type, creation)
    // The fill value that netCDF readers look for; HDF5's own property is not enough.
    switch creation.fill {
    case .none: break
    case .floatNaN:
      try dataset.setNumbers(
        "_FillValue", [Float.nan], shape: 1, nl_H5T_IEEE_F32LE(), nl_H5T_NATIVE_FLOAT())
    case .doubleNaN:
      try dataset.setNumbers(
        "_FillValue", [Double.nan], shape: 1, nl_H5T_IEEE_F64LE(), nl_H5T_NATIVE_DOUBLE())
    }
    return dataset
  }

  // MARK: Values

  private func target(
    _ group: String, _ variable: String, _ type: ScalarType, _ start: [Int], _ count: [Int],
    _ valueCount: Int
  ) throws(HDF5Error) -> Target {
    guard root != nil else {
      throw .ioFailed(path: path, object: "\(group)/\(variable)", reason: "the file is finished")
    }
    guard let target = targets[group + "/" + variable] else {
      preconditionFailure("ResultFileWriter: no variable '\(group)/\(variable)' is declared")
    }
    precondition(
      target.type == type,
      "ResultFileWriter: '\(group)/\(variable)' is declared \(target.type), the values are \(type)")
    precondition(
      start.count == target.shape.count && count.count == target.shape.count
        && zip(target.shape, zip(start, count)).allSatisfy { extent, part in
          part.0 >= 0 && part.1 >= 0 && part.0 + part.1 <= extent
        },
      "ResultFileWriter: slab at \(start) of \(count) is outside '\(group)/\(variable)' "
        + "of shape \(target.shape)")
    precondition(
      valueCount == count.reduce(1, *),
      "ResultFileWriter: \(valueCount) values for a slab of \(count) of '\(group)/\(variable)'")
    return target
  }

  /// Gives text and scalars, which no filter protects, a checksum; takes an old one away where
  /// only a part is written, because the whole is not known then.
  private func seal(
    _ target: Target, _ values: ResultVariable.Values, isWhole: Bool
  ) throws(HDF5Error) {
    guard ResultRules.needsChecksum(target.type, shape: target.shape) else { return }
    try target.dataset.removeAttribute(ResultRules.checksum)
    guard isWhole else { return }
    let sum = ResultRules.crc32c(of: values)
    try target.dataset.setNumbers(
      ResultRules.checksum, [sum], shape: nil, nl_H5T_STD_U32LE(), nl_H5T_STD_U32LE())
  }
}
