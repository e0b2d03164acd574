import Tensors

/// Rows in which patched runs differ from their base runs, packed into one tensor.
///
/// Each run (a *cell*) that differs at all has a range of positions; in all others it equals its
/// base. Products with a weight take the packed tensor as it is.
struct RowOverlay {
  /// One cell's rows.
  struct Entry {
    /// Which cell.
    var cell: Int
    /// Its positions.
    var positions: Range<Int>
    /// Where they start in the packed tensor.
    var start: Int
  }

  /// The rows, shape `[rows, …]`.
  var rows: Tensor
  /// The entries, ascending in cell and in place.
  private(set) var entries: [Entry] = []

  /// The cells' positions laid out one after another.
  static func layout(_ wanted: [(cell: Int, positions: Range<Int>)]) -> [Entry] {
    var start = 0
    return wanted.map { cell, positions in
      defer { start += positions.count }
      return Entry(cell: cell, positions: positions, start: start)
    }
  }

  /// Rows in a layout.
  init(_ rows: Tensor, _ entries: [Entry]) {
    self.rows = rows
    self.entries = entries
  }

  /// No rows, of a width.
  init(empty shape: [Int]) { rows = Tensor(zeros: [0] + shape) }

  var isEmpty: Bool { entries.isEmpty }

  /// The entry of `cell`, if it differs from its base.
  func entry(_ cell: Int) -> Entry? {
    var (low, high) = (0, entries.count)
    while low < high {
      let middle = (low + high) / 2
      if entries[middle].cell < cell { low = middle + 1 } else { high = middle }
    }
    return low < entries.count && entries[low].cell == cell ? entries[low] : nil
  }

  /// The rows of a cell at `positions`, from here where they are and else from its base.
  func copy(
    _ cell: Int, _ positions: Range<Int>, base: Tensor, into target: inout Tensor, at start: Int
  ) {
    guard let entry = entry(cell), entry.positions.overlaps(positions) else {
      target.replaceRows(at: start, with: base.rows(positions))
      return
    }
    let shared = entry.positions.clamped(to: positions)
    if positions.lowerBound < shared.lowerBound {
      target.replaceRows(at: start, with: base.rows(positions.lowerBound..<shared.lowerBound))
    }
    let offset = entry.start + shared.lowerBound - entry.positions.lowerBound
    target.replaceRows(
      at: start + shared.lowerBound - positions.lowerBound,
      with: rows.rows(offset..<offset + shared.count))
    if shared.upperBound < positions.upperBound {
      target.replaceRows(
        at: start + shared.upperBound - positions.lowerBound,
        with: base.rows(shared.upperBound..<positions.upperBound))
    }
  }

  /// The rows of a layout, from here where they are and else from the bases.
  func gathered(
    _ layout: [Entry], base: (Int) throws(ModelError) -> Tensor
  ) throws(ModelError) -> RowOverlay {
    let count = layout.last.map { $0.start + $0.positions.count } ?? 0
    var target = Tensor(uninitialized: [count] + rows.shape.dropFirst())
    for entry in layout {
      copy(
        entry.cell, entry.positions, base: try base(entry.cell), into: &target, at: entry.start)
    }
    return RowOverlay(target, layout)
  }

  /// The rows of an entry.
  func rows(of entry: Entry) -> Tensor {
    rows.rows(entry.start..<entry.start + entry.positions.count)
  }

  /// All of a cell's rows; its base's own tensor where it does not differ.
  func whole(
    _ cell: Int, base: (Int) throws(ModelError) -> Tensor
  ) throws(ModelError) -> Tensor {
    var value = try base(cell)
    if let entry = entry(cell) {
      value.replaceRows(at: entry.positions.lowerBound, with: rows(of: entry))
    }
    return value
  }

  /// One cell's rows by themselves.
  typealias Piece = (cell: Int, positions: Range<Int>, rows: Tensor)

  /// These rows, with the rows of some cells in place of their own.
  func replacing(_ pieces: [Piece]) -> RowOverlay {
    if pieces.isEmpty { return self }
    let replaced = Set(pieces.map(\.cell))
    var all = pieces
    for entry in entries where !replaced.contains(entry.cell) {
      all.append((entry.cell, entry.positions, rows(of: entry)))
    }
    all.sort { $0.cell < $1.cell }
    return RowOverlay(
      Tensor.concatenating(all.map(\.rows)),
      RowOverlay.layout(all.map { ($0.cell, $0.positions) }))
  }
}
