import Foundation
import HDF5Store
import Tensors

/// An empty directory that goes away with the test.
final class Scratch: Sendable {
  let directory: String

  init() throws {
    directory = NSTemporaryDirectory() + "normlens-hdf5-" + UUID().uuidString
    try FileManager.default.createDirectory(
      atPath: directory, withIntermediateDirectories: true)
  }

  deinit { try? FileManager.default.removeItem(atPath: directory) }

  func path(_ name: String) -> String { directory + "/" + name }

  /// Everything in the directory: what a failed write has left behind shows here.
  var names: [String] {
    get throws { try FileManager.default.contentsOfDirectory(atPath: directory).sorted() }
  }

  func bytes(_ name: String) throws -> [UInt8] {
    Array(try Data(contentsOf: URL(fileURLWithPath: path(name))))
  }

  @discardableResult
  func put(_ name: String, _ bytes: [UInt8]) throws -> String {
    try Data(bytes).write(to: URL(fileURLWithPath: path(name)))
    return path(name)
  }
}

/// The error of this module that `body` throws, or nil.
func failure(_ body: () throws -> Void) -> HDF5Error? {
  do {
    try body()
    return nil
  } catch {
    return error as? HDF5Error
  }
}

/// Where `needle` first occurs in `haystack`.
func find(_ needle: [UInt8], in haystack: [UInt8]) -> Int? {
  guard needle.count <= haystack.count else { return nil }
  return (0...(haystack.count - needle.count)).first { start in
    haystack[start] == needle[0] && haystack[start..<start + needle.count].elementsEqual(needle)
  }
}

/// Little-endian bytes of `numbers`.
func littleEndian(_ numbers: [Float]) -> [UInt8] {
  numbers.flatMap { number in
    (0..<4).map { UInt8(truncatingIfNeeded: number.bitPattern >> UInt32(8 * $0)) }
  }
}

/// Numbers that repeat nowhere and are exact in half precision.
func ramp(_ shape: [Int], from start: Int = 0) -> Tensor {
  Tensor((0..<shape.reduce(1, *)).map { Float((start + $0) % 2048) / 8 }, shape: shape)
}
