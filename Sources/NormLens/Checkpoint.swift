public import HDF5Store
public import HookedGPT2
public import OrderedCollections
public import Tensors

/// A GPT-2 on its way from a checkpoint to a model or a file: configuration, tensors, tokenizer.
public struct Checkpoint: Sendable {
  /// The configuration.
  public var config: GPT2Config
  /// The tensors by Hugging Face's names without `transformer.`, in the order of the file.
  public var tensors: OrderedDictionary<String, Tensor>
  /// The tokenizer, if there is one.
  public var tokenizer: TokenizerPayload?
  /// The ids of the special tokens.
  public var specialTokens: SpecialTokens
  /// Whether text gets the BOS token in front unless asked otherwise.
  public var prependBOS = true
  /// Who the model is.
  public var identity: GPT2.Identity
  /// `config.json` as the source has it, whole: fields that change nothing here are kept with it.
  public var publishedConfig: JSONValue?
  /// By how much each step of `identity.weightProcessing` has changed the logits; see
  /// ``ProcessingCheck``.
  public var processingChecks: [ProcessingCheck] = []
  /// The steps of weight processing that were asked for and not carried out, each with the reason.
  public var skippedProcessing: [String] = []
  /// A short run's logits that the file was written with, if there is one.
  public var reference: Reference?

  /// The ids of the tokens that begin and end a text, and of those added to the vocabulary.
  public struct SpecialTokens: Sendable, Equatable {
    /// The token that stands before a text.
    public var bos: Int?
    /// The token that ends it.
    public var eos: Int?
    /// Further tokens that are found in a text before it is cut, in the order of their ids.
    public var added: [Int] = []
  }

  /// Some of the last logits of a short run, to tell whether a model still computes the same.
  public struct Reference: Sendable, Equatable {
    /// The tokens.
    public var tokens: [Int]
    /// The ids whose logits are kept.
    public var ids: [Int]
    /// Their logits at the last position.
    public var logits: [Double]
  }

  /// The model.
  ///
  /// - Throws: `ModelError` where tensors and configuration disagree.
  public func model() throws(ModelError) -> GPT2 {
    let weights = try weights()
    let (payload, special, idCount) = (tokenizer, specialTokens, config.dVocab)
    return GPT2(
      config: config, weights: weights, identity: identity,
      defaultPrependBOS: prependBOS && special.bos != nil
    ) {
      guard let payload else { throw ModelError.noTokenizer }
      let tables = TokenizerTables(
        tokenBytes: payload.tokenBytes, tokenOffsets: payload.tokenOffsets.map { Int32($0) },
        mergePairs: payload.mergePairs, special: try Checkpoint.specialTexts(payload, special))
      return try Tokenizer(
        tables: tables, bos: special.bos, eos: special.eos, idCount: idCount)
    }
  }

  /// The tensors as a model has them.
  func weights() throws(ModelError) -> GPT2Weights {
    try GPT2Weights(tensors.unordered, config: config)
  }

  /// The special tokens' texts, which are found in a text before it is cut.
  ///
  /// BOS or EOS that a text is cut into anyway, a byte's token or one that a merge makes, is not among
  /// them unless it is an added token: special, it would tear words that it begins.
  private static func specialTexts(
    _ payload: TokenizerPayload, _ special: SpecialTokens
  ) throws(TokenizerError) -> [String: Int] {
    let (all, offsets, pairs) = (payload.tokenBytes, payload.tokenOffsets, payload.mergePairs)
    // Tables that contradict themselves are refused once a tokenizer is made of them.
    func bytes(_ id: Int) -> ArraySlice<UInt8> {
      guard id >= 0 && id < offsets.count - 1, 0 <= offsets[id], offsets[id] <= offsets[id + 1],
        offsets[id + 1] <= all.count
      else { return [] }
      return all[offsets[id]..<offsets[id + 1]]
    }
    func isCutAnyway(_ token: ArraySlice<UInt8>) -> Bool {
      if token.count <= 1 { return true }
      return stride(from: 1, to: pairs.count, by: 2).contains { right in
        let (left, right) = (bytes(Int(pairs[right - 1])), bytes(Int(pairs[right])))
        return left.count + right.count == token.count && (left + right).elementsEqual(token)
      }
    }
    let ends = Set([special.bos, special.eos].compactMap { $0 }).subtracting(special.added)
    var texts: [String: Int] = [:]
    for id in special.added + ends.filter({ !isCutAnyway(bytes($0)) }) {
      let text = String(decoding: bytes(id), as: UTF8.self)
      if let other = texts.updateValue(id, forKey: text), other != id {
        throw .duplicateToken(token: text, first: other, second: id)
      }
    }
    return texts
  }

  /// The tokens of the short run by which models are compared.
  static func referenceTokens(_ config: GPT2Config) -> [Int] {
    (0..<min(8, config.nCtx)).map { ($0 * 7919 + 11) % config.dVocab }
  }

  /// The short run that is kept with a file.
  static func reference(_ model: GPT2) throws -> Reference {
    let vocabulary = model.config.dVocab
    let tokens = referenceTokens(model.config)
    let count = min(64, vocabulary)
    let ids = (0..<count).map { $0 * vocabulary / count }
    let logits = try model.run(batch: [tokens], logits: .last)[0]
    return Reference(tokens: tokens, ids: ids, logits: ids.map { Double(logits[0, $0]) })
  }

  /// The largest difference between the logits of two models of one configuration, over a short run.
  package static func difference(_ first: GPT2, _ second: GPT2) throws -> Double {
    let tokens = [referenceTokens(first.config)]
    let (a, b) = (try first.run(batch: tokens)[0], try second.run(batch: tokens)[0])
    return Double((a - b).maximumMagnitude)
  }

  /// How far the model's logits are now from those it was written with; nil without a reference.
  public func selfCheck(_ model: GPT2) throws -> (difference: Double, scale: Double)? {
    guard let reference else { return nil }
    let now = try model.run(batch: [reference.tokens], logits: .last)[0]
    let differences = zip(reference.ids, reference.logits).map { id, logit in
      Swift.abs(Double(now[0, id]) - logit)
    }
    return (differences.max() ?? 0, max(1, reference.logits.map(Swift.abs).max() ?? 1))
  }
}

extension OrderedDictionary {
  /// The same without an order.
  var unordered: [Key: Value] { Dictionary(uniqueKeysWithValues: map { ($0.key, $0.value) }) }
}
