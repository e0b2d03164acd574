public import HookedGPT2
import OrderedCollections
public import Results
import Tensors

/// How much each head's output could matter to the queries, keys and values of each head of a later layer,
/// by the weights alone.
///
/// ‖W_A·W_B‖_F/(‖W_A‖_F·‖W_B‖_F) with W_A = W_OV of the earlier head and W_B = W_QK (queries), W_QKᵀ (keys)
/// or W_OV (values) of the later (Elhage et al. 2021, transformer-circuits.pub/2021/framework). With A turned
/// at random against B, the mean square is 1/d, d the dimensions in which they meet: 1/√d is what
/// weights that have nothing to do with each other give.
///
/// Biases are left out, and so is the MLP between.
public struct HeadComposition: Sendable {
  /// What of the later head reads.
  public enum Kind: String, Sendable, CaseIterable {
    /// Queries.
    case q
    /// Keys.
    case k
    /// Values.
    case v
  }

  /// The scores of all pairs.
  public init() {}

  /// The group `heads/composition`.
  ///
  /// - Parameter progress: may throw to stop; called after each layer.
  /// - Throws: `AnalysisError.unsuitable` for a compressed stream whose coordinates are not orthonormal,
  ///   `.nonFinite`; what `progress` throws.
  /// - Complexity: 6·(n_heads·d_head)²·d_model FLOPs a pair of layers; memory for a few layers'
  ///   attention weights, and for the scores.
  public func group(_ model: GPT2, progress: () throws -> Void = {}) throws -> ResultGroup {
    try Self.check(model)
    let config = model.config
    let (L, H) = (config.nLayers, config.nHeads)
    // The rows that are left of a head's factors.
    let rank = min(config.dHead, config.dModel)
    let pairs = L * H * L * H
    var scores = Kind.allCases.map { _ in [Float](repeating: .nan, count: pairs) }
    // ‖W_OV‖ of each head, and R of W_V = Q·R.
    var norms: [[Double]] = []
    var triangles: [[Tensor]] = []
    for later in 0..<L {
      let readers = model.headReaders(layer: later)
      let writers = model.headWriters(layer: later)
      let factors = parallelMap(H) { head in
        HeadFactors(readers, writers, rows: head * config.dHead..<(head + 1) * config.dHead)
      }
      for (head, factors) in factors.enumerated()
      where !(factors.normOV.isFinite && factors.normQK.isFinite) {
        throw AnalysisError.nonFinite(
          analysis: "heads, composition", what: "a weight of L\(later)H\(head)")
      }
      norms.append(factors.map(\.normOV))
      triangles.append(factors.map(\.triangleV))
      let reading = Kind.allCases.map { kind in
        Tensor.concatenating(factors.map { $0.reader(kind) })
      }
      for earlier in 0..<later {
        let W_O = model.headWriters(layer: earlier)
        let written = Tensor.concatenating(
          (0..<H).map { head in
            matmul(
              triangles[earlier][head],
              MatrixView(W_O.rows(head * config.dHead..<(head + 1) * config.dHead)))
          })
        for (place, kind) in Kind.allCases.enumerated() {
          let product = matmulTransposed(written, MatrixView(reading[place]))
          let squares = product.groupDots(product, groups: H)
          let span = squares.span
          for from in 0..<H {
            for to in 0..<H {
              let rows = from * rank..<(from + 1) * rank
              let square = rows.reduce(0.0) { $0 + Double(span[$1 * H + to]) }
              let whole =
                norms[earlier][from] * (kind == .v ? factors[to].normOV : factors[to].normQK)
              scores[place][((earlier * H + from) * L + later) * H + to] = Float(
                square.squareRoot() / whole)
            }
          }
        }
      }
      try progress()
    }
    return Self.group(model, scores)
  }

  /// Refuses a model whose weights have no norms to compare.
  ///
  /// - Throws: `AnalysisError.unsuitable`.
  static func check(_ model: GPT2) throws {
    if model.config.normalization != .crmsNorm { return }
    throw AnalysisError.unsuitable(
      analysis: "heads, composition",
      problem: "the stream of this model (crmsnorm) lacks a coordinate, and norms of weights mean "
        + "nothing in the others; measure the model before that processing")
  }

  private static func group(_ model: GPT2, _ scores: [[Float]]) -> ResultGroup {
    let config = model.config
    let dimension = Double(config.dModel - (model.readsMean ? 0 : 1))
    let dimensions = [
      Dimension("layer", count: config.nLayers), Dimension("head", count: config.nHeads),
      Dimension("layer_to", count: config.nLayers), Dimension("head_to", count: config.nHeads),
    ]
    let words = [
      ("queries", "W_OV(layer, head)*W_QK(layer_to, head_to)"),
      ("keys", "W_OV(layer, head)*W_QK(layer_to, head_to)^T"),
      ("values", "W_OV(layer, head)*W_OV(layer_to, head_to)"),
    ]
    let variables = zip(Kind.allCases, zip(words, scores)).map { kind, rest in
      ResultVariable(
        "\(kind.rawValue)_composition", dimensions.map(\.name), .float32(rest.1),
        longName:
          "composition of a head's output with the \(rest.0.0) of a later head, from the weights; "
          + "NaN where layer_to is not later",
        units: "1",
        attributes: [
          "formula": .string(
            "|\(rest.0.1)|/(norms of both), Frobenius norms; W_V, W_Q, W_K with the norm's gain"
              + (model.readsMean ? "" : ", all without their mean over d_model")
              + ", without biases"),
          "references": .string(
            "Elhage et al. 2021, transformer-circuits.pub/2021/framework"),
          "random": .number(1 / dimension.squareRoot()),
          "random_derivation": .string(
            "root mean square over random rotations of one matrix against the other: 1/sqrt(\(Int(dimension)))"
          ),
        ])
    }
    return ResultGroup(path: "heads/composition", dimensions: dimensions, variables: variables)
  }
}

/// One head's circuits by factors of d_head rows.
private struct HeadFactors {
  let normOV: Double
  let normQK: Double
  /// R of W_V = Q·R, shape `[r, d_head]`.
  let triangleV: Tensor
  private let readers: [Tensor]

  init(_ all: (q: Tensor, k: Tensor, v: Tensor), _ writers: Tensor, rows: Range<Int>) {
    let (q, k, v, o) = (
      all.q.rows(rows), all.k.rows(rows), all.v.rows(rows), writers.rows(rows)
    )
    let (rQ, rK) = (triangularFactor(q), triangularFactor(k))
    let (rV, rO) = (triangularFactor(v), triangularFactor(o))
    func norm(_ x: [Double], _ y: [Double]) -> Double {
      doubleProduct(x, transposed: y, length: rows.count).reduce(0) { $0 + $1 * $1 }.squareRoot()
    }
    (normOV, normQK) = (norm(rV, rO), norm(rQ, rK))
    func tensor(_ triangle: [Double]) -> Tensor {
      Tensor(triangle.map { Float($0) }, shape: [triangle.count / rows.count, rows.count])
    }
    triangleV = tensor(rV)
    // ‖x·W_Q·W_Kᵀ‖ = ‖x·W_Q·R_Kᵀ‖, and so on: rows that x meets.
    readers = [(rK, q), (rQ, k), (rO, v)].map { matmul(tensor($0.0), MatrixView($0.1)) }
  }

  /// The rows that an earlier head's output meets, shape `[r, d_model]`.
  func reader(_ kind: HeadComposition.Kind) -> Tensor {
    switch kind {
    case .q: readers[0]
    case .k: readers[1]
    case .v: readers[2]
    }
  }
}
