import OrderedCollections
import Results

/// Which positions a sweep patches, and how the positions of different prompts correspond.
public enum PatchPositions: Sendable, Equatable {
  /// Every position; the prompts of a set must have one length.
  case all
  /// Every position, counted from the end: −1 is where the answer is read. Prompts may differ in
  /// length; cells before a prompt's beginning are not computed.
  case fromEnd
  /// The positions that have a name in every prompt (`S2`, `END`).
  case labels
  /// Some positions.
  case at([Place])

  /// One position.
  public enum Place: Sendable, Equatable, CustomStringConvertible {
    /// By number; negative ones count from the end.
    case index(Int)
    /// By its name.
    case label(String)

    /// How a person would write it.
    public var description: String {
      switch self {
      case .index(let index): String(index)
      case .label(let label): label
      }
    }
  }
}

extension PatchPositions: CustomStringConvertible {
  /// How a person would write them.
  public var description: String {
    switch self {
    case .all, .fromEnd: "all"
    case .labels: "all with a name"
    case .at(let places): places.map(\.description).joined(separator: ",")
    }
  }
}

/// The positions of a sweep's axis in every prompt.
struct PositionSlots {
  /// What stands along the axis.
  let coordinates: Dimension.Coordinates
  /// The position of each slot in each prompt, nil where the prompt has none; `[prompt][slot]`.
  let positions: [[Int?]]

  var count: Int { Dimension("pos", coordinates).count }

  private init(_ coordinates: Dimension.Coordinates, _ positions: [[Int?]]) {
    self.coordinates = coordinates
    self.positions = positions
  }

  /// Finds the positions.
  ///
  /// - Parameter sweeps: whether any sweep has an axis of positions; if not, prompts may have any
  ///   length.
  /// - Throws: `AnalysisError.alignment` where prompts do not correspond.
  init(
    _ choice: PatchPositions, _ pairs: [PromptPair], sweeps: Bool
  ) throws(AnalysisError) {
    let longest = pairs.map(\.length).max() ?? 0
    switch choice {
    case .all:
      if sweeps, let other = pairs.firstIndex(where: { $0.length != pairs[0].length }) {
        throw .alignment(
          analysis: "patch",
          problem: "prompt 0 has \(pairs[0].length) tokens, prompt \(other) has "
            + "\(pairs[other].length), so that positions do not correspond; align them by their "
            + "labels (--align label) or from the end (--align end), or make sets of one length")
      }
      self.init(
        .indices(longest),
        pairs.map { pair in (0..<longest).map { $0 < pair.length ? $0 : nil } })
    case .fromEnd:
      self.init(
        .integers(Array(-longest..<0)),
        pairs.map { pair in
          (-longest..<0).map { $0 + pair.length >= 0 ? $0 + pair.length : nil }
        })
    case .labels:
      guard let first = pairs.first, !first.positions.isEmpty else {
        throw .alignment(
          analysis: "patch", problem: "prompt 0 names no positions, which --align label needs")
      }
      let labels = Array(first.positions.keys)
      self.init(.labels(labels), try Self.labelled(labels, pairs))
    case .at(let places):
      try self.init(places, pairs)
    }
  }

  /// Chosen positions.
  private init(
    _ places: [PatchPositions.Place], _ pairs: [PromptPair]
  ) throws(AnalysisError) {
    if places.isEmpty { throw .alignment(analysis: "patch", problem: "no positions are chosen") }
    var all: [[Int?]] = pairs.map { _ in [] }
    for place in places {
      switch place {
      case .label(let label):
        for (prompt, position) in try Self.labelled([label], pairs).enumerated() {
          all[prompt] += position
        }
      case .index(let index):
        if index >= 0, let other = pairs.first(where: { $0.length != pairs[0].length }) {
          throw .alignment(
            analysis: "patch",
            problem:
              "position \(index) of prompts of \(pairs[0].length) and \(other.length) tokens: "
              + "positions counted from the beginning do not correspond; count from the end (-1) or "
              + "give names")
        }
        for (prompt, pair) in pairs.enumerated() {
          let position = index < 0 ? index + pair.length : index
          guard position >= 0 && position < pair.length else {
            throw .alignment(
              analysis: "patch",
              problem: "prompt \(prompt) has no position \(index); expected -\(pair.length) to "
                + "\(pair.length - 1)")
          }
          all[prompt].append(position)
        }
      }
    }
    for (prompt, row) in all.enumerated() where Set(row).count != row.count {
      throw .alignment(
        analysis: "patch",
        problem: "two of the chosen positions \(places.map(\.description).joined(separator: ", ")) "
          + "are one position of prompt \(prompt)")
    }
    let numbers = places.compactMap { if case .index(let index) = $0 { index } else { nil } }
    self.init(
      numbers.count == places.count ? .integers(numbers) : .labels(places.map(\.description)), all)
  }

  private static func labelled(
    _ labels: [String], _ pairs: [PromptPair]
  ) throws(AnalysisError) -> [[Int?]] {
    var result: [[Int?]] = []
    for (prompt, pair) in pairs.enumerated() {
      var row: [Int?] = []
      for label in labels {
        guard let position = pair.positions[label] else {
          let known = pair.positions.keys.joined(separator: ", ")
          throw .alignment(
            analysis: "patch",
            problem: "prompt \(prompt) has no position '\(label)'; it has "
              + (known.isEmpty ? "none with a name" : known))
        }
        row.append(position)
      }
      result.append(row)
    }
    return result
  }
}
