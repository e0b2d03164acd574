#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif
import Synchronization

/// Memory for tensors: 64-byte aligned, large blocks on huge pages, and large freed blocks kept for
/// the next tensor of about the same size.
///
/// A forward pass asks for the same dozen sizes over and over; fresh pages from the system would
/// cost about as much as the arithmetic on them.
enum BufferPool {
  /// Blocks below this many bytes go straight to `malloc`, which already recycles them.
  static let smallest = 1 << 16
  /// The most unused bytes that are kept.
  static let keptBytesLimit = Atomic<Int>(1 << 30)

  private struct Kept: ~Copyable {
    nonisolated(unsafe) var free: [Int: [UnsafeMutableRawPointer]] = [:]
    var bytes = 0
  }
  private static let kept = Mutex(Kept())

  static func byteCount(_ scalars: Int) -> Int {
    let bytes = Swift.max(scalars, 1) * MemoryLayout<Float>.stride
    if bytes < smallest { return bytes }
    // Large sizes are rounded up by at most an eighth: prompts of nearly equal lengths share blocks.
    let step = 1 << (Int.bitWidth - 1 - bytes.leadingZeroBitCount - 3)
    return (bytes + step - 1) / step * step
  }

  /// Memory for so many scalars, and the block's size, which `give` must be told.
  static func take(_ scalars: Int) -> (UnsafeMutablePointer<Float>, bytes: Int) {
    let bytes = byteCount(scalars)
    if bytes >= smallest {
      let found: (block: UInt, bytes: Int)? = kept.withLock { kept in
        // A block of up to twice the size serves as well: in a sweep tensors grow from layer to
        // layer, and none would fit exactly.
        var size = bytes
        while size <= 2 * bytes {
          if let block = kept.free[size]?.popLast() {
            kept.bytes -= size
            return (UInt(bitPattern: block), size)
          }
          size = byteCount(size / MemoryLayout<Float>.stride + 1)
        }
        return nil
      }
      if let found, let block = UnsafeMutableRawPointer(bitPattern: found.block) {
        return (block.assumingMemoryBound(to: Float.self), found.bytes)
      }
    }
    var raw: UnsafeMutableRawPointer?
    let huge = bytes >= 1 << 22
    guard posix_memalign(&raw, huge ? 1 << 21 : 64, bytes) == 0, let raw else {
      // Nothing can go on without memory; say so in words before the process ends.
      let text = "normlens: error: out of memory: the system refused \(bytes) bytes\n"
      _ = text.withCString { write(2, $0, strlen($0)) }
      exit(71)
    }
    #if canImport(Glibc)
      if huge { madvise(raw, bytes, MADV_HUGEPAGE) }
    #endif
    return (raw.assumingMemoryBound(to: Float.self), bytes)
  }

  static func give(_ base: UnsafeMutablePointer<Float>, _ bytes: Int) {
    let block = UInt(bitPattern: base)
    let keep =
      bytes >= smallest
      && kept.withLock { kept in
        guard kept.bytes + bytes <= keptBytesLimit.load(ordering: .relaxed),
          let raw = UnsafeMutableRawPointer(bitPattern: block)
        else { return false }
        kept.free[bytes, default: []].append(raw)
        kept.bytes += bytes
        return true
      }
    if !keep { free(base) }
  }
}

/// The memory that tensors leave behind for the next ones.
public enum TensorMemory {
  /// The most bytes of freed tensors that are kept for reuse; 1 GiB by default.
  public static var keptBytesLimit: Int {
    get { BufferPool.keptBytesLimit.load(ordering: .relaxed) }
    set { BufferPool.keptBytesLimit.store(max(newValue, 0), ordering: .relaxed) }
  }
}
