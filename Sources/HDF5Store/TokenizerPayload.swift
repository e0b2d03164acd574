import Tensors

/// A tokenizer as a model file carries it: the two published files as bytes, and the tables parsed
/// from them, so that nothing is parsed when a model is opened.
///
/// The arrays of an opened model stay in the mapped file; each access copies one out.
public struct TokenizerPayload: Sendable {
  /// Bytes of an array: in memory or in a mapped file.
  enum Bytes: Sendable {
    case owned([UInt8])
    case mapped(MappedFile, Range<Int>)

    func withBytes<R, E: Error>(
      _ body: (UnsafeRawBufferPointer) throws(E) -> R
    ) throws(E) -> R {
      switch self {
      case .owned(let bytes):
        return try bytes.span.withUnsafeBytes(body)
      case .mapped(let file, let range):
        return try file.withBytes { (bytes: UnsafeRawBufferPointer) throws(E) -> R in
          try body(UnsafeRawBufferPointer(rebasing: bytes[range]))
        }
      }
    }

    var count: Int {
      switch self {
      case .owned(let bytes): bytes.count
      case .mapped(_, let range): range.count
      }
    }

    /// The bytes as little-endian integers.
    func integers<T: FixedWidthInteger & BitwiseCopyable>(_ type: T.Type) -> [T] {
      withBytes { bytes in
        let width = MemoryLayout<T>.size
        return (0..<bytes.count / width).map { index in
          T(littleEndian: bytes.loadUnaligned(fromByteOffset: index * width, as: T.self))
        }
      }
    }
  }

  /// The arrays of the group `/tokenizer`, by dataset name.
  enum Part: String, CaseIterable {
    case vocabJSON = "vocab_json"
    case mergesText = "merges_txt"
    case tokenBytes = "token_bytes"
    case tokenOffsets = "token_offsets"
    case mergePairs = "merge_pairs"
  }

  var parts: [Part: Bytes]

  /// A tokenizer.
  ///
  /// - Parameters:
  ///   - vocabJSON: `vocab.json` as published.
  ///   - mergesText: `merges.txt` as published.
  ///   - tokenBytes: the bytes of all tokens, one after the other, in order of their ids.
  ///   - tokenOffsets: where each token begins in `tokenBytes`, and the end of the last: one more
  ///     than there are tokens.
  ///   - mergePairs: the merges in order of rank, two token ids each: shape `[merge, 2]`.
  public init(
    vocabJSON: [UInt8], mergesText: [UInt8], tokenBytes: [UInt8], tokenOffsets: [Int],
    mergePairs: [Int32]
  ) {
    self.parts = [
      .vocabJSON: .owned(vocabJSON), .mergesText: .owned(mergesText),
      .tokenBytes: .owned(tokenBytes),
      .tokenOffsets: .owned(TokenizerPayload.bytes(tokenOffsets.map(Int64.init))),
      .mergePairs: .owned(TokenizerPayload.bytes(mergePairs)),
    ]
  }

  init(parts: [Part: Bytes]) { self.parts = parts }

  /// `vocab.json` as published.
  public var vocabJSON: [UInt8] { array(.vocabJSON, UInt8.self) }
  /// `merges.txt` as published.
  public var mergesText: [UInt8] { array(.mergesText, UInt8.self) }
  /// The bytes of all tokens, one after the other, in order of their ids.
  public var tokenBytes: [UInt8] { array(.tokenBytes, UInt8.self) }
  /// Where each token begins in ``tokenBytes``, and the end of the last.
  public var tokenOffsets: [Int] { array(.tokenOffsets, Int64.self).map { Int($0) } }
  /// The merges in order of rank, two token ids each: shape `[merge, 2]`.
  public var mergePairs: [Int32] { array(.mergePairs, Int32.self) }

  /// The number of tokens.
  public var tokenCount: Int { max((parts[.tokenOffsets]?.count ?? 0) / 8 - 1, 0) }
  /// The number of merges.
  public var mergeCount: Int { (parts[.mergePairs]?.count ?? 0) / 8 }

  private func array<T: FixedWidthInteger & BitwiseCopyable>(_ part: Part, _ type: T.Type) -> [T] {
    parts[part]?.integers(type) ?? []
  }

  private static func bytes<T: FixedWidthInteger & BitwiseCopyable>(_ values: [T]) -> [UInt8] {
    values.map(\.littleEndian).withUnsafeBytes { Array($0) }
  }

  /// The first thing that makes the tables useless together, as (object, expected, found).
  ///
  /// Checked when a file is opened and before one is written: a tokenizer that has passed never
  /// points outside its arrays.
  func fault() -> (object: String, expected: String, found: String)? {
    let offsets = tokenOffsets
    let byteCount = parts[.tokenBytes]?.count ?? 0
    let place = "/tokenizer/" + Part.tokenOffsets.rawValue
    guard let first = offsets.first, let last = offsets.last else {
      return (place, "at least one offset", "none")
    }
    guard first == 0, last == byteCount else {
      return (place, "offsets from 0 to \(byteCount)", "\(first) to \(last)")
    }
    for (index, pair) in zip(offsets, offsets.dropFirst()).enumerated() where pair.0 > pair.1 {
      return (place, "rising offsets", "\(pair.0) before \(pair.1) at token \(index)")
    }
    let pairs = mergePairs
    guard pairs.count % 2 == 0 else {
      return ("/tokenizer/merge_pairs", "two token ids a merge", "\(pairs.count) ids")
    }
    let tokens = offsets.count - 1
    for (index, id) in pairs.enumerated() where id < 0 || Int(id) >= tokens {
      return (
        "/tokenizer/merge_pairs", "token ids below \(tokens)", "\(id) in merge \(index / 2)"
      )
    }
    return nil
  }
}
