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
/// ("packs") the whole weight matrix at every call. The limits are measured crossovers.
let skinnyRowLimit = nl_simd_width() >= 16 ? 56 : nl_simd_width() >= 8 ? 32 : 1

private func product(
  _ x: Tensor, _ w: MatrixView, k: Int, n: Int, transposed: Bool, bias: Tensor?
) -> Tensor {
  precondition(
    bias == nil || bias?.count == n,
    "matmul: bias has shape \(bias?.shape ?? []), the product has \(n) columns")
  let m = x.shape[0]
  var y = Tensor(uninitialized: [m, n])
  guard m > 0, n > 0 else { return y }
  x.withUnsafeBufferPointer { xs in
    w.tensor.withUnsafeBufferPointer { ws in
      withOptionalPointer(bias) { bias in
        y.withUnsafeMutableBufferPointer { ys in
          guard let x = xs.baseAddress, let wBase = ws.baseAddress, let y = ys.baseAddress else {
            return
          }
          let operands = Operands(
            m: m, n: n, k: k, x: x, w: wBase + w.start, ldw: w.stride, bias: bias, y: y)
          if m > skinnyRowLimit {
            operands.multiplyBySgemm(transposed: transposed)
          } else if transposed {
            operands.multiplySkinnyTransposed()
          } else {
            operands.multiplySkinny()
          }
        }
      }
    }
  }
  return y
}

/// `y[m, n] = x[m, k]·op(w) + bias` as pointers, and the three ways to compute it.
private struct Operands {
  let m: Int
  let n: Int
  let k: Int
  let x: UnsafePointer<Float>
  let w: UnsafePointer<Float>
  let ldw: Int
  let bias: UnsafePointer<Float>?
  let y: UnsafeMutablePointer<Float>

  /// Many rows: each chunk is a block of columns and, where there are more threads than such
  /// blocks, of rows. Wide blocks are better: each chunk packs its part of `x` anew.
  func multiplyBySgemm(transposed: Bool) {
    BLAS.prepare()
    let wanted = Threads.count > 2 ? 2 * Threads.count : n > 8192 ? 16 : n > 1024 ? 4 : 2
    let blocks = Swift.max(1, Swift.min(wanted, n / 256))
    let rowBlocks = Swift.max(1, Swift.min((wanted + blocks - 1) / blocks, m / 64))
    let height = (m + rowBlocks - 1) / rowBlocks
    forColumns(chunks: blocks, times: rowBlocks) { first, columns, rowBlock in
      let top = rowBlock * height
      let rows = Swift.min(height, m - top)
      if rows <= 0 { return }
      if let bias {
        for row in top..<top + rows {
          (y + row * n + first).update(from: bias + first, count: columns)
        }
      }
      sgemm(
        m: rows, n: columns, k: k, x + top * k, k, transposed ? w + first * ldw : w + first, ldw,
        transposed: transposed, beta: bias == nil ? 0 : 1, y + top * n + first, n)
    }
  }

  /// Few rows against `w [n, k]`: each chunk is a block of w's rows, contiguous in memory.
  func multiplySkinnyTransposed() {
    forColumns(chunks: n > 8192 ? 32 : 8, times: 1) { first, columns, _ in
      nl_skinny_nt(
        m, columns, k, x, k, w + first * ldw, ldw, bias.map { $0 + first }, y + first, n)
    }
  }

  /// Few rows against `w [k, n]`: each chunk is a block of w's rows again, since a narrow block of
  /// its columns would read memory in short pieces. The blocks' products are then added up.
  func multiplySkinny() {
    let blocks = k >= 256 && n >= 64 ? 4 : 1
    let depth = (k + blocks - 1) / blocks
    let pieces = Swift.max(1, Swift.min(Threads.count / 4, n / 512))
    var partial = Tensor(uninitialized: [(blocks - 1) * m * n])
    partial.withUnsafeMutableBufferPointer { partials in
      forColumns(chunks: pieces, times: blocks) { column, columns, block in
        let first = block * depth
        let target = block == 0 ? y : partials.baseAddress.map { $0 + (block - 1) * m * n } ?? y
        nl_skinny_nn(
          m, columns, Swift.min(depth, k - first), x + first, k, w + first * ldw + column, ldw,
          block == 0 ? bias.map { $0 + column } : nil, target + column, n)
      }
      guard blocks > 1, let base = partials.baseAddress else { return }
      let count = m * n
      parallelRows(count, rowWork: blocks) { range in
        for i in range { y[i] += base[i] + base[count + i] + base[2 * count + i] }
      }
    }
  }

  /// Cuts the columns into about `chunks` pieces, each a multiple of 64 so that no two threads
  /// write the same cache line, and runs `body` on each of them `repeats` times.
  private func forColumns(
    chunks: Int, times repeats: Int, _ body: (_ first: Int, _ columns: Int, _ time: Int) -> Void
  ) {
    let width = Swift.max(64, ((n + chunks - 1) / chunks + 63) / 64 * 64)
    let pieces = (n + width - 1) / width
    parallelChunks(pieces * repeats) { chunk in
      let first = chunk % pieces * width
      body(first, Swift.min(width, n - first), chunk / pieces)
    }
  }
}

private func withOptionalPointer(_ tensor: Tensor?, _ body: (UnsafePointer<Float>?) -> Void) {
  if let tensor {
    tensor.withUnsafeBufferPointer { body($0.baseAddress) }
  } else {
    body(nil)
  }
}
