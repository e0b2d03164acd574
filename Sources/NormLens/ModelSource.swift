import Foundation
import HDF5Store

/// What a model is read from, told apart by what the files hold.
enum ModelSource {
  /// A NormLens model file, or something that only its reader can refuse.
  case modelFile(String)
  /// A checkpoint in Hugging Face's layout: a directory, and the weights in it.
  case huggingFace(directory: String, weights: Weights)

  /// Where the weights of a checkpoint lie.
  enum Weights {
    /// One safetensors file.
    case safetensors(String)
    /// Several, with an index.
    case shards(index: String)
    /// Keras weights in HDF5.
    case keras(HDF5File)

    /// The file that is opened first.
    var path: String {
      switch self {
      case .safetensors(let path), .shards(let path): path
      case .keras(let file): file.path
      }
    }
  }

  /// Looks at a path or a bundled name.
  ///
  /// - Throws: `ModelSourceError`, `HDF5Error` where nothing there can be opened.
  init(_ source: String) throws {
    switch PathKind(source) {
    case .directory:
      var directory = source
      while directory.count > 1 && directory.hasSuffix("/") { directory.removeLast() }
      self = .huggingFace(directory: directory, weights: try Self.weights(in: directory))
    case .file: self = try Self.file(source)
    case .forbidden: throw ModelSourceError.unreadable(source)
    case .missing:
      guard BundledModels.names.contains(source) else {
        if Self.isListed(source) { throw ModelSourceError.brokenLink(source) }
        throw ModelSourceError.notFound(
          name: source, suggestion: nearestText(to: source, among: BundledModels.names))
      }
      self = .modelFile(try BundledModels.path(source))
    }
  }

  // MARK: a file

  private static func file(_ path: String) throws -> ModelSource {
    let directory = (path as NSString).deletingLastPathComponent
    let beside = directory.isEmpty ? "." : directory
    switch try FileSignature(path) {
    case .hdf5:
      let file = try HDF5File(path: path)
      return try KerasWeights.isKeras(file)
        ? .huggingFace(directory: beside, weights: .keras(file)) : .modelFile(path)
    case .safetensors:
      try refuseShard(path, in: beside)
      return .huggingFace(directory: beside, weights: .safetensors(path))
    case .json:
      if path.hasSuffix(".safetensors.index.json") {
        return .huggingFace(directory: beside, weights: .shards(index: path))
      }
      throw ModelSourceError.unsupported(
        path: path, kind: "a JSON text", advice: "give the directory that it lies in")
    case .foreign(let kind, let advice):
      throw ModelSourceError.unsupported(path: path, kind: kind, advice: advice)
    case .unknown:
      return path.hasSuffix(".safetensors")
        ? .huggingFace(directory: beside, weights: .safetensors(path)) : .modelFile(path)
    }
  }

  /// One shard of several is no model.
  private static func refuseShard(_ path: String, in directory: String) throws {
    let index = "\(directory)/\(indexName)"
    guard PathKind(index) == .file, let shards = try? ShardIndex(path: index).shards,
      shards.contains((path as NSString).lastPathComponent)
    else { return }
    throw ModelSourceError.unsupported(
      path: path, kind: "one of the \(shards.count) files of a model", advice: "give '\(directory)'"
    )
  }

  // MARK: a directory

  private static let indexName = "model.safetensors.index.json"

  /// The weights of a directory: the first of the names that there is.
  private static func weights(in directory: String) throws -> Weights {
    let known: [(name: String, make: (String) throws -> Weights)] = [
      ("model.safetensors", { .safetensors($0) }), (indexName, { .shards(index: $0) }),
      ("tf_model.h5", { .keras(try HDF5File(path: $0)) }),
    ]
    for (name, make) in known {
      let path = "\(directory)/\(name)"
      guard isListed(path) else { continue }
      guard PathKind(path) != .missing else { throw ModelSourceError.brokenLink(path) }
      if case .foreign(let kind, let advice) = try FileSignature(path) {
        throw ModelSourceError.unsupported(path: path, kind: kind, advice: advice)
      }
      return try make(path)
    }
    // Nothing that is opened: say what there is instead.
    let names: [String]
    do {
      names = try FileManager.default.contentsOfDirectory(atPath: directory).sorted()
    } catch {
      throw ModelSourceError.unreadable(directory)
    }
    for name in names {
      if case .foreign(let kind, let advice)? = FileSignature.foreign(named: name) {
        throw ModelSourceError.unsupported(
          path: "\(directory)/\(name)", kind: kind, advice: advice)
      }
    }
    if names.contains("snapshots"), names.contains("refs") || names.contains("blobs") {
      throw ModelSourceError.noCheckpoint(
        directory: directory,
        expected:
          "a checkpoint, found a repository in Hugging Face's cache; give the directory of a "
          + "revision in '\(directory)/snapshots'")
    }
    let other = names.first { $0.hasSuffix(".safetensors") || $0.hasSuffix(".h5") }
    throw ModelSourceError.noCheckpoint(
      directory: directory,
      expected: "config.json with " + known.map(\.name).joined(separator: " or ")
        + (other.map { "; give '\(directory)/\($0)' itself if that is the model" } ?? ""))
  }

  /// Whether a name stands in its directory, be it a link to nothing.
  private static func isListed(_ path: String) -> Bool {
    (try? FileManager.default.attributesOfItem(atPath: path)) != nil
  }
}

extension ModelSource {
  /// Everything beside the weights that is read of a directory.
  private static let companions = ["config.json"] + HuggingFaceTokenizer.fileNames

  /// The files that opening `source` reads or would read, those that do not exist among them.
  static func files(of source: String) -> [String] {
    guard let found = try? ModelSource(source) else { return [source] }
    switch found {
    case .modelFile(let path): return [path]
    case .huggingFace(let directory, let weights):
      var files = [weights.path] + companions.map { "\(directory)/\($0)" }
      if case .shards(let index) = weights, let shards = try? ShardIndex(path: index) {
        files += shards.shards.map(shards.path(of:))
      }
      return files
    }
  }
}
