import NormLens
import Synchronization
import TestSupport

/// The random checkpoints as models, each loaded once.
enum Models {
  private static let loaded = Mutex<[String: GPT2]>([:])

  static func load(_ name: String) throws -> GPT2 {
    try loaded.withLock { loaded in
      if let model = loaded[name] { return model }
      let model = try GPT2.load(Fixtures.checkpoint(name))
      loaded[name] = model
      return model
    }
  }

  /// A filter for every hook, the optional ones too.
  static func everyHook(_ model: GPT2) -> [HookFilter] {
    HookName.all(nLayers: model.config.nLayers, optional: true).map { HookFilter($0) }
  }

  /// Deterministic numbers in -1 ..< 1, to put in an activation's place.
  static func noise(_ shape: [Int], seed: UInt64) -> Tensor {
    var random = SeededGenerator(seed: seed)
    let count = shape.reduce(1, *)
    return Tensor((0..<count).map { _ in Float.random(in: -1..<1, using: &random) }, shape: shape)
  }
}
