import NormLens
import TestSupport

/// A prompt pair in the double-precision model, denoising: its two runs, the logit difference of the
/// first answer and the first wrong token, and estimates of patching effects.
struct DoublePair {
  let model: DoubleGPT2
  let pair: PromptPair
  let clean: DoubleGPT2.Run
  let corrupted: DoubleGPT2.Run

  typealias Edit = (_ name: String, _ value: inout DoubleMatrix) -> Void
  /// What is done to every run.
  private let edit: Edit

  init(_ model: DoubleGPT2, _ pair: PromptPair, edit: @escaping Edit = { _, _ in }) {
    self.model = model
    self.pair = pair
    self.edit = edit
    clean = model.run(pair.clean, edit: edit)
    corrupted = model.run(pair.corrupted, edit: edit)
  }

  /// A pair of random tokens.
  init(_ model: GPT2, seed: UInt64 = 11) {
    self.init(
      DoubleGPT2(model),
      PatchingModels.random(
        model.config, length: min(7, model.config.nCtx), differing: [2, 4], seed: seed))
  }

  /// The rule sets of the golden files and each rule alone.
  static let ruleSets: [BackwardRules] = [
    .gradient, .relp, .init(ln: true), .init(identity: true), .init(attentionPattern: true),
    .init(uniformAttention: true), .init(ln: true, identity: true, attentionPattern: true),
    .init(ln: true, identity: true, uniformAttention: true),
    .init(ln: true, identity: true, attentionPattern: true, uniformAttention: true),
  ]

  var last: Int { pair.length - 1 }

  /// The metric of a run.
  func metric(_ run: DoubleGPT2.Run) -> Double {
    run.logits[last, pair.answer[0]] - run.logits[last, pair.wrong[0]]
  }

  /// Its derivative by the logits.
  var start: DoubleMatrix {
    var start = DoubleMatrix(pair.length, model.config.dVocab)
    start[last, pair.answer[0]] += 1
    start[last, pair.wrong[0]] -= 1
    return start
  }

  /// The backward pass of the corrupted run.
  func gradients(_ rules: BackwardRules) -> DoubleGPT2.Gradients {
    model.gradients(corrupted, from: start, rules: rules)
  }

  /// (clean − corrupted) ⊙ gradient at a hook.
  func products(_ hook: String, _ gradients: DoubleGPT2.Gradients) -> DoubleMatrix {
    clean[hook].combined(corrupted[hook]) { $0 == $1 ? 0 : $0 - $1 }
      .combined(gradients[hook], *)
  }

  /// The estimate of each row's effect: of a position, or of a head's query.
  func estimates(_ hook: String, _ gradients: DoubleGPT2.Gradients) -> [Double] {
    let products = products(hook, gradients)
    return (0..<products.rows).map { products.row($0).reduce(0, +) }
  }

  /// The exact effect of each row.
  func effects(_ hook: String) -> [Double] {
    let replacement = clean[hook]
    let unpatched = metric(corrupted)
    return (0..<replacement.rows).map { row in
      let patched = model.run(pair.corrupted) { name, value in
        edit(name, &value)
        guard name == hook else { return }
        for column in 0..<value.columns { value[row, column] = replacement[row, column] }
      }
      return metric(patched) - unpatched
    }
  }
}

/// Remembers how far two computations of the same numbers are apart, relative to their size.
struct Deviation {
  private(set) var worst = 0.0
  private(set) var size = 0.0

  /// - Parameter scale: what the difference is held against; the larger magnitude by default.
  mutating func add(_ a: Double, _ b: Double, scale: Double? = nil) {
    size = max(size, abs(a), abs(b))
    let error = abs(a - b) / max(scale ?? max(abs(a), abs(b)), 1e-300)
    worst = max(worst, a == b ? 0 : (error.isFinite ? error : .infinity))
  }

  /// Numbers held against the largest of them.
  mutating func add(_ a: [Double], _ b: [Double]) {
    let scale = (a + b).reduce(0) { max($0, abs($1)) }
    if a.count != b.count { worst = .infinity }
    for (x, y) in zip(a, b) { add(x, y, scale: scale) }
  }
}
