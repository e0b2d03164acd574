#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif
import Synchronization

/// How many threads the library computes with, and the one place where they are made.
///
/// Work is cut into chunks whose boundaries depend on the problem and never on the number of
/// threads; each thread takes the next chunk until none is left. Between two regions of one forward
/// pass the workers spin for a moment, since waking a sleeping thread costs more than a small
/// matrix product.
public enum Threads {
  private static let requested = Atomic<Int>(0)

  /// The number of threads used from now on: by default as many as processors are online.
  ///
  /// - Precondition: set to 1 or more, before the first computation.
  public static var count: Int {
    get {
      let value = requested.load(ordering: .relaxed)
      return value > 0 ? value : processorCount
    }
    set {
      precondition(newValue >= 1, "Threads.count: expected at least 1, found \(newValue)")
      requested.store(newValue, ordering: .relaxed)
    }
  }

  /// The processors that this process may run on.
  public static let processorCount = BLAS.processorCount
}

/// Runs `body` once for each of `chunks` chunks, on all threads, and returns when all are done.
///
/// Chunks run in no particular order and at the same time, so `body` writes only what belongs to
/// its chunk. A call from inside `body` runs serially.
@inline(__always)
func parallelChunks(_ chunks: Int, _ body: (Int) -> Void) {
  if chunks <= 1 || Threads.count == 1 {
    for chunk in 0..<Swift.max(chunks, 0) { body(chunk) }
  } else {
    WorkerPool.shared.run(chunks, body)
  }
}

/// What `transform` makes of each of `0..<count`, on all threads, in order.
///
/// A call from inside `transform` runs serially.
public func parallelMap<Value: Sendable>(
  _ count: Int, _ transform: @Sendable (Int) -> Value
) -> [Value] {
  [Value](unsafeUninitializedCapacity: count) { values, initialized in
    if let base = values.baseAddress {
      parallelChunks(count) { (base + $0).initialize(to: transform($0)) }
    }
    initialized = count
  }
}

/// Cuts `rows` rows into chunks of about `grain` scalars' work and runs `body` on each range.
func parallelRows(_ rows: Int, rowWork: Int, grain: Int = 1 << 14, _ body: (Range<Int>) -> Void) {
  let perChunk = Swift.max(1, grain / Swift.max(1, rowWork))
  // At most 16 chunks a thread pair: enough to even out, few enough to cost nothing.
  let size = Swift.max(perChunk, (rows + 31) / 32)
  let chunks = (rows + size - 1) / size
  parallelChunks(chunks) { chunk in
    body(chunk * size..<Swift.min(rows, (chunk + 1) * size))
  }
}

/// Threads that wait for the next parallel region: first spinning, then asleep.
///
/// A worker joins a region only while it is open, and the caller closes it once no chunk is left:
/// a worker that the system has put aside is never waited for.
private final class WorkerPool: @unchecked Sendable {
  static let shared = WorkerPool(workers: Threads.count - 1)

  // The region at hand; written by the caller before it opens the region.
  private nonisolated(unsafe) var body: ((Int) -> Void)?
  private nonisolated(unsafe) var chunks = 0
  private let next = Atomic<Int>(0)

  /// `generation << 16 | open << 15 | workers inside`.
  private let state = Atomic<UInt>(0)
  private static let openBit: UInt = 1 << 15
  private static let insideMask: UInt = openBit - 1

  private let busy = Atomic<Bool>(false)
  private let sleeping = Atomic<Int>(0)
  private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
  private let wake = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)

  /// Some 100 µs of spinning before a worker goes to sleep.
  private static let spins = 30_000

  init(workers: Int) {
    pthread_mutex_init(mutex, nil)
    pthread_cond_init(wake, nil)
    for _ in 0..<workers { startWorker() }
  }

  private func startWorker() {
    #if canImport(Glibc)
      var thread = pthread_t()
    #else
      var thread: pthread_t?
    #endif
    let status = pthread_create(
      &thread, nil,
      { argument in
        let opaque: UnsafeMutableRawPointer? = argument
        if let opaque { Unmanaged<WorkerPool>.fromOpaque(opaque).takeUnretainedValue().work() }
        return nil
      }, Unmanaged.passRetained(self).toOpaque())
    // Without the thread the callers do all the work themselves.
    if status == 0 { pthread_detach(thread) }
  }

  func run(_ chunks: Int, _ body: (Int) -> Void) {
    // A nested call, or a second caller at the same time, does its work alone.
    guard busy.compareExchange(expected: false, desired: true, ordering: .acquiring).exchanged
    else {
      for chunk in 0..<chunks { body(chunk) }
      return
    }
    withoutActuallyEscaping(body) { body in
      self.body = body
      self.chunks = chunks
      next.store(0, ordering: .relaxed)
      let generation = state.load(ordering: .relaxed) >> 16
      state.store((generation &+ 1) << 16 | Self.openBit, ordering: .sequentiallyConsistent)
      if sleeping.load(ordering: .sequentiallyConsistent) > 0 {
        pthread_mutex_lock(mutex)
        pthread_cond_broadcast(wake)
        pthread_mutex_unlock(mutex)
      }
      takeChunks(body)
      state.bitwiseAnd(~Self.openBit, ordering: .acquiringAndReleasing)
      var spin = 0
      while state.load(ordering: .acquiring) & Self.insideMask > 0 {
        spin += 1
        // A worker that lost its processor inside a chunk gets a chance to finish it.
        if spin & 1023 == 0 { sched_yield() }
      }
      self.body = nil
    }
    busy.store(false, ordering: .releasing)
  }

  private func takeChunks(_ body: (Int) -> Void) {
    while true {
      let chunk = next.wrappingAdd(1, ordering: .relaxed).oldValue
      if chunk >= chunks { return }
      body(chunk)
    }
  }

  private func work() {
    var seen: UInt = 0
    while true {
      seen = enterNextRegion(after: seen)
      if let body { takeChunks(body) }
      state.wrappingSubtract(1, ordering: .releasing)
    }
  }

  /// Waits for an open region other than `seen`, joins it and returns its generation.
  private func enterNextRegion(after seen: UInt) -> UInt {
    var spin = 0
    while true {
      let now = state.load(ordering: .sequentiallyConsistent)
      if isNew(now, seen) {
        let joined = state.compareExchange(
          expected: now, desired: now + 1, ordering: .acquiringAndReleasing)
        if joined.exchanged { return now >> 16 }
        continue
      }
      spin += 1
      if spin < Self.spins { continue }
      pthread_mutex_lock(mutex)
      sleeping.wrappingAdd(1, ordering: .sequentiallyConsistent)
      while !isNew(state.load(ordering: .sequentiallyConsistent), seen) {
        pthread_cond_wait(wake, mutex)
      }
      sleeping.wrappingSubtract(1, ordering: .sequentiallyConsistent)
      pthread_mutex_unlock(mutex)
      spin = 0
    }
  }

  @inline(__always)
  private func isNew(_ state: UInt, _ seen: UInt) -> Bool {
    state & Self.openBit != 0 && state >> 16 != seen
  }
}
