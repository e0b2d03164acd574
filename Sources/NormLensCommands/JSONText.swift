import Foundation
import NormLens

/// Results and small records as JSON text.
enum JSONText {
  /// A result: provenance, and each group's axes, attributes and variables with nested values.
  static func text(_ result: ResultSet) -> String {
    var members = [("title", quoted(result.title))]
    members += result.provenance.facts.map { ($0.key, text($0.value)) }
    members += result.groups.map { group in
      let axes = group.dimensions.map { dimension in
        let labels =
          switch dimension.coordinates {
          case .indices(let count): "\(count)"
          case .integers(let values): list(values.map { "\($0)" })
          case .labels(let values): list(values.map(quoted))
          }
        return (dimension.name, labels)
      }
      let variables = group.variables.map { variable in
        let attributes = variable.attributes.map { ($0.key, text($0.value)) }
        return (
          variable.name,
          object([
            ("axes", list(variable.dimensions.map(quoted))), ("attributes", object(attributes)),
            ("values", nested(scalars(variable.values)[...], group.shape(of: variable)[...])),
          ])
        )
      }
      return (
        group.path,
        object([
          ("axes", object(axes)),
          ("attributes", object(group.attributes.map { ($0.key, text($0.value)) })),
          ("variables", object(variables)),
        ])
      )
    }
    return object(members)
  }

  static func object(_ members: [(String, String)]) -> String {
    "{" + members.map { "\(quoted($0.0)): \($0.1)" }.joined(separator: ", ") + "}"
  }

  static func list(_ elements: [String]) -> String {
    "[" + elements.joined(separator: ", ") + "]"
  }

  /// A number as JSON has it; NaN and infinities, which JSON lacks, are null.
  static func number(_ value: Double) -> String {
    value.isFinite ? "\(value)" : "null"
  }

  static func quoted(_ text: String) -> String { JSONValue.quoted(text) }

  private static func text(_ value: AttributeValue) -> String {
    switch value {
    case .string(let text): quoted(text)
    case .integer(let value): "\(value)"
    case .number(let value): number(value)
    case .strings(let values): list(values.map(quoted))
    case .integers(let values): list(values.map { "\($0)" })
    case .numbers(let values): list(values.map(number))
    }
  }

  private static func scalars(_ values: ResultVariable.Values) -> [String] {
    switch values {
    case .float32(let values): values.map { $0.isFinite ? "\($0)" : "null" }
    case .float64(let values): values.map(number)
    case .integers(let values): values.map { "\($0)" }
    case .strings(let values): values.map(quoted)
    }
  }

  private static func nested(_ values: ArraySlice<String>, _ shape: ArraySlice<Int>) -> String {
    guard let extent = shape.first else { return values.first ?? "null" }
    let step = extent == 0 ? 0 : values.count / extent
    return list(
      (0..<extent).map { index in
        let start = values.startIndex + index * step
        return nested(values[start..<start + step], shape.dropFirst())
      })
  }
}
