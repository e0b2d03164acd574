internal import CKernels

/// The CRC-32C checksum of `data`.
///
/// - Parameter seed: the checksum of the bytes before `data`, when they are checked piece by piece.
public func crc32c(_ data: UnsafeRawBufferPointer, seed: UInt32 = 0) -> UInt32 {
  nl_crc32c(seed, data.baseAddress, data.count)
}
