/// A dense float32 array in row-major order with value semantics.
///
/// The scalars live either in memory the tensor owns (copied on the first write while shared) or
/// in memory that somebody else owns, such as a mapped model file, which is kept alive as long as
/// any tensor looks at it. A slice along the first axis shares its parent's storage.
public struct Tensor: Sendable {
  /// The extent of each axis; empty for a scalar.
  public let shape: [Int]
  /// The number of scalars: the product of `shape`.
  public let count: Int
  var storage: TensorStorage
  var offset: Int

  init(storage: TensorStorage, offset: Int, shape: [Int]) {
    self.shape = shape
    self.count = shape.reduce(1, *)
    self.storage = storage
    self.offset = offset
    precondition(
      offset >= 0 && offset + count <= storage.capacity,
      "Tensor: shape \(shape) at offset \(offset) exceeds storage of \(storage.capacity) scalars")
  }

  /// A tensor of `shape` whose scalars are all zero.
  public init(zeros shape: [Int]) {
    self.init(uninitialized: shape)
    storage.base.initialize(repeating: 0, count: count)
  }

  /// A tensor of `shape` whose scalars are all `value`.
  public init(repeating value: Float, shape: [Int]) {
    self.init(uninitialized: shape)
    storage.base.initialize(repeating: value, count: count)
  }

  /// A tensor of `shape` with `scalars` in row-major order.
  ///
  /// - Precondition: `scalars.count` is the product of `shape`.
  public init(_ scalars: [Float], shape: [Int]) {
    precondition(
      scalars.count == shape.reduce(1, *),
      "Tensor: \(scalars.count) scalars do not fill shape \(shape)")
    self.init(uninitialized: shape)
    scalars.withUnsafeBufferPointer { source in
      if let base = source.baseAddress { storage.base.update(from: base, count: count) }
    }
  }

  /// A tensor of `shape` whose scalars hold whatever the memory held: every one must be written
  /// before it is read.
  public init(uninitialized shape: [Int]) {
    self.init(
      storage: TensorStorage(capacity: shape.reduce(1, *)), offset: 0, shape: shape)
  }

  /// A tensor that looks at memory which `owner` keeps alive and nobody writes.
  ///
  /// - Parameters:
  ///   - base: the first of the scalars, at least 4-byte aligned.
  ///   - shape: the extents.
  ///   - owner: kept alive as long as a tensor looks at the memory.
  public init(borrowing base: UnsafePointer<Float>, shape: [Int], owner: any AnyObject & Sendable) {
    self.init(
      storage: TensorStorage(borrowing: base, capacity: shape.reduce(1, *), owner: owner),
      offset: 0, shape: shape)
  }

  /// The number of axes.
  public var rank: Int { shape.count }

  /// Whether the scalars are borrowed from memory this library does not own (a mapped file).
  public var isBorrowed: Bool { storage.owner != nil }

  /// Whether both tensors look at the same memory from the same scalar on.
  public func sharesStorage(with other: Tensor) -> Bool {
    storage.base + offset == other.storage.base + other.offset
  }

  /// The scalars in row-major order, without a copy.
  public var span: Span<Float> {
    @_lifetime(borrow self)
    get {
      let span = Span(_unsafeStart: UnsafePointer(storage.base + offset), count: count)
      return _overrideLifetime(span, borrowing: self)
    }
  }

  /// The scalars in row-major order, for writing; copies them first if they are shared.
  public var mutableSpan: MutableSpan<Float> {
    @_lifetime(&self)
    mutating get {
      makeUnique()
      let span = MutableSpan(_unsafeStart: storage.base + offset, count: count)
      return _overrideLifetime(span, mutating: &self)
    }
  }

  /// The scalars in row-major order, copied.
  public var scalars: [Float] {
    withUnsafeBufferPointer { Array($0) }
  }

  /// Calls `body` with the scalars.
  @inline(__always)
  public func withUnsafeBufferPointer<R, E: Error>(
    _ body: (UnsafeBufferPointer<Float>) throws(E) -> R
  ) throws(E) -> R {
    defer { withExtendedLifetime(storage) {} }
    return try body(UnsafeBufferPointer(start: storage.base + offset, count: count))
  }

  /// Calls `body` with the scalars, for writing; copies them first if they are shared.
  @inline(__always)
  public mutating func withUnsafeMutableBufferPointer<R, E: Error>(
    _ body: (UnsafeMutableBufferPointer<Float>) throws(E) -> R
  ) throws(E) -> R {
    makeUnique()
    defer { withExtendedLifetime(storage) {} }
    return try body(UnsafeMutableBufferPointer(start: storage.base + offset, count: count))
  }

  /// Gives this tensor storage that it alone owns.
  mutating func makeUnique() {
    if !isKnownUniquelyReferenced(&storage) || storage.owner != nil {
      let own = TensorStorage(capacity: count)
      own.base.update(from: storage.base + offset, count: count)
      storage = own
      offset = 0
    }
  }
}

/// The memory behind tensors: owned and freed (or kept for the next tensor of its size), or borrowed.
final class TensorStorage: @unchecked Sendable {
  let base: UnsafeMutablePointer<Float>
  let capacity: Int
  /// The bytes of the pool's block; 0 where the memory is another's.
  private let blockBytes: Int
  let owner: (any AnyObject & Sendable)?

  init(capacity: Int) {
    (base, blockBytes) = BufferPool.take(capacity)
    self.capacity = capacity
    self.owner = nil
  }

  init(borrowing base: UnsafePointer<Float>, capacity: Int, owner: any AnyObject & Sendable) {
    self.base = UnsafeMutablePointer(mutating: base)
    self.capacity = capacity
    blockBytes = 0
    self.owner = owner
  }

  deinit {
    if owner == nil { BufferPool.give(base, blockBytes) }
  }
}
