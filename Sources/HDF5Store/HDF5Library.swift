import CHDF5
import Synchronization

/// The one door to the HDF5 library: a lock, a silenced error stack, and the stack's own words.
///
/// HDF5 keeps global state. Every public entry point of this module takes the lock once, through
/// ``locked(_:)``, and everything below it (`HDF5Object`, `HDF5Handle`) assumes that it is held;
/// so the lock need not be recursive. The result must be `Sendable`, which keeps handles inside.
enum HDF5Library {
  private static let lock = Mutex<Bool>(false)

  /// Runs `body` while no other thread is inside HDF5.
  static func locked<R: Sendable>(
    _ body: () throws(HDF5Error) -> R
  ) throws(HDF5Error) -> R {
    let outcome: Result<R, HDF5Error> = lock.withLock { isReady in
      prepare(&isReady)
      do throws(HDF5Error) {
        return .success(try body())
      } catch {
        return .failure(error)
      }
    }
    return try outcome.get()
  }

  /// Runs `body`, which cannot fail, while no other thread is inside HDF5.
  static func lockedCleanup(_ body: () -> Void) {
    lock.withLock { isReady in
      prepare(&isReady)
      body()
    }
  }

  private static func prepare(_ isReady: inout Bool) {
    if !isReady {
      // Everything is closed explicitly. At exit HDF5 would try again to flush a file that a full
      // disk has already refused, and print about it.
      _ = H5dont_atexit()
      isReady = true
    }
    // In a thread-safe HDF5 each thread has its own error stack, printing by default.
    _ = H5Eset_auto2(nl_H5E_DEFAULT(), nil, nil)
  }

  /// What the library says about the failure that just happened, innermost cause first, on one
  /// line; nil if it says nothing.
  static func deepestMessage() -> String? {
    var message: String?
    withUnsafeMutablePointer(to: &message) { pointer in
      _ = H5Ewalk2(
        nl_H5E_DEFAULT(), H5E_WALK_UPWARD,
        { depth, entry, context in
          guard depth == 0, let entry, let text = entry.pointee.desc, let context else { return 0 }
          context.assumingMemoryBound(to: String?.self).pointee = String(cString: text)
          return 0
        }, pointer)
    }
    _ = H5Eclear2(nl_H5E_DEFAULT())
    return message.map(shortened)
  }

  /// Only the system's words where HDF5 adds times, addresses and sizes to them:
  /// `… errno = 28, error message = 'No space left on device', buf = 0x7f…`.
  static func shortened(_ message: String) -> String {
    let key = "error message = '"
    let bytes = Array(message.utf8)
    let pattern = Array(key.utf8)
    guard bytes.count > pattern.count else { return message }
    for start in 0...(bytes.count - pattern.count)
    where bytes[start..<start + pattern.count].elementsEqual(pattern) {
      let rest = bytes[(start + pattern.count)...]
      return String(decoding: rest.prefix { $0 != UInt8(ascii: "'") }, as: UTF8.self)
    }
    return String(decoding: bytes.map { $0 < 0x20 ? 0x20 : $0 }, as: UTF8.self)
  }
}
