import HDF5Store
public import HookedGPT2
import OrderedCollections
import Tensors

extension Checkpoint {
  /// An untrained model: normal weights of standard deviation 0.02 (the projections back into the
  /// stream smaller by √(2·n_layers)), zero biases, unit gains, as GPT-2 was initialised.
  ///
  /// - Parameters:
  ///   - config: its configuration, with LayerNorm.
  ///   - name: its name.
  ///   - seed: the same seed gives the same weights everywhere.
  ///   - tokenizerDirectory: where `tokenizer.json`, or `vocab.json` and `merges.txt`, lie; nil for a model of token ids.
  ///   - biases: the standard deviation of biases, and of gains around 1; 0 as GPT-2 began.
  public static func random(
    _ config: GPT2Config, name: String, seed: UInt64, tokenizerDirectory: String? = nil,
    biases: Double = 0
  ) throws -> Checkpoint {
    var random = NormalGenerator(seed: seed)
    var tensors: OrderedDictionary<String, Tensor> = [:]
    let (d, a, m) = (config.dModel, config.dAttn, config.dMLP)
    func weight(_ name: String, _ shape: [Int], _ deviation: Double) {
      tensors[name] = random.tensor(shape, mean: 0, deviation: deviation)
    }
    func norm(_ name: String) {
      tensors["\(name).weight"] = random.tensor([d], mean: 1, deviation: biases)
      tensors["\(name).bias"] = random.tensor([d], mean: 0, deviation: biases)
    }
    let small = 0.02 / Double(2 * config.nLayers).squareRoot()
    weight("wte.weight", [config.dVocab, d], 0.02)
    weight("wpe.weight", [config.nCtx, d], 0.01)
    for layer in 0..<config.nLayers {
      let h = "h.\(layer)"
      norm("\(h).ln_1")
      weight("\(h).attn.c_attn.weight", [d, 3 * a], 0.02)
      weight("\(h).attn.c_attn.bias", [3 * a], biases)
      weight("\(h).attn.c_proj.weight", [a, d], small)
      weight("\(h).attn.c_proj.bias", [d], biases)
      norm("\(h).ln_2")
      weight("\(h).mlp.c_fc.weight", [d, m], 0.02)
      weight("\(h).mlp.c_fc.bias", [m], biases)
      weight("\(h).mlp.c_proj.weight", [m, d], small)
      weight("\(h).mlp.c_proj.bias", [d], biases)
    }
    norm("ln_f")

    var special = SpecialTokens(bos: nil, eos: nil)
    var payload: TokenizerPayload?
    if let tokenizerDirectory {
      payload = try HuggingFaceTokenizer.read(tokenizerDirectory, &special)
      guard let payload else {
        throw ModelSourceError.noCheckpoint(
          directory: tokenizerDirectory, expected: "vocab.json and merges.txt in it")
      }
      guard payload.tokenCount <= config.dVocab else {
        throw ModelSourceError.field(
          path: tokenizerDirectory, field: "tokens",
          expected: "at most \(config.dVocab), the configuration's d_vocab",
          found: "\(payload.tokenCount)")
      }
      // GPT-2 begins and ends a text with the same token.
      let (bytes, offsets) = (payload.tokenBytes, payload.tokenOffsets)
      let end = special.added.first { id in
        bytes[offsets[id]..<offsets[id + 1]].elementsEqual(TokenizerTables.endOfText.utf8)
      }
      special = SpecialTokens(bos: end, eos: end, added: special.added.filter { $0 != end })
    }
    return Checkpoint(
      config: config, tensors: tensors, tokenizer: payload, specialTokens: special,
      identity: GPT2.Identity(
        name: name,
        weightsSHA256: ModelArchive.weightsSHA256(tensors.map { (name: $0.key, tensor: $0.value) }),
        source: "random weights, seed \(seed)", license: "none"))
  }
}

/// Seeded numbers from a normal distribution.
private struct NormalGenerator {
  private var random: SeededGenerator

  init(seed: UInt64) { random = SeededGenerator(seed: seed) }

  mutating func tensor(_ shape: [Int], mean: Double, deviation: Double) -> Tensor {
    var tensor = Tensor(repeating: Float(mean), shape: shape)
    if deviation == 0 { return tensor }
    var span = tensor.mutableSpan
    for i in 0..<span.count {
      // The sum of four uniform numbers on [-1, 1), variance 4/3, is normal enough for weights and
      // costs two draws and no logarithm.
      let (a, b) = (random.next(), random.next())
      let sum =
        Double(Int32(truncatingIfNeeded: a)) + Double(Int32(truncatingIfNeeded: a >> 32))
        + Double(Int32(truncatingIfNeeded: b)) + Double(Int32(truncatingIfNeeded: b >> 32))
      span[i] = Float(mean + deviation * sum / 2_147_483_648 * 0.866_025_403_784_438_6)
    }
    return tensor
  }
}
