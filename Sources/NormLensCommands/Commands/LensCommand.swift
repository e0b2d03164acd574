import ArgumentParser
import NormLens

/// `normlens lens`: what the model would predict at each point of the stream.
struct LensCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "lens", abstract: "Logit lens: read every residual stream as if it were final.",
    discussion: """
      Each stream goes through the final LayerNorm and the unembedding. By default the LayerNorm \
      works with each stream's own scale; --frozen divides by the final stream's.
      """)

  @OptionGroup var analysis: AnalysisOptions
  @Flag(help: "Divide every stream by the final stream's LayerNorm scale.") var frozen = false

  func run() throws {
    try analysis.run(
      "lens", bytes: { 4 * $1 * ((2 * $0.nLayers + 1) * $0.dModel + $0.dVocab) },
      { work, progress in
        try LogitLens(frozenScale: frozen, batchSize: work.batchSize).run(
          work.model, work.prompts, interventions: work.interventions, progress: progress)
      }, table: { Self.table($0) })
  }

  /// The answer's course through the stream at the last position, then the predictions everywhere.
  static func table(_ result: ResultSet) -> String {
    guard let group = result[group: "logit_lens"], let streams = group[dimension: "stream"],
      let positions = group[dimension: "pos"], let prompts = group[dimension: "prompt"]?.count,
      case .integers(let ids)? = group[variable: "token_id"]?.values
    else { return "" }
    let tokens = strings(group, "token") ?? ids.map(String.init)
    let topText = strings(group, "top_token") ?? integers(group, "top_token_id").map(String.init)
    let topProb = group[variable: "top_prob"]?.values.doubles ?? []
    let entropy = group[variable: "entropy"]?.values.doubles ?? []
    let (rank, logit, prob) = (
      group[variable: "rank"]?.values.doubles, group[variable: "logit"]?.values.doubles,
      group[variable: "prob"]?.values.doubles
    )
    var parts: [String] = []
    for prompt in 0..<Swift.min(prompts, 4) {
      let length = (0..<positions.count).filter { ids[prompt * positions.count + $0] >= 0 }.count
      func cell(_ stream: Int, _ position: Int) -> Int {
        (prompt * streams.count + stream) * positions.count + position
      }
      let last = length - 1
      let name = shown(tokens[prompt * positions.count + last])
      var columns: [(String, TextTable.Alignment)] = [("stream", .left)]
      let hasAnswer = !(rank?[cell(0, last)].isNaN ?? true)
      if hasAnswer { columns += [("logit", .right), ("rank", .right), ("prob", .right)] }
      columns += [("entropy", .right), ("prediction", .left), ("its prob", .right)]
      var table = TextTable(columns)
      for stream in 0..<streams.count {
        let index = cell(stream, last)
        var cells = [streams.label(at: stream)]
        if hasAnswer, let rank, let logit, let prob {
          cells += [
            fixed(logit[index], 3), fixed(rank[index], 0), percent(prob[index]),
          ]
        }
        cells += [fixed(entropy[index], 3), "|\(shown(topText[index]))|", percent(topProb[index])]
        table.add(cells)
      }
      let answer = strings(group, "answer").map { ", answer |\(shown($0[prompt]))|" } ?? ""
      let heading =
        "prompt \(prompt), position \(last) |\(name)|\(hasAnswer ? answer : "")"
      parts.append("\(heading)\n\(table.text)")

      if length <= 24 {
        let header = (0..<length).map { position in
          ("\(shown(tokens[prompt * positions.count + position]))", TextTable.Alignment.left)
        }
        var grid = TextTable([("prediction", .left)] + header)
        for stream in 0..<streams.count {
          grid.add(
            [streams.label(at: stream)] + (0..<length).map { shown(topText[cell(stream, $0)]) })
        }
        parts.append(grid.text)
      }
    }
    if prompts > 4 { parts.append("… \(prompts - 4) more prompts; write them with -o") }
    return parts.joined(separator: "\n\n")
  }

  private static func strings(_ group: ResultGroup, _ name: String) -> [String]? {
    if case .strings(let values)? = group[variable: name]?.values { values } else { nil }
  }

  private static func integers(_ group: ResultGroup, _ name: String) -> [Int] {
    if case .integers(let values)? = group[variable: name]?.values { values } else { [] }
  }
}
