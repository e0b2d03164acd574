import HookedGPT2
import OrderedCollections
import Tensors

/// A checkpoint's tensors, checked and brought into one form: Hugging Face's names without prefix,
/// float32, matrices as `[in, out]`, and a separate unembedding as `unembed.weight`.
struct PublishedWeights {
  /// The tensors by name, in the order of the file.
  private(set) var tensors: OrderedDictionary<String, Tensor> = [:]
  /// How the matrices of the blocks lay.
  private(set) var layout = MatrixLayout.inOut
  /// What was stored, in words: `float32`, or `bfloat16; nn.Linear matrices transposed`.
  private(set) var facts = ""

  /// Reads a checkpoint's tensors.
  ///
  /// - Parameters:
  ///   - published: what its files hold.
  ///   - path: the file that messages name where the fault is in none of them.
  ///   - config: what should be there.
  /// - Throws: `ModelSourceError` naming the tensor at fault; `HDF5Error`.
  init(_ published: [PublishedTensor], path: String, config: GPT2Config) throws {
    for tensor in published { try TensorNames.refuse(tensor.published, path: tensor.path) }
    let named = try Self.named(published)
    layout = try MatrixLayout(of: named, config: config)
    for (name, tensor) in named { tensors[name] = try Self.read(tensor, name, layout) }
    try settleHead(config, path: path)
    try check(config, path: path)
    var types = Set(named.values.map(\.scalars.description)).sorted().joined(separator: ", ")
    if named.values.contains(where: { $0.scalars == .float64 }) { types += ", rounded to float32" }
    facts = types + (layout == .outIn ? "; nn.Linear matrices [out, in] transposed" : "")
  }

  /// The tensors by their names without prefix.
  private static func named(
    _ published: [PublishedTensor]
  ) throws(ModelSourceError) -> OrderedDictionary<String, PublishedTensor> {
    var named: OrderedDictionary<String, PublishedTensor> = [:]
    for tensor in published {
      let name = TensorNames.canonical(tensor.name)
      if TensorNames.isMask(name, shape: tensor.shape) { continue }
      if case .other(let type) = tensor.scalars {
        throw .weights(
          path: tensor.path,
          problem: "tensor '\(tensor.published)' holds \(type); "
            + "expected float32, float16, bfloat16 or float64")
      }
      if let other = named.updateValue(tensor, forKey: name) {
        throw .weights(
          path: tensor.path,
          problem: "tensor '\(name)' stands there twice, as '\(other.published)' and as "
            + "'\(tensor.published)'; expected it once")
      }
    }
    return named
  }

  private static func read(
    _ published: PublishedTensor, _ name: String, _ layout: MatrixLayout
  ) throws -> Tensor {
    let tensor = try published.read()
    if let index = tensor.firstNonFiniteIndex {
      throw ModelSourceError.weights(
        path: published.path,
        problem: "tensor '\(published.published)' holds a NaN or an infinity"
          + (published.scalars == .float64 ? " or a number beyond float32's range" : "")
          + ", the first at \(index); expected finite numbers only")
    }
    let turn = layout == .outIn && MatrixLayout.isMatrix(name) && tensor.rank == 2
    return turn ? tensor.transposed() : tensor
  }

  /// `lm_head.weight` becomes the unembedding, or is the embedding once more.
  private mutating func settleHead(_ config: GPT2Config, path: String) throws(ModelSourceError) {
    let head = tensors.removeValue(forKey: "lm_head.weight")
    if !config.tiedUnembed {
      guard let head else {
        throw .weights(
          path: path,
          problem: "tensor 'lm_head.weight' is missing, though tie_word_embeddings is false")
      }
      tensors["unembed.weight"] = head
    } else if let head, let embedding = tensors["wte.weight"], !Self.equal(head, embedding) {
      throw .weights(
        path: path,
        problem: "lm_head.weight differs from wte.weight although the configuration ties them; "
          + "set tie_word_embeddings to false to use it")
    }
  }

  private static func equal(_ a: Tensor, _ b: Tensor) -> Bool {
    guard a.shape == b.shape else { return false }
    let (a, b) = (a.span, b.span)
    for i in 0..<a.count where a[i] != b[i] { return false }
    return true
  }

  /// Whether the model has these tensors, in these shapes and no others.
  private func check(_ config: GPT2Config, path: String) throws(ModelSourceError) {
    do {
      _ = try GPT2Weights(tensors.unordered, config: config)
    } catch {
      throw .weights(path: path, problem: error.description)
    }
  }
}
