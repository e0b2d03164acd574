import Synchronization

#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

/// The temporary files that exist at this moment, for a process that must end in a hurry.
///
/// `removeAll()` may be called from a signal handler: it reads atomics and calls `unlink` and
/// `rmdir`, nothing else.
public enum TemporaryFiles {
  /// A registered path.
  public struct Slot: Sendable {
    fileprivate let index: Int
  }

  private static let capacity = 32
  /// Addresses of C strings; 0 where a slot is free.
  private nonisolated(unsafe) static let slots = {
    let slots = UnsafeMutablePointer<Atomic<UInt>>.allocate(capacity: capacity)
    for index in 0..<capacity { (slots + index).initialize(to: Atomic(0)) }
    return slots
  }()

  /// Makes `removeAll()` safe in a signal handler, which must not be the first to come here.
  public static func prepare() { _ = slots }

  /// Whether this process has been started with a signal ignored.
  public static func isIgnored(_ number: Int32) -> Bool {
    let former = signal(number, SIG_IGN)
    if unsafeBitCast(former, to: Int.self) == unsafeBitCast(SIG_IGN, to: Int.self) { return true }
    signal(number, former)
    return false
  }

  /// Adds a file, or a directory that is removed if it is empty by then; nil where all slots are
  /// taken.
  public static func register(_ path: String) -> Slot? {
    guard let copy = strdup(path) else { return nil }
    let address = UInt(bitPattern: copy)
    for index in 0..<capacity {
      if slots[index].compareExchange(expected: 0, desired: address, ordering: .releasing)
        .exchanged
      {
        return Slot(index: index)
      }
    }
    free(copy)
    return nil
  }

  /// Forgets a path; the file itself stays.
  public static func forget(_ slot: Slot?) {
    guard let slot else { return }
    let address = slots[slot.index].exchange(0, ordering: .acquiringAndReleasing)
    free(UnsafeMutableRawPointer(bitPattern: address))
  }

  /// Removes every registered file, then every registered directory that is empty.
  public static func removeAll() {
    for pass in 0..<2 {
      for index in 0..<capacity {
        let address = slots[index].load(ordering: .acquiring)
        guard let path = UnsafePointer<CChar>(bitPattern: address) else { continue }
        _ = pass == 0 ? unlink(path) : rmdir(path)
      }
    }
  }
}
