public import NormLens

/// The values of LayerNorm geometry that `Tests/Golden/make_geometry_golden.py` wrote for one model;
/// its docstring says what lies where.
public struct GeometryGolden {
  /// The models with such a file.
  public static let models = ["tiny-ln", "tiny-lnfree", "tiny-gelu-erf-rmsnorm", "mini"]

  /// The file.
  public let golden: Golden
  private let name: String

  /// Opens a model's file.
  public init(_ name: String) throws {
    self.name = name
    golden = try Golden.open("geometry-\(name)")
  }

  /// The model.
  public func model() throws -> GPT2 {
    if name == "mini" { return try GPT2.load(Fixtures.bundled(name)) }
    let ending = "-rmsnorm"
    guard name.hasSuffix(ending) else { return try GPT2.load(Fixtures.checkpoint(name)) }
    var checkpoint = try Checkpoint.open(Fixtures.checkpoint(String(name.dropLast(ending.count))))
    checkpoint.config.normalization = .rmsNorm
    return try checkpoint.model()
  }

  /// The prompts with their answers.
  public func prompts() throws -> [Prompt] {
    let (answers, wrongs) = (try golden.integers("answers"), try golden.integers("wrongs"))
    return try answers.indices.map {
      Prompt(try golden.integers("prompts/\($0)"), answer: answers[$0], wrong: wrongs[$0])
    }
  }

  /// The tokens whose way through the norms is golden, the same positions of every prompt.
  public func steps() throws -> [NormStep] {
    guard try golden.contains("steps_positions") else { return [] }
    return try golden.integers("steps_positions").map { NormStep(position: $0) }
  }

  /// The names of a group's arrays.
  public func variables(of group: String) throws -> [String] {
    guard try golden.contains(group) else { return [] }
    return try golden.names(in: group).filter {
      !["summary", "corpus", "writes", "shape", "steps"].contains($0)
    }
  }
}
