import CHDF5

/// The types of scalars that files of this module hold, as HDF5 spells them.
enum HDF5Types {
  /// IEEE half precision, little-endian, which HDF5 1.10 has no name for.
  static func float16(_ file: HDF5Object.FileState) throws(HDF5Error) -> HDF5Handle {
    guard let type = HDF5Handle(H5Tcopy(nl_H5T_IEEE_F32LE())),
      // Sign at bit 15, 5 bits of exponent from bit 10, 10 bits of mantissa from bit 0. The fields
      // move before the size shrinks, because they must always lie inside.
      H5Tset_fields(type.id, 15, 10, 5, 0, 10) >= 0,
      H5Tset_size(type.id, 2) >= 0,
      H5Tset_ebias(type.id, 15) >= 0
    else { throw file.failure("float16", "making the type") }
    return type
  }

  /// A copy of a predefined type, so that every type is a handle.
  static func copy(_ type: hid_t, _ file: HDF5Object.FileState) throws(HDF5Error) -> HDF5Handle {
    guard let copy = HDF5Handle(H5Tcopy(type)) else {
      throw file.failure("type", "copying a type")
    }
    return copy
  }

  /// UTF-8 text of `byteCount` bytes, zero-padded; of any length where it is nil.
  static func string(
    byteCount: Int?, _ file: HDF5Object.FileState
  ) throws(HDF5Error) -> HDF5Handle {
    guard let type = HDF5Handle(H5Tcopy(nl_H5T_C_S1())),
      H5Tset_size(type.id, byteCount.map { max($0, 1) } ?? nl_H5T_VARIABLE()) >= 0,
      H5Tset_cset(type.id, H5T_CSET_UTF8) >= 0,
      H5Tset_strpad(type.id, byteCount == nil ? H5T_STR_NULLTERM : H5T_STR_NULLPAD) >= 0
    else { throw file.failure("string", "making the type") }
    return type
  }
}

/// What the scalars of a dataset or an attribute are.
public enum HDF5Scalars: Sendable, Equatable, CustomStringConvertible {
  /// Little-endian IEEE half precision.
  case float16
  /// Little-endian IEEE single precision.
  case float32
  /// Any other floating-point type of this many bytes.
  case otherFloat(byteCount: Int)
  /// Whole numbers of this many bytes.
  case integer(byteCount: Int, isSigned: Bool)
  /// Text of a fixed number of bytes.
  case fixedString(byteCount: Int)
  /// Text of any length.
  case variableString
  /// A type that NormLens does not read: compound, reference, opaque, …
  case other(String)

  /// The type in a few words.
  public var description: String {
    switch self {
    case .float16: "float16"
    case .float32: "float32"
    case .otherFloat(let count): "\(8 * count)-bit floating point"
    case .integer(let count, let isSigned): "\(isSigned ? "" : "u")int\(8 * count)"
    case .fixedString(let count): "text of \(count) bytes"
    case .variableString: "text"
    case .other(let name): name
    }
  }

  /// The bytes of one scalar in a file; 16 for text of any length (a reference to a heap).
  var byteCount: Int {
    switch self {
    case .float16: 2
    case .float32: 4
    case .otherFloat(let count), .integer(let count, _), .fixedString(let count): count
    case .variableString: 16
    case .other: 1
    }
  }

  init(type: HDF5Handle, file: HDF5Object.FileState) throws(HDF5Error) {
    let size = H5Tget_size(type.id)
    guard size > 0, size <= HDF5Limits.arrayBytes else { throw file.failure("type", "a size") }
    switch H5Tget_class(type.id) {
    case H5T_FLOAT:
      let half = try HDF5Types.float16(file)
      if H5Tequal(type.id, nl_H5T_IEEE_F32LE()) > 0 {
        self = .float32
      } else if H5Tequal(type.id, half.id) > 0 {
        self = .float16
      } else {
        self = .otherFloat(byteCount: size)
      }
    case H5T_INTEGER:
      self = .integer(byteCount: size, isSigned: H5Tget_sign(type.id) == H5T_SGN_2)
    case H5T_STRING:
      self = H5Tis_variable_str(type.id) > 0 ? .variableString : .fixedString(byteCount: size)
    case H5T_COMPOUND: self = .other("compound")
    case H5T_REFERENCE: self = .other("reference")
    case H5T_OPAQUE: self = .other("opaque")
    case H5T_ENUM: self = .other("enumeration")
    case H5T_VLEN: self = .other("variable-length array")
    case H5T_ARRAY: self = .other("array type")
    case H5T_BITFIELD: self = .other("bit field")
    default: self = .other("a type of another class")
    }
  }
}

/// The extents of a dataset or an attribute.
enum HDF5Extents: Equatable {
  case scalar
  case array([Int])
  case null

  var shape: [Int] {
    if case .array(let shape) = self { shape } else { [] }
  }

  init(space: HDF5Handle, name: String, file: HDF5Object.FileState) throws(HDF5Error) {
    switch H5Sget_simple_extent_type(space.id) {
    case H5S_SCALAR: self = .scalar
    case H5S_NULL: self = .null
    case H5S_SIMPLE:
      let rank = Int(H5Sget_simple_extent_ndims(space.id))
      guard (0...HDF5Limits.rank).contains(rank) else { throw file.failure(name, "a rank") }
      var sizes = [hsize_t](repeating: 0, count: max(rank, 1))
      guard H5Sget_simple_extent_dims(space.id, &sizes, nil) == rank else {
        throw file.failure(name, "extents")
      }
      var shape: [Int] = []
      var product = 1
      for size in sizes.prefix(rank) {
        let (next, overflow) = product.multipliedReportingOverflow(by: Int(clamping: size))
        guard size <= hsize_t(Int.max), !overflow else {
          throw .damaged(
            path: file.path, object: name, expected: "extents whose product fits 64 bits",
            found: sizes.prefix(rank).map(String.init).joined(separator: " × "))
        }
        product = next
        shape.append(Int(size))
      }
      self = .array(shape)
    default: throw file.failure(name, "a simple dataspace")
    }
  }
}
