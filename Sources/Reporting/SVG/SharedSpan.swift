/// The numbers along the axes of all panels that measure the same: facets have one range.
struct SharedSpan {
  /// What lies along x of points.
  var across: [Double] = []
  /// Heights, the ends of intervals among them.
  var up: [Double] = []

  /// The span of a drawing and of those beside it that are like it.
  init(of drawing: Picture.Drawing, among all: [Picture.Drawing]) {
    for other in all where Self.areAlike(drawing, other) {
      switch other {
      case .bars(let bars): up += Self.heights(bars.series)
      case .curves(let curves): up += Self.heights(curves.series)
      case .points(let points):
        for cloud in points.clouds {
          for (x, y) in zip(cloud.x, cloud.y) where x.isFinite && y.isFinite {
            across.append(x)
            up.append(y)
          }
        }
      case .cells, .table, .note: break
      }
    }
  }

  private static func heights(_ series: [Picture.Series]) -> [Double] {
    series.flatMap { $0.values + ($0.interval?.low ?? []) + ($0.interval?.high ?? []) }
  }

  private static func areAlike(_ a: Picture.Drawing, _ b: Picture.Drawing) -> Bool {
    switch (a, b) {
    case (.bars(let a), .bars(let b)): a.y == b.y
    case (.curves(let a), .curves(let b)): a.y == b.y && a.isLogarithmic == b.isLogarithmic
    case (.points(let a), .points(let b)):
      a.x == b.x && a.y == b.y && (a.strips == nil) == (b.strips == nil)
        && a.hasIdentityLine == b.hasIdentityLine
    default: false
    }
  }
}
