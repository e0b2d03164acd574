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
  private var pooled: EvenTokens
  private var clouds: [ScatterCells]

  init(_ model: GPT2, _ axes: PromptAxes) {
    sites = model.normSites
    pooled = EvenTokens(axes, limit: Self.tokens)
    clouds = sites.map { _ in ScatterCells() }
  }

  var hooks: [HookFilter] { sites.map { HookFilter($0.input) } }

  mutating func collect(_ batch: CollectedBatch, into sink: any PromptSink) throws {
    for prompt in 0..<batch.count {
      let positions = pooled.next(length: batch.length(prompt))
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
        attributes: ["formula": .string(formula), "references": .string(reference)])
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
          "tokens": .integer(pooled.count),
          "token_choice": .string(
            "position >= 1, one in \(pooled.stride) over all prompts; coordinates pooled"),
          "straight_lines": .string(
            "a curve whose alpha is 1e-3 over the root mean square of x, the least that is tried, is a "
              + "straight line of slope c*alpha"),
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
  /// Σ(z − mean z)² and Σz².
  private let total: Double
  private let square: Double

  /// Fits the curves; all NaN for a cloud without spread.
  init(_ cells: [ScatterCells.Cell]) {
    bins = cells.map { cell in
      let (x, z) = (cell.x / cell.count, cell.z / cell.count)
      return Bin(
        count: cell.count, x: x, z: z, sxx: max(cell.xx - cell.x * x, 0), sxz: cell.xz - cell.x * z)
    }
    let count = cells.reduce(0) { $0 + $1.count }
    let mean = cells.reduce(0) { $0 + $1.z } / count
    let inside = cells.reduce(0) { $0 + max($1.zz - $1.z * $1.z / $1.count, 0) }
    total = bins.reduce(inside) { $0 + $1.count * ($1.z - mean) * ($1.z - mean) }
    square = cells.reduce(0) { $0 + $1.zz }
    let xx = cells.reduce(0) { $0 + $1.xx }
    guard count > 0, total > 0, xx > 0 else { return }

    // Of a straight line the sums are exact: Σ(z − slope·x)² = Σz² − slope·Σxz.
    let xz = cells.reduce(0) { $0 + $1.xz }
    let slope = xz / xx
    line = Curve(c: slope, alpha: 1, r2: 1 - max(square - slope * xz, 0) / total)
    let unit = 1 / (xx / count).squareRoot()
    tanh = best(unit, shifting: false) { t in
      let value = Double.tanh(t)
      let slope = 1 - value * value
      return (value, slope, -2 * value * slope)
    }
    erf = best(unit, shifting: true) { t in
      let slope = 2 / Double.pi.squareRoot() * Double.exp(-t * t)
      return (Double.erf(t), slope, -2 * t * slope)
    }
  }

  /// f(t), f'(t), f''(t).
  private typealias Function = (Double) -> (value: Double, slope: Double, bend: Double)

  /// The loss at some ln α and s, the best c there, and how the loss changes.
  private struct Point {
    var logAlpha: Double
    var s: Double
    var loss = Double.infinity
    var c = 0.0
    var gradient = (0.0, 0.0)
  }

  /// The best `c·f(α·x + s)`.
  ///
  /// For each α and s the best c is known, which leaves a search for these two: over α in powers of e from
  /// 1e-3/rms(x), then by damped Newton steps from the best. Second derivatives are differences of the
  /// gradient.
  ///
  /// - Parameters:
  ///   - unit: 1/rms(x).
  ///   - shifting: whether s may differ from 0.
  private func best(_ unit: Double, shifting: Bool, _ f: Function) -> Curve {
    let floor = Double.log(1e-3 * unit)
    func evaluate(_ logAlpha: Double, _ s: Double) -> Point {
      evaluated(Point(logAlpha: max(logAlpha, floor), s: s), f)
    }
    var found = evaluate(floor, 0)
    for step in 1..<14 {
      let point = evaluate(floor + Double(step), 0)
      if point.loss < found.loss { found = point }
    }
    var damping = 1e-3
    let h = 1e-4
    for _ in 0..<60 where damping < 1e6 && found.loss > 0 {
      let (a, b) = (evaluate(found.logAlpha + h, found.s), evaluate(found.logAlpha, found.s + h))
      let aa = (a.gradient.0 - found.gradient.0) / h
      let ab = (a.gradient.1 - found.gradient.1 + b.gradient.0 - found.gradient.0) / (2 * h)
      let bb = (b.gradient.1 - found.gradient.1) / h
      let scale = Swift.abs(aa) + Swift.abs(bb)
      var isBetter = false
      while damping < 1e6 && !isBetter {
        let (p, q) = (aa + damping * scale, bb + damping * scale)
        let determinant = shifting ? p * q - ab * ab : p
        let (g0, g1) = found.gradient
        var (da, ds) =
          shifting
          ? ((ab * g1 - q * g0) / determinant, (ab * g0 - p * g1) / determinant)
          : (-g0 / determinant, 0)
        // A step uphill (the curvature is not that of a minimum) or a wild one is not taken.
        if determinant > 0 && p > 0 && Swift.abs(da) + Swift.abs(ds) < 4 {
          if found.logAlpha + da < floor { (da, ds) = (floor - found.logAlpha, ds) }
          let point = evaluate(found.logAlpha + da, found.s + ds)
          if point.loss < found.loss {
            isBetter = true
            let isDone = Swift.abs(da) + Swift.abs(ds) < 1e-10
            found = point
            damping = isDone ? .infinity : damping / 10
          }
        }
        if !isBetter { damping *= 10 }
      }
    }
    return Curve(
      c: found.c, alpha: Double.exp(found.logAlpha), s: found.s, r2: 1 - found.loss / total)
  }

  /// The least Σ(z − c·f(αx + s))² over c, to first order within each cell.
  private func evaluated(_ point: Point, _ f: Function) -> Point {
    let (alpha, s) = (Double.exp(point.logAlpha), point.s)
    // Σf², Σf·z, and their derivatives by ln α and by s.
    var (ff, fz) = (0.0, 0.0)
    var (ffA, fzA, ffS, fzS) = (0.0, 0.0, 0.0, 0.0)
    for bin in bins {
      let reach = alpha * bin.x
      let (value, slope, bend) = f(reach + s)
      let turned = alpha * slope
      ff += bin.count * value * value + turned * turned * bin.sxx
      fz += bin.count * value * bin.z + turned * bin.sxz
      let turnedA = turned + alpha * bend * reach
      ffA += 2 * (bin.count * value * slope * reach + turned * turnedA * bin.sxx)
      fzA += bin.count * slope * reach * bin.z + turnedA * bin.sxz
      ffS += 2 * (bin.count * value * slope + turned * alpha * bend * bin.sxx)
      fzS += bin.count * slope * bin.z + alpha * bend * bin.sxz
    }
    var point = point
    guard ff > 0 else { return point }
    point.c = fz / ff
    point.loss = max(square - point.c * fz, 0)
    point.gradient = (
      point.c * (point.c * ffA - 2 * fzA), point.c * (point.c * ffS - 2 * fzS)
    )
    return point
  }
}
