import HookedGPT2
import OrderedCollections

/// Which way round the matrices of a checkpoint's blocks lie.
///
/// Hugging Face's `Conv1D` keeps W of `x·W` as `[in, out]`; `nn.Linear`, which nanoGPT uses, as
/// `[out, in]`. Names and the set of tensors are the same; the shapes tell, for `c_attn` always.
enum MatrixLayout {
  /// `[in, out]`.
  case inOut
  /// `[out, in]`.
  case outIn

  /// The matrices of a block.
  static let matrices = [
    "attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight",
  ]

  /// Whether `name` is one of the blocks' matrices: `h.0.attn.c_attn.weight`.
  static func isMatrix(_ name: String) -> Bool {
    name.hasPrefix("h.") && matrices.contains { name.hasSuffix("." + $0) }
  }

  /// The layout of a checkpoint.
  ///
  /// - Parameters:
  ///   - tensors: by their names without prefix.
  ///   - config: what the shapes should be.
  /// - Throws: `ModelSourceError.weights` where some lie one way round and some the other.
  init(
    of tensors: OrderedDictionary<String, PublishedTensor>, config: GPT2Config
  ) throws(ModelSourceError) {
    let (d, m) = (config.dModel, config.dMLP)
    var seen: (layout: MatrixLayout, tensor: PublishedTensor)?
    for (name, tensor) in tensors where Self.isMatrix(name) {
      let straight =
        name.hasSuffix(".attn.c_attn.weight")
        ? [d, 3 * d]
        : name.hasSuffix(".attn.c_proj.weight")
          ? [d, d] : name.hasSuffix(".c_fc.weight") ? [d, m] : [m, d]
      // A square one lies as the others do; one of a third shape is an error of its own.
      if straight[0] == straight[1] { continue }
      let layout: MatrixLayout
      switch tensor.shape {
      case straight: layout = .inOut
      case straight.reversed(): layout = .outIn
      default: continue
      }
      if let seen, seen.layout != layout {
        throw .weights(
          path: tensor.path,
          problem:
            "tensor '\(seen.tensor.published)' \(seen.tensor.shape) is \(seen.layout.words), "
            + "tensor '\(tensor.published)' \(tensor.shape) is \(layout.words); expected one layout"
        )
      }
      seen = seen ?? (layout, tensor)
    }
    self = seen?.layout ?? .inOut
  }

  private var words: String { self == .inOut ? "[in, out]" : "[out, in]" }
}
