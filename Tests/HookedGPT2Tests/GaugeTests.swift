import NormLens
import TestSupport
import Testing

/// Changes of weights that only some norms do not notice: what the processing steps stand on, and
/// what a step that forgot a weight would do.
@Suite struct GaugeTests {
  private static let prompt = [3, 1, 4, 1, 5, 9]
  /// What writes rows to the stream, and vectors.
  private static func writers(_ config: GPT2Config) -> [String] {
    ["wte.weight", "wpe.weight"]
      + (0..<config.nLayers).flatMap { layer in
        ["attn.c_proj.weight", "attn.c_proj.bias", "mlp.c_proj.weight", "mlp.c_proj.bias"]
          .map { "h.\(layer).\($0)" }
      }
  }
  private static func readers(_ config: GPT2Config) -> [String] {
    (0..<config.nLayers).flatMap { ["h.\($0).attn.c_attn.weight", "h.\($0).mlp.c_fc.weight"] }
  }

  /// The largest change of logits, relative to the largest logit.
  private func change(
    _ checkpoint: Checkpoint, _ edit: (inout Checkpoint) throws -> Void
  ) throws -> Double {
    var edited = checkpoint
    try edit(&edited)
    let expected = try checkpoint.model().run(Self.prompt).scalars
    let found = try edited.model().run(Self.prompt).scalars
    let worst = zip(found, expected).reduce(0) { max($0, abs($1.0 - $1.1)) }
    return Double(worst / expected.reduce(0) { max($0, abs($1)) })
  }

  private func open(_ name: String, _ steps: [WeightProcessing]) throws -> Checkpoint {
    try Checkpoint.open(Fixtures.checkpoint(name), processing: steps)
  }

  /// A stream that is longer throughout is the same to norms, up to ε; without norms it is not.
  @Test func lengthOfTheStream() throws {
    func scaled(_ name: String) throws -> Double {
      try change(open(name, [.centerUnembed])) { model in
        for writer in Self.writers(model.config) {
          model.tensors[writer] = model.tensors[writer].map { $0 * 7 }
        }
      }
    }
    let (with, without) = (try scaled("tiny-ln"), try scaled("tiny-lnfree"))
    print("writers times 7: logits change by \(with) with LayerNorm, \(without) without")
    #expect(with < 1e-3 && without > 0.1)
  }

  /// A stream in rotated coordinates is the same to RMSNorm. LayerNorm also looks for the ones
  /// direction, which a rotation moves.
  @Test func coordinatesOfTheStream() throws {
    /// x − 2·v·(v·x)/‖v‖² of every row: a reflection, which is its own inverse and transpose.
    func reflected(_ rows: Tensor) -> Tensor {
      let d = rows.rank == 1 ? rows.count : rows.shape[1]
      let v = (0..<d).map { Double(($0 * 7) % 5) - 1.3 }
      let square = v.reduce(0) { $0 + $1 * $1 }
      let values = rows.scalars
      return Tensor(
        values.indices.map { index in
          let start = index / d * d
          let along = (0..<d).reduce(0) { $0 + Double(values[start + $1]) * v[$1] }
          return Float(Double(values[index]) - 2 * v[index - start] * along / square)
        }, shape: rows.shape)
    }
    let steps: [WeightProcessing] = [.foldLN, .centerWritingWeights]
    func rotated(_ checkpoint: Checkpoint) throws -> Double {
      try change(checkpoint) { model in
        for writer in Self.writers(model.config) + ["unembed.weight"] {
          model.tensors[writer] = model.tensors[writer].map(reflected)
        }
        for reader in Self.readers(model.config) {
          model.tensors[reader] = model.tensors[reader].map {
            reflected($0.transposed()).transposed()
          }
        }
      }
    }
    let rms = try rotated(open("tiny-ln", steps + [.rmsNorm]))
    let layerNorm = try rotated(open("tiny-ln", steps))
    print("rotated stream: logits change by \(rms) with RMSNorm, \(layerNorm) with LayerNorm")
    #expect(rms < 1e-5 && layerNorm > 0.01)
  }

  /// A writer that was not centred does no harm before LayerNorm, and RMSNorm in its place shows it.
  @Test(arguments: ["wpe.weight", "h.0.attn.c_proj.bias"])
  func forgottenWriter(_ name: String) throws {
    let checkpoint = try open("tiny-ln", [.foldLN, .centerWritingWeights])
    func uncentred(_ normalization: Normalization) throws -> Double {
      try change(checkpoint) { model in
        model.tensors[name] = model.tensors[name].map {
          $0 + Tensor(repeating: 0.5, shape: $0.shape)
        }
        model.config.normalization = normalization
      }
    }
    let (layerNorm, rms) = (try uncentred(.layerNorm), try uncentred(.rmsNorm))
    print("\(name) uncentred: logits change by \(layerNorm) with LayerNorm, \(rms) with RMSNorm")
    #expect(layerNorm < 1e-5 && rms > 0.01)
  }

  /// The unembedding reads: in place of what a LayerNorm's reader is, the centred embedding is wrong.
  @Test func unembeddingIsARead() throws {
    let checkpoint = try open("tiny-ln", [.foldLN, .centerWritingWeights])
    let tied = try change(checkpoint) { model in
      model.tensors["unembed.weight"] = model.tensors["wte.weight"]
    }
    print("unembedding tied to the centred embedding: logits change by \(tied)")
    #expect(tied > 0.1)
  }

  /// One divisor makes the shorter stream's norm LayerNorm: d, not d − 1.
  @Test(arguments: [WeightProcessing.crmsNorm, .isometric])
  func divisor(_ step: WeightProcessing) throws {
    let checkpoint = try open("tiny-ln", [.foldLN, .centerWritingWeights, step])
    let wrong = try change(checkpoint) { $0.config.normWidth = $0.config.dModel }
    print("\(step.rawValue) divided by d − 1: logits change by \(wrong)")
    #expect(wrong > 1e-3)
  }
}
