internal import CKernels

/// The CRC-32C checksum of `data`.
///
/// - Parameter seed: the checksum of the bytes before `data`, when they are checked piece by piece.
public func crc32c(_ data: UnsafeRawBufferPointer, seed: UInt32 = 0) -> UInt32 {
  nl_crc32c(seed, data.baseAddress, data.count)
}

/// Works whole blocks of 64 bytes into the eight words of a SHA-256's state by the processor's own
/// instructions; false, and nothing done, where it has none.
package func sha256(
  state: UnsafeMutableBufferPointer<UInt32>, blocks: UnsafeRawBufferPointer
) -> Bool {
  precondition(state.count == 8 && blocks.count % 64 == 0, "sha256: whole blocks into eight words")
  return nl_sha256(state.baseAddress, blocks.baseAddress, blocks.count / 64) != 0
}
