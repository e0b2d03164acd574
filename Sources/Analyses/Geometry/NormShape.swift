import HookedGPT2
import RealModule
import Results
import Tensors

/// The shape of each norm's cloud of coordinates (x_i, z_i) (group `ln_geometry/shape`): fits of
///
///     z = c·tanh(α·x)          Zhu et al. 2025, "Transformers without Normalization", arXiv:2503.10622
///     z = c·erf(α·x + s)       Chen et al. 2025, arXiv:2512.10938
///     z = slope·x
///
/// by least squares over the coordinates of tokens at positions ≥ 1. For one token LayerNorm is a
/// straight line; tokens with large coordinates have large divisors and flatter lines, and all lines
/// together bend like an S. Without norms what is read is the stream itself, a straight line.
///
/// The coordinates of at most ``tokens`` tokens, evenly spaced over all prompts, are pooled into
/// cells of x whose width is 1/32 of their power of two. A cell keeps count, sums and second moments, so
/// that a curve is fitted to first order within a cell and a straight line exactly.
struct NormShape: Collector {
  /// The most tokens that are pooled.
  static let tokens = 1024

  private let sites: [NormSite]
  /// Every so many tokens one is pooled.
  private let stride: Int
  private var seen = 0
  private var pooled = 0
  private var clouds: [ScatterCells]

  init(_ model: GPT2, _ axes: PromptAxes) {
    sites = model.normSites
    let available = axes.prompts.reduce(0) { $0 + $1.tokens.count - 1 }
    stride = max(1, (available + Self.tokens - 1) / Self.tokens)
    clouds = sites.map { _ in ScatterCells() }
  }

  var hooks: [HookFilter] { sites.map { HookFilter($0.input) } }

  mutating func collect(_ batch: CollectedBatch, into sink: any PromptSink) throws {
    for prompt in 0..<batch.count {
      let positions = (1..<batch.length(prompt)).filter { (seen + $0 - 1) % stride == 0 }
      seen += batch.length(prompt) - 1
      pooled += positions.count
      if positions.isEmpty { continue }
      for (place, site) in sites.enumerated() {
        let x = try batch.cache.tensor(site.input, prompt: prompt).gatheringRows(positions)
        clouds[place].add(x, site.norm?.parts(x).normalized ?? x)
      }
    }
  }

  func findings() -> [ResultGroup] {
    let fits = clouds.map { ShapeFit(Array($0.cells)) }
    func variable(
      _ name: String, _ values: [Double], _ longName: String, _ formula: String, _ reference: String
    ) -> ResultVariable {
      ResultVariable(
        name, ["ln"], .float64(values), longName: longName, units: "1", sign: "as in the formula",
        attributes: ["formula": .string(formula), "reference": .string(reference)])
    }
    let (tanh, erf, line) = ("z = c*tanh(alpha*x)", "z = c*erf(alpha*x + s)", "z = slope*x")
    let (dyt, derf) = ("arXiv:2503.10622", "arXiv:2512.10938")
    let r2 = "1 - sum (z - fit)^2/sum (z - mean z)^2"
    let variables = [
      variable("linear_slope", fits.map(\.line.c), "slope of the straight line", line, dyt),
      variable("linear_r2", fits.map(\.line.r2), "R^2 of the straight line", r2, dyt),
      variable("tanh_c", fits.map(\.tanh.c), "c of the fit by tanh", tanh, dyt),
      variable("tanh_alpha", fits.map(\.tanh.alpha), "alpha of the fit by tanh", tanh, dyt),
      variable("tanh_r2", fits.map(\.tanh.r2), "R^2 of the fit by tanh", r2, dyt),
      variable("erf_c", fits.map(\.erf.c), "c of the fit by erf", erf, derf),
      variable("erf_alpha", fits.map(\.erf.alpha), "alpha of the fit by erf", erf, derf),
      variable("erf_s", fits.map(\.erf.s), "s of the fit by erf", erf, derf),
      variable("erf_r2", fits.map(\.erf.r2), "R^2 of the fit by erf", r2, derf),
    ]
    return [
      ResultGroup(
        path: "ln_geometry/shape", dimensions: [Dimension("ln", .labels(sites.map(\.label)))],
        variables: variables,
        attributes: [
          "cloud": .string(
            sites.first?.norm == nil
              ? "the coordinates of the stream, which is read as it is: (x_i, x_i)"
              : "the coordinates (x_i, z_i) before and after each norm, without gain and bias"),
          "tokens": .integer(pooled),
          "token_choice": .string(
            "position >= 1, one in \(stride) over all prompts; coordinates pooled"),
          "straight_lines": .string(
            "a curve whose alpha is 1e-3 over the cloud's root mean square of x is a straight line of "
              + "slope c*alpha within 1e-6"),
        ])
    ]
  }
}

/// Points (x, z) gathered into cells of x, in memory that does not grow with their number.
struct ScatterCells {
  /// What is known of the points of a cell.
  struct Cell {
    var count = 0.0
    var x = 0.0
    var z = 0.0
    var xx = 0.0
    var xz = 0.0
    var zz = 0.0
  }

  // 32 cells to a power of two, from 2^-32 to 2^32, for both signs; what lies outside is put into the
  // cells at the ends.
  private static let lowest = Int32(127 - 32) << 5
  private static let perSign = Int32(64) << 5
  private var all = [Cell](repeating: Cell(), count: 2 * Int(perSign))

  /// The cells that hold points.
  var cells: some Sequence<Cell> { all.lazy.filter { $0.count > 0 } }

  /// Adds points.
  ///
  /// - Precondition: as many z as x.
  mutating func add(_ x: Tensor, _ z: Tensor) {
    precondition(x.count == z.count, "ScatterCells: \(x.count) x, \(z.count) z")
    let (xs, zs) = (x.span, z.span)
    var target = all.mutableSpan
    for i in 0..<xs.count {
      let bits = Int32(truncatingIfNeeded: (xs[i].bitPattern & 0x7fff_ffff) >> 18)
      let place = min(max(bits &- Self.lowest, 0), Self.perSign - 1)
      let cell = Int(place) + (xs[i].bitPattern >> 31 == 0 ? 0 : Int(Self.perSign))
      let (x, z) = (Double(xs[i]), Double(zs[i]))
      target[cell].count += 1
      target[cell].x += x
      target[cell].z += z
      target[cell].xx += x * x
      target[cell].xz += x * z
      target[cell].zz += z * z
    }
  }
}

/// Least squares of three curves through a cloud.
struct ShapeFit {
  /// `c·f(α·x + s)` and how well it fits.
  struct Curve {
    var c = Double.nan
    var alpha = Double.nan
    var s = 0.0
    var r2 = Double.nan
  }

  private(set) var line = Curve()
  private(set) var tanh = Curve()
  private(set) var erf = Curve()

  /// A cell as the fits need it: moments about its own mean.
  private struct Bin {
    let count, x, z, sxx, sxz: Double
  }

  private let bins: [Bin]
  /// Σ(z − mean z)², and Σ of what z varies within the cells.
  private let total: Double
  private let inside: Double

  /// Fits the curves; all NaN for a cloud without spread.
  init(_ cells: [ScatterCells.Cell]) {
    bins = cells.map { cell in
      let (x, z) = (cell.x / cell.count, cell.z / cell.count)
      return Bin(
        count: cell.count, x: x, z: z, sxx: max(cell.xx - cell.x * x, 0), sxz: cell.xz - cell.x * z)
    }
    let count = cells.reduce(0) { $0 + $1.count }
    let mean = cells.reduce(0) { $0 + $1.z } / count
    inside = cells.reduce(0) { $0 + max($1.zz - $1.z * $1.z / $1.count, 0) }
    total = bins.reduce(inside) { $0 + $1.count * ($1.z - mean) * ($1.z - mean) }
    let square = cells.reduce(0) { $0 + $1.xx }
    guard count > 0, total > 0, square > 0 else { return }

    let slope = cells.reduce(0) { $0 + $1.xz } / square
    // Of a straight line the sums are exact: Σ(z − slope·x)² = Σz² − slope·Σxz.
    let zz = cells.reduce(0) { $0 + $1.zz }
    let rest = zz - slope * cells.reduce(0) { $0 + $1.xz }
    line = Curve(c: slope, alpha: 1, r2: 1 - max(rest, 0) / total)
    let unit = 1 / (square / count).squareRoot()
    tanh = best(unit, shifts: [0]) { t in
      let value = Double.tanh(t)
      return (value, 1 - value * value)
    }
    erf = best(unit, shifts: [-0.3, 0, 0.3]) { t in
      (Double.erf(t), 2 / Double.pi.squareRoot() * Double.exp(-t * t))
    }
  }

  /// The best `c·f(α·x + s)`: for each α and s the best c is known, so that the search is for these two
  /// only: over α by powers from 1e-3/rms(x), then by shrinking steps around the best start.
  ///
  /// - Parameters:
  ///   - unit: 1/rms(x).
  ///   - shifts: where the search for s starts; `[0]` keeps s at 0.
  ///   - f: the curve and its slope.
  private func best(
    _ unit: Double, shifts: [Double], _ f: (Double) -> (Double, Double)
  ) -> Curve {
    let floor = Double.log(1e-3 * unit)
    var found = (loss: Double.infinity, logAlpha: floor, s: 0.0, c: 0.0)
    func attempt(_ logAlpha: Double, _ s: Double) -> Bool {
      let logAlpha = max(logAlpha, floor)
      let (loss, c) = loss(Double.exp(logAlpha), s, f)
      guard loss < found.loss else { return false }
      found = (loss, logAlpha, s, c)
      return true
    }
    for s in shifts {
      for step in 0..<14 { _ = attempt(floor + Double(step), s) }
    }
    // Compass search down to steps of 1e-7, where the loss changes by their square.
    var (width, shift) = (0.5, shifts.count > 1 ? 0.1 : 0)
    while width > 1e-7 {
      var moved = false
      for (da, ds) in [(1.0, 0.0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1), (1, -1), (-1, 1)] {
        if shift == 0 && ds != 0 { continue }
        if attempt(found.logAlpha + da * width, found.s + ds * shift) { moved = true }
      }
      if !moved {
        width /= 2
        shift /= 2
      }
    }
    return Curve(
      c: found.c, alpha: Double.exp(found.logAlpha), s: found.s, r2: 1 - found.loss / total)
  }

  /// The least Σ(z − c·f(αx + s))² over c, to first order within each cell, and that c.
  private func loss(
    _ alpha: Double, _ s: Double, _ f: (Double) -> (Double, Double)
  ) -> (loss: Double, c: Double) {
    var (ff, fz, zz) = (0.0, 0.0, inside)
    for bin in bins {
      let (value, slope) = f(alpha * bin.x + s)
      let turned = alpha * slope
      ff += bin.count * value * value + turned * turned * bin.sxx
      fz += bin.count * value * bin.z + turned * bin.sxz
      zz += bin.count * bin.z * bin.z
    }
    guard ff > 0 else { return (zz, 0) }
    let c = fz / ff
    return (max(zz - c * fz, 0), c)
  }
}
