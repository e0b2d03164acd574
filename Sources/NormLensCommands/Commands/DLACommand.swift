import ArgumentParser
import NormLens

/// `normlens dla`: what each component writes straight into the answer's logit.
struct DLACommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "dla", abstract: "Direct logit attribution, with its error under LayerNorm.",
    discussion: """
      The target is the answer's logit, less the wrong answer's if one is given, at the last \
      position. Every component's share is computed with the final LayerNorm's scale frozen (the \
      usual attribution) and as true direct effect; NMAE is the distance between the two over \
      heads. Without LayerNorm they agree.
      """)

  @OptionGroup var analysis: AnalysisOptions
  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("The token that should not come next, verbatim.", valueName: "token"))
  var wrong: String?
  @Option(
    parsing: .unconditional,  // else -1 would be taken for an option
    help: "The position whose logits are attributed; negative counts from the end.")
  var position = -1
  @Flag(help: "Attribute every neuron as well.") var neurons = false
  @Option(help: "How many heads to list.") var top = 10

  func validate() throws {
    if wrong != nil && analysis.answer.answer == nil {
      throw ValidationError("--wrong needs --answer, which it is compared with")
    }
    if top < 0 { throw ValidationError("--top \(top): expected 0 or more") }
  }

  func run() throws {
    try analysis.run(
      "dla", wrong: wrong, bytes: { 4 * ($1 * (10 * $0.dModel + 2 * $0.dMLP) + $0.dVocab) },
      { work, progress in
        try DirectLogitAttribution(
          position: position, neurons: neurons, batchSize: work.batchSize
        ).run(work.model, work.prompts, interventions: work.interventions, progress: progress)
      }, table: { Self.table($0, top: top) })
  }

  /// Means over prompts: the components in stream order, the strongest heads, the errors.
  static func table(_ result: ResultSet, top: Int) -> String {
    guard let group = result[group: "dla"], let components = group[dimension: "component"],
      let heads = group[dimension: "head"], let layers = group[dimension: "layer"],
      let prompts = group[dimension: "prompt"]?.count
    else { return "" }
    func mean(_ name: String, _ width: Int) -> [Double] {
      let values = group[variable: name]?.values.doubles ?? []
      return (0..<width).map { column in
        (0..<prompts).reduce(0) { $0 + values[$1 * width + column] } / Double(prompts)
      }
    }
    func value(_ name: String) -> Double { group[variable: name]?.values.doubles?.first ?? .nan }

    let headCount = layers.count * heads.count
    let contribution = mean("contribution", components.count)
    let direct = mean("component_direct_effect", components.count)
    let head = mean("head_contribution", headCount)
    let headDirect = mean("head_direct_effect", headCount)

    var table = TextTable([
      ("component", .left), ("attribution", .right), ("direct effect", .right),
    ])
    for index in 0..<components.count {
      table.add([
        components.label(at: index), fixed(contribution[index], 4, signed: true),
        fixed(direct[index], 4, signed: true),
      ])
    }
    let strongest = (0..<headCount).filter { !head[$0].isNaN }.sorted {
      (Swift.abs(head[$0]), $1) > (Swift.abs(head[$1]), $0)
    }.prefix(top)
    let lines = strongest.enumerated().map { place, index in
      let number = String(place + 1)
      let label = "L\(index / heads.count)H\(index % heads.count)"
      return String(repeating: " ", count: Swift.max(0, 3 - number.count)) + number + ". "
        + String(repeating: " ", count: Swift.max(0, 6 - label.count)) + label + ": "
        + fixed(head[index], 4, signed: true) + "   direct effect "
        + fixed(headDirect[index], 4, signed: true)
    }
    let closure = group[variable: "closure_error"]?.values.doubles ?? []
    let target = mean("target", 1)[0]
    return """
      \(prompts == 1 ? "target" : "mean target of \(prompts) prompts") \
      \(fixed(target, 4, signed: true)) logits; closure error at most \
      \(compact(closure.map(Swift.abs).max() ?? 0))

      \(table.text)

      strongest heads:
      \(lines.joined(separator: "\n"))

      error of the frozen-scale attribution of heads (NMAE): pooled \
      \(fixed(value("nmae_pooled"), 2)) %, mean over heads \(fixed(value("nmae_head_mean"), 2)) %
      """
  }
}
