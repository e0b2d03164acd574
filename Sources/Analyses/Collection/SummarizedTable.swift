import Results

/// A table that is filled prompt by prompt and remembers the mean of each variable over the prompts.
struct SummarizedTable {
  let table: PromptTable
  private var sums: [String: [Double]] = [:]
  private var counts: [String: [Int]] = [:]
  private let summarized: Set<String>

  /// A table.
  ///
  /// - Parameter exceptions: the variables whose means say nothing.
  init(_ table: PromptTable, except exceptions: Set<String> = []) {
    self.table = table
    summarized = Set(table.variables.map(\.name)).subtracting(exceptions)
  }

  /// Hands one prompt's values on; those that are not NaN count for the mean.
  mutating func take(
    _ name: String, prompt: Int, _ values: [Double], into sink: any PromptSink
  ) throws {
    try sink.take(table.group.path, name, prompt: prompt, values.map { Float($0) })
    guard summarized.contains(name) else { return }
    var sum = sums[name] ?? Array(repeating: 0, count: values.count)
    var count = counts[name] ?? Array(repeating: 0, count: values.count)
    for index in values.indices where !values[index].isNaN {
      sum[index] += values[index]
      count[index] += 1
    }
    (sums[name], counts[name]) = (sum, count)
  }

  /// The means over prompts, NaN where no prompt has a value, in the group `summary` below the table's.
  var summary: ResultGroup {
    var variables: [ResultVariable] = []
    for variable in table.variables where summarized.contains(variable.name) {
      var mean = variable
      mean.dimensions.removeFirst()
      let length = table.valuesPerPrompt(variable)
      let (sum, count) = (sums[variable.name], counts[variable.name])
      mean.values = .float64(
        (0..<length).map { index in
          guard let sum, let count, count[index] > 0 else { return .nan }
          return sum[index] / Double(count[index])
        })
      mean.attributes["long_name"] = .string("\(variable.longName); mean over prompts")
      variables.append(mean)
    }
    let used = Set(variables.flatMap(\.dimensions))
    return ResultGroup(
      path: "\(table.group.path)/summary",
      dimensions: table.group.dimensions.filter { used.contains($0.name) }, variables: variables,
      attributes: table.group.attributes)
  }
}
