import NormLens
import Synchronization

/// An array of golden values.
public struct GoldenArray: Sendable {
  /// The extents of its axes.
  public var shape: [Int]
  /// The values in row-major order.
  public var values: [Double]

  /// An array of values computed in a test.
  public init(_ values: [Double], shape: [Int]) {
    self.shape = shape
    self.values = values
  }

  /// The element `index` along the first axis.
  public func row(_ index: Int) -> GoldenArray {
    let rest = Array(shape.dropFirst())
    let width = rest.reduce(1, *)
    return GoldenArray(Array(values[index * width..<(index + 1) * width]), shape: rest)
  }

  /// The elements `indices` along axis `axis`.
  public func gathering(_ indices: [Int], axis: Int = 0) -> GoldenArray {
    let outer = shape[..<axis].reduce(1, *)
    let inner = shape[(axis + 1)...].reduce(1, *)
    var result: [Double] = []
    for block in 0..<outer {
      for index in indices {
        let start = (block * shape[axis] + index) * inner
        result += values[start..<start + inner]
      }
    }
    var newShape = shape
    newShape[axis] = indices.count
    return GoldenArray(result, shape: newShape)
  }

  /// The largest finite |value|.
  public var magnitude: Double {
    values.reduce(0) { $1.isFinite ? max($0, abs($1)) : $0 }
  }
}

/// The float64 values that `Tests/Golden/make_golden.py` wrote for one checkpoint; its docstring
/// says what lies where.
public final class Golden: Sendable {
  /// The checkpoint's name.
  public let name: String
  private let file: HDF5File
  private static let opened = Mutex<[String: Golden]>([:])

  /// The prompts whose hooks were all recorded.
  public static let hookPrompts = ["t1", "full", "b"]
  /// The prompts of attribution and logit lens.
  public static let attributionPrompts = ["a", "full", "b"]

  private init(_ name: String) throws {
    self.name = name
    file = try HDF5File(path: "\(Fixtures.checkpoint(name)).h5")
  }

  /// The golden values of a checkpoint.
  public static func open(_ name: String) throws -> Golden {
    try opened.withLock { opened in
      if let golden = opened[name] { return golden }
      let golden = try Golden(name)
      opened[name] = golden
      return golden
    }
  }

  /// The array at `path`.
  public func array(_ path: String) throws -> GoldenArray {
    GoldenArray(try file.doubles(path), shape: try file.info(path).shape)
  }

  /// The whole numbers at `path`.
  public func integers(_ path: String) throws -> [Int] { try file.integers(path) }

  /// The token ids of a prompt.
  public func tokens(_ prompt: String) throws -> [Int] {
    try integers("prompts/\(prompt)/tokens")
  }

  /// The value of one hook.
  public func hook(_ name: String, prompt: String) throws -> GoldenArray {
    try array("hooks/\(prompt)/\(name)")
  }

  /// The logits of a prompt.
  public func logits(_ prompt: String) throws -> GoldenArray {
    try hook("unembed.hook_out", prompt: prompt)
  }

  /// The names in a group.
  public func names(in group: String) throws -> [String] {
    try file.items(in: group).map(\.name)
  }

  /// The names of the arrays in a group.
  public func arrays(in group: String) throws -> [String] {
    try file.items(in: group).filter { $0.kind == .dataset }.map(\.name)
  }

  /// Whether there is an array or a group at `path`.
  public func contains(_ path: String) throws -> Bool { try file.contains(path) }

  /// A text attribute, empty where there is none.
  public func text(_ attribute: String, of path: String) throws -> String {
    guard case .string(let text)? = try file.attribute(attribute, of: path) else { return "" }
    return text
  }
}
