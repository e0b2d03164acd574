public import NormLens

/// The sweeps of activation patching that `Tests/Golden/make_patching_golden.py` wrote for one
/// checkpoint; its docstring says what lies where.
public struct PatchingGolden {
  /// One sweep, by its attributes.
  public struct Sweep {
    /// Where it lies in the file.
    public let path: String
    /// The set of its pairs.
    public let set: String
    /// `denoising` or `noising`.
    public let direction: String
    /// The metric's name.
    public let metric: String
    /// `other_run`, `zero`, `mean` or `position_mean`.
    public let replacement: String
    /// How many layers a cell overwrites.
    public let window: Int
    /// `all`, or `first`: only the first answer and wrong token of each pair.
    public let answers: String
    /// The sites swept.
    public let sites: [String]
    /// How the effects are estimated; empty where they are exact.
    public let method: String
    /// The steps of integrated gradients; 0 for other methods.
    public let steps: Int
  }

  /// The checkpoints with such a file.
  public static let checkpoints = ["tiny-ln", "tiny-lnfree", "patching-deep"]

  /// The file.
  public let golden: Golden

  /// Opens a checkpoint's file.
  public init(_ name: String) throws {
    golden = try Golden.open(name.hasPrefix("patching-") ? name : "patching-\(name)")
  }

  /// Every exact sweep.
  public func sweeps() throws -> [Sweep] { try Self.sweeps(in: golden) }

  /// The sweeps of a file: of this one or of estimates that `Tests/Golden/make_gradient_golden.py`
  /// wrote.
  public static func sweeps(in golden: Golden) throws -> [Sweep] {
    try golden.names(in: "sweeps").map { name in
      let path = "sweeps/\(name)"
      func text(_ attribute: String) throws -> String { try golden.text(attribute, of: path) }
      let others = ["clean_metric", "corrupted_metric"]
      return Sweep(
        path: path, set: try text("set"), direction: try text("direction"),
        metric: try text("metric"), replacement: try text("replacement"),
        window: Int(try text("window")) ?? 0, answers: try text("answers"),
        sites: try golden.names(in: path).filter {
          !$0.hasSuffix("_normalized") && !others.contains($0)
        },
        method: try text("method"), steps: Int(try text("steps")) ?? 0)
    }
  }

  /// The pairs of a set.
  ///
  /// - Parameter answers: as in `Sweep`.
  public func pairs(_ set: String, answers: String = "all") throws -> [PromptPair] {
    try golden.names(in: "sets/\(set)").map { index in
      func tokens(_ name: String) throws -> [Int] {
        try golden.integers("sets/\(set)/\(index)/\(name)")
      }
      let count = answers == "first" ? 1 : Int.max
      return PromptPair(
        clean: try tokens("clean"), corrupted: try tokens("corrupted"),
        answer: Array(try tokens("answer").prefix(count)),
        wrong: Array(try tokens("wrong").prefix(count)))
    }
  }

  /// The reference prompts `seven` or `ragged`.
  public func references(_ name: String) throws -> [[Int]] {
    try golden.names(in: "references/\(name)").map {
      try golden.integers("references/\(name)/\($0)")
    }
  }
}
