public import HookedGPT2
import OrderedCollections
public import Results

/// Several models on the same prompts: their results side by side, and how far they are apart.
///
/// What belongs to single prompts gets the axis `model` right after `prompt`, what was found over all
/// prompts gets it first. Beside each group stands `<group>/difference` with the axis `pair`: every later
/// model minus every earlier one. Token texts and other coordinates, which must agree, stay as they are.
/// What one model lacks, such as the gains of norms that it does not have, is NaN there (-1 or an empty text
/// where there is no NaN), and the attribute `lacking_models` says so. An attribute that differs is a list in
/// the models' order.
///
/// ```swift
/// let both = try TwinRun(["mini", "mini-lnfree"]).combine(results)
/// ```
public struct TwinRun: Sendable {
  /// The coordinates of the axis `model`: the models' names, each once.
  public let names: [String]

  /// The pairs that differences are taken of, later minus earlier.
  let pairs: [(later: Int, earlier: Int)]

  /// A run of models with these names; a name that occurs again gets a number.
  public init(_ names: [String]) {
    var unique: [String] = []
    for name in names {
      var candidate = name
      var number = 2
      while unique.contains(candidate) {
        candidate = "\(name) (\(number))"
        number += 1
      }
      unique.append(candidate)
    }
    self.names = unique
    pairs = unique.indices.flatMap { later in (0..<later).map { (later, $0) } }
  }

  /// A run of these models.
  public init(_ models: [GPT2]) { self.init(models.map(\.identity.name)) }

  /// Results of one analysis, one for each model, as one.
  ///
  /// - Throws: `AnalysisError.models` where axes or the prompts' tokens do not agree.
  /// - Precondition: as many results as models.
  public func combine(_ results: [ResultSet]) throws(AnalysisError) -> ResultSet {
    precondition(results.count == names.count, "TwinRun: \(results.count) results")
    if results.count == 1 { return results[0] }
    return ResultSet(
      title: title(results[0].title), groups: try combine(results.map(\.groups)),
      provenance: combine(results.map(\.provenance)))
  }

  /// Where the numbers of all models come from.
  public func combine(_ provenances: [Provenance]) -> Provenance {
    if provenances.count == 1 { return provenances[0] }
    let facts = merge(provenances.map { $0.facts })
    // What says which model it was is a list even where all are alike.
    let lists = ["model_name", "weights_sha256", "normalization", "weight_processing"]
    return Provenance(
      OrderedDictionary(
        uniqueKeysWithValues: facts.map { key, value in
          if key == "model_name" { return (key, .strings(names)) }
          if lists.contains(key), case .string(let text) = value {
            return (key, .strings(names.map { _ in text }))
          }
          return (key, value)
        }))
  }

  /// The title of a result of several models, made of that of the first one's.
  func title(_ first: String) -> String {
    names.count == 1 ? first : "\(first), beside \(names.dropFirst().joined(separator: ", "))"
  }
}

// MARK: groups

extension TwinRun {
  /// The groups of all models, each followed by its differences.
  func combine(_ models: [[ResultGroup]]) throws(AnalysisError) -> [ResultGroup] {
    if models.count == 1 { return models[0] }
    let models = models.map(ResultGroup.joining)
    var paths: OrderedSet<String> = []
    for group in models.joined() { paths.append(group.path) }
    var result: [ResultGroup] = []
    for path in paths {
      let merged = try merge(models.map { groups in groups.first { $0.path == path } }, path)
      result += [merged.group] + [merged.differences].compactMap { $0 }
    }
    return result
  }

  /// The tables of all models, each followed by that of its differences.
  func combine(_ models: [[PromptTable]]) throws(AnalysisError) -> [PromptTable] {
    if models.count == 1 { return models[0] }
    var paths: OrderedSet<String> = []
    for table in models.joined() { paths.append(table.group.path) }
    var result: [PromptTable] = []
    for path in paths {
      let parts = models.map { tables in tables.first { $0.group.path == path } }
      var (group, differences) = try merge(parts.map { $0?.group }, path)
      let variables = try variableNames(parts.map { $0?.variables }).map {
        name throws(AnalysisError) in
        try merge(parts.map { $0?.variables.first { $0.name == name } }, name, path)
      }
      // Values that stand in for those to come: as any others.
      let (found, beside) = try merge(
        parts.map { part in
          part.map {
            ResultGroup(path: path, dimensions: $0.group.dimensions, variables: $0.findings)
          }
        }, path)
      let declared = variables.map { difference(of: $0) }
      if group[dimension: "model"] == nil
        && !(variables.isEmpty && found[dimension: "model"] == nil)
      {
        group.dimensions.append(modelDimension)
      }
      result.append(PromptTable(group, variables: variables, findings: found.variables))
      if differences == nil && (!declared.isEmpty || beside != nil) {
        differences = emptyDifferences(of: group)
      }
      if var differences {
        complete(
          &differences, for: differences.variables + declared + (beside?.variables ?? []),
          from: group)
        result.append(
          PromptTable(
            differences, variables: declared,
            findings: beside?.variables.filter { !$0.isCoordinate } ?? []))
      }
    }
    return result
  }

  /// Where the axis of models stands among those of a variable.
  static func place(in dimensions: [String]) -> Int { dimensions.first == "prompt" ? 1 : 0 }

  /// The path of the differences of a group.
  static func differencePath(_ path: String) -> String { "\(path)/difference" }

  private func variableNames(_ models: [[ResultVariable]?]) -> OrderedSet<String> {
    var names: OrderedSet<String> = []
    for variables in models { for variable in variables ?? [] { names.append(variable.name) } }
    return names
  }

  /// A group of all models, nil where one lacks it, and the differences, if there are any.
  private func merge(
    _ parts: [ResultGroup?], _ path: String
  ) throws(AnalysisError) -> (group: ResultGroup, differences: ResultGroup?) {
    var dimensions: OrderedDictionary<String, (Dimension, model: Int)> = [:]
    var ranks: OrderedSet<String> = []
    for (model, part) in parts.enumerated() {
      for dimension in part?.dimensions ?? [] {
        precondition(dimension.name != "model" && dimension.name != "pair", "TwinRun: \(path)")
        if let (known, first) = dimensions[dimension.name] {
          if Self.areRanks(known, dimension) {
            ranks.append(dimension.name)
          } else {
            try requireSame(known, of: first, dimension, of: model, path)
          }
        } else {
          dimensions[dimension.name] = (dimension, model)
        }
      }
    }
    for name in ranks {
      guard let (dimension, model) = dimensions[name] else { continue }
      dimensions[name] = (Dimension(name, count: dimension.count), model)
    }
    var group = ResultGroup(
      path: path,
      dimensions: dimensions.values.map(\.0) + (ranks.isEmpty ? [] : [modelDimension]),
      variables: ranks.map { own($0, parts, count: dimensions[$0]?.0.count ?? 0) },
      attributes: merge(parts.map { $0?.attributes }))
    var hasModels = false
    var differences: [ResultVariable] = []
    for name in variableNames(parts.map { $0?.variables }) {
      let variables = parts.map { $0?[variable: name] }
      if let coordinate = try sharedCoordinate(variables, path) {
        group.variables.append(coordinate)
        continue
      }
      var merged = try merge(variables, name, path)
      let axes = merged.dimensions.filter { $0 != "model" }
      let shape = axes.map { axis in dimensions[axis]?.0.count ?? 0 }
      let split = Self.place(in: axes)
      merged.values = stack(variables.map { $0?.values }, shape, at: split)
      hasModels = true
      group.variables.append(merged)
      if merged.isCoordinate || !Self.hasDifference(merged.name) { continue }
      if let values = subtract(merged.values, shape, at: split) {
        var difference = difference(of: merged)
        difference.values = values
        differences.append(difference)
      }
    }
    if hasModels && ranks.isEmpty { group.dimensions.append(modelDimension) }
    if differences.isEmpty { return (group, nil) }
    var beside = emptyDifferences(of: group)
    beside.variables = differences
    complete(&beside, for: differences, from: group)
    return (group, beside)
  }

  /// A variable of all models, nil where one lacks it, without its values.
  private func merge(
    _ parts: [ResultVariable?], _ name: String, _ path: String
  ) throws(AnalysisError) -> ResultVariable {
    let known = parts.compactMap { $0 }
    guard let first = known.first else { preconditionFailure("TwinRun: no '\(path)/\(name)'") }
    if let other = known.first(where: { $0.dimensions != first.dimensions }) {
      throw .models(
        problem: "'\(path)/\(name)' has axes \(first.dimensions) in one and \(other.dimensions) in "
          + "another; run them one by one")
    }
    var merged = first
    merged.attributes = merge(parts.map { $0?.attributes })
    let lacking = zip(names, parts).filter { $0.1 == nil }.map(\.0)
    if !lacking.isEmpty { merged.attributes["lacking_models"] = .strings(lacking) }
    merged.dimensions.insert("model", at: Self.place(in: first.dimensions))
    return merged
  }

  /// A coordinate that is the same in all models that have it; nil for anything else.
  private func sharedCoordinate(
    _ parts: [ResultVariable?], _ path: String
  ) throws(AnalysisError) -> ResultVariable? {
    let known = parts.enumerated().compactMap { model, part in part.map { (model, $0) } }
    guard let (first, variable) = known.first, variable.isCoordinate else { return nil }
    guard
      let (other, _) = known.first(where: {
        $0.1.values != variable.values || $0.1.dimensions != variable.dimensions
      })
    else { return variable }
    // What names the prompts' tokens must agree; a coordinate of another kind may be a model's own.
    if Set(variable.dimensions).isSubset(of: ["prompt", "pos"]) {
      throw .models(
        problem:
          "'\(names[first])' and '\(names[other])' have other values of '\(variable.name)' in "
          + "'\(path)': the prompts are not the same tokens to both; compare models of one vocabulary"
      )
    }
    return nil
  }

  /// Whether a difference of two models' values means anything: that of two errors or of two bounds of
  /// intervals would be taken for the error or the interval of the difference.
  private static func hasDifference(_ name: String) -> Bool {
    !["_stderr", "_ci_low", "_ci_high"].contains { name.hasSuffix($0) }
  }

  /// Whether two axes of one length hold other whole numbers, such as the neurons of the highest scores:
  /// each model's own.
  private static func areRanks(_ known: Dimension, _ dimension: Dimension) -> Bool {
    if case .integers = known.coordinates, case .integers = dimension.coordinates {
      return known.count == dimension.count && known != dimension
    }
    return false
  }

  /// What stands along an axis in each model, where it is each model's own.
  private func own(_ axis: String, _ parts: [ResultGroup?], count: Int) -> ResultVariable {
    let values = parts.flatMap { part -> [Int] in
      if case .integers(let values)? = part?[dimension: axis]?.coordinates { return values }
      return Array(repeating: -1, count: count)
    }
    return ResultVariable(
      "\(axis)_of_model", ["model", axis], .integers(values),
      longName: "what stands along '\(axis)' in each model", units: "1", isCoordinate: true)
  }

  private func requireSame(
    _ known: Dimension, of first: Int, _ dimension: Dimension, of model: Int, _ path: String
  ) throws(AnalysisError) {
    if known == dimension { return }
    let found =
      known.count == dimension.count
      ? "other places along axis '\(known.name)'"
      : "axis '\(known.name)' with \(known.count) and \(dimension.count) places"
    throw .models(
      problem:
        "'\(names[first])' and '\(names[model])' have \(found) in '\(path)'; only models of one "
        + "shape can stand side by side: run them one by one")
  }
}

// MARK: values and attributes

extension TwinRun {
  /// Values of each model, nil where one lacks them, with the models as axis `split` of `shape`.
  func stack(
    _ parts: [ResultVariable.Values?], _ shape: [Int], at split: Int
  ) -> ResultVariable.Values {
    let outer = shape[..<split].reduce(1, *)
    let inner = shape[split...].reduce(1, *)
    func stacked<Scalar>(_ parts: [[Scalar]?], fill: Scalar) -> [Scalar] {
      let blank = Array(repeating: fill, count: outer * inner)
      return (0..<outer).flatMap { row in
        parts.flatMap { ($0 ?? blank)[row * inner..<(row + 1) * inner] }
      }
    }
    for part in parts {
      switch part {
      case nil: continue
      case .float32:
        return .float32(
          stacked(
            parts.map { if case .float32(let values)? = $0 { values } else { nil } }, fill: .nan))
      case .float64:
        return .float64(
          stacked(
            parts.map { if case .float64(let values)? = $0 { values } else { nil } }, fill: .nan))
      case .integers:
        return .integers(
          stacked(
            parts.map { if case .integers(let values)? = $0 { values } else { nil } }, fill: -1))
      case .strings:
        return .strings(
          stacked(
            parts.map { if case .strings(let values)? = $0 { values } else { nil } }, fill: ""))
      }
    }
    preconditionFailure("TwinRun: values of no model")
  }

  /// Later models' values minus earlier ones', the pairs in place of the models; nil for whole numbers and
  /// text.
  private func subtract(
    _ values: ResultVariable.Values, _ shape: [Int], at split: Int
  ) -> ResultVariable.Values? {
    let outer = shape[..<split].reduce(1, *)
    let inner = shape[split...].reduce(1, *)
    func differences<Scalar: FloatingPoint>(_ values: [Scalar]) -> [Scalar] {
      (0..<outer).flatMap { row in
        self.differences(values[row * names.count * inner..<(row + 1) * names.count * inner])
      }
    }
    switch values {
    case .float32(let values): return .float32(differences(values))
    case .float64(let values): return .float64(differences(values))
    case .integers, .strings: return nil
    }
  }

  /// Differences of values that stand model by model.
  func differences<Scalar: FloatingPoint>(_ values: ArraySlice<Scalar>) -> [Scalar] {
    let inner = values.count / names.count
    return pairs.flatMap { later, earlier in
      let (new, old) = (
        values.startIndex + later * inner, values.startIndex + earlier * inner
      )
      return (0..<inner).map { values[new + $0] - values[old + $0] }
    }
  }

  /// What a variable's differences are called, without values.
  private func difference(of variable: ResultVariable) -> ResultVariable {
    var result = variable
    result.dimensions = variable.dimensions.map { $0 == "model" ? "pair" : $0 }
    result.values = .float32([])
    result.attributes["long_name"] = .string("difference between models: \(variable.longName)")
    result.attributes["sign_convention"] = .string(
      "the pair's first model minus its second: positive where the first has more")
    return result
  }

  private func emptyDifferences(of group: ResultGroup) -> ResultGroup {
    ResultGroup(
      path: Self.differencePath(group.path), dimensions: [], variables: [],
      attributes: group.attributes)
  }

  /// Adds the axes that these variables of differences have, and the coordinates along them.
  private func complete(
    _ differences: inout ResultGroup, for variables: [ResultVariable], from group: ResultGroup
  ) {
    let axes = Set(variables.flatMap(\.dimensions))
    differences.dimensions =
      group.dimensions.filter { axes.contains($0.name) } + [pairDimension]
    let coordinates = group.variables.filter {
      $0.isCoordinate && Set($0.dimensions).isSubset(of: axes)
    }
    differences.variables =
      coordinates + differences.variables.filter { !$0.isCoordinate }
  }

  private var modelDimension: Dimension { Dimension("model", .labels(names)) }

  private var pairDimension: Dimension {
    Dimension(
      "pair", .labels(pairs.map { "\(names[$0.later]) − \(names[$0.earlier])" }))
  }

  /// Attributes of all models, nil where one lacks what they belong to: those that differ as lists.
  private func merge(
    _ parts: [OrderedDictionary<String, AttributeValue>?]
  ) -> OrderedDictionary<String, AttributeValue> {
    var keys: OrderedSet<String> = []
    for part in parts { for key in part?.keys ?? [] { keys.append(key) } }
    var result: OrderedDictionary<String, AttributeValue> = [:]
    for key in keys {
      let values = parts.map { $0?[key] }
      let known = zip(parts, values).filter { $0.0 != nil }.map(\.1)
      if let first = known[0], known.allSatisfy({ $0 == first }) {
        result[key] = first
      } else if ["long_name", "units", "sign_convention"].contains(key) {
        // One text everywhere: readers count on it.
        result[key] = .string(
          zip(names, values).compactMap { name, value in value.map { "\(name): \($0)" } }
            .joined(separator: "; "))
      } else {
        result[key] = list(values)
      }
    }
    return result
  }

  private func list(_ values: [AttributeValue?]) -> AttributeValue {
    let numbers = values.compactMap { value -> Double? in
      switch value {
      case nil: .nan
      case .number(let number)?: number
      case .integer(let number)?: Double(number)
      default: nil
      }
    }
    let integers = values.compactMap { if case .integer(let value)? = $0 { value } else { nil } }
    if integers.count == values.count { return .integers(integers) }
    if numbers.count == values.count { return .numbers(numbers) }
    return .strings(values.map { $0?.description ?? "" })
  }
}
