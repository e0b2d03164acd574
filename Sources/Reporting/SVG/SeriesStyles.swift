/// How series are told apart in a picture: by colour, by the shape of their markers and by the dashes
/// of their lines, the same for the same name in every panel.
struct SeriesStyles {
  /// What a legend says of each, in the order of their appearance.
  private(set) var labels: [String] = []
  /// What the intervals of the picture are; empty where there are none.
  private(set) var intervals: [String] = []
  /// What a legend shows: the picture's first series.
  private(set) var sample = Sample.line

  /// What stands before a name in a legend.
  enum Sample {
    case line, swatch, marker
  }

  /// The styles of all series in the panels.
  init(_ panels: [Picture.Panel]) {
    for panel in panels {
      switch panel.drawing {
      case .bars(let bars): add(bars.series, in: panel, as: .swatch)
      case .curves(let curves): add(curves.series, in: panel, as: .line)
      case .points(let points):
        add(points.clouds.map { Self.label($0.name, $0.model, in: panel) }, as: .marker)
      case .cells, .table, .note: break
      }
    }
  }

  /// What a legend says of a series: its name, and its model where that is not the panel's.
  static func label(_ name: String, _ model: String?, in panel: Picture.Panel) -> String {
    guard let model, model != panel.model, !name.contains(model) else { return name }
    return name.isEmpty ? model : "\(name), \(model)"
  }

  /// The style of a series by what a legend says of it.
  subscript(label: String) -> SeriesStyle {
    SeriesStyle(number: labels.firstIndex(of: label) ?? 0)
  }

  /// Whether there is something to tell apart.
  var needsLegend: Bool { labels.contains { !$0.isEmpty } || !intervals.isEmpty }

  private mutating func add(
    _ series: [Picture.Series], in panel: Picture.Panel, as sample: Sample
  ) {
    add(series.map { Self.label($0.name, $0.model, in: panel) }, as: sample)
    for meaning in series.compactMap(\.interval?.meaning) where !intervals.contains(meaning) {
      intervals.append(meaning)
    }
  }

  private mutating func add(_ names: [String], as sample: Sample) {
    if labels.isEmpty { self.sample = sample }
    for name in names where !labels.contains(name) { labels.append(name) }
  }
}

/// The style of one series.
struct SeriesStyle {
  /// The series' place in the legend.
  let number: Int

  /// Its colour.
  var colour: String { ColourScale.series[number % ColourScale.series.count].hex }
  /// The dashes of its line; empty for an unbroken one.
  var dash: String { ["", "6 3", "2 2", "8 3 2 3"][number % 4] }

  /// The outline of its marker about a point, as the data of a path.
  func marker(x: Double, y: Double, radius: Double) -> String {
    let n = SVGWriter.number
    let (r, d) = (n(radius), n(2 * radius))
    switch number % 5 {
    case 0:
      return "M\(n(x - radius)) \(n(y))a\(r) \(r) 0 1 0 \(d) 0a\(r) \(r) 0 1 0 -\(d) 0z"
    case 1: return "M\(n(x - radius)) \(n(y - radius))h\(d)v\(d)h-\(d)z"
    case 2: return "M\(n(x)) \(n(y - radius))l\(r) \(d)h-\(d)z"
    case 3: return "M\(n(x)) \(n(y - radius))l\(r) \(r)l-\(r) \(r)l-\(r) -\(r)z"
    default: return "M\(n(x)) \(n(y + radius))l\(r) -\(d)h-\(d)z"
    }
  }
}
