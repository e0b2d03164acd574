import Dispatch
import Tensors

/// Tensors made from bytes of a mapped file.
enum MappedTensors {
  /// Little-endian float32: borrowed from the mapping where aligned, copied where not.
  static func float32(
    _ bytes: UnsafeRawBufferPointer, shape: [Int], owner: MappedFile
  ) -> Tensor {
    guard let base = bytes.baseAddress, !bytes.isEmpty else { return Tensor(zeros: shape) }
    if Int(bitPattern: base) % MemoryLayout<Float>.alignment == 0 {
      return Tensor(
        borrowing: base.assumingMemoryBound(to: Float.self), shape: shape, owner: owner)
    }
    var tensor = Tensor(uninitialized: shape)
    tensor.withUnsafeMutableBufferPointer { target in
      UnsafeMutableRawBufferPointer(target).copyMemory(from: bytes)
    }
    return tensor
  }

  /// Little-endian float16 or bfloat16, widened, large ones on all cores.
  static func widened(
    _ bytes: UnsafeRawBufferPointer, shape: [Int], isBFloat: Bool
  ) -> Tensor {
    var tensor = Tensor(uninitialized: shape)
    tensor.withUnsafeMutableBufferPointer { target in
      let piece = 1 << 20
      let pieces = (target.count + piece - 1) / piece
      // Each iteration writes its own part.
      nonisolated(unsafe) let target = target
      nonisolated(unsafe) let bytes = bytes
      DispatchQueue.concurrentPerform(iterations: pieces) { index in
        let scalars = index * piece..<min((index + 1) * piece, target.count)
        HalfPrecision.widen(
          UnsafeRawBufferPointer(rebasing: bytes[2 * scalars.lowerBound..<2 * scalars.upperBound]),
          into: UnsafeMutableBufferPointer(rebasing: target[scalars]), isBFloat: isBFloat)
      }
    }
    return tensor
  }
}
