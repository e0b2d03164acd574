import Foundation
import HDF5Store

/// What a file is, told by its first bytes. Formats that have no signature go by their suffix, and
/// only to say what it is that is not opened.
enum FileSignature {
  /// HDF5: a model file, a result or Keras weights.
  case hdf5
  /// safetensors.
  case safetensors
  /// An object in JSON.
  case json
  /// A format that is known and not opened.
  case foreign(kind: String, advice: String)
  /// None of these.
  case unknown

  /// Looks at the file at `path`.
  ///
  /// - Throws: `HDF5Error.missing`, `.unreadable`.
  init(_ path: String) throws(HDF5Error) {
    let bytes = try FileBytes.prefix(path, count: 512)
    func starts(_ text: String) -> Bool { bytes.starts(with: text.utf8) }
    func contains(_ text: String) -> Bool {
      String(decoding: bytes, as: UTF8.self).contains(text)
    }
    if bytes.starts(with: [0x89, 0x48, 0x44, 0x46, 0x0d, 0x0a, 0x1a, 0x0a]) {
      self = .hdf5
    } else if Self.isSafetensors(bytes) {
      // Before pickles: a header of 640 bytes begins as a pickle of protocol 2 does.
      self = .safetensors
    } else if starts("PK\u{3}\u{4}"), contains(".npy") {
      self = .numpy
    } else if starts("PK\u{3}\u{4}"), contains("data.pkl") {
      self = .pickle
    } else if bytes.starts(with: [0x93] + Array("NUMPY".utf8)) {
      self = .numpy
    } else if bytes.count > 1, bytes[0] == 0x80, (1...5).contains(bytes[1]) {
      self = .pickle
    } else if starts("GGUF") {
      self = .gguf
    } else if starts("version https://git-lfs") {
      self = .foreign(
        kind: "a Git LFS pointer instead of the file itself", advice: "fetch it with 'git lfs pull'"
      )
    } else {
      self = Self.named((path as NSString).lastPathComponent.lowercased(), bytes)
    }
  }

  private static func isSafetensors(_ bytes: [UInt8]) -> Bool {
    guard bytes.count > 8, bytes[8] == UInt8(ascii: "{") else { return false }
    let length = bytes[..<8].reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
    return length <= UInt64(SafetensorsFile.headerLimit)
  }

  /// The rest, by name.
  private static func named(_ name: String, _ bytes: [UInt8]) -> FileSignature {
    if let foreign = foreign(named: name) { return foreign }
    if bytes.starts(with: Array("PK\u{3}\u{4}".utf8)) {
      return .foreign(kind: "a zip archive", advice: "unpack it and give what is inside")
    }
    return bytes.first { !" \t\r\n".utf8.contains($0) } == UInt8(ascii: "{") ? .json : .unknown
  }

  /// The format that a file of this name usually has, where it is one that is not opened.
  static func foreign(named name: String) -> FileSignature? {
    let name = name.lowercased()
    func ends(_ suffixes: String...) -> Bool { suffixes.contains { name.hasSuffix($0) } }
    if ends(".bin.index.json") { return .pickleIndex }
    if ends(".h5.index.json") {
      return .foreign(
        kind: "an index of Keras weights in several files",
        advice: "save the model with transformers as safetensors, or as one tf_model.h5")
    }
    if ends(".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle") { return .pickle }
    if ends(".msgpack") {
      return .foreign(
        kind: "Flax weights in MessagePack",
        advice: "load them with transformers 4 and from_flax=True, and save safetensors")
    }
    if ends(".gguf", ".ggml") { return .gguf }
    if ends(".npz", ".npy") { return .numpy }
    if ends(".onnx") {
      return .foreign(
        kind: "an ONNX graph", advice: "give the Hugging Face checkpoint that it was made of")
    }
    if ends(".ckpt.index", ".ckpt.meta", "saved_model.pb") || name.contains(".ckpt.data-") {
      return .foreign(
        kind: "a TensorFlow checkpoint",
        advice: "convert it with transformers to a Hugging Face checkpoint")
    }
    if name == "adapter_config.json" || name == "adapter_model.safetensors" {
      return .foreign(
        kind: "an adapter without its model",
        advice: "merge it into its model with merge_and_unload() and save that")
    }
    return nil
  }

  private static let saving =
    "save it with model.save_pretrained(dir, safe_serialization=True)"
  private static let pickle = FileSignature.foreign(
    kind: "a PyTorch pickle, which can run code,", advice: saving)
  private static let pickleIndex = FileSignature.foreign(
    kind: "an index of PyTorch pickles, which can run code,", advice: saving)
  private static let gguf = FileSignature.foreign(
    kind: "a GGUF file", advice: "give the Hugging Face checkpoint that it was made of")
  private static let numpy = FileSignature.foreign(
    kind: "a NumPy file", advice: "save the weights with safetensors.numpy.save_file")
}
