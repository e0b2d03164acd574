/// An array cut into pieces of a bounded size that follow each other in row-major order, for what is
/// read and written piece by piece.
///
/// A piece is whole along as many of the last axes as fit, so that the scalars of all pieces, one
/// piece behind the other, are those of the array in order.
package struct ArrayPieces: Sequence, IteratorProtocol, Sendable {
  private let shape: [Int]
  private let piece: [Int]
  private var start: [Int]?

  /// The pieces of an array of this shape, with at most `maximumCount` scalars each, at least one.
  package init(shape: [Int], maximumCount: Int) {
    var piece = shape
    for axis in shape.indices {
      let rest = shape[(axis + 1)...].reduce(1, *)
      piece[axis] = Swift.min(shape[axis], Swift.max(1, maximumCount / Swift.max(1, rest)))
      if piece[axis] > 1 || shape[axis] <= 1 && rest <= maximumCount { break }
    }
    self.shape = shape
    self.piece = piece
    start = shape.contains(0) ? nil : shape.map { _ in 0 }
  }

  /// The next piece: its range along each axis.
  package mutating func next() -> [Range<Int>]? {
    guard let place = start else { return nil }
    let ranges = shape.indices.map {
      place[$0]..<Swift.min(shape[$0], place[$0] + piece[$0])
    }
    var following = place
    start = nil
    for axis in shape.indices.reversed() {
      following[axis] += piece[axis]
      if following[axis] < shape[axis] {
        start = following
        break
      }
      following[axis] = 0
    }
    return ranges
  }
}
