import Tensors

/// Rows in which patched runs differ from their base runs, packed into one tensor.
///
/// Each run (a *cell*) that differs at all has a range of positions; in all others it equals its
/// base. Products with a weight take the packed tensor as it is.
struct RowOverlay {
  /// One cell's rows.
  struct Entry: Equatable {
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

  /// Which rows `cell` has here.
  func own(_ cell: Int) -> OwnRows {
    entry(cell).map { OwnRows($0.positions, at: $0.start) } ?? .none
  }

  /// The rows of a layout, from here where they are and else from the bases.
  func gathered(
    _ layout: [Entry], base: (Int) throws(ModelError) -> Tensor
  ) throws(ModelError) -> RowOverlay {
    if layout == entries { return self }
    var parts: [Tensor] = []
    for wanted in layout {
      let positions = wanted.positions
      guard let entry = entry(wanted.cell), entry.positions.overlaps(positions) else {
        parts.append(try base(wanted.cell).rows(positions))
        continue
      }
      let shared = entry.positions.clamped(to: positions)
      if positions.lowerBound < shared.lowerBound {
        parts.append(try base(wanted.cell).rows(positions.lowerBound..<shared.lowerBound))
      }
      let offset = entry.start + shared.lowerBound - entry.positions.lowerBound
      parts.append(rows.rows(offset..<offset + shared.count))
      if shared.upperBound < positions.upperBound {
        parts.append(try base(wanted.cell).rows(shared.upperBound..<positions.upperBound))
      }
    }
    return RowOverlay(parts.isEmpty ? rows.rows(0..<0) : Tensor.concatenating(parts), layout)
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
