import Dispatch
import Tensors

/// CRC-32C of several byte ranges at once, on all cores.
///
/// Ranges are cut into pieces, because one embedding matrix is a third of a small model; the
/// pieces' checksums are then combined, which needs no second look at the bytes.
enum ParallelChecksums {
  /// The bytes of a piece.
  static let pieceBytes = 4 << 20

  private struct Piece {
    let range: Int
    let bytes: UnsafeRawBufferPointer
  }

  /// The checksum of each range, in order.
  static func crc32c(of ranges: [UnsafeRawBufferPointer]) -> [UInt32] {
    var pieces: [Piece] = []
    for (index, range) in ranges.enumerated() {
      var start = 0
      while start < range.count {
        let end = min(start + pieceBytes, range.count)
        let bytes = UnsafeRawBufferPointer(rebasing: range[start..<end])
        pieces.append(Piece(range: index, bytes: bytes))
        start = end
      }
    }
    let sums = [UInt32](unsafeUninitializedCapacity: pieces.count) { buffer, count in
      // Each iteration writes its own element and reads memory that nobody writes.
      nonisolated(unsafe) let buffer = buffer
      nonisolated(unsafe) let pieces = pieces
      DispatchQueue.concurrentPerform(iterations: pieces.count) { index in
        buffer.initializeElement(at: index, to: Tensors.crc32c(pieces[index].bytes))
      }
      count = pieces.count
    }
    let shift = Crc32cShift(bytes: pieceBytes)
    var result = [UInt32](repeating: 0, count: ranges.count)
    for (piece, sum) in zip(pieces, sums) {
      let step = piece.bytes.count == pieceBytes ? shift : Crc32cShift(bytes: piece.bytes.count)
      result[piece.range] = step.combine(result[piece.range], sum)
    }
    return result
  }
}

/// What appending a number of bytes does to a CRC-32C, as a polynomial.
///
/// A CRC is the remainder of a polynomial over GF(2); appending n bytes multiplies it by x^(8n).
/// Bits are reflected: the highest bit of a word is x^0.
struct Crc32cShift {
  private let factor: UInt32

  init(bytes: Int) {
    var factor: UInt32 = 1 << 31
    var power: UInt32 = 1 << 23  // x^8
    var remaining = bytes
    while remaining > 0 {
      if remaining & 1 == 1 { factor = Crc32cShift.multiply(factor, power) }
      power = Crc32cShift.multiply(power, power)
      remaining >>= 1
    }
    self.factor = factor
  }

  /// The checksum of a first part and a second one of this many bytes, from their checksums.
  func combine(_ first: UInt32, _ second: UInt32) -> UInt32 {
    Crc32cShift.multiply(factor, first) ^ second
  }

  private static func multiply(_ a: UInt32, _ b: UInt32) -> UInt32 {
    var product: UInt32 = 0
    var b = b
    var bit: UInt32 = 1 << 31
    while bit != 0 {
      if a & bit != 0 { product ^= b }
      b = b & 1 == 1 ? (b >> 1) ^ 0x82F6_3B78 : b >> 1
      bit >>= 1
    }
    return product
  }
}
