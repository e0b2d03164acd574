import CHDF5
import OrderedCollections
import Results

/// How text is stored in attributes.
enum HDF5StringStyle {
  /// Inside the object header, which is checksummed: model files.
  case fixedLength
  /// In a heap, as netCDF wants it: result files.
  case variableLength
}

extension HDF5Object {
  // MARK: Reading

  /// All attributes in creation order, except those named in `excluding`.
  ///
  /// - Parameters:
  ///   - excluding: names that are not even opened.
  ///   - strict: whether a value that `AttributeValue` cannot hold is an error; else it is left out.
  func attributes(
    excluding: Set<String> = [], strict: Bool = true, allowHeap: Bool = true
  ) throws(HDF5Error) -> OrderedDictionary<String, AttributeValue> {
    let count = H5Aget_num_attrs(id)
    guard count >= 0 else { throw file.failure(name, "attributes") }
    let index = tracksAttributeOrder() ? H5_INDEX_CRT_ORDER : H5_INDEX_NAME
    var result: OrderedDictionary<String, AttributeValue> = [:]
    for position in 0..<hsize_t(count) {
      guard
        let attribute = HDF5Handle(
          H5Aopen_by_idx(
            id, ".", index, H5_ITER_INC, position, nl_H5P_DEFAULT(), nl_H5P_DEFAULT()))
      else { throw file.failure(name, "an attribute at index \(position)") }
      let length = H5Aget_name(attribute.id, 0, nil)
      guard length > 0, length <= HDF5Limits.nameBytes else {
        throw file.failure(name, "a name of attribute \(position)")
      }
      var buffer = [CChar](repeating: 0, count: length + 1)
      guard H5Aget_name(attribute.id, length + 1, &buffer) == length,
        let key = HDF5Strings.name(buffer, length)
      else { throw file.failure(name, "a UTF-8 name of attribute \(position)") }
      if excluding.contains(key) { continue }
      let value = try value(of: attribute, key, strict: strict, allowHeap: allowHeap)
      if let value { result[key] = value }
    }
    return result
  }

  /// The attribute `key`, or nil where there is none.
  ///
  /// - Parameters:
  ///   - allowHeap: whether text of variable length is read; else it is an error.
  ///   - strict: whether a value that `AttributeValue` cannot hold, or may not, is an error; else it
  ///     is nil.
  func attribute(
    _ key: String, allowHeap: Bool = true, strict: Bool = true
  ) throws(HDF5Error) -> AttributeValue? {
    let exists = H5Aexists(id, key)
    guard exists >= 0 else { throw file.failure(name, "attributes") }
    guard exists > 0 else { return nil }
    guard let attribute = HDF5Handle(H5Aopen(id, key, nl_H5P_DEFAULT())) else {
      throw file.failure(label(key), "a readable attribute")
    }
    return try value(of: attribute, key, strict: strict, allowHeap: allowHeap)
  }

  private func label(_ key: String) -> String { "\(name) attribute '\(key)'" }

  private func tracksAttributeOrder() -> Bool {
    let kind = H5Iget_type(id)
    let created = kind == H5I_DATASET ? H5Dget_create_plist(id) : H5Gget_create_plist(id)
    guard let list = HDF5Handle(created) else { return false }
    var flags: UInt32 = 0
    return H5Pget_attr_creation_order(list.id, &flags) >= 0
      && flags & nl_H5P_CRT_ORDER() == nl_H5P_CRT_ORDER()
  }

  private func value(
    of attribute: HDF5Handle, _ key: String, strict: Bool, allowHeap: Bool
  ) throws(HDF5Error) -> AttributeValue? {
    let label = label(key)
    guard let type = HDF5Handle(H5Aget_type(attribute.id)),
      let space = HDF5Handle(H5Aget_space(attribute.id))
    else { throw file.failure(label, "a type and extents") }
    let scalars = try HDF5Scalars(type: type, file: file)
    let extents = try HDF5Extents(space: space, name: label, file: file)
    if extents == .null { return strict ? .strings([]) : nil }
    let count = extents.shape.reduce(1, *)
    let (bytes, overflow) = count.multipliedReportingOverflow(by: scalars.byteCount)
    // Attribute values lie in the file as they are: they cannot be larger than it.
    guard !overflow, bytes <= max(file.byteCount, 1) else {
      throw .damaged(
        path: file.path, object: label, expected: "at most \(file.byteCount) bytes",
        found: overflow ? "more than 64 bits can count" : "\(bytes)")
    }
    guard count <= HDF5Limits.attributeBytes / max(scalars.byteCount, 8) else {
      throw .tooLarge(
        path: file.path, object: label, bytes: "\(count) values",
        limit: "\(HDF5Limits.attributeBytes) bytes in an attribute")
    }
    let isScalar = extents == .scalar

    switch scalars {
    case .float16, .float32, .otherFloat:
      var values = [Double](repeating: 0, count: count)
      guard count == 0 || H5Aread(attribute.id, nl_H5T_NATIVE_DOUBLE(), &values) >= 0 else {
        throw file.failure(label, "readable numbers")
      }
      return isScalar ? .number(values[0]) : .numbers(values)
    case .integer(8, isSigned: false):
      var values = [UInt64](repeating: 0, count: count)
      guard count == 0 || H5Aread(attribute.id, nl_H5T_NATIVE_UINT64(), &values) >= 0 else {
        throw file.failure(label, "readable whole numbers")
      }
      guard let whole = integers(values) else {
        throw .damaged(
          path: file.path, object: label, expected: "whole numbers up to \(Int.max)",
          found: "a larger one")
      }
      return isScalar ? .integer(whole[0]) : .integers(whole)
    case .integer:
      var values = [Int](repeating: 0, count: count)
      guard count == 0 || H5Aread(attribute.id, nl_H5T_NATIVE_INT64(), &values) >= 0 else {
        throw file.failure(label, "readable whole numbers")
      }
      return isScalar ? .integer(values[0]) : .integers(values)
    case .fixedString(let width):
      var buffer = [UInt8](repeating: 0, count: max(count * width, 1))
      guard count == 0 || H5Aread(attribute.id, type.id, &buffer) >= 0 else {
        throw file.failure(label, "readable text")
      }
      let texts = try fixedStrings(buffer, width: width, count: count, type: type, label)
      return isScalar ? .string(texts[0]) : .strings(texts)
    case .variableString:
      guard allowHeap else {
        guard strict else { return nil }
        throw .damaged(
          path: file.path, object: label, expected: "text of fixed length",
          found: "text of variable length")
      }
      var pointers = [UnsafeMutablePointer<CChar>?](repeating: nil, count: count)
      guard count == 0 || H5Aread(attribute.id, type.id, &pointers) >= 0 else {
        throw file.failure(label, "readable text")
      }
      defer { if count > 0 { H5Dvlen_reclaim(type.id, space.id, nl_H5P_DEFAULT(), &pointers) } }
      let texts = try heapStrings(pointers, label)
      return isScalar ? .string(texts[0]) : .strings(texts)
    case .other(let found):
      guard strict else { return nil }
      throw .damaged(
        path: file.path, object: label, expected: "numbers or text", found: found)
    }
  }

  /// The numbers as `Int`, or nil if one is too large.
  func integers(_ values: [UInt64]) -> [Int]? {
    guard values.allSatisfy({ $0 <= UInt64(Int.max) }) else { return nil }
    return values.map { Int($0) }
  }

  /// Texts of `width` bytes each, without their padding.
  func fixedStrings(
    _ bytes: [UInt8], width: Int, count: Int, type: HDF5Handle, _ label: String
  ) throws(HDF5Error) -> [String] {
    let padding = H5Tget_strpad(type.id)
    var texts: [String] = []
    texts.reserveCapacity(count)
    for index in 0..<count {
      var field = bytes[index * width..<(index + 1) * width]
      if padding == H5T_STR_NULLTERM {
        field = field.prefix { $0 != 0 }
      } else {
        let pad: UInt8 = padding == H5T_STR_SPACEPAD ? 0x20 : 0
        while field.last == pad { field.removeLast() }
      }
      guard let text = String(validating: field, as: UTF8.self) else { throw notText(label) }
      texts.append(text)
    }
    return texts
  }

  /// Texts that HDF5 has allocated; a null pointer is an empty text.
  func heapStrings(
    _ pointers: [UnsafeMutablePointer<CChar>?], _ label: String
  ) throws(HDF5Error) -> [String] {
    var texts: [String] = []
    texts.reserveCapacity(pointers.count)
    for pointer in pointers {
      guard let pointer else {
        texts.append("")
        continue
      }
      guard let text = String(validatingCString: pointer) else { throw notText(label) }
      texts.append(text)
    }
    return texts
  }

  private func notText(_ label: String) -> HDF5Error {
    .damaged(path: file.path, object: label, expected: "UTF-8 text", found: "other bytes")
  }

  // MARK: Writing

  /// Writes attributes in order.
  func setAttributes(
    _ attributes: OrderedDictionary<String, AttributeValue>, style: HDF5StringStyle
  ) throws(HDF5Error) {
    for (key, value) in attributes { try setAttribute(key, value, style: style) }
  }

  /// Writes one attribute, which must not exist yet.
  func setAttribute(
    _ key: String, _ value: AttributeValue, style: HDF5StringStyle
  ) throws(HDF5Error) {
    guard !key.isEmpty, key.utf8.count <= 255, !key.utf8.contains(0) else {
      throw .unstorable(
        path: file.path, object: label(key), expected: "a name of 1 to 255 bytes",
        found: "\(key.utf8.count) bytes")
    }
    switch value {
    case .string(let text): try setStrings(key, [text], isScalar: true, style: style)
    case .strings(let texts): try setStrings(key, texts, isScalar: false, style: style)
    case .integer(let number):
      try setNumbers(key, [number], shape: nil, nl_H5T_STD_I64LE(), nl_H5T_NATIVE_INT64())
    case .integers(let numbers):
      try setNumbers(
        key, numbers, shape: numbers.count, nl_H5T_STD_I64LE(), nl_H5T_NATIVE_INT64())
    case .number(let number):
      try setNumbers(key, [number], shape: nil, nl_H5T_IEEE_F64LE(), nl_H5T_NATIVE_DOUBLE())
    case .numbers(let numbers):
      try setNumbers(
        key, numbers, shape: numbers.count, nl_H5T_IEEE_F64LE(), nl_H5T_NATIVE_DOUBLE())
    }
  }

  /// Writes numbers as an attribute: a scalar where `shape` is nil, else one axis.
  func setNumbers<T: BitwiseCopyable>(
    _ key: String, _ values: [T], shape: Int?, _ fileType: hid_t, _ memoryType: hid_t
  ) throws(HDF5Error) {
    let attribute = try createAttribute(key, count: shape, type: fileType)
    guard values.isEmpty || H5Awrite(attribute.id, memoryType, values) >= 0 else {
      throw file.failure(label(key), "writing")
    }
  }

  private func setStrings(
    _ key: String, _ texts: [String], isScalar: Bool, style: HDF5StringStyle
  ) throws(HDF5Error) {
    let shape = isScalar ? nil : texts.count
    switch style {
    case .fixedLength:
      for text in texts where text.utf8.contains(0) {
        throw .unstorable(
          path: file.path, object: label(key), expected: "text without zero bytes", found: "one")
      }
      let width = max(texts.map(\.utf8.count).max() ?? 0, 1)
      var bytes = [UInt8](repeating: 0, count: max(width * texts.count, 1))
      for (index, text) in texts.enumerated() {
        bytes.replaceSubrange(index * width..<index * width + text.utf8.count, with: text.utf8)
      }
      let type = try HDF5Types.string(byteCount: width, file)
      let attribute = try createAttribute(key, count: shape, type: type.id)
      guard texts.isEmpty || H5Awrite(attribute.id, type.id, bytes) >= 0 else {
        throw file.failure(label(key), "writing")
      }
    case .variableLength:
      let type = try HDF5Types.string(byteCount: nil, file)
      let attribute = try createAttribute(key, count: shape, type: type.id)
      let written = HDF5Strings(texts).withPointers { pointers in
        texts.isEmpty || H5Awrite(attribute.id, type.id, pointers) >= 0
      }
      guard written else { throw file.failure(label(key), "writing") }
    }
  }

  private func createAttribute(
    _ key: String, count: Int?, type: hid_t
  ) throws(HDF5Error) -> HDF5Handle {
    var extent = hsize_t(count ?? 1)
    guard
      let space = HDF5Handle(
        count == nil ? H5Screate(H5S_SCALAR) : H5Screate_simple(1, &extent, nil)),
      let attribute = HDF5Handle(
        H5Acreate2(id, key, type, space.id, nl_H5P_DEFAULT(), nl_H5P_DEFAULT()))
    else { throw file.failure(label(key), "creating") }
    return attribute
  }

  /// Removes the attribute `key` if it exists.
  func removeAttribute(_ key: String) throws(HDF5Error) {
    guard H5Aexists(id, key) > 0 else { return }
    guard H5Adelete(id, key) >= 0 else { throw file.failure(label(key), "removing") }
  }
}

/// Texts side by side in one block, each ended by a zero byte, as HDF5 wants to be handed them.
///
/// A zero byte inside a text would end it early, silently; it is written as U+2400 “␀”.
struct HDF5Strings {
  private var bytes: [CChar] = []
  private var starts: [Int] = []

  init(_ texts: [String]) {
    bytes.reserveCapacity(texts.reduce(1) { $0 + $1.utf8.count + 1 })
    starts.reserveCapacity(texts.count)
    for text in texts {
      starts.append(bytes.count)
      for byte in HDF5Strings.storable(text).utf8 { bytes.append(CChar(bitPattern: byte)) }
      bytes.append(0)
    }
  }

  /// A name of `length` bytes that HDF5 has written to `buffer`, or nil if it is not UTF-8.
  static func name(_ buffer: [CChar], _ length: Int) -> String? {
    String(validating: buffer.prefix(length).lazy.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  /// The text as it will be read back.
  static func storable(_ text: String) -> String {
    guard text.utf8.contains(0) else { return text }
    return String(
      String.UnicodeScalarView(text.unicodeScalars.map { $0 == "\0" ? "\u{2400}" : $0 }))
  }

  /// Calls `body` with a pointer to each text.
  func withPointers<R>(_ body: ([UnsafePointer<CChar>?]) -> R) -> R {
    bytes.withUnsafeBufferPointer { block in
      body(starts.map { start in block.baseAddress.map { $0 + start } })
    }
  }
}
