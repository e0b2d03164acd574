public import NormLens

/// The values of evaluations that `Tests/Golden/make_evaluate_golden.py` wrote for one model; its
/// docstring says what lies where.
public struct EvaluationGolden {
  /// The file.
  public let golden: Golden
  private let name: String

  /// The models with such a file.
  public static let models = GeometryGolden.models

  /// Opens a model's file.
  public init(_ name: String) throws {
    self.name = name
    golden = try Golden.open("evaluate-\(name)")
  }

  /// The model.
  public func model() throws -> GPT2 { try Self.model(name) }

  /// The second model.
  public func against() throws -> GPT2 {
    let name = try golden.text("against", of: "/")
    return name.hasPrefix("mini")
      ? try GPT2.load(Fixtures.bundled(name)) : try GPT2.load(Fixtures.checkpoint(name))
  }

  /// The prompts.
  public func prompts() throws -> [Prompt] {
    try golden.names(in: "prompts").sorted().map {
      Prompt(try golden.integers("prompts/\($0)"))
    }
  }

  /// The tokens that are left out.
  public func skipped() throws -> Set<Int> {
    try golden.contains("skipped") ? Set(golden.integers("skipped")) : []
  }

  /// The names of a group's arrays.
  public func variables(of group: String) throws -> [String] {
    guard try golden.contains(group) else { return [] }
    return try golden.names(in: group).filter {
      !["calibration", "position", "worst", "freeze", "rest"].contains($0)
    }
  }

  private static func model(_ name: String) throws -> GPT2 {
    try GeometryGolden(name).model()
  }
}
