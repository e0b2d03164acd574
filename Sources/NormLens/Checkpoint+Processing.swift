import Foundation
public import HookedGPT2
import OrderedCollections
import Results
import Tensors

/// How well a step of weight processing has kept the predictions of a short run.
///
/// What a step promises of the weights is checked beside it: after centring what is written, the
/// stream's mean is at most 1e-5 of its norm, and after folding a LayerNorm or centring what reads, no
/// reader answers to a constant.
public struct ProcessingCheck: Sendable, Equatable {
  /// The step.
  public var step: String
  /// The largest difference of a log-probability, relative to the largest logit.
  public var logits: Double
  /// The largest difference of a probability.
  public var probabilities: Double

  /// What `logits` may be.
  public static let logitLimit = 1e-4

  /// What `probabilities` may be where the largest |logit| is `magnitude`.
  ///
  /// 1e-6 where float32 can tell so much. Logits of that size that are computed in two ways differ by
  /// some roundings of 6e-8 each (up to 12 were seen), their probabilities by up to a quarter of it:
  /// next to logits of 100, which GPT-2 has, that is more than 1e-6.
  public static func probabilityLimit(magnitude: Double) -> Double {
    max(1e-6, 8 * 0x1p-24 * magnitude)
  }
}

extension Checkpoint {
  /// The checkpoint with processed weights.
  ///
  /// A short run before and after each step must predict the same; the differences are kept in
  /// `processingChecks`. What was done is added to `identity.weightProcessing`. A step that these
  /// weights have been through is not repeated, and `fold_ln` of the TransformerLens bundle is left
  /// out where there are no norms: `skippedProcessing` says so.
  ///
  /// - Parameter steps: carried out in canonical order, whatever their order here.
  /// - Throws: `ModelError.processing` where a step is not exact; `ModelError` where tensors and
  ///   configuration disagree.
  public consuming func processed(by steps: [WeightProcessing]) throws -> Checkpoint {
    var result = self
    let isBundle = WeightProcessing.transformerLens.allSatisfy(steps.contains)
    var pending: [WeightProcessing] = []
    for step in WeightProcessing.allCases where steps.contains(step) {
      let planned = result.identity.weightProcessing + pending.map(\.rawValue)
      if step.stillHolds(after: planned) {
        result.skippedProcessing.append("\(step.rawValue): these weights have been through it")
      } else if step == .foldLN && isBundle && result.config.normalization == .none {
        result.skippedProcessing.append("\(step.rawValue): the model has no norms to fold")
      } else {
        pending.append(step)
      }
    }
    if pending.isEmpty { return result }

    // Nobody else may hold the tensors while they change, or each change copies them.
    let order = Array(result.tensors.keys)
    var tensors = result.tensors.unordered
    result.tensors = [:]
    var last = try Predictions(tensors, result.config)
    for step in pending {
      try step.apply(to: &tensors, config: &result.config)
      let now = try Predictions(tensors, result.config)
      result.processingChecks.append(try now.check(against: last, step: step))
      try now.checkPromise(of: step, tensors, result.config)
      result.identity.weightProcessing.append(step.rawValue)
      last = now
    }
    for name in order { result.tensors[name] = tensors.removeValue(forKey: name) }
    for (name, tensor) in tensors.sorted(by: { $0.key < $1.key }) { result.tensors[name] = tensor }
    result.identity.weightsSHA256 = ""
    result.reference = nil
    return result
  }
}

// MARK: in model files

extension ProcessingCheck {
  private static let logitsField = "processing_logit_differences"
  private static let probabilitiesField = "processing_probability_differences"

  /// The checks that a model file keeps for its processing steps; none in files without them.
  static func read(
    steps: [String], attributes: OrderedDictionary<String, AttributeValue>
  ) -> [ProcessingCheck] {
    guard case .numbers(let logits)? = attributes[logitsField],
      case .numbers(let probabilities)? = attributes[probabilitiesField],
      logits.count == steps.count, probabilities.count == steps.count
    else { return [] }
    return steps.indices.filter { !logits[$0].isNaN && !probabilities[$0].isNaN }.map {
      ProcessingCheck(step: steps[$0], logits: logits[$0], probabilities: probabilities[$0])
    }
  }

  /// One number for each step, NaN where a step was not checked.
  fileprivate static func attributes(
    steps: [String], checks: [ProcessingCheck]
  ) -> OrderedDictionary<String, AttributeValue> {
    if checks.isEmpty { return [:] }
    func column(_ value: (ProcessingCheck) -> Double) -> AttributeValue {
      .numbers(steps.map { step in checks.last { $0.step == step }.map(value) ?? .nan })
    }
    return [
      logitsField: column { $0.logits }, probabilitiesField: column { $0.probabilities },
    ]
  }
}

extension Checkpoint {
  /// What a model file keeps of the checks, parallel to its `weight_processing`.
  var processingAttributes: OrderedDictionary<String, AttributeValue> {
    ProcessingCheck.attributes(steps: identity.weightProcessing, checks: processingChecks)
  }
}

/// A model's predictions at every position of a short run.
private struct Predictions {
  let logits: Tensor
  let logSumExp: [Double]
  let magnitude: Double
  /// The largest |mean| of a row of the stream, relative to the row's norm.
  let streamMean: Double

  init(_ tensors: [String: Tensor], _ config: GPT2Config) throws {
    let model = GPT2(
      config: config, weights: try GPT2Weights(tensors, config: config),
      identity: GPT2.Identity(name: "check"))
    let (logits, cache) = try model.runWithCache(
      Checkpoint.referenceTokens(config),
      hooks: [.residPre(.all), .residMid(.all), .residPost(.all)])
    self.logits = logits
    var streamMean = 0.0
    for hook in cache.names {
      let stream = try cache.tensor(hook)
      for row in 0..<stream.shape[0] {
        let x = stream.row(row)
        let norm = max(x.dot(x).squareRoot(), .leastNormalMagnitude)
        streamMean = max(streamMean, Swift.abs(x.sum / Double(config.dModel)) / norm)
      }
    }
    self.streamMean = streamMean
    guard logits.isFinite else {
      throw ModelError.nonFinite(what: "the logits of the run that checks weight processing")
    }
    logSumExp = rowStatistics(logits, target: nil).map(\.logSumExp)
    magnitude = Double(logits.maximumMagnitude)
  }

  /// Checks what a step says of the stream and of what reads it.
  ///
  /// - Throws: `ModelError.processing` where that does not hold.
  func checkPromise(
    of step: WeightProcessing, _ tensors: [String: Tensor], _ config: GPT2Config
  ) throws {
    var problem: String?
    switch step {
    case .centerWritingWeights:
      if streamMean > 1e-5 {
        problem =
          "the stream has a mean of \(Float(streamMean)) of its norm (expected at most 1e-05)"
      }
    case .foldLN where config.normalization == .layerNorm, .foldAffineNorms, .centerReadingWeights:
      problem = WeightProcessing.readerOfTheMean(tensors, config: config).map {
        "what reads the stream answers to a constant: \($0)"
      }
    case .foldLN, .rmsNorm, .crmsNorm, .isometric, .centerUnembed, .foldValueBiases: break
    }
    if let problem {
      throw ModelError.processing(
        step: step.rawValue, problem: problem + "; use the model without this step")
    }
  }

  /// Compares two models' predictions.
  ///
  /// - Throws: `ModelError.processing` where they differ by more than float32 explains.
  func check(against before: Predictions, step: WeightProcessing) throws -> ProcessingCheck {
    var (logit, probability) = (0.0, 0.0)
    let (now, then) = (logits.span, before.logits.span)
    let columns = logits.shape[1]
    for row in 0..<logSumExp.count {
      for i in row * columns..<(row + 1) * columns {
        let old = Double(then[i]) - before.logSumExp[row]
        let difference = Double(now[i]) - logSumExp[row] - old
        logit = max(logit, Swift.abs(difference))
        probability = max(
          probability, Foundation.exp(old) * Swift.abs(Foundation.expm1(difference)))
      }
    }
    // A step may change what all logits have in common, and their size with it.
    let magnitude = max(self.magnitude, before.magnitude, .leastNormalMagnitude)
    let check = ProcessingCheck(
      step: step.rawValue, logits: logit / magnitude, probabilities: probability)
    let limit = ProcessingCheck.probabilityLimit(magnitude: magnitude)
    guard check.logits <= ProcessingCheck.logitLimit && check.probabilities <= limit else {
      throw ModelError.processing(
        step: step.rawValue,
        problem:
          "the predictions of a short run change: log-probabilities by \(Float(check.logits)) "
          + "of the largest logit (expected at most \(Float(ProcessingCheck.logitLimit))), "
          + "probabilities by \(Float(check.probabilities)) (expected at most \(Float(limit))); "
          + (step == .foldAffineNorms
            ? "next to the variance of its stream the model's layer_norm_epsilon is not so large that "
              + "its LayerNorms do nothing: this is no model without LayerNorms"
            : "use the model without this step"))
    }
    return check
  }
}
