import HDF5Store
import Tensors

/// Weights as Keras saves them in HDF5: Hugging Face's `tf_model.h5`.
///
/// Groups within groups, the names of layers, hold datasets such as
/// `transformer/tfgp_t2lm_head_model/transformer/h_._0/attn/c_attn/weight:0`. What stands before the
/// parts of GPT-2 depends on how the model was wrapped and is taken as it comes. Biases of
/// `TFConv1D` have the shape `[1, n]`.
enum KerasWeights {
  /// Whether a file looks like Keras weights, told by names alone: texts in a file without checksums
  /// are better not read.
  static func isKeras(_ file: HDF5File) throws(HDF5Error) -> Bool {
    if try file.hasAttribute("format") { return false }
    for mark in ["layer_names", "keras_version", "backend"] where try file.hasAttribute(mark) {
      return true
    }
    if try file.contains(wholeModel) { return true }
    return try file.datasets().contains { name($0) != nil }
  }

  /// The tensors of a file.
  ///
  /// - Throws: `HDF5Error`; `ModelSourceError.weights` for a dataset that is none of GPT-2's.
  static func tensors(_ file: HDF5File) throws -> [PublishedTensor] {
    let path = file.path
    // A whole model keeps the weights in one group and the optimizer's state beside it.
    let isWhole = try file.contains(wholeModel)
    var tensors: [PublishedTensor] = []
    for dataset in try file.datasets() {
      if isWhole && dataset.hasPrefix("optimizer_weights/") { continue }
      guard let name = name(dataset) else {
        try TensorNames.refuse(plain(dataset), path: path)
        throw ModelSourceError.weights(
          path: path, problem: "dataset '\(dataset)' is no part of a GPT-2 as Keras saves it")
      }
      let info = try file.info(dataset)
      // HDF5 would read zeros.
      guard info.storedByteCount > 0 else {
        throw HDF5Error.damaged(
          path: path, object: "/" + dataset, expected: "values", found: "none were ever written")
      }
      let isRow = name.hasSuffix(".bias") && info.shape.count == 2 && info.shape[0] == 1
      let shape = isRow ? [info.shape[1]] : info.shape
      tensors.append(
        PublishedTensor(
          published: dataset, name: name, path: path, shape: shape, scalars: scalars(info.scalars)
        ) {
          let tensor = try file.tensor(dataset)
          return tensor.reshaped(shape)
        })
    }
    return tensors
  }

  private static let wholeModel = "model_weights"

  /// A dataset's name with dots and without Keras' number of the variable.
  private static func plain(_ dataset: String) -> String {
    let path = dataset.hasSuffix(":0") ? dataset.dropLast(2) : dataset[...]
    return path.split(separator: "/").joined(separator: ".")
  }

  /// Hugging Face's name of a dataset; nil if it is no part of a GPT-2.
  private static func name(_ dataset: String) -> String? {
    guard dataset.hasSuffix(":0") else { return nil }
    let parts = dataset.dropLast(2).split(separator: "/").map(String.init)
    guard let start = parts.firstIndex(where: { isPart($0) }), let last = parts.last else {
      return nil
    }
    let middle = parts[start...].dropLast()
    switch (Array(middle), last) {
    case (["wte"], "weight"), (["wte"], "embeddings"): return "wte.weight"
    case (["wpe"], "weight"), (["wpe"], "embeddings"): return "wpe.weight"
    case (["ln_f"], "gamma"): return "ln_f.weight"
    case (["ln_f"], "beta"): return "ln_f.bias"
    default: break
    }
    guard let block = middle.first, let layer = layer(block) else { return nil }
    let path = middle.dropFirst().joined(separator: ".")
    switch (path, last) {
    case ("ln_1", "gamma"), ("ln_2", "gamma"): return "h.\(layer).\(path).weight"
    case ("ln_1", "beta"), ("ln_2", "beta"): return "h.\(layer).\(path).bias"
    case ("attn.c_attn", "weight"), ("attn.c_attn", "bias"), ("attn.c_proj", "weight"),
      ("attn.c_proj", "bias"), ("mlp.c_fc", "weight"), ("mlp.c_fc", "bias"),
      ("mlp.c_proj", "weight"), ("mlp.c_proj", "bias"):
      return "h.\(layer).\(path).\(last)"
    default: return nil
    }
  }

  /// Whether the parts of GPT-2 begin with this group.
  private static func isPart(_ group: String) -> Bool {
    ["wte", "wpe", "ln_f"].contains(group) || layer(group) != nil
  }

  /// The number in `h_._3`.
  private static func layer(_ group: String) -> Int? {
    guard group.hasPrefix("h_._"), let number = Int(group.dropFirst(4)), number >= 0,
      "h_._\(number)" == group
    else { return nil }
    return number
  }

  private static func scalars(_ scalars: HDF5Scalars) -> PublishedTensor.Scalars {
    switch scalars {
    case .float32, .otherFloat(byteCount: 4): .float32
    case .float16: .float16
    case .otherFloat(byteCount: 8): .float64
    default: .other(scalars.description)
    }
  }
}
