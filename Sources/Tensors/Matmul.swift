import CKernels

/// A matrix inside a tensor: `rows × columns` scalars, `stride` apart from row to row.
///
/// A block of columns of a fused weight (`W_Q` inside `c_attn`) is such a view, so it is never copied.
public struct MatrixView: Sendable {
  /// The number of rows.
  public let rows: Int
  /// The number of columns.
  public let columns: Int
  let tensor: Tensor
  let start: Int
  let stride: Int

  /// The whole of a tensor of rank 2.
  ///
  /// - Precondition: `tensor` has rank 2.
  public init(_ tensor: Tensor) {
    precondition(tensor.rank == 2, "MatrixView: expected rank 2, found shape \(tensor.shape)")
    self.tensor = tensor
    rows = tensor.shape[0]
    columns = tensor.shape[1]
    start = 0
    stride = tensor.shape[1]
  }

  private init(_ tensor: Tensor, start: Int, rows: Int, columns: Int, stride: Int) {
    self.tensor = tensor
    self.start = start
    self.rows = rows
    self.columns = columns
    self.stride = stride
  }

  /// The columns `range`.
  ///
  /// - Precondition: `range` lies within the columns.
  public func columns(_ range: Range<Int>) -> MatrixView {
    precondition(
      range.lowerBound >= 0 && range.upperBound <= columns,
      "MatrixView: columns \(range) of \(rows) × \(columns)")
    return MatrixView(
      tensor, start: start + range.lowerBound, rows: rows, columns: range.count, stride: stride)
  }

  /// The rows `range`.
  ///
  /// - Precondition: `range` lies within the rows.
  public func rows(_ range: Range<Int>) -> MatrixView {
    precondition(
      range.lowerBound >= 0 && range.upperBound <= rows,
      "MatrixView: rows \(range) of \(rows) × \(columns)")
    return MatrixView(
      tensor, start: start + range.lowerBound * stride, rows: range.count, columns: columns,
      stride: stride)
  }

  /// The matrix as a tensor `[rows, columns]` of its own.
  public func copied() -> Tensor {
    var result = Tensor(uninitialized: [rows, columns])
    tensor.withUnsafeBufferPointer { source in
      result.withUnsafeMutableBufferPointer { target in
        guard let from = source.baseAddress, let to = target.baseAddress else { return }
        for row in 0..<rows {
          (to + row * columns).update(from: from + start + row * stride, count: columns)
        }
      }
    }
    return result
  }
}

/// The matrix product `x·w (+ bias)`.
///
/// - Parameters:
///   - x: shape `[rows, …]`, seen as `[rows, k]`.
///   - w: `[k, n]`.
///   - bias: `[n]`, added to each row.
/// - Returns: shape `[rows, n]`.
/// - Precondition: `x` has `k` scalars a row and `bias` has `n`.
/// - Complexity: 2·rows·k·n FLOPs; for few rows `w` is read from memory once.
public func matmul(_ x: Tensor, _ w: MatrixView, bias: Tensor? = nil) -> Tensor {
  precondition(
    x.rank >= 1 && x.rowCount == w.rows,
    "matmul: x has shape \(x.shape), w is \(w.rows) × \(w.columns)")
  return product(x, w, k: w.rows, n: w.columns, transposed: false, bias: bias)
}

/// The matrix product with a transposed right side, `x·wᵀ (+ bias)`: the unembedding.
///
/// - Parameters:
///   - x: shape `[rows, …]`, seen as `[rows, k]`.
///   - w: `[n, k]`.
///   - bias: `[n]`, added to each row.
/// - Returns: shape `[rows, n]`.
/// - Precondition: `x` has `k` scalars a row and `bias` has `n`.
/// - Complexity: 2·rows·k·n FLOPs; for few rows `w` is read from memory once.
public func matmulTransposed(_ x: Tensor, _ w: MatrixView, bias: Tensor? = nil) -> Tensor {
  precondition(
    x.rank >= 1 && x.rowCount == w.columns,
    "matmulTransposed: x has shape \(x.shape), w is \(w.rows) × \(w.columns)")
  return product(x, w, k: w.columns, n: w.rows, transposed: true, bias: bias)
}

/// Up to this many rows a kernel that reads each weight once beats sgemm, which first copies
/// ("packs") the whole weight matrix at every call.
let skinnyRowLimit = nl_simd_width() >= 16 ? 40 : 0

private func product(
  _ x: Tensor, _ w: MatrixView, k: Int, n: Int, transposed: Bool, bias: Tensor?
) -> Tensor {
  precondition(
    bias == nil || bias?.count == n,
    "matmul: bias has shape \(bias?.shape ?? []), the product has \(n) columns")
  let m = x.shape[0]
  let stride = w.stride
  var y = Tensor(uninitialized: [m, n])
  guard m > 0, n > 0 else { return y }
  let skinny = m <= skinnyRowLimit
  if !skinny { BLAS.prepare() }

  x.withUnsafeBufferPointer { xs in
    w.tensor.withUnsafeBufferPointer { ws in
      withOptionalPointer(bias) { bias in
        y.withUnsafeMutableBufferPointer { ys in
          guard let x = xs.baseAddress, let wBase = ws.baseAddress, let y = ys.baseAddress else {
            return
          }
          let w = wBase + w.start
          let ldw = stride
          let width = columnChunk(n, skinny: skinny)
          parallelChunks((n + width - 1) / width) { chunk in
            let first = chunk * width
            let columns = Swift.min(width, n - first)
            let wChunk = transposed ? w + first * ldw : w + first
            let biasChunk = bias.map { $0 + first }
            if skinny && transposed {
              nl_skinny_nt(m, columns, k, x, k, wChunk, ldw, biasChunk, y + first, n)
            } else if skinny {
              nl_skinny_nn(m, columns, k, x, k, wChunk, ldw, biasChunk, y + first, n)
            } else {
              if let biasChunk {
                for row in 0..<m {
                  (y + row * n + first).update(from: biasChunk, count: columns)
                }
              }
              sgemm(
                m: m, n: columns, k: k, x, k, wChunk, ldw, transposed: transposed,
                beta: biasChunk == nil ? 0 : 1, y + first, n)
            }
          }
        }
      }
    }
  }
  return y
}

/// How many columns of a product one chunk computes: a multiple of 64, so that no two threads write
/// the same cache line.
private func columnChunk(_ n: Int, skinny: Bool) -> Int {
  let chunks = skinny ? (n > 8192 ? 32 : 8) : (n > 8192 ? 16 : n > 1024 ? 4 : 2)
  return Swift.max(64, ((n + chunks - 1) / chunks + 63) / 64 * 64)
}

private func withOptionalPointer(_ tensor: Tensor?, _ body: (UnsafePointer<Float>?) -> Void) {
  if let tensor {
    tensor.withUnsafeBufferPointer { body($0.baseAddress) }
  } else {
    body(nil)
  }
}
