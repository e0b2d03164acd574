public import Tensors

/// A change of an activation while a model runs.
///
/// An intervention acts on the value that arrives at its hook; whatever is computed or recorded
/// later sees the result. Several at one hook act in the order in which they are given. The model
/// itself never changes.
///
/// ```swift
/// .zero(.z(layer: 5, head: 1))
/// .replace(.residPre(2).at(-1), with: clean)
/// .edit(.residPre(2)) { stream in … }
/// ```
public struct Intervention: Sendable {
  enum Operation: Sendable {
    case edit(@Sendable (inout Tensor) throws -> Void)
    case replace(Tensor)
    case add(Tensor)
    case zero
    case mean
  }

  /// Which activations, positions and head.
  public let target: HookFilter
  /// The one prompt of a batch that is meant; nil for all.
  public let prompt: Int?
  let operation: Operation

  private init(_ target: HookFilter, _ operation: Operation, prompt: Int?) {
    self.target = target
    self.operation = operation
    self.prompt = prompt
  }

  /// Changes the activation by a closure, which sees one prompt at a time.
  ///
  /// The tensor has the site's shape (`[pos, d_model]`, `[pos, head, d_head]`,
  /// `[head, query_pos, key_pos]`) and must keep it; where `target` names positions or a head, only
  /// that part of what the closure did is taken.
  public static func edit(
    _ target: HookFilter, prompt: Int? = nil,
    _ body: @escaping @Sendable (inout Tensor) throws -> Void
  ) -> Intervention {
    Intervention(target, .edit(body), prompt: prompt)
  }

  /// Puts `value` in the activation's place.
  ///
  /// - Parameter value: the site's whole shape (only the selected part is used), or the shape of
  ///   the selected part, or that without the positions' axis (the same at every position).
  public static func replace(
    _ target: HookFilter, with value: Tensor, prompt: Int? = nil
  ) -> Intervention {
    Intervention(target, .replace(value), prompt: prompt)
  }

  /// Adds `value` to the activation; shapes as for `replace`.
  public static func add(
    _ target: HookFilter, _ value: Tensor, prompt: Int? = nil
  ) -> Intervention {
    Intervention(target, .add(value), prompt: prompt)
  }

  /// Sets the activation to zero.
  public static func zero(_ target: HookFilter, prompt: Int? = nil) -> Intervention {
    Intervention(target, .zero, prompt: prompt)
  }

  /// Sets the activation to its own mean over all positions of the prompt.
  ///
  /// For the mean over a set of prompts use `GPT2.meanActivation(_:over:)` and `replace`.
  public static func mean(_ target: HookFilter, prompt: Int? = nil) -> Intervention {
    Intervention(target, .mean, prompt: prompt)
  }

  /// Puts every activation of `sites` recorded in `cache` in its place again.
  ///
  /// - Throws: `ModelError.notRecorded` where `cache` has none of a site.
  public static func freeze(
    _ sites: [Site], to cache: ActivationCache
  ) throws(ModelError) -> [Intervention] {
    var result: [Intervention] = []
    for site in sites {
      let names = cache.names.filter { $0.site == site }
      if names.isEmpty {
        throw .notRecorded(hook: site.rawValue, recorded: cache.names.map(\.rawValue))
      }
      for name in names {
        for prompt in 0..<cache.promptCount {
          result.append(
            .replace(
              HookFilter(name), with: try cache.tensor(name, prompt: prompt),
              prompt: cache.promptCount == 1 ? nil : prompt))
        }
      }
    }
    return result
  }

  /// This intervention with its negative positions counted from the end of a text of `length`
  /// tokens, whatever longer text it then acts on.
  ///
  /// - Throws: `ModelError.nothingMatches` where a position lies outside the text.
  public func positioned(inTextOf length: Int) throws(ModelError) -> Intervention {
    guard case .at = target.positions else { return self }
    let positions = try target.positions.resolved(length: length, hook: target.description)
    return Intervention(target.at(.at(positions)), operation, prompt: prompt)
  }

  /// Keeps every LayerNorm's or RMSNorm's scale at what it was in the run that `cache` recorded.
  ///
  /// - Throws: `ModelError.notRecorded` where `cache` lacks a scale.
  public static func freezeLayerNorm(_ cache: ActivationCache) throws(ModelError) -> [Intervention]
  {
    try freeze([.ln1Scale, .ln2Scale, .lnFinalScale], to: cache)
  }

  /// Keeps every attention pattern at what it was in the run that `cache` recorded.
  ///
  /// - Throws: `ModelError.notRecorded` where `cache` lacks the patterns.
  public static func freezePattern(_ cache: ActivationCache) throws(ModelError) -> [Intervention] {
    try freeze([.pattern], to: cache)
  }
}

/// The cells of one prompt's activation that an intervention changes.
///
/// A cell is the innermost axis at one position and head: `[d_head]` of `z`, one query's row of a
/// pattern, `[d_model]` of the stream; or one element of it.
struct InterventionCells {
  let positions: [Int]
  let heads: Range<Int>
  /// All heads and positions of the tensor.
  let allHeads: Int
  let length: Int
  /// How many scalars a cell has.
  let width: Int
  /// The extent of the innermost axis, and where in it a cell starts.
  let stride: Int
  let offset: Int
  let attention: Bool

  init(site: Site, target: HookFilter, shape: [Int], hook: String) throws(ModelError) {
    attention = site.isAttention
    let hasHeads = site.hasHeadAxis
    length = attention ? shape[1] : shape[0]
    allHeads = attention ? shape[0] : hasHeads ? shape[1] : 1
    stride = shape[shape.count - 1]
    if let element = target.element {
      guard element >= 0 && element < stride else {
        throw .nothingMatches(
          filter: target.description, reason: "'\(hook)' has elements 0 to \(stride - 1)")
      }
      (offset, width) = (element, 1)
    } else {
      (offset, width) = (0, stride)
    }
    positions = try target.positions.resolved(length: length, hook: hook)
    if Set(positions).count != positions.count {
      throw .intervention(hook: hook, problem: "a position is named twice in \(target.positions)")
    }
    heads = target.head.map { $0..<$0 + 1 } ?? 0..<allHeads
  }

  /// Where the cell of `position` and `head` starts in a tensor of the site's whole shape.
  func start(_ position: Int, _ head: Int) -> Int {
    (attention ? head * length + position : position * allHeads + head) * stride + offset
  }
}

extension Intervention {
  /// Carries the intervention out on one prompt's activation.
  func apply(to value: inout Tensor, at name: HookName) throws {
    let cells = try InterventionCells(
      site: name.site, target: target, shape: value.shape, hook: name.rawValue)
    switch operation {
    case .zero:
      write(cells, into: &value, from: Tensor(zeros: [cells.width])) { _, _ in 0 }
    case .replace(let source):
      let start = try sourceCells(source, cells, value.shape, name)
      write(cells, into: &value, from: source, start)
    case .add(let source):
      let start = try sourceCells(source, cells, value.shape, name)
      write(cells, into: &value, from: source, adding: true, start)
    case .mean:
      let means = positionMeans(value, cells)
      write(cells, into: &value, from: means) { _, head in head * cells.width }
    case .edit(let body):
      var edited = value
      try body(&edited)
      guard edited.shape == value.shape else {
        throw ModelError.intervention(
          hook: name.rawValue,
          problem: "the edit changed shape \(value.shape) to \(edited.shape)")
      }
      if target.head == nil && target.positions == .all && target.element == nil {
        value = edited
      } else {
        write(cells, into: &value, from: edited) { cells.start(cells.positions[$0], $1) }
      }
    }
  }

  /// Copies (or adds) cells; `start` gives where a cell lies in `source` by the index of its
  /// position in the selection and its head.
  private func write(
    _ cells: InterventionCells, into value: inout Tensor, from source: Tensor,
    adding: Bool = false, _ start: (Int, Int) -> Int
  ) {
    let source = source.span
    var target = value.mutableSpan
    for (index, position) in cells.positions.enumerated() {
      for head in cells.heads {
        let (from, to) = (start(index, head), cells.start(position, head))
        if adding {
          for i in 0..<cells.width { target[to + i] += source[from + i] }
        } else {
          for i in 0..<cells.width { target[to + i] = source[from + i] }
        }
      }
    }
  }

  /// How a given value lies against the selected cells.
  private func sourceCells(
    _ source: Tensor, _ cells: InterventionCells, _ shape: [Int], _ name: HookName
  ) throws(ModelError) -> (Int, Int) -> Int {
    let (width, heads) = (cells.width, cells.heads)
    if source.shape == shape { return { cells.start(cells.positions[$0], $1) } }
    // The selected part, and the same without the positions' axis.
    let headAxis = target.head == nil && shape.count == 3 ? [heads.count] : []
    let selected =
      cells.attention
      ? headAxis + [cells.positions.count, width] : [cells.positions.count] + headAxis + [width]
    if source.shape == selected {
      let positions = cells.positions.count
      return cells.attention
        ? { (($1 - heads.lowerBound) * positions + $0) * width }
        : { ($0 * heads.count + $1 - heads.lowerBound) * width }
    }
    let everywhere = headAxis + [width]
    if source.shape == everywhere { return { ($1 - heads.lowerBound) * width } }
    throw .intervention(
      hook: name.rawValue,
      problem: "a value of shape \(source.shape); expected \(shape), \(selected) or \(everywhere)")
  }

  /// The mean over positions, shape `[head, width]`.
  private func positionMeans(_ value: Tensor, _ cells: InterventionCells) -> Tensor {
    var means = Tensor(zeros: [cells.allHeads, cells.width])
    let source = value.span
    var target = means.mutableSpan
    for head in 0..<cells.allHeads {
      for i in 0..<cells.width {
        var sum = 0.0
        for position in 0..<cells.length { sum += Double(source[cells.start(position, head) + i]) }
        target[head * cells.width + i] = Float(sum / Double(cells.length))
      }
    }
    return means
  }
}
