public import NormLens

/// The values of LayerNorm geometry, or of another analysis of the same models, that
/// `Tests/Golden/make_geometry_golden.py` (`make_stream_golden.py`, …) wrote for one model; the script's
/// docstring says what lies where.
public struct GeometryGolden {
  /// The models with such a file.
  public static let models = ["tiny-ln", "tiny-lnfree", "tiny-gelu-erf-rmsnorm", "mini"]

  /// The file.
  public let golden: Golden
  private let name: String

  /// Opens a model's file of an analysis.
  public init(_ name: String, of analysis: String = "geometry") throws {
    self.name = name
    golden = try Golden.open("\(analysis)-\(name)")
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
    guard try golden.contains("answers") else {
      return try golden.names(in: "prompts").indices.map {
        Prompt(try golden.integers("prompts/\($0)"))
      }
    }
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
    return try golden.arrays(in: group)
  }
}
