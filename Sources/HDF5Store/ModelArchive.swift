public import OrderedCollections
public import Results
public import Tensors

/// A model file: attributes that describe a model, its tensors, and its tokenizer.
///
/// The archive knows nothing of what the tensors mean. They keep the names that Hugging Face gives
/// them: `h.0.attn.c_attn.weight` is the dataset `/weights/h/0/attn/c_attn/weight`. Tensors of an
/// opened archive look at the mapped file, which stays mapped as long as one of them lives.
public struct ModelArchive: Sendable {
  /// How scalars are stored.
  public enum StoredType: String, Sendable, CaseIterable {
    /// Four bytes each; mapped, never copied.
    case float32
    /// Two bytes each; widened when the file is opened.
    case float16
  }

  /// The value of the root attribute `format`.
  public static let format = "normlens-model"
  /// The value of the root attribute `format_version`.
  public static let formatVersion = 1

  /// The file, as it was given.
  public let path: String
  /// The root attributes in order, `format`, `format_version` and `weights_sha256` among them.
  public let attributes: OrderedDictionary<String, AttributeValue>
  /// The tensors by name, in the order in which they were written.
  public let tensors: OrderedDictionary<String, Tensor>
  /// The tokenizer, if the file has one.
  public let tokenizer: TokenizerPayload?

  /// The root attribute `name`, if there is one.
  public subscript(attribute name: String) -> AttributeValue? { attributes[name] }

  /// The tensor `name`, if there is one.
  public subscript(tensor name: String) -> Tensor? { tensors[name] }

  /// The names of the tensors, in order.
  public var tensorNames: [String] { Array(tensors.keys) }

  /// The checksum of all weights, in lower-case hexadecimal.
  ///
  /// The bytes that SHA-256 takes are, for each tensor in ascending order of the UTF-8 bytes of its
  /// name: the name, a zero byte, the number of axes and each extent as 64-bit little-endian
  /// integers, then the scalars as float32, little-endian, row-major. A model that is stored as
  /// float16 is hashed as it will be opened, rounded and widened: the same weights have the same
  /// checksum, however they are stored.
  public static func weightsSHA256(_ tensors: [(name: String, tensor: Tensor)]) -> String {
    var hash = SHA256()
    let ordered = tensors.sorted { $0.name.utf8.lexicographicallyPrecedes($1.name.utf8) }
    for (name, tensor) in ordered {
      hash.update(header(name, tensor))
      tensor.withUnsafeBufferPointer { hash.update(UnsafeRawBufferPointer($0)) }
    }
    return hash.hexDigest()
  }

  private static func header(_ name: String, _ tensor: Tensor) -> [UInt8] {
    var bytes = Array(name.utf8) + [0]
    for number in [tensor.rank] + tensor.shape {
      withUnsafeBytes(of: UInt64(number).littleEndian) { bytes.append(contentsOf: $0) }
    }
    return bytes
  }

  /// The checksum of attributes, each with its name and kind, in order.
  ///
  /// Object headers have checksums of their own, but attributes beyond 64 KiB (the reference
  /// logits) lie in a heap where nothing would notice a flipped bit.
  static func crc32c(of attributes: OrderedDictionary<String, AttributeValue>) -> UInt32 {
    var bytes: [UInt8] = []
    func put<T: BitwiseCopyable>(_ number: T) {
      withUnsafeBytes(of: number) { bytes.append(contentsOf: $0) }
    }
    func put(_ kind: Unicode.Scalar, _ count: Int) {
      bytes.append(UInt8(ascii: kind))
      put(Int64(count).littleEndian)
    }
    func put(_ text: String) { bytes.append(contentsOf: Array(text.utf8) + [0]) }
    for (name, value) in attributes where name != attributesChecksum {
      put(name)
      switch value {
      case .string(let text):
        put("s", 1)
        put(text)
      case .strings(let texts):
        put("S", texts.count)
        texts.forEach(put)
      case .integer(let number):
        put("i", 1)
        put(Int64(number).littleEndian)
      case .integers(let numbers):
        put("I", numbers.count)
        for number in numbers { put(Int64(number).littleEndian) }
      case .number(let number):
        put("f", 1)
        put(number.bitPattern.littleEndian)
      case .numbers(let numbers):
        put("F", numbers.count)
        for number in numbers { put(number.bitPattern.littleEndian) }
      }
    }
    return bytes.withUnsafeBytes { Tensors.crc32c($0) }
  }

  /// The root attribute that holds ``crc32c(of:)`` of all others.
  static let attributesChecksum = "attributes_crc32c"
}
