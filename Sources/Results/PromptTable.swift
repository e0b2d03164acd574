import OrderedCollections

/// A group whose variables are filled prompt by prompt: they may be larger than memory.
///
/// The first axis of every variable to come is the prompt; one prompt's values are all of the
/// variable's other axes, NaN past the prompt's end.
public struct PromptTable: Sendable {
  /// The group: its axes, its attributes, and the variables that are known from the start.
  public var group: ResultGroup
  /// The float32 variables to come; their values are empty.
  public var variables: [ResultVariable]
  /// The group's variables that are found over all prompts at the end; their values stand in for those
  /// that the findings bring.
  public var findings: [ResultVariable]

  /// A table with variables to come.
  ///
  /// - Precondition: every variable to come begins with the axis `prompt` and holds no values yet.
  public init(
    _ group: ResultGroup, variables: [ResultVariable], findings: [ResultVariable] = []
  ) {
    for variable in variables {
      precondition(
        variable.dimensions.first == "prompt" && variable.values == .float32([]),
        "PromptTable '\(group.path)': '\(variable.name)' has axes \(variable.dimensions) "
          + "and \(variable.values.count) values")
    }
    self.group = group
    self.variables = variables
    self.findings = findings
  }

  /// How many values of a variable belong to one prompt.
  public func valuesPerPrompt(_ variable: ResultVariable) -> Int {
    group.shape(of: variable).dropFirst().reduce(1, *)
  }
}

/// Where an analysis leaves the values of each prompt as it finds them: memory, or a file.
public protocol PromptSink: AnyObject {
  /// Takes one prompt's values of a variable of the table at `path`, row-major.
  ///
  /// - Throws: what writing throws.
  /// - Precondition: the variable is one of a table that the sink was made for, and `values` fill
  ///   what belongs to one prompt.
  func take(_ path: String, _ variable: String, prompt: Int, _ values: [Float]) throws
}

/// Keeps the values of all prompts in memory.
public final class MemorySink: PromptSink {
  private var groups: OrderedDictionary<String, ResultGroup> = [:]

  /// A sink for tables.
  public init(_ tables: [PromptTable]) {
    for table in tables {
      var group = table.group
      for variable in table.variables {
        var variable = variable
        let count = group.shape(of: variable).reduce(1, *)
        variable.values = .float32(Array(repeating: .nan, count: count))
        group.variables.append(variable)
      }
      groups[group.path] = group
    }
  }

  /// The tables as groups; what was not taken is NaN.
  public var result: [ResultGroup] { Array(groups.values) }

  /// Keeps one prompt's values.
  public func take(_ path: String, _ variable: String, prompt: Int, _ values: [Float]) {
    guard let place = groups[path]?.variables.firstIndex(where: { $0.name == variable }),
      case .float32(var all)? = groups[path]?.variables[place].values
    else { preconditionFailure("MemorySink: no variable '\(path)/\(variable)'") }
    groups[path]?.variables[place].values = .float32([])
    let start = prompt * values.count
    precondition(
      prompt >= 0 && start + values.count <= all.count,
      "MemorySink: prompt \(prompt) with \(values.count) values of '\(path)/\(variable)'")
    all.replaceSubrange(start..<start + values.count, with: values)
    groups[path]?.variables[place].values = .float32(all)
  }
}

/// Takes values and forgets them: for those who want an analysis' summaries only.
public final class DiscardingSink: PromptSink {
  /// A sink for anything.
  public init() {}

  /// Forgets one prompt's values.
  public func take(_ path: String, _ variable: String, prompt: Int, _ values: [Float]) {}
}
