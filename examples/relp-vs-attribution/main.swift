// How far are the cheap estimates of activation patching from the truth, and is it LayerNorm's fault?
//
// Two papers' questions, put to the bundled models with 48 indirect-object prompts: does a backward
// pass by rules repair attribution patching (RelP, arXiv:2508.21258)? Is attribution patching better
// without LayerNorm (arXiv:2507.02559)? A path as argument keeps the numbers.
import NormLens

let methods: [AttributionPatching.Method] = [
  .attribution, .integratedGradients(steps: 10), .relevance(.relp),
]
let set = try PromptSet.read("\(BundledModels.dataDirectory() ?? ".")/prompts/ioi.json")
var file = ResultSet(title: "Attribution and relevance against activation patching", groups: [])
var errors: [[[Double]]] = []  // [model][method][prompt]

for name in BundledModels.names {
  let model = try GPT2.load(name)
  let pairs = try set.pairs(model)
  let sweep = ActivationPatching(of: PatchSite.blocks + [.headZ])
  let estimates = try AttributionPatching(of: sweep, by: methods).run(model, pairs)
  var result = try sweep.run(model, pairs).compared(with: estimates)
  // The file is to stay small: prompts are said once, intervals only of the exact effects.
  for index in result.groups.indices {
    result.groups[index].variables.removeAll {
      $0.isCoordinate && (name != "mini" || index > 1)
        || index > 1 && $0.name.contains(#/_(ci_low|ci_high|stderr)$/#)
    }
  }
  file = file.merged(with: result.nested(under: name.replacing("-", with: "_")))
  print("\n\(name): agreement with activation patching, \(pairs.count) prompts")
  print(result[group: "patch/agreement"].flatMap(agreementTable) ?? "")

  // The second paper's measure: the stream before each block, each prompt by itself, its effects
  // divided by that of S2 before layer 0, which is the whole effect; Σ|error| over all cells.
  func effects(_ method: String) -> [Double] {
    result[group: "patch/\(method)", variable: "resid_pre"]?.values.doubles ?? []
  }
  let (exact, cells) = (effects("activation"), model.config.nLayers * pairs[0].length)
  errors.append(
    methods.map { method in
      let misses = zip(effects(method.group), exact).map { abs($0 - $1) }
      return pairs.enumerated().map { prompt, pair in
        misses[prompt * cells..<(prompt + 1) * cells].reduce(0, +)
          / abs(exact[prompt * cells + (pair.positions["S2"] ?? 0)])
      }
    })
}

/// Mean and standard error.
func mean(_ values: [Double]) -> String {
  let mean = values.reduce(0, +) / Double(values.count)
  let squares = values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) }
  let error = (squares / Double(values.count * (values.count - 1))).squareRoot()
  return "\(fixed(mean, 3)) ± \(fixed(error, 3))"
}

print("\nresid_pre, Σ|error| relative to the whole effect, mean over prompts ± standard error")
var table = TextTable(
  [("method", .left)] + BundledModels.names.map { ($0, .right) } + [("vanilla − LN-free", .right)])
for (index, method) in methods.enumerated() {
  let byModel = errors.map { $0[index] }
  table.add([method.name] + byModel.map(mean) + [mean(zip(byModel[1], byModel[2]).map { $0 - $1 })])
}
print(table.text)

if let path = CommandLine.arguments.dropFirst().first {
  let axes = [
    Dimension("prompt", count: set.prompts.count),
    Dimension("model", .labels(BundledModels.names)),
    Dimension("method", .labels(methods.map(\.group))),
  ]
  let values = set.prompts.indices.flatMap { p in errors.flatMap { $0.map { $0[p] } } }
  let error = ResultVariable(
    "error", axes.map(\.name), .float64(values),
    longName: "summed absolute error of resid_pre, relative to the effect of S2 at layer 0",
    units: "1")
  file.groups.append(ResultGroup(path: "protocol", dimensions: axes, variables: [error]))
  try ResultFile.write(file, to: path)
  print("\nwrote \(path)")
}
