import Analyses
public import HookedGPT2

/// Several models whose weights have been through the same processing, to be compared.
///
/// Centring what is written takes the mean out of the stream, `isometric` and `crmsnorm` change its
/// coordinates, folding moves gains between weights: a length or an angle of one model says nothing
/// beside another's in another gauge. What any of the models has been through is done to all.
/// `fold_affine_norms`, by which a model without LayerNorm came into being, asks for nothing: it leaves the
/// stream as it was. Steps that concern norms (`fold_ln`, `rmsnorm`) are left out for models without any.
/// Logits, attention patterns and entropies are the same in every gauge (`center_unembed` shifts logits).
public struct TwinModels: Sendable {
  /// The models; each has a name of its own.
  public let models: [GPT2]
  /// What was done to bring them into one gauge, a sentence each.
  public let notes: [String]

  /// Opens models and brings them into one gauge.
  ///
  /// - Parameters:
  ///   - sources: what `GPT2.load` opens; at least one.
  ///   - processing: what is done to the weights of all.
  ///   - verify: whether model files' checksums are compared.
  /// - Throws: `AnalysisError.models` where a model cannot follow what another has been through;
  ///   `ModelSourceError`, `HDF5Error`, `ModelError`, `TokenizerError`.
  public init(
    _ sources: [String], processing: [WeightProcessing] = [], verify: Bool = true
  ) throws {
    precondition(!sources.isEmpty, "TwinModels: no models")
    if sources.count == 1 {
      let checkpoint = try Checkpoint.open(sources[0], processing: processing, verify: verify)
      models = [try checkpoint.model()]
      notes = checkpoint.skippedProcessing.map { "--process: skipped \($0)" }
      return
    }
    let found = try sources.map { try Checkpoint.open($0, verify: verify) }
    let names = Self.names(found.map(\.identity.name), sources)
    let wanted = try Self.gauge(names, found.map(\.identity.weightProcessing), asked: processing)
    var models: [GPT2] = []
    var notes: [String] = []
    for (index, var checkpoint) in found.enumerated() {
      var missing = wanted.filter {
        !$0.stillHolds(after: checkpoint.identity.weightProcessing)
      }
      if checkpoint.config.normalization == .none {
        for step in missing where step.concernsNorms && processing.contains(step) {
          notes.append("\(names[index]): skipped \(step.rawValue): the model has no norms")
        }
        missing.removeAll(where: \.concernsNorms)
      }
      if !missing.isEmpty {
        let steps = missing.map(\.rawValue).joined(separator: ",")
        do {
          checkpoint = try Checkpoint.open(sources[index], processing: missing, verify: verify)
        } catch ModelError.processing(let step, let problem) {
          throw AnalysisError.models(
            problem: "'\(names[index])' cannot be brought into the gauge of the others "
              + "(\(wanted.map(\.rawValue).joined(separator: ","))): \(step): \(problem); "
              + "compare the models as they were before that processing")
        }
        if !missing.allSatisfy(processing.contains) {
          notes.append("\(names[index]): \(steps) applied, as to the other models")
        }
      }
      checkpoint.identity.name = names[index]
      models.append(try checkpoint.model())
    }
    self.models = models
    self.notes = notes
  }

  /// The steps that any of the models has been through or that are asked for, in canonical order.
  private static func gauge(
    _ names: [String], _ recorded: [[String]], asked: [WeightProcessing]
  ) throws(AnalysisError) -> [WeightProcessing] {
    var steps = Set(asked)
    for (name, done) in zip(names, recorded) {
      for text in done {
        if let step = WeightProcessing(rawValue: text) {
          steps.insert(step)
        } else if let other = zip(names, recorded).first(where: { !$0.1.contains(text) }) {
          throw .models(
            problem:
              "'\(name)' has been through '\(text)', which '\(other.0)' has not and which is not "
              + "known here; compare the models as they were before that processing")
        }
      }
    }
    steps.remove(.foldAffineNorms)
    return WeightProcessing.allCases.filter(steps.contains)
  }

  /// The models' names, each once: where two are alike, those of their files.
  private static func names(_ names: [String], _ sources: [String]) -> [String] {
    let files = sources.map { source in
      let last = source.split(separator: "/").last.map(String.init) ?? source
      return last.hasSuffix(".h5") ? String(last.dropLast(3)) : last
    }
    let chosen = names.indices.map { index in
      names.filter { $0 == names[index] }.count > 1 ? files[index] : names[index]
    }
    return TwinRun(chosen).names
  }
}

extension WeightProcessing {
  /// Whether it has nothing to do where there are no norms.
  fileprivate var concernsNorms: Bool { self == .foldLN || self == .rmsNorm }
}
