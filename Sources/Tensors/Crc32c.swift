/// The CRC-32C (Castagnoli) checksum of bytes: reflected, initial value and final XOR all ones.
///
/// `crc32c` of the ASCII text `123456789` is `0xE3069283`.
///
/// - Parameters:
///   - data: the bytes.
///   - seed: the checksum of the bytes before these; 0 if there are none.
public func crc32c(_ data: UnsafeRawBufferPointer, seed: UInt32 = 0) -> UInt32 {
  crcTables.withUnsafeBufferPointer { table in
    var crc = ~seed
    var position = 0
    // Eight bytes a step; table k advances a byte past k others.
    while position + 8 <= data.count {
      let word = UInt64(
        littleEndian: data.loadUnaligned(fromByteOffset: position, as: UInt64.self))
        ^ UInt64(crc)
      var next: UInt32 = 0
      for k in 0..<8 {
        next ^= table[(7 - k) * 256 + Int(truncatingIfNeeded: (word >> UInt64(8 * k)) & 0xff)]
      }
      crc = next
      position += 8
    }
    while position < data.count {
      crc = table[Int((crc ^ UInt32(data[position])) & 0xff)] ^ (crc >> 8)
      position += 1
    }
    return ~crc
  }
}

private let crcTables: [UInt32] = {
  var table = [UInt32](repeating: 0, count: 8 * 256)
  for byte in 0..<256 {
    var crc = UInt32(byte)
    for _ in 0..<8 { crc = crc & 1 == 1 ? 0x82F6_3B78 ^ (crc >> 1) : crc >> 1 }
    table[byte] = crc
  }
  for k in 1..<8 {
    for byte in 0..<256 {
      let previous = table[(k - 1) * 256 + byte]
      table[k * 256 + byte] = table[Int(previous & 0xff)] ^ (previous >> 8)
    }
  }
  return table
}()
