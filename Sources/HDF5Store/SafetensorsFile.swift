public import OrderedCollections
public import Tensors

/// A safetensors file, mapped read-only: eight bytes of header length, a JSON header, tensors.
///
/// The header is checked completely before any tensor is handed out: known types, extents that
/// match the bytes, and byte ranges that cover the data exactly, without gap or overlap.
public struct SafetensorsFile: Sendable {
  /// The type of a tensor's scalars.
  public enum ScalarType: String, Sendable, CaseIterable {
    /// Floating point of 64, 32 and 16 bits.
    case F64, F32, F16, BF16
    /// Whole numbers.
    case I64, I32, I16, I8, U64, U32, U16, U8
    /// Truth values, a byte each.
    case BOOL
    /// 8-bit floating point.
    case F8_E4M3, F8_E5M2

    /// The bytes of one scalar.
    public var byteCount: Int {
      switch self {
      case .F64, .I64, .U64: 8
      case .F32, .I32, .U32: 4
      case .F16, .BF16, .I16, .U16: 2
      case .I8, .U8, .BOOL, .F8_E4M3, .F8_E5M2: 1
      }
    }
  }

  /// What the header says about one tensor.
  public struct Entry: Sendable, Equatable {
    /// The scalars' type.
    public let type: ScalarType
    /// The extents.
    public let shape: [Int]
    /// The bytes in the file.
    let bytes: Range<Int>
  }

  /// The most bytes of a header: the format's own limit.
  public static let headerLimit = 100_000_000

  /// The file, as it was given.
  public let path: String
  /// The tensors by name, in the header's order.
  public let entries: OrderedDictionary<String, Entry>
  /// The texts of the header's `__metadata__`, in order.
  public let metadata: OrderedDictionary<String, String>
  private let file: MappedFile

  /// Maps the file at `path` and checks its header.
  ///
  /// - Throws: `missing`, `unreadable`, or `damaged` with the header's fault.
  public init(path: String) throws(HDF5Error) {
    let file = try MappedFile(path: path)
    let header = try SafetensorsHeader(file: file)
    self.path = path
    self.file = file
    self.entries = header.entries
    self.metadata = header.metadata
  }

  /// The names of the tensors, in the header's order.
  public var names: [String] { Array(entries.keys) }

  /// What the header says about the tensor `name`, if there is one.
  public subscript(entry name: String) -> Entry? { entries[name] }

  /// The tensor `name` as float32: F32 borrowed from the mapping where it is aligned, F16 and BF16
  /// widened.
  ///
  /// - Throws: `notFound`, or `damaged` for scalars of another type.
  public func tensor(named name: String) throws(HDF5Error) -> Tensor {
    let (entry, bytes) = try lookUp(name)
    switch entry.type {
    case .F32: return MappedTensors.float32(bytes, shape: entry.shape, owner: file)
    case .F16: return MappedTensors.widened(bytes, shape: entry.shape, isBFloat: false)
    case .BF16: return MappedTensors.widened(bytes, shape: entry.shape, isBFloat: true)
    default: throw wrongType(name, entry, expected: "F32, F16 or BF16")
    }
  }

  /// The scalars of the tensor `name` as `Double`, exactly: F64, F32, F16 or BF16.
  ///
  /// - Throws: `notFound`, or `damaged` for scalars of another type.
  public func doubles(named name: String) throws(HDF5Error) -> [Double] {
    let (entry, bytes) = try lookUp(name)
    guard entry.type == .F64 else { return try tensor(named: name).scalars.map(Double.init) }
    return (0..<bytes.count / 8).map { index in
      let bits = bytes.loadUnaligned(fromByteOffset: 8 * index, as: UInt64.self)
      return Double(bitPattern: UInt64(littleEndian: bits))
    }
  }

  private func lookUp(_ name: String) throws(HDF5Error) -> (Entry, UnsafeRawBufferPointer) {
    guard let entry = entries[name] else {
      throw .notFound(path: path, object: "tensor '\(name)'")
    }
    return (entry, UnsafeRawBufferPointer(rebasing: file.bytes[entry.bytes]))
  }

  private func wrongType(_ name: String, _ entry: Entry, expected: String) -> HDF5Error {
    .damaged(
      path: path, object: "tensor '\(name)'", expected: expected, found: entry.type.rawValue)
  }
}
