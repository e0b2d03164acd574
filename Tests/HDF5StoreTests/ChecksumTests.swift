import Tensors
import Testing

@testable import HDF5Store

@Suite struct ChecksumTests {
  @Test func crc32cOfTheStandardText() {
    let sum = Array("123456789".utf8).withUnsafeBytes { crc32c($0) }
    #expect(sum == 0xE306_9283)
  }

  @Test func crc32cContinuesFromASeed() {
    let bytes = (0..<1000).map { UInt8(truncatingIfNeeded: $0 &* 37) }
    let whole = bytes.withUnsafeBytes { crc32c($0) }
    let first = bytes[..<333].withUnsafeBytes { crc32c($0) }
    #expect(bytes[333...].withUnsafeBytes { crc32c($0, seed: first) } == whole)
  }

  @Test func piecesCombineToTheWhole() {
    let count = 3 * ParallelChecksums.pieceBytes + 12345
    let bytes = (0..<count).map { UInt8(truncatingIfNeeded: ($0 &* 2_654_435_761) >> 7) }
    bytes.withUnsafeBytes { buffer in
      let ranges = [
        buffer, UnsafeRawBufferPointer(rebasing: buffer[0..<0]),
        UnsafeRawBufferPointer(rebasing: buffer[5..<77]),
        UnsafeRawBufferPointer(rebasing: buffer[1..<ParallelChecksums.pieceBytes + 1]),
      ]
      #expect(ParallelChecksums.crc32c(of: ranges) == ranges.map { crc32c($0) })
    }
  }

  @Test(arguments: [
    ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    (
      "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
      "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
    ),
  ])
  func sha256OfTheStandardTexts(text: String, digest: String) {
    var hash = SHA256()
    hash.update(Array(text.utf8))
    #expect(hash.hexDigest() == digest)
    // In pieces that cross blocks.
    var pieces = SHA256()
    for byte in text.utf8 { pieces.update([byte]) }
    #expect(pieces.hexDigest() == digest)
  }

  /// The processor's own instructions and the portable rounds.
  @Test(arguments: [0, 1, 63, 64, 65, 127, 128, 4096, 100_003])
  func sha256EitherWay(count: Int) {
    let bytes = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* $0 &* 31 &+ $0 >> 3) }
    var fast = SHA256()
    fast.update(bytes)
    var portable = SHA256(usesInstructions: false)
    portable.update(bytes)
    #expect(fast.hexDigest() == portable.hexDigest())
  }

  @Test func halfPrecisionWidensEveryPattern() {
    for bits in UInt16.min...UInt16.max {
      let expected = Float(Float16(bitPattern: bits))
      let found = HalfPrecision.float(half: bits)
      #expect(found.bitPattern == expected.bitPattern || (found.isNaN && expected.isNaN))
    }
  }
}
