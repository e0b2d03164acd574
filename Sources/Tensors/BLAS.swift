import CKernels
import COpenBLAS

#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

/// The BLAS under the matrix products: which kernels it runs and how.
public enum BLAS {
  /// The name of OpenBLAS' kernels in use, such as `SkylakeX`.
  public static var coreName: String {
    prepare()
    return String(cString: openblas_get_corename())
  }

  /// OpenBLAS' version and build options.
  public static var configuration: String {
    prepare()
    return String(cString: openblas_get_config())
  }

  /// The processors that this process may run on, as OpenBLAS asks the system for its affinity.
  static var processorCount: Int { Swift.max(1, Int(openblas_get_num_procs())) }

  /// Chooses OpenBLAS' kernels and takes its threads away: this library splits the work itself.
  static func prepare() { _ = prepared }

  private static let prepared: Void = {
    chooseKernels()
    openblas_set_num_threads(1)
  }()

  /// OpenBLAS releases older than the processor fall back to AVX2 or even SSE3 kernels, at half to
  /// a fifth of the speed. Where the processor has AVX-512, the user has not chosen a core and
  /// OpenBLAS has not found one, it is initialised again with its AVX-512 kernels.
  private static func chooseKernels() {
    #if arch(x86_64) && os(Linux)
      let avx512Cores = ["SkylakeX", "Cooperlake", "SapphireRapids", "Zen4", "Zen5"]
      let current = String(cString: openblas_get_corename())
      guard nl_simd_width() >= 16, getenv("OPENBLAS_CORETYPE") == nil,
        !avx512Cores.contains(where: { current.lowercased() == $0.lowercased() }),
        // Looked up by name: another BLAS may stand in for OpenBLAS and has no such functions.
        let quit = dlsym(nil, "gotoblas_dynamic_quit"),
        let initialize = dlsym(nil, "gotoblas_dynamic_init")
      else { return }
      typealias Action = @convention(c) () -> Void
      setenv("OPENBLAS_CORETYPE", "SkylakeX", 1)
      unsafeBitCast(quit, to: Action.self)()
      unsafeBitCast(initialize, to: Action.self)()
      // Children of this process choose for themselves.
      unsetenv("OPENBLAS_CORETYPE")
    #endif
  }
}

/// A matrix product by OpenBLAS on the calling thread: `c = alpha·op(a)·op(b) + beta·c`.
///
/// Shapes: `a [m, k]` or, if `leftTransposed`, `[k, m]`; `b [k, n]` or, if `transposed`, `[n, k]`;
/// `c [m, n]`; each with the distance between its rows.
@inline(__always)
func sgemm(
  m: Int, n: Int, k: Int, alpha: Float = 1,
  _ a: UnsafePointer<Float>, _ lda: Int, leftTransposed: Bool = false,
  _ b: UnsafePointer<Float>, _ ldb: Int,
  transposed: Bool = false, beta: Float, _ c: UnsafeMutablePointer<Float>, _ ldc: Int
) {
  cblas_sgemm(
    CblasRowMajor, leftTransposed ? CblasTrans : CblasNoTrans,
    transposed ? CblasTrans : CblasNoTrans,
    blasint(m), blasint(n), blasint(k), alpha, a, blasint(lda), b, blasint(ldb),
    beta, c, blasint(ldc))
}

/// The upper triangle of a product of a matrix with itself by OpenBLAS on the calling thread,
/// `c = aᵀ·a`; what lies below c's diagonal is not written.
///
/// Shapes: `a [k, n]`, `c [n, n]`; each with the distance between its rows.
@inline(__always)
func ssyrkOfTransposed(
  n: Int, k: Int, _ a: UnsafePointer<Float>, _ lda: Int, _ c: UnsafeMutablePointer<Float>,
  _ ldc: Int
) {
  cblas_ssyrk(
    CblasRowMajor, CblasUpper, CblasTrans, blasint(n), blasint(k), 1, a, blasint(lda), 0, c,
    blasint(ldc))
}
