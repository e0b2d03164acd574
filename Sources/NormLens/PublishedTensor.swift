import HDF5Store
import Tensors

/// A tensor of a checkpoint, described but not yet read.
struct PublishedTensor {
  /// How its scalars are stored.
  enum Scalars: Equatable, CustomStringConvertible {
    case float64, float32, float16, bfloat16
    /// No floating-point numbers, or none that are known.
    case other(String)

    var description: String {
      switch self {
      case .float64: "float64"
      case .float32: "float32"
      case .float16: "float16"
      case .bfloat16: "bfloat16"
      case .other(let name): name
      }
    }
  }

  /// The name in the file.
  let published: String
  /// The same in the words of Hugging Face's PyTorch checkpoints.
  let name: String
  /// The file.
  let path: String
  /// The extents.
  let shape: [Int]
  /// How the scalars are stored.
  let scalars: Scalars
  /// Reads it as float32.
  let read: () throws -> Tensor
}

/// Tensors in safetensors files.
enum SafetensorsWeights {
  /// The tensors of one file.
  ///
  /// - Throws: `HDF5Error`.
  static func tensors(path: String) throws -> [PublishedTensor] {
    tensors(of: try SafetensorsFile(path: path))
  }

  /// The tensors of the files that an index names: those that it names, each where it says.
  ///
  /// - Throws: `HDF5Error`; `ModelSourceError` for a file that is missing and wherever index and
  ///   files disagree.
  static func tensors(index path: String) throws -> [PublishedTensor] {
    let index = try ShardIndex(path: path)
    var tensors: [PublishedTensor] = []
    var byteCount = 0
    for (shard, names) in index.tensorsByShard {
      let shardPath = index.path(of: shard)
      guard PathKind(shardPath) != .missing else {
        throw ModelSourceError.unreadable(
          path: shardPath, reason: "no such file, though \(path) names it; download it too")
      }
      let file = try SafetensorsFile(path: shardPath)
      for (name, entry) in file.entries {
        guard let listed = index.map[name] else {
          throw ModelSourceError.weights(
            path: shardPath, problem: "tensor '\(name)' is not in the weight_map of \(path)")
        }
        guard listed == shard else {
          throw ModelSourceError.weights(
            path: shardPath, problem: "tensor '\(name)' is here; \(path) puts it into '\(listed)'")
        }
        byteCount += entry.shape.reduce(entry.type.byteCount, *)
      }
      for name in names where file[entry: name] == nil {
        throw ModelSourceError.weights(
          path: shardPath, problem: "tensor '\(name)' is missing, though \(path) puts it here")
      }
      tensors += self.tensors(of: file)
    }
    if let total = index.totalSize, total != byteCount {
      throw ModelSourceError.field(
        path: path, field: "total_size", expected: "\(byteCount), the bytes of the tensors",
        found: "\(total)")
    }
    return tensors
  }

  private static func tensors(of file: SafetensorsFile) -> [PublishedTensor] {
    file.entries.map { name, entry in
      PublishedTensor(
        published: name, name: name, path: file.path, shape: entry.shape,
        scalars: scalars(entry.type)
      ) {
        guard entry.type == .F64 else { return try file.tensor(named: name) }
        return Tensor(try file.doubles(named: name).map { Float($0) }, shape: entry.shape)
      }
    }
  }

  private static func scalars(_ type: SafetensorsFile.ScalarType) -> PublishedTensor.Scalars {
    switch type {
    case .F64: .float64
    case .F32: .float32
    case .F16: .float16
    case .BF16: .bfloat16
    default: .other(type.rawValue)
    }
  }
}
