/// Conversions between float32 and the two 16-bit formats, exact where the target is wider.
enum HalfPrecision {
  /// Widens IEEE half-precision bits.
  ///
  /// The exponent moves to float32's place, and one multiplication by 2^112 corrects its bias for
  /// normal and subnormal numbers alike; unlike `Float(Float16)` this loop needs no call and
  /// vectorises.
  @inline(__always)
  static func float(half bits: UInt16) -> Float {
    let sign = UInt32(bits & 0x8000) << 16
    let magnitude = UInt32(bits & 0x7fff)
    let scaled = Float(bitPattern: magnitude << 13) * 0x1p112
    let special: UInt32 = magnitude >= 0x7c00 ? 0x7f80_0000 : 0
    return Float(bitPattern: scaled.bitPattern | special | sign)
  }

  /// Widens bfloat16 bits: the upper half of a float32.
  @inline(__always)
  static func float(bfloat bits: UInt16) -> Float { Float(bitPattern: UInt32(bits) << 16) }

  /// Widens little-endian 16-bit numbers, of any alignment.
  static func widen(
    _ source: UnsafeRawBufferPointer, into target: UnsafeMutableBufferPointer<Float>,
    isBFloat: Bool
  ) {
    let count = min(source.count / 2, target.count)
    if isBFloat {
      for index in 0..<count {
        let bits = source.loadUnaligned(fromByteOffset: 2 * index, as: UInt16.self)
        target[index] = float(bfloat: UInt16(littleEndian: bits))
      }
    } else {
      for index in 0..<count {
        let bits = source.loadUnaligned(fromByteOffset: 2 * index, as: UInt16.self)
        target[index] = float(half: UInt16(littleEndian: bits))
      }
    }
  }

  /// Half-precision bits of float32 numbers, rounded to nearest even; nil if a finite one overflows.
  static func narrowed(_ source: UnsafeBufferPointer<Float>) -> [UInt16]? {
    var overflow = false
    let bits = source.map { value in
      let half = Float16(value)
      if half.isInfinite && value.isFinite { overflow = true }
      return half.bitPattern.littleEndian
    }
    return overflow ? nil : bits
  }

  /// The upper halves of float32 numbers, rounded to nearest even; nil if a finite one overflows.
  static func narrowedToBFloat(_ source: UnsafeBufferPointer<Float>) -> [UInt16]? {
    var overflow = false
    let halves = source.map { value in
      let bits = value.bitPattern
      // A NaN keeps its sign and stays one.
      if value.isNaN { return UInt16(truncatingIfNeeded: bits >> 16) | 0x40 }
      let rounded = bits &+ 0x7fff &+ (bits >> 16 & 1)
      if rounded & 0x7f80_0000 == 0x7f80_0000 && value.isFinite { overflow = true }
      return UInt16(truncatingIfNeeded: rounded >> 16).littleEndian
    }
    return overflow ? nil : halves
  }
}
