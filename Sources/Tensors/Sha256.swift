internal import CKernels

/// Works whole blocks of 64 bytes into the eight words of a SHA-256's state, by the processor's own
/// instructions.
///
/// - Returns: false, having done nothing, where the processor has none.
public func sha256(
  _ state: UnsafeMutablePointer<UInt32>, absorb blocks: UnsafeRawBufferPointer
) -> Bool {
  guard let base = blocks.baseAddress else { return true }
  return nl_sha256(state, base, blocks.count / 64) != 0
}
